"""A small world of three teams, in memory, whose behaviour a test scripts. Made from the saga's own table."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.contract import Coupon, RecordStatus, Undone
from services.order.statuses import OrderState, TimelineEntry
from workflows import steps
from workflows.steps import SAGA, Step


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
    """The attempt waits, before it takes effect, until it is let go on."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)


class World:
    """What stands, what was undone, who was called, and what the customer reads."""

    def __init__(self, real: Mapping[str, Callable[..., Any]] | None = None) -> None:
        """`real` activities, by name, take the place of scripted ones. What they do is not noted here."""
        self._real = real or {}
        self.calls: list[str] = []
        self.standing: set[str] = set()
        self.undone: set[str] = set()
        self.tombstones: set[str] = set()
        self.delivered = False
        self.state = OrderState()
        self.timeline: list[TimelineEntry] = []
        self._changed = asyncio.Condition()
        self._scripts: dict[str, list[Any]] = defaultdict(list)

    def script(self, name: str, *attempts: Any) -> None:
        """What the coming attempts at an activity do; the ones after them just work."""
        self._scripts[name].extend(attempts)

    @property
    def events(self) -> list[str]:
        return [entry.type for entry in self.timeline]

    async def until(self, predicate: Callable[["World"], bool]) -> None:
        """Wait until what the customer reads is so."""
        async with self._changed, asyncio.timeout(60):
            await self._changed.wait_for(lambda: predicate(self))

    def activities(self, queue: str) -> list[Callable[..., Any]]:
        made: list[Callable[..., Any]] = []
        for step in SAGA:
            if step.queue == queue:
                made.append(self._real.get(step.do) or self._do(step))
                made.append(self._real.get(step.undo) or self._undo(step))
        if queue == "order":
            made.append(self._record)
        if queue == steps.START_DELIVERY.queue:
            made.append(self._complete)
        return made

    async def take_effect(self, step: Step) -> None:
        """The effect itself: at most once, never after its undo."""
        if step.do in self.tombstones:
            raise ApplicationError("undone already", type="canceled", non_retryable=True)
        self.standing.add(step.do)

    async def _attempt(self, name: str, effect: Callable[[], Any]) -> None:
        self.calls.append(name)
        action = self._scripts[name].pop(0) if self._scripts[name] else None
        if isinstance(action, Refuse) and not action.late:
            raise _refusal(action)
        if isinstance(action, Fail):
            raise ApplicationError("out of order", type="unavailable")
        if isinstance(action, Gate):
            action.reached.set()
            await action.opened.wait()
        await effect()
        if isinstance(action, Refuse):
            raise _refusal(action)
        if isinstance(action, LoseReply):
            raise ApplicationError("reply lost", type="unavailable")

    def _do(self, step: Step) -> Callable[..., Any]:
        @activity.defn(name=step.do)
        async def do(command: Any) -> Any:
            await self._attempt(step.do, lambda: self.take_effect(step))
            return Coupon(coupon_id="coupon_1", coupon_kind="Gold") if step.result is Coupon else None

        return do

    def _undo(self, step: Step) -> Callable[..., Any]:
        @activity.defn(name=step.undo)
        async def undo(command: Any) -> Undone:
            async def effect() -> None:
                self.undone |= self.standing & {step.do}
                self.standing.discard(step.do)
                self.tombstones.add(step.do)

            await self._attempt(step.undo, effect)
            return Undone(changed=step.do in self.undone)

        return undo

    @activity.defn(name="complete_delivery")
    async def _complete(self, command: Any) -> None:
        async def effect() -> None:
            self.delivered = True

        await self._attempt("complete_delivery", effect)

    @activity.defn(name="record_status")
    async def _record(self, command: RecordStatus) -> None:
        async def effect() -> None:
            async with self._changed:
                known = {entry.version for entry in self.timeline}
                self.timeline += [entry for entry in command.timeline if entry.version not in known]
                self.state = command.state
                self._changed.notify_all()

        await self._attempt("record_status", effect)


def _refusal(action: Refuse) -> ApplicationError:
    return ApplicationError(action.code, type=action.code, non_retryable=True)
