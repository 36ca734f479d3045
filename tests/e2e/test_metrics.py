"""What a running shop really measures is what docs/metrics.md says, and no label holds what somebody sent."""

import asyncio
import re
from collections import defaultdict

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from deploy.local import ROOT
from deploy.stack import Stack
from services.gateway.wording import WORDING
from services.order.circuit import Intake
from services.order.comparison import Code, Outcome
from services.order.statuses import CancelReason, OrderStatus
from services.shared.settings import TEAMS
from tests.e2e.shop import OPERATOR, Shop, Wish, eventually
from workflows.steps import SAGA

_ROW = re.compile(r"^\| `(street12_\w+)` \| (\w+) \|([^|]*)\|", re.MULTILINE)
_BY_THE_SDK = {"namespace", "task_queue", "workflow_type"}
_PROCESSES = {"api", *(f"worker-{team}" for team in TEAMS)}
# What a label may say. Routes are the templates of the API's own document.
_VALUES: dict[str, set[str]] = {
    "action": {"retry", "skip"},
    "code": {*Code},
    "build": {"0.2.0", "local"},
    "call": {"create_intent", "find_intent", "confirm", "cancel_intent", "refund", "list_charges", "find_charge"},
    "database": {*TEAMS},
    "method": {"GET", "POST", "PUT", "other"},
    "mode": {"read", "write"},
    "outcome": {
        *("done", "refused", "failed", "withdrawn", "undone", "nothing", "stuck", "answered", "Paid", "Declined"),
        *(*Outcome, *WORDING),
    },
    "process": _PROCESSES,
    "reason": {*CancelReason, *WORDING, *Intake, "none"},
    "state": {*Intake, "in use", "idle"},
    "status": {*OrderStatus, *map(str, range(100, 600))},
    "step": {step.do for step in SAGA},
    "team": {"marketing", "delivery", "carrier", "compensation"},
    "undo": {step.undo for step in SAGA},
    "verb": {"SELECT", "INSERT", "UPDATE", "DELETE", "other"},
    "namespace": {"default"},
    "task_queue": {"order"},
    "workflow_type": {"OrderWorkflow", "ReconciliationWorkflow"},
}


def documented() -> dict[str, tuple[str, set[str]]]:
    """The type and the labels of each metric, by the page."""
    rows = _ROW.findall((ROOT / "docs" / "metrics.md").read_text())
    return {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


async def everything_happens(shop: Shop) -> None:
    """Whatever is measured happens once: also what a stranger sends, and what an operator settles."""
    product = await shop.product(on_hand=5)
    kim, declined, stuck, lost = await asyncio.gather(
        shop.place(Wish(product, user="kim-who-is-nobody")),
        shop.place(Wish(product, pay="pm_card_chargeDeclined")),
        shop.place(Wish(product, pay="pm_sim_refundRefused")),
        shop.place(Wish(product, pay="pm_sim_lostReply")),
    )
    await shop.post(Wish("no-such-product"))
    await shop.http.request("BREW", "/a/path/of/a/stranger")
    await shop.until(declined.orderId, "PaymentDeclined")
    await shop.until(lost.orderId, "DeliveryStarted")  # after an attempt that failed
    for order in (kim, stuck):
        await shop.until(order.orderId, "DeliveryStarted")
        await shop.cancel(order)
    await shop.until(kim.orderId, "OrderCanceled")
    await shop.until_event(stuck.orderId, "AttentionRaised")
    settlement = {"step": "refund_payment", "action": "skip", "reason": "by hand"}
    await reconciled(shop)
    (await shop.http.post(f"/orders/{stuck.orderId}/settlements", json=settlement, headers=OPERATOR)).raise_for_status()
    await shop.until(stuck.orderId, "OrderCanceled")


async def reconciled(shop: Shop) -> None:
    """A run of the reconciliation, to its end."""
    (await shop.http.post("/reconciliations", headers=OPERATOR)).raise_for_status()

    async def ended() -> bool:
        runs = (await shop.http.get("/reconciliations?limit=1", headers=OPERATOR)).raise_for_status().json()["items"]
        return bool(runs) and runs[0]["finishedAt"] is not None

    await eventually(ended, "a reconciliation to end")


async def collected(shop: Shop) -> dict[str, str]:
    """What each process tells Prometheus."""
    async with httpx2.AsyncClient(trust_env=False, timeout=15.0) as client:
        urls = Stack.read(shop.data_dir).urls.metrics
        return {process: (await client.get(url)).raise_for_status().text for process, url in urls.items()}


async def test_what_the_shop_measures_is_what_the_page_says(shop: Shop) -> None:
    await everything_happens(shop)
    templates = (await shop.http.get("/openapi.json")).json()["paths"].keys()
    routes = {*templates, "unknown", "/dev/tokens", "/dev/jwks.json", "/dev/orders/{orderId}", "/docs", "/openapi.json"}
    allowed = _VALUES | {"route": routes}
    found: dict[str, tuple[str, set[str]]] = {}
    processes: defaultdict[str, set[str]] = defaultdict(set)
    for process, text in (await collected(shop)).items():
        families = [*text_string_to_metric_families(text)]
        names = [family.name for family in families]
        assert len({*names}) == len(names), "a family is told twice"
        assert any(name.startswith("temporal_") for name in names), f"{process} has nothing of the SDK"
        assert "process_cpu_seconds" in names
        for family in families:
            if not family.name.startswith("street12_") or family.name.endswith("_created"):
                continue
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            kind = "gauge" if family.type == "info" else family.type
            found[name] = (kind, found.get(name, ("", set[str]()))[1] | (labels - _BY_THE_SDK))
            processes[name].add(process)
            for sample in family.samples:
                for label, value in sample.labels.items():
                    assert label == "le" or value in allowed[label], f"{name}: {label} is {value!r}"
    page = documented()
    for perhaps in ("street12_database_repeats_total", "street12_reconciliation_differences_total"):
        assert found.pop(perhaps, page[perhaps])[0] == page.pop(perhaps)[0]
    assert found == page
    of_the_shop = {name for name, on in processes.items() if on == {"api"}}
    assert {"street12_orders_waiting", "street12_dispatch_lag_seconds"} <= of_the_shop


async def test_the_figures_of_a_running_shop_move(shop: Shop) -> None:
    """One of each kind: measured by the API, by a worker and by a workflow."""

    async def value(process: str, start: str) -> float:
        lines = (await collected(shop))[process].splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(start))

    watched = [
        ("api", "street12_orders_accepted_total"),
        ("worker-order", 'street12_payment_seconds_count{outcome="Paid"}'),
        ("worker-marketing", "temporal_activity_task_received_total"),
        ("worker-order", "street12_step_seconds_count"),
    ]
    before = [await value(*what) for what in watched]
    order = await shop.place(Wish(await shop.product()))
    await shop.until(order.orderId, "DeliveryStarted")
    for what, at_first in zip(watched, before, strict=True):

        async def moved(what: tuple[str, str] = what, at_first: float = at_first) -> bool:
            return await value(*what) > at_first

        await eventually(moved, f"{what} to grow")
