"""Runs of the reconciliation, as an operator asks for them and reads their reports."""

import asyncio
from typing import Any, NamedTuple

from tests.e2e.shop import OPERATOR, Shop
from tests.restores.copies import row

STILL_SECONDS = 63.0
"""What changed within the last minute is left to the next run."""
_LONGEST_SECONDS = 300.0
_POLL_SECONDS = 1.0


class Found(NamedTuple):
    """A difference of a run: of an order or a product, and what became of it."""

    subject: str
    code: str
    outcome: str
    detail: str


async def until_still(shop: Shop) -> None:
    """Wait until nothing has happened to any order for as long as a run wants it."""
    loop = asyncio.get_running_loop()
    seen, since = None, loop.time()
    while loop.time() - since < STILL_SECONDS:
        now = row(shop.data_dir, "SELECT count(*), sum(version), max(updated_at) FROM order_views")
        if now != seen:
            seen, since = now, loop.time()
        await asyncio.sleep(_POLL_SECONDS)


async def reconcile(shop: Shop) -> list[Found]:
    """Run the reconciliation, and wait for what it finds. Raises `TimeoutError`; `AssertionError` unless all stores
    were compared."""
    before = await _newest(shop)
    (await shop.http.post("/reconciliations", headers=OPERATOR)).raise_for_status()
    run = None
    async with asyncio.timeout(_LONGEST_SECONDS):
        while run is None or run["finishedAt"] is None or run == before:
            await asyncio.sleep(_POLL_SECONDS)
            run = await _newest(shop)
    assert run["notCompared"] == [], run
    path = f"/reconciliations/{run['reconciliationId']}/differences?limit=100"
    page = (await shop.http.get(path, headers=OPERATOR)).raise_for_status().json()
    assert page["nextCursor"] is None
    return [
        Found(one["orderId"] or one["productId"], one["code"], one["outcome"], one["detail"]) for one in page["items"]
    ]


async def _newest(shop: Shop) -> dict[str, Any] | None:
    runs = (await shop.http.get("/reconciliations?limit=1", headers=OPERATOR)).raise_for_status().json()["items"]
    return runs[0] if runs else None
