"""Every path that an order can take, and how to make one take it. Made from the saga's table where it goes by step."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from tests.replay.histories import story
from tests.saga.conftest import PAYMENT_BUDGET, Saga, cancel, reads, under_way
from tests.saga.world import Fail, Gate, LoseReply, Refuse
from workflows.messages import FlagOrder, Resumed
from workflows.order import OrderWorkflow
from workflows.steps import DECLINES, SAGA, Step

Play = Callable[[Saga], Awaitable[None]]
DELIVER_WITHIN = timedelta(days=7)


@dataclass(frozen=True)
class Path:
    """One way through the saga."""

    name: str
    play: Play
    """Takes an order that has not started along it, to its end or to where it stays open."""
    shows: tuple[str, ...]
    """What its history tells, among other things and in this order: else another path was recorded."""
    never: tuple[str, ...] = ()
    """What its history must not tell."""
    skips_time: bool = False
    """It takes hours or days."""

    def mistaken_for_another(self, told: list[str]) -> str | None:
        """What is missing in a history of it, or too much."""
        rest = iter(told)
        missing = next((sight for sight in self.shows if sight not in rest), None)
        if missing:
            return f"its history does not tell in this order: {', '.join(self.shows)} (missing: {missing})"
        return next((f"its history tells: {sight}" for sight in self.never if sight in told), None)


def paths() -> list[Path]:
    """All of them. Names are unique."""
    found = [
        *(*_through(), *_refused(), *_cancelled(), *_undone_with_trouble()),
        *(*_without_coupon(), *_taken_up_again(), *_beside_the_saga()),
    ]
    names = [path.name for path in found]
    assert len(set(names)) == len(names), "two paths have one name"
    return found


def _through() -> Iterator[Path]:
    """Delivered, or on the way to it."""
    yield Path("open", _open, (_SENT, "timer started"), never=("workflow execution completed",))
    yield Path("delivered", _delivered, ("update delivered", "completed complete_delivery", _END))

    async def arrival_refused(saga: Saga) -> None:
        saga.world.script("complete_delivery", Refuse("delivery-canceled"))
        await _delivered(saga)

    yield Path("delivered-arrival-refused", arrival_refused, ("failed complete_delivery", _CLEARED, _END))

    async def cancelled_too_late(saga: Saga) -> None:
        gate = Gate()
        saga.world.script("complete_delivery", gate)
        await _open(saga)
        await saga.engine.delivered(saga.order.order_id)
        await gate.reached.wait()
        await saga.handle.cancel()
        gate.opened.set()
        await saga.result()

    yield Path(
        "delivered-cancel-too-late",
        cancelled_too_late,
        ("update delivered", _REQUESTED, "completed complete_delivery", _END),
    )

    async def late(saga: Saga) -> None:
        await _open(saga)
        await saga.let_pass(DELIVER_WITHIN + timedelta(minutes=1))
        await saga.world.until(lambda world: world.state.needs_attention)

    async def late_then_delivered(saga: Saga) -> None:
        await late(saga)
        await saga.engine.delivered(saga.order.order_id)
        await saga.result()

    async def late_then_cancelled(saga: Saga) -> None:
        await late(saga)
        await cancel(saga)
        await saga.result()

    yield Path(
        "deadline-then-delivered", late_then_delivered, ("timer fired", "update delivered", _END), skips_time=True
    )
    yield Path("deadline-then-cancelled", late_then_cancelled, ("timer fired", _ASKED, _END), skips_time=True)

    async def late_again(saga: Saga) -> None:
        await late(saga)
        await saga.engine.clear_attention(saga.order.order_id, actor="kim", reason="the carrier is on strike")
        await saga.let_pass(DELIVER_WITHIN + timedelta(minutes=1))
        await saga.world.until(lambda world: world.events.count("AttentionRaised") == 2)

    yield Path("deadline-cleared", late_again, ("timer fired", _CLEARED, "timer fired"), skips_time=True)


def _refused() -> Iterator[Path]:
    """A step's answer is no, or makes no sense, or never comes."""
    for code in sorted(DECLINES):
        yield Path(
            f"declined-{code}",
            _scripted("pay_order", Refuse(code)),
            ("failed pay_order", _END),
            never=("scheduled refund_payment",),
        )
    for step in SAGA:
        for code in (*step.refusals, "something-odd"):
            yield Path(
                f"refused-{step.do}-{code}",
                _scripted(step.do, Refuse(code)),
                (f"failed {step.do}", f"completed {step.undo}", *([] if code in step.refusals else [_CLEARED]), _END),
            )
    for what, trouble in {"silent": Fail, "charged": LoseReply}.items():

        async def out_of_time(saga: Saga, trouble: type = trouble) -> None:
            saga.world.script("pay_order", *[trouble()] * 10_000)
            await saga.start()
            await saga.let_pass(PAYMENT_BUDGET + timedelta(minutes=5))
            await saga.over()

        yield Path(
            f"payment-budget-spent-{what}",
            out_of_time,
            ("failed pay_order", "completed refund_payment", _CLEARED, _END),
            skips_time=True,
        )


def _cancelled() -> Iterator[Path]:
    """Cancelled, at each stage, by each who can."""
    for by, (ask, asked) in _ASKING.items():

        async def before_anything(saga: Saga, ask: Play = ask) -> None:
            await saga.go("workflows")
            await saga.start()
            asking = asyncio.create_task(_awaited(ask(saga)))
            await asyncio.wait([asking], timeout=_ON_ITS_WAY)
            await saga.come("workflows")
            await asking
            await saga.result()

        async def on_the_way(saga: Saga, ask: Play = ask) -> None:
            await _open(saga)
            await ask(saga)
            await saga.result()

        yield Path(
            f"cancel-before-the-first-task-by-{by}", before_anything, (asked, _END), never=("scheduled issue_coupon",)
        )
        yield Path(f"cancel-under-way-by-{by}", on_the_way, ("timer started", asked, "timer canceled", _END))
        for step in SAGA:
            yield from _cancelled_at(step, by, ask, asked)

    async def at_that_version(saga: Saga) -> None:
        await _open(saga)
        await cancel(saga, if_version=saga.world.timeline[-1].version)
        await saga.result()

    async def again(saga: Saga) -> None:
        gate = Gate()
        saga.world.script("revoke_coupon", gate)
        await _open(saga)
        await cancel(saga)
        await gate.reached.wait()
        await saga.handle.cancel()
        await cancel(saga)
        gate.opened.set()
        await saga.result()

    yield Path("cancel-if-match", at_that_version, ("timer started", _ASKED, _END))
    yield Path("cancel-again-during-the-undo", again, (_ASKED, _REQUESTED, _ASKED, _END))


def _cancelled_at(step: Step, by: str, ask: Play, asked: str) -> Iterator[Path]:
    async def during(saga: Saga) -> None:
        gate = Gate()
        saga.world.script(step.do, gate)
        await saga.start()
        await gate.reached.wait()
        await ask(saga)
        await saga.recorded(lambda history: f"cancel requested {step.do}" in story(history))
        gate.opened.set()
        await saga.result()

    async def before_it_is_repeated(saga: Saga) -> None:
        saga.world.script(step.do, *[Fail()] * 10)
        await saga.start()
        while saga.world.calls.count(step.do) < 2:  # noqa: ASYNC110  (there is no event to await)
            await asyncio.sleep(0.01)
        await ask(saga)
        await saga.result()

    async def with_its_completion(saga: Saga) -> None:
        gate = Gate()
        saga.world.script(step.do, gate)
        await saga.start()
        await gate.reached.wait()
        await saga.go("workflows")
        gate.opened.set()
        await saga.recorded(lambda history: f"completed {step.do}" in story(history))
        asking = asyncio.create_task(_awaited(ask(saga)))
        await asyncio.wait([asking], timeout=_ON_ITS_WAY)
        await saga.come("workflows")
        await asking
        await saga.result()

    undone = (f"completed {step.undo}", _END)
    begun = f"scheduled {step.do}"
    withdrawn = f"cancel requested {step.do}"
    yield Path(f"cancel-during-{step.do}-by-{by}", during, (asked, withdrawn, f"completed {step.do}", *undone))
    yield Path(
        f"cancel-before-{step.do}-is-repeated-by-{by}",
        before_it_is_repeated,
        (begun, asked, withdrawn, f"canceled {step.do}", *undone),
    )
    following = SAGA[SAGA.index(step) + 1 :]
    yield Path(
        f"cancel-with-the-completion-of-{step.do}-by-{by}",
        with_its_completion,
        (begun, f"completed {step.do}", asked, *undone),
        never=(withdrawn, "timer fired", *(f"scheduled {after.do}" for after in following)),
    )


def _undone_with_trouble() -> Iterator[Path]:
    """The undo takes long, or is stuck."""
    teams = sorted({step.queue for step in SAGA})
    for away in (*([team] for team in teams), teams):

        async def team_away(saga: Saga, away: list[str] = away) -> None:
            undos = [step.undo for step in SAGA if step.queue in away]
            await _open(saga)
            for team in away:
                await saga.go(team)
            await cancel(saga)
            await saga.recorded(lambda history: story(history).count("timer fired") == len(undos))
            for team in away:
                await saga.come(team)
            await saga.result()

        yield Path(
            f"undo-while-{away[0] if len(away) == 1 else 'every-team'}-is-away",
            team_away,
            (_ASKED, "timer fired", _END),
        )
    for step in SAGA:

        async def stuck(saga: Saga, step: Step = step) -> None:
            saga.world.script(step.undo, Refuse("refused"), Refuse("refused"))
            await _open(saga)
            await cancel(saga)
            await saga.world.until(lambda world: world.events.count("AttentionRaised") == 1)
            await _settle(saga, step, "retry")
            await saga.world.until(lambda world: world.events.count("AttentionRaised") == 2)
            await _settle(saga, step, "skip")
            await saga.result()

        yield Path(
            f"undo-stuck-{step.undo}",
            stuck,
            (f"failed {step.undo}", "update settle", f"failed {step.undo}", "update settle", _END),
        )


def _without_coupon() -> Iterator[Path]:
    """An operator lets it go on without its coupon."""

    async def marketing_away(saga: Saga) -> None:
        await saga.go("marketing")
        await saga.start()
        await saga.world.until(reads("OrderPlaced"))
        await _waive(saga)
        await saga.world.until(reads("DeliveryStarted"))

    async def delivered(saga: Saga) -> None:
        await marketing_away(saga)
        await saga.engine.delivered(saga.order.order_id)
        await saga.world.until(reads("Delivered"))
        await saga.come("marketing")
        await saga.result()

    async def cancelled(saga: Saga) -> None:
        await marketing_away(saga)
        await cancel(saga)
        await saga.world.until(lambda world: world.state.pay_status == "Refunded")
        await saga.come("marketing")
        await saga.result()

    async def during(saga: Saga) -> None:
        gate = Gate()
        saga.world.script("issue_coupon", gate)
        await saga.start()
        await gate.reached.wait()
        await _waive(saga)
        gate.opened.set()
        await saga.world.until(lambda world: "CouponRevoked" in world.events)
        await _until_open(saga)

    withdrawn = (_WAIVED, "cancel requested issue_coupon")
    yield Path("waived-while-marketing-is-away", delivered, (*withdrawn, "update delivered", "completed revoke_coupon"))
    yield Path("waived-then-cancelled", cancelled, (*withdrawn, _ASKED, "completed refund_payment", _END))
    yield Path("waived-while-it-is-issued", during, (*withdrawn, "completed issue_coupon", "completed revoke_coupon"))


def _taken_up_again() -> Iterator[Path]:
    """Its workflow was gone, or had ended; and it is flagged."""
    for stage in (step.do for step in SAGA):
        for undo in (False, True):

            async def resumed(saga: Saga, stage: str = stage, undo: bool = undo) -> None:
                gate = Gate()
                saga.world.script(stage, gate)
                await saga.start()
                await gate.reached.wait()
                await saga.handle.terminate()
                gate.opened.set()
                await gate.left.wait()
                await saga.engine.resume(saga.order, _stands(saga, undo=undo))
                await (saga.result() if undo else _until_open(saga))

            ends = ("completed refund_payment", _END) if undo else (f"completed {stage}", "timer started")
            yield Path(f"resumed-at-{stage}-to-{'be-undone' if undo else 'go-on'}", resumed, ends)

    async def flagged(saga: Saga) -> None:
        await _open(saga)
        await _flag(saga)
        await _flag(saga)
        await saga.engine.delivered(saga.order.order_id)
        await saga.over()

    async def flagged_after_its_end(saga: Saga) -> None:
        await _open(saga)
        await cancel(saga)
        await saga.handle.result()
        await _flag(saga)
        await saga.over()

    yield Path("flagged", flagged, (_FLAGGED, _FLAGGED, "update delivered", _CLEARED, _END))
    yield Path("flagged-after-its-end", flagged_after_its_end, (_FLAGGED, _CLEARED, _END))


def _beside_the_saga() -> Iterator[Path]:
    """Status writes, those who wait for the payment, and what an earlier release had started."""

    async def refused_here(saga: Saga) -> None:
        saga.world.script("record_status", Refuse("gone"), Fail())
        await _open(saga)

    async def repeated(saga: Saga) -> None:
        saga.world.script("record_status", *[Fail()] * 8)
        await _open(saga)

    async def refused_everywhere(saga: Saga) -> None:
        saga.world.script("record_status", *[Refuse("gone")] * 4)
        await saga.start()
        await saga.let_pass(timedelta(minutes=5))
        await saga.world.until(reads("DeliveryStarted"))

    yield Path("status-write-refused", refused_here, ("scheduled record_status", "completed record_status"))
    yield Path("status-write-repeated", repeated, ("scheduled record_status", "completed record_status"))
    yield Path(
        "status-write-refused-everywhere",
        refused_everywhere,
        ("failed record_status", "timer fired"),
        skips_time=True,
    )

    async def many_wait(saga: Saga) -> None:
        gate = Gate()
        saga.world.script("pay_order", gate)
        await saga.start()
        await gate.reached.wait()
        waiting = [
            asyncio.create_task(
                saga.handle.execute_update(OrderWorkflow.payment_known, id=f"waits-{number}")  # pyright: ignore[reportUnknownMemberType]  (the SDK's type)
            )
            for number in range(_WAITING)
        ]
        await saga.recorded(lambda history: story(history).count(_WAITS) == _WAITING)
        gate.opened.set()
        await asyncio.gather(*waiting)
        await _until_open(saga)

    async def started_by_who_waits(saga: Saga) -> None:
        await saga.engine.payment_known(saga.order, timeout=30)
        await _until_open(saga)

    yield Path("many-wait-for-the-payment", many_wait, (_WAITS,) * _WAITING)
    yield Path("started-by-who-waits-for-the-payment", started_by_who_waits, (_WAITS, "completed pay_order"))

    async def of_an_earlier_release(saga: Saga) -> None:
        """Its input names no `pay_within`."""
        named = {"order_id", "user_id", "product_id", "product_name", "qty", "amount", "currency", "payment_method"}
        order: dict[str, Any] = saga.order.model_dump(include=named)
        await saga.client.start_workflow(
            "OrderWorkflow", {**order, "deliver_within": DELIVER_WITHIN}, id=saga.order.order_id, task_queue="order"
        )
        await _until_open(saga)

    yield Path("started-without-pay-within", of_an_earlier_release, (_SENT, "timer started"))


_SENT = f"completed {SAGA[-1].do}"
_END = "workflow execution completed"
_ASKED = "update cancel"
_CLEARED = "update clear_attention"
_WAIVED = "update waive_coupon"
_FLAGGED = "update flag"
_REQUESTED = "workflow execution cancel requested"
_WAITS = "update payment_known"
_WAITING = 8  # below the engine's limit of updates in flight
_ON_ITS_WAY = 0.3
"""Seconds for a message that no worker is there to answer to reach the engine. Too few, and `shows` tells."""


async def _request_cancellation(saga: Saga) -> None:
    await saga.handle.cancel()


_ASKING: dict[str, tuple[Play, str]] = {
    "customer": (cancel, _ASKED),
    "operator": (_request_cancellation, _REQUESTED),
}


async def _awaited(asking: Awaitable[None]) -> None:
    await asking


async def _open(saga: Saga) -> None:
    await under_way(saga)
    await _until_open(saga)


async def _until_open(saga: Saga) -> None:
    """Until the order waits for its carrier and the engine has recorded so."""
    await saga.world.until(reads("DeliveryStarted"))
    await saga.recorded(lambda history: "timer started" in story(history)[story(history).index(_SENT) :])


async def _delivered(saga: Saga) -> None:
    await _open(saga)
    await saga.engine.delivered(saga.order.order_id)
    await saga.over()


def _scripted(activity: str, *attempts: Refuse) -> Play:
    async def play(saga: Saga) -> None:
        saga.world.script(activity, *attempts)
        await saga.start()
        await saga.over()

    return play


async def _settle(saga: Saga, step: Step, action: Any) -> None:
    await saga.engine.settle(saga.order.order_id, step=step.undo, action=action, actor="kim", reason="by hand")


async def _waive(saga: Saga) -> None:
    await saga.engine.waive_coupon(saga.order.order_id, actor="kim", reason="marketing is away")


async def _flag(saga: Saga) -> None:
    flag = FlagOrder(about="charge-of-another-amount", detail="")
    await saga.engine.flag(saga.order, _stands(saga, undo=False), flag)


def _stands(saga: Saga, *, undo: bool) -> Resumed:
    """Where the order stands by its view and its timeline."""
    done = [entry.type for entry in saga.world.timeline]
    return Resumed(version=1 + len(done), state=saga.world.state, done=done, undo=undo)
