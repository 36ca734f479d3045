"""The reports of the reconciliation, and how it is run now."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.order.tables import ReconciliationDifference
from services.shared.ids import reconciliation_id
from tests.api.world import OPERATOR, FakeSchedule, Shop, is_problem

AT = datetime(2026, 11, 27, 8, tzinfo=UTC)


async def reported(shop: Shop, number: int, *, differences: int = 0, finished: bool = True) -> str:
    """A run that began so many hours after the first."""
    began = AT + timedelta(hours=number)
    run_id = reconciliation_id(began, number)
    await shop.parts.reports.begin(run_id, began)
    await shop.parts.reports.note(
        [
            ReconciliationDifference(
                reconciliation_id=run_id,
                number=place,
                code="view-behind",
                order_id=f"order_{place}",
                detail="reads OrderPlaced, its workflow Delivered",
                outcome="repaired",
                at=began,
            )
            for place in range(1, differences + 1)
        ]
    )
    await shop.parts.reports.progress(
        run_id,
        compared=500,
        found=differences,
        repaired=differences,
        not_compared=["marketing"],
        finished_at=began + timedelta(minutes=1) if finished else None,
    )
    return run_id


async def items(shop: Shop, path: str, limit: int) -> list[Any]:
    """A list with all its pages, none of which is too long."""
    found: list[Any] = []
    query: dict[str, Any] = {"limit": limit}
    while True:
        page = (await shop.client.get(path, params=query, headers=OPERATOR)).json()
        assert len(page["items"]) <= limit
        found += page["items"]
        if page["nextCursor"] is None:
            return found
        query["cursor"] = page["nextCursor"]


async def test_runs_are_listed_newest_first(shop: Shop) -> None:
    made = [await reported(shop, number) for number in range(5)]
    assert [run["reconciliationId"] for run in await items(shop, "/reconciliations", 2)] == made[::-1]


async def test_a_run_says_what_it_did_and_whether_it_has_ended(shop: Shop) -> None:
    ended, under_way = await reported(shop, 1, differences=3), await reported(shop, 2, finished=False)
    one = (await shop.client.get(f"/reconciliations/{ended}", headers=OPERATOR)).json()
    assert one == {
        "reconciliationId": ended,
        "startedAt": "2026-11-27T09:00:00.000000Z",
        "finishedAt": "2026-11-27T09:01:00.000000Z",
        "compared": 500,
        "found": 3,
        "repaired": 3,
        "notCompared": ["marketing"],
    }
    other = (await shop.client.get(f"/reconciliations/{under_way}", headers=OPERATOR)).json()
    assert other["finishedAt"] is None
    last = await shop.parts.reports.last_finished()
    assert last is not None
    assert (last.reconciliation_id, last.found) == (ended, 3)


async def test_what_a_run_found_comes_in_sequence_page_by_page(shop: Shop) -> None:
    other, run_id = await reported(shop, 1, differences=2), await reported(shop, 2, differences=25)
    found = await items(shop, f"/reconciliations/{run_id}/differences", 10)
    assert [one["number"] for one in found] == list(range(1, 26))
    assert found[0] == {
        "number": 1,
        "code": "view-behind",
        "orderId": "order_1",
        "productId": None,
        "detail": "reads OrderPlaced, its workflow Delivered",
        "outcome": "repaired",
        "at": "2026-11-27T10:00:00.000000Z",
    }
    page = (await shop.client.get(f"/reconciliations/{run_id}/differences?limit=1", headers=OPERATOR)).json()
    wrong = await shop.client.get(
        f"/reconciliations/{other}/differences", params={"cursor": page["nextCursor"]}, headers=OPERATOR
    )
    is_problem(wrong, 400, "invalid-cursor")


@pytest.mark.parametrize("path", ["/reconciliations/nothing", "/reconciliations/nothing/differences"])
async def test_a_run_that_there_is_not_is_not_found(shop: Shop, path: str) -> None:
    is_problem(await shop.client.get(path, headers=OPERATOR), 404, "not-found")


async def test_what_is_noted_twice_is_there_once(shop: Shop) -> None:
    await reported(shop, 1, differences=2)
    run_id = await reported(shop, 1, differences=3)
    assert len(await items(shop, f"/reconciliations/{run_id}/differences", 10)) == 3


async def test_a_run_is_triggered_once_and_the_second_time_says_so(shop: Shop) -> None:
    first = await shop.client.post("/reconciliations", headers=OPERATOR)
    second = await shop.client.post("/reconciliations", headers=OPERATOR)
    assert [(answer.status_code, answer.json()) for answer in (first, second)] == [
        (202, {"state": "started"}),
        (202, {"state": "running"}),
    ]


async def test_without_the_engine_nothing_is_triggered(shop: Shop) -> None:
    shop.exchange(reconciliations=FakeSchedule(away=True))
    is_problem(await shop.client.post("/reconciliations", headers=OPERATOR), 503, "engine-unavailable")
