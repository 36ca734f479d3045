"""Everything that can happen at a step of the saga, and how the order must end then.

Made from the table of steps: a new step meets every situation without a new test.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from temporalio.client import WorkflowHistory

from tests.saga.conftest import Saga, cancel, under_way
from tests.saga.curtain import Curtain
from tests.saga.world import Fail, Gate, LoseReply, Refuse
from workflows.steps import DECLINES, PAY_ORDER, Step

Play = Callable[[Saga], Awaitable[None]]
PlayBehind = Callable[[Saga, Curtain], Awaitable[None]]
ASKED_BY = ("customer", "operator")
DECLINED = tuple(sorted(DECLINES))


@dataclass(frozen=True, kw_only=True)
class End:
    """How an order ends: with all its effects, or with none but those that an operator left standing."""

    status: str
    reason: str | None = None
    attention: bool = False
    left: str | None = None
    undone: str | None = None
    """What its timeline must tell."""
    never: tuple[str, ...] = ()
    """What no team must have been asked for."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A situation at a step: what is done to a new order until it is left to itself, and how it ends."""

    situation: str
    step: Step
    end: End
    play: Play | None = None
    behind: PlayBehind | None = None
    """Instead of `play`: with a curtain, behind which the workflows' worker is replaced."""
    also: tuple[tuple[str, str], ...] = ()
    """Other situations, each with its step, that are the same: during a step is before the next one."""

    @property
    def id(self) -> str:
        return f"{self.step.do}: {self.situation}"

    @property
    def covers(self) -> set[tuple[str, str]]:
        return {(self.step.do, self.situation), *self.also}


UNDER_WAY = End(status="DeliveryStarted")
ALWAYS = (
    "fails for no known reason",
    "fails for good after it took effect",
    "fails twice, then works",
    "loses its reply twice, then answers",
    "its undo fails and loses replies",
    "its undo fails for good",
    "canceled while it waits to be repeated",
    "worker restarted without cache",
    *(f"{asked} cancels {when}" for asked in ASKED_BY for when in ("before", "during", "as it completes", "after")),
)
"""The situations that every step must be seen in."""


def cases(table: Sequence[Step]) -> list[Case]:
    """Every situation at every step of a table."""
    found = [case for step in table for case in (*_troubles(table, step), *_cancels(table, step))]
    assert len({case.id for case in found}) == len(found), "two cases have one name"
    return found


def _troubles(table: Sequence[Step], step: Step) -> Iterator[Case]:
    """What can happen to a step, and to its undo, of itself."""
    odd = End(status="OrderCanceled", reason=step.unsettled, attention=True)
    if step.do == PAY_ORDER.do:
        for code in DECLINED:
            yield _scripted(f"declined: {code}", step, End(status="PaymentDeclined"), Refuse(code))
    for code, reason in step.refusals.items():
        yield _scripted(f"refused: {code}", step, End(status="OrderCanceled", reason=reason), Refuse(code))
    yield _scripted("fails for no known reason", step, odd, Refuse("something-odd"))
    late = End(status="OrderCanceled", reason=step.unsettled, attention=True, undone=step.undone)
    yield _scripted("fails for good after it took effect", step, late, Refuse("something-odd", late=True))
    yield _scripted("fails twice, then works", step, UNDER_WAY, Fail(), Fail())
    yield _scripted("loses its reply twice, then answers", step, UNDER_WAY, LoseReply(), LoseReply())

    async def troubled_undo(saga: Saga) -> None:
        saga.world.script(step.undo, Fail(), LoseReply(), LoseReply())
        await under_way(saga)
        await cancel(saga)

    async def stuck_undo(saga: Saga) -> None:
        saga.world.script(step.undo, Refuse("refused"), Refuse("refused"))
        await under_way(saga)
        await cancel(saga)
        others = {other.undone for other in table if other is not step}
        await saga.world.until(lambda world: {"AttentionRaised", *others} <= set(world.events))  # it stops no other
        await _settle(saga, step, "retry")
        await saga.world.until(lambda world: world.events.count("AttentionRaised") == 2)
        await _settle(saga, step, "skip")

    canceled = End(status="OrderCanceled", reason="customer", undone=step.undone)
    yield Case(situation="its undo fails and loses replies", step=step, play=troubled_undo, end=canceled)
    left = End(status="OrderCanceled", reason="customer", left=step.do)
    yield Case(situation="its undo fails for good", step=step, play=stuck_undo, end=left)


def _cancels(table: Sequence[Step], step: Step) -> Iterator[Case]:
    """When an order can be cancelled at a step, and by whom; and the worker's restart, which is no reason to."""
    place = table.index(step)
    before, after = table[:place][-1:], table[place + 1 :][:1]

    async def waits_to_be_repeated(saga: Saga) -> None:
        last = Gate(then=Fail())
        saga.world.script(step.do, LoseReply(), last, *[Fail()] * 1000)  # it would be repeated for long
        await saga.start()
        await last.reached.wait()
        last.opened.set()
        await last.left.wait()
        await cancel(saga)

    async def restarted(saga: Saga, curtain: Curtain) -> None:
        gate = await _held(saga, step)
        await curtain.down()
        gate.opened.set()
        await saga.recorded(completed(step))
        await curtain.up()

    canceled = End(status="OrderCanceled", reason="customer", undone=step.undone)
    waits = "canceled while it waits to be repeated"
    yield Case(situation=waits, step=step, play=waits_to_be_repeated, end=canceled)
    yield Case(situation="worker restarted without cache", step=step, behind=restarted, end=UNDER_WAY)
    for by in ASKED_BY:

        async def before_anything(saga: Saga, curtain: Curtain, by: str = by) -> None:
            await curtain.down()
            await saga.start()
            asking = asyncio.create_task(ask(saga, by))
            await curtain.up()
            await asking

        async def during(saga: Saga, by: str = by) -> None:
            gate = await _held(saga, step)
            await ask(saga, by)
            await saga.recorded(_cancel_requested)
            gate.opened.set()

        async def with_its_completion(saga: Saga, curtain: Curtain, by: str = by) -> None:
            gate = await _held(saga, step)
            await curtain.down()
            asking = asyncio.create_task(ask(saga, by))
            gate.opened.set()
            await saga.recorded(completed(step))
            await curtain.up()
            await asking

        async def after_all(saga: Saga, by: str = by) -> None:
            await under_way(saga)
            await ask(saga, by)

        never = tuple(name for later in table[place + 1 :] for name in (later.do, later.undo))
        canceled = End(status="OrderCanceled", reason=by, undone=step.undone, never=never)
        nothing = End(status="OrderCanceled", reason=by)
        if not before:
            yield Case(situation=f"{by} cancels before", step=step, behind=before_anything, end=nothing)
        neighbours = [*((one.do, f"{by} cancels after") for one in before)]
        neighbours += [(one.do, f"{by} cancels before") for one in after]
        yield Case(situation=f"{by} cancels during", step=step, play=during, end=canceled, also=(*neighbours,))
        meets = f"{by} cancels as it completes"
        yield Case(situation=meets, step=step, behind=with_its_completion, end=canceled)
        if not after:
            yield Case(situation=f"{by} cancels after", step=step, play=after_all, end=canceled)


def _scripted(situation: str, step: Step, end: End, *attempts: Refuse | Fail | LoseReply) -> Case:
    async def play(saga: Saga) -> None:
        saga.world.script(step.do, *attempts)
        await saga.start()

    return Case(situation=situation, step=step, play=play, end=end)


async def ask(saga: Saga, by: str) -> None:
    """Have the order cancelled: by its customer, or by an operator's *Request Cancellation*."""
    if by == "customer":
        await cancel(saga)
    else:
        await saga.handle.cancel()


async def _settle(saga: Saga, step: Step, action: Literal["retry", "skip"]) -> None:
    await saga.engine.settle(saga.order.order_id, step=step.undo, action=action, actor="kim", reason="by hand")


async def _held(saga: Saga, step: Step) -> Gate:
    gate = Gate()
    saga.world.script(step.do, gate)
    await saga.start()
    await gate.reached.wait()
    return gate


def _cancel_requested(history: WorkflowHistory) -> bool:
    return any(event.HasField("activity_task_cancel_requested_event_attributes") for event in history.events)


def completed(step: Step) -> Callable[[WorkflowHistory], bool]:
    """Whether a history tells that a step is done."""

    def found(history: WorkflowHistory) -> bool:
        scheduled = {
            event.event_id
            for event in history.events
            if event.activity_task_scheduled_event_attributes.activity_type.name == step.do
        }
        return any(
            event.activity_task_completed_event_attributes.scheduled_event_id in scheduled for event in history.events
        )

    return found
