"""A small world of three teams, in memory, whose behaviour a test scripts. Made from the saga's own table."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.contract import Coupon, RecordStatus, StartDelivery, Undone
from activities.heartbeat import heartbeating
from services.order.statuses import OrderState, TimelineEntry
from workflows import steps
from workflows.messages import PlaceOrder
from workflows.steps import Step

PATIENCE = 120.0
"""Seconds after which what does not come is taken to be lost. No test waits for it when all is well."""


@dataclass
class Refuse:
    """The activity answers no, for good; with `late`, after it took effect."""

    code: str
    late: bool = False


@dataclass
class Fail:
    """The attempt fails and had no effect."""


@dataclass
class LoseReply:
    """The attempt takes effect, and its answer is lost."""


@dataclass
class Gate:
    """The attempt waits, before it takes effect, until it is let go on; with `late`, after it took effect."""

    late: bool = False
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    then: "Ending | None" = None
    """What the attempt does when it is let go on; it works unless this says otherwise."""
    left: asyncio.Event = field(default_factory=asyncio.Event)
    failure: Exception | None = None
    """Once it has `left`: what the attempt failed with."""


Ending = Refuse | Fail | LoseReply
Action = Ending | Gate
Real = Mapping[str, Callable[[Any], Awaitable[Any]]]


class World:
    """What stands of one order, what was undone, who was called, and what the customer reads.

    An effect counts once for each command that asked for it, as with the real teams: a command that differs from the
    one before, or an undo of another command than its step's, is another effect.
    """

    def __init__(self, real: Real | None = None, *, times: int = 1, holds: bool = False) -> None:
        """`real` activities, by name, take effect in place of the scripted ones; what they do is not noted here.

        Each attempt takes effect so many `times`. A world that `holds` lets no attempt go on but one that is told.
        """
        self._real = real or {}
        self._times = times
        self._holds = holds
        self.calls: list[str] = []
        self.held: dict[str, Gate] = {}
        self.undone: set[str] = set()
        self.tombstones: set[str] = set()
        self.delivered = False
        self.state = OrderState()
        self.timeline: list[TimelineEntry] = []
        self._effects: defaultdict[str, set[str]] = defaultdict(set)
        self._gates: list[Gate] = []
        self._changed = asyncio.Condition()
        self._scripts: defaultdict[str, list[Action]] = defaultdict(list)

    def script(self, name: str, *attempts: Action) -> None:
        """What the coming attempts at an activity do; the ones after them just work."""
        self._scripts[name].extend(attempts)

    def recover(self, name: str) -> None:
        """Forget what the coming attempts at an activity were to do: they just work."""
        self._scripts[name].clear()

    @property
    def events(self) -> list[str]:
        return [entry.type for entry in self.timeline]

    @property
    def standing(self) -> set[str]:
        """The steps whose effect stands."""
        return {do for do, commands in self._effects.items() if commands}

    @property
    def repeated(self) -> set[str]:
        """The steps whose effect stands more than once."""
        return {do for do, commands in self._effects.items() if len(commands) > 1}

    async def until(self, predicate: Callable[["World"], bool]) -> None:
        """Wait until what the customer reads, or what is held, is so."""
        async with self._changed, asyncio.timeout(PATIENCE):
            await self._changed.wait_for(lambda: predicate(self))

    def let_go(self, name: str, then: "Ending | None" = None) -> None:
        """Let an attempt that is held go on, and do this; it works unless this says otherwise."""
        gate = self.held.pop(name)
        gate.then = then
        gate.opened.set()

    def hold_no_more(self) -> None:
        """Let all attempts go on, now and from now on: a worker that goes away waits for those that it has."""
        self._holds = False
        for gate in self._gates:
            gate.opened.set()

    async def do(self, step: Step, command: Any) -> Any:
        """An attempt at a step."""

        async def effect() -> Any:
            if step.do in self._real:
                return await self._real[step.do](_typed(step, command))
            if step.do in self.tombstones:
                raise ApplicationError("undone already", type="canceled", non_retryable=True)
            self._effects[step.do].add(repr(command))
            return Coupon(coupon_id="coupon_1", coupon_kind="Gold") if step.result is Coupon else None

        return await self._attempt(step.do, effect)

    async def undo(self, step: Step, command: Any) -> Undone:
        """An attempt at an undo."""

        async def effect() -> Undone:
            if step.undo in self._real:
                return await self._real[step.undo](_typed(step, command))
            if repr(command) in self._effects[step.do]:
                self.undone.add(step.do)
            self._effects[step.do].discard(repr(command))
            self.tombstones.add(step.do)
            return Undone(changed=step.do in self.undone)

        return await self._attempt(step.undo, effect)

    async def complete(self, command: Any) -> None:
        """An attempt to note the arrival."""

        async def effect() -> None:
            if "complete_delivery" in self._real:
                await self._real["complete_delivery"](TypeAdapter(StartDelivery).validate_python(command))
            self.delivered = True

        await self._attempt("complete_delivery", effect)

    async def record(self, command: RecordStatus) -> None:
        """An attempt at writing the status. It is never held."""

        async def effect() -> None:
            async with self._changed:
                known = {entry.version for entry in self.timeline}
                self.timeline += [entry for entry in command.timeline if entry.version not in known]
                self.state = command.state
                self._changed.notify_all()

        await self._attempt("record_status", effect)

    async def take_turn(self) -> None:
        """An attempt at what does nothing. It is never held."""

        async def nothing() -> None: ...

        await self._attempt("take_turn", nothing)

    async def _attempt(self, name: str, effect: Callable[[], Awaitable[Any]]) -> Any:
        self.calls.append(name)
        action = self._scripts[name].pop(0) if self._scripts[name] else None
        if action is None and self._holds and name not in ("record_status", "take_turn"):
            action = Gate()
            async with self._changed:
                self.held[name] = action
                self._changed.notify_all()
        if not isinstance(action, Gate):
            return await self._act(action, effect)
        self._gates.append(action)
        if action.late:
            await effect()
        action.reached.set()
        await action.opened.wait()
        try:
            return await self._act(action.then, effect)
        except Exception as failure:
            action.failure = failure
            raise
        finally:
            action.left.set()

    async def _act(self, action: Action | None, effect: Callable[[], Awaitable[Any]]) -> Any:
        if isinstance(action, Refuse) and not action.late:
            raise _refusal(action)
        if isinstance(action, Fail):
            raise ApplicationError("out of order", type="unavailable")
        answer = await effect()
        for _ in range(self._times - 1):
            answer = await effect()
        if isinstance(action, Refuse):
            raise _refusal(action)
        if isinstance(action, LoseReply):
            raise ApplicationError("reply lost", type="unavailable")
        return answer


def activities(queue: str, world_of: Callable[[str], World]) -> list[Callable[..., Any]]:
    """The activities of a team, each for the order that its command names."""
    made: list[Callable[..., Any]] = []
    for step in steps.SAGA:
        if step.queue == queue:
            made += [_do(step, world_of), _undo(step, world_of)]
    if queue == steps.START_DELIVERY.queue:
        made.append(_complete(world_of))
    return made + (local_activities(world_of) if queue == "order" else [])


def local_activities(world_of: Callable[[str], World]) -> list[Callable[..., Any]]:
    """Those that run beside the workflow."""

    @activity.defn(name="record_status")
    async def record(command: RecordStatus) -> None:
        await world_of(command.order_id).record(command)

    @activity.defn(name="take_turn")
    async def take_turn() -> None:
        await world_of(activity.info().workflow_id or "").take_turn()

    return [record, take_turn]


def _do(step: Step, world_of: Callable[[str], World]) -> Callable[..., Any]:
    @activity.defn(name=step.do)
    @heartbeating
    async def do(command: Any) -> Any:
        return await world_of(command["order_id"]).do(step, command)

    return do


def _undo(step: Step, world_of: Callable[[str], World]) -> Callable[..., Any]:
    @activity.defn(name=step.undo)
    @heartbeating
    async def undo(command: Any) -> Undone:
        return await world_of(command["order_id"]).undo(step, command)

    return undo


def _complete(world_of: Callable[[str], World]) -> Callable[..., Any]:
    @activity.defn(name="complete_delivery")
    async def complete(command: Any) -> None:
        await world_of(command["order_id"]).complete(command)

    return complete


def _typed(step: Step, command: Mapping[str, Any]) -> Any:
    """A step's command as its team takes it, from what came over the wire."""
    example: object = step.command(_ANY_ORDER)
    return TypeAdapter(type(example)).validate_python(command)


def _refusal(action: Refuse) -> ApplicationError:
    return ApplicationError(action.code, type=action.code, non_retryable=True)


_ANY_ORDER = PlaceOrder(
    order_id="",
    user_id="",
    product_id="",
    product_name="",
    qty=1,
    amount=0,
    currency="KRW",
    payment_method="",
    deliver_within=steps.UNDO_BUDGET,
)
