"""Sequences of what customers, carriers, operators and teams do: the saga answers and ends as a small model of it.

`SAGA_EXAMPLES=200 pytest tests/saga/test_order_model.py` tries other sequences each time, so many times six of them,
and shortens the one that fails. Without, they are the same few each time.
"""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, get_args

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from temporalio.testing import WorkflowEnvironment

from services.shared.errors import Refused
from tests.saga.conftest import Saga, cancel, order_of
from tests.saga.model import FINAL, Answer, OrderModel, Outcome
from tests.saga.stage import LANES, Stage, street
from tests.saga.world import Ending, Fail, LoseReply, Refuse, World
from workflows import steps
from workflows.client import PreconditionFailed
from workflows.steps import DECLINES, ISSUE_COUPON, PAY_ORDER, SAGA

EXAMPLES = int(os.environ.get("SAGA_EXAMPLES", "0"))
SETTLING_SECONDS = 30
NOTED_SOON = {step.done for step in SAGA[:-1]}
"""What may stand on the timeline a moment later than all else."""

# Not the order team: while it is away nothing is written that could be read.
teams = sorted({step.queue for step in SAGA} - {PAY_ORDER.queue})
undos = [step.undo for step in SAGA]
codes = st.sampled_from(["something-odd", "out-of-stock", "payment-declined", "insufficient-funds"])
outcomes = st.sampled_from([*["works"] * 7, "fails", "loses reply", "refuses"])
actions = st.one_of(
    *[st.tuples(st.just("answer"), st.integers(0, 3), outcomes, codes)] * 4,
    st.tuples(st.just("cancel"), st.sampled_from(["any", "read", "stale"])),
    st.tuples(st.just("request cancellation")),
    st.tuples(st.just("deliver")),
    st.tuples(st.just("settle"), st.sampled_from(undos), st.sampled_from(["retry", "skip"])),
    st.tuples(st.just("team"), st.sampled_from(teams)),
    st.tuples(st.just("waive")),
    st.tuples(st.just("clear")),
)
# Marketing is away or busy, and an operator lets the order go on without it.
without_coupon = st.tuples(
    st.sampled_from([[("team", "marketing")], []]), st.integers(0, 4), st.sampled_from([[("team", "marketing")], []])
).map(
    lambda told: [
        *told[0],
        ("answer", 0, "works", ""),
        ("waive",),
        *[("answer", 0, "works", "")] * told[1],
        *told[2],
    ]
)
openings = st.one_of(
    *[st.integers(0, len(SAGA)).map(lambda steps: [("answer", 0, "works", "")] * steps)] * 5,
    *[without_coupon] * 2,
    st.sampled_from(sorted(DECLINES)).map(lambda code: [("answer", 0, "refuses", code)]),
)
stories = st.tuples(
    st.tuples(openings, st.lists(actions, max_size=12)).map(lambda told: [*told[0], *told[1]]),
    st.booleans(),
    st.sampled_from(["retry", "skip"]),
)


@dataclass
class Lanes:
    """Where orders are told of, several at once and each with teams of its own; and what was seen of them."""

    environment: WorkflowEnvironment
    stages: Sequence[Stage]
    answers: Counter[str] = field(default_factory=Counter[str])
    ends: Counter[str] = field(default_factory=Counter[str])


@pytest.fixture(scope="module")
async def lanes(engine: WorkflowEnvironment) -> AsyncGenerator[Lanes]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(steps, "UNDO_PATIENCE", timedelta(milliseconds=50))  # no undo waits for the one before
        patched.setattr(steps, "PUBLISH_WITHIN", timedelta(milliseconds=200))
        async with AsyncExitStack() as stack:
            yield Lanes(engine, [await stack.enter_async_context(Stage(await street(engine, lane))) for lane in LANES])


@settings(
    max_examples=EXAMPLES or 8,
    derandomize=not EXAMPLES,
    phases=[Phase.generate, *([Phase.shrink] if EXAMPLES else [])],
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(told=st.lists(stories, min_size=len(LANES), max_size=len(LANES)))
async def test_an_order_answers_and_ends_as_its_model(lanes: Lanes, told: list[Any]) -> None:
    ended = await asyncio.gather(
        *(_tell(lanes, stage, *story) for stage, story in zip(lanes.stages, told, strict=True)),
        return_exceptions=True,
    )
    for failure in ended:
        if failure is not None:
            raise failure


def test_the_sequences_saw_each_answer_and_each_end(lanes: Lanes) -> None:
    if not lanes.answers:
        pytest.skip("no sequence was tried")
    assert set(lanes.answers) == set(get_args(Answer))
    assert set(lanes.ends) == {"Delivered", "DeliveryStarted", "PaymentDeclined", "OrderCanceled"}


async def _tell(
    lanes: Lanes, stage: Stage, story: Sequence[Any], delivers: bool, settles: Literal["retry", "skip"]
) -> None:
    """Tell an order and its model the same story, and then what is left to do until it rests."""
    world = World(holds=True)
    async with order_of(lanes.environment, world, stage) as saga:
        told = _Telling(saga, OrderModel(), lanes)
        try:
            await saga.start()
            await told.agreed()
            for action in story:
                await told.act(*action)
            await told.finish(delivers, settles)
        except BaseException as failure:
            failure.add_note("\n".join(["What was told:", *told.log]))
            raise
        finally:
            for team in told.model.away:
                await stage.come(team)


@dataclass
class _Telling:
    """An order and its model, which are told the same."""

    saga: Saga
    model: OrderModel
    lanes: Lanes
    skipped: set[str] = field(default_factory=set[str])
    log: list[str] = field(default_factory=list[str])

    async def act(self, what: str, *how: Any) -> None:
        """Do one thing, if it is possible now, and wait until all that follows from it by itself has happened."""
        model = self.model
        held: list[str] = sorted(model.held)
        self.log.append(f"{what} {how}")
        if what == "answer" and held:
            self._answer(held, *how)
        elif what == "cancel":
            await self._cancel(how[0])
        elif what == "request cancellation" and not model.over:
            model.request_cancellation()
            await self.saga.handle.cancel()
        elif what == "deliver":
            await self._same(model.deliver(), self.saga.engine.delivered(self.saga.order.order_id))
        elif what == "settle":
            await self._settle(*how)
        elif what == "waive":
            waived = self.saga.engine.waive_coupon(self.saga.order.order_id, actor="kim", reason="marketing is away")
            await self._same(model.waive(), waived)
        elif what == "clear":
            cleared = self.saga.engine.clear_attention(self.saga.order.order_id, actor="kim", reason="seen to")
            await self._same(model.clear(), cleared)
        elif what == "team" and how[0] in model.away:
            model.away.remove(how[0])
            await self.saga.come(how[0])
        elif what == "team" and model.may_leave(how[0]):
            model.away.add(how[0])
            await self.saga.go(how[0])
        await self.agreed()

    async def finish(self, delivers: bool, settles: Literal["retry", "skip"]) -> None:
        """Everybody does their part until the order rests; then it looks as the model says."""
        model = self.model
        for team in [*model.away]:
            await self.act("team", team)
        while not model.over and not (model.under_way and not delivers and not model.asked and not model.stuck):
            for undo in [*model.stuck]:
                await self.act("settle", undo, settles)
            if model.under_way and delivers:
                await self.act("deliver")
            if model.status in FINAL and model.flagged - model.stuck:
                await self.act("clear")
            await self.act("answer", 0, "works", "")
        await self._ended()
        if model.over:
            await self.act("cancel", "any")
            await self.act("deliver")

    async def agreed(self) -> None:
        """Wait until the order stands where the model does."""
        model, world = self.model, self.saga.world
        sure = len(model.events)
        while model.held and sure and model.events[sure - 1] in NOTED_SOON:  # else nothing tells but the timeline
            sure -= 1
        if model.over:
            async with asyncio.timeout(SETTLING_SECONDS):
                assert await self.saga.handle.result() == model.status

        def agree(world: World) -> bool:
            told = world.events
            return set(world.held) == model.held and len(told) >= sure and told == model.events[: len(told)]

        try:
            async with asyncio.timeout(SETTLING_SECONDS):
                await world.until(agree)
        except TimeoutError:
            assert (sorted(world.held), world.events) == (sorted(model.held), model.events)
            raise

    async def _ended(self) -> None:
        model, world = self.model, self.saga.world
        self.lanes.ends[model.status] += 1
        async with asyncio.timeout(SETTLING_SECONDS):
            await world.until(lambda world: world.events == model.events)
        everything, none = {step.do for step in SAGA}, set[str]()
        goes_through = model.status in ("Delivered", "DeliveryStarted")
        if goes_through and model.waived and ISSUE_COUPON.do not in self.skipped:
            everything -= {ISSUE_COUPON.do}
        elif goes_through and model.waived:
            everything = everything - {ISSUE_COUPON.do} | (model.standing & {ISSUE_COUPON.do})
        assert world.standing == model.standing == (everything if goes_through else self.skipped & model.standing)
        assert world.repeated == none
        state = world.state
        assert state.order_status == model.status
        assert state.cancel_reason == model.reason
        assert state.needs_attention == bool(model.flagged)
        assert (state.pay_status == "Refunded") == ("PaymentRefunded" in model.events)

    def _answer(self, held: Sequence[str], which: int, outcome: Outcome, code: str) -> None:
        name = held[which % len(held)]
        self.model.answer(name, outcome, code)
        self.saga.world.let_go(name, _attempt(outcome, code))

    async def _settle(self, undo: str, action: Literal["retry", "skip"]) -> None:
        expected = self.model.settle(undo, action)
        if expected == "accepted" and action == "skip":
            self.skipped |= {step.do for step in SAGA if step.undo == undo}
        settled = self.saga.engine.settle(
            self.saga.order.order_id, step=undo, action=action, actor="kim", reason="by hand"
        )
        await self._same(expected, settled)

    async def _cancel(self, version: Literal["any", "read", "stale"]) -> None:
        expected = self.model.cancel(version)
        if version == "any":
            await self._same(expected, cancel(self.saga))
            return
        while True:
            read = 1 + len(self.saga.world.timeline)
            try:
                await self._same(expected, cancel(self.saga, if_version=read if version == "read" else read - 1))
            except PreconditionFailed:  # then what is read is on its way to be another
                await self.saga.world.until(lambda world, read=read: 1 + len(world.timeline) > read)
            else:
                return

    async def _same(self, expected: Answer, asking: Any) -> None:
        """The answer is the model's. A version that is another by now is for the caller to look at."""
        try:
            await asking
            answer = "accepted"
        except Refused as refusal:
            if isinstance(refusal, PreconditionFailed) and expected != "precondition-failed":
                raise
            answer = refusal.code
        self.lanes.answers[answer] += 1
        assert answer == expected


def _attempt(outcome: Outcome, code: str) -> Ending | None:
    match outcome:
        case "works":
            return None
        case "fails":
            return Fail()
        case "loses reply":
            return LoseReply()
        case "refuses":
            return Refuse(code)
