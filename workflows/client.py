"""The one door to the workflows for other processes: how an order's workflow is started and told things."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from opentelemetry.trace import Tracer
from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowExecutionStatus,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
)
from temporalio.client import WorkflowUpdateRPCTimeoutOrCancelledError as UpdateTimeout
from temporalio.common import (
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.contrib.pydantic import PydanticPayloadConverter, pydantic_data_converter
from temporalio.converter import DataConverter
from temporalio.envconfig import ClientConfig
from temporalio.exceptions import ApplicationError, TemporalError, WorkflowAlreadyStartedError
from temporalio.runtime import Runtime
from temporalio.service import GrpcCompression, KeepAliveConfig, RPCError, RPCStatusCode

from activities.contract import ORDER_QUEUE, RecordStatus
from services.order.statuses import CancelReason, OrderState, OrderStatus
from services.order.tables import Order
from services.shared.clock import utc_now
from services.shared.errors import NotFound, Refused, Unavailable
from services.shared.money import format_amount
from services.shared.telemetry import trace_of
from workflows.codec import HistoryCodec, HistoryFailures
from workflows.journal import CANCEL_REASON, CANCELING_SINCE, NEEDS_ATTENTION, ORDER_STATUS
from workflows.messages import (
    CancelOrder,
    ClearAttention,
    FlagOrder,
    PlaceOrder,
    Resumed,
    SettleCompensation,
    WaiveCoupon,
)
from workflows.order import OrderWorkflow

if TYPE_CHECKING:
    from temporalio.contrib.opentelemetry import TracingInterceptor

CUSTOMER_ID = SearchAttributeKey.for_keyword("CustomerId")
PRODUCT_ID = SearchAttributeKey.for_keyword("ProductId")

# A connection that has fallen silent is given up after 20 s: the SDK's own 45 s are long for an order that waits to be
# started. Asked more often than each 10 s, the server takes it for an attack.
_KEEP_ALIVE = KeepAliveConfig(interval_millis=15_000, timeout_millis=5_000)
# One for all: the SDK makes one for each workflow and each task, and each learns the types anew.
_PAYLOADS = PydanticPayloadConverter()
_CONVERTER = replace(
    pydantic_data_converter, payload_converter_class=cast("type[PydanticPayloadConverter]", lambda: _PAYLOADS)
)
# What the SDK raises when the engine does not answer; the second comes from a lazy client that never connected.
_AWAY = (RPCError, RuntimeError)


class EngineUnavailable(Unavailable):
    """The engine, or the worker that would answer, is away."""

    code: ClassVar[str] = "engine-unavailable"


class TooLate(Refused):
    """The order can no longer be cancelled."""

    code: ClassVar[str] = "too-late-to-cancel"


class PreconditionFailed(Refused):
    """The order does not stand any more where the caller takes it to be."""

    code: ClassVar[str] = "precondition-failed"
    status: ClassVar[int] = 412


class NotDeliverable(Refused):
    """The order is not under way to the customer."""

    code: ClassVar[str] = "not-deliverable"


class NotStuck(Refused):
    """There is no such compensation waiting for an operator, or the decision is incomplete."""

    code: ClassVar[str] = "not-stuck"


class NotWaiting(Refused):
    """The order does not wait for its coupon."""

    code: ClassVar[str] = "not-waiting"


class NotFlagged(Refused):
    """There is nothing about the order that could be cleared."""

    code: ClassVar[str] = "not-flagged"


def data_converter(codec: HistoryCodec | None) -> DataConverter:
    """How what the shop says becomes payloads and comes back. Without a codec they stand in clear."""
    if codec is None or not codec.encrypts:
        return replace(_CONVERTER, payload_codec=codec)
    return replace(_CONVERTER, payload_codec=codec, failure_converter_class=HistoryFailures)


async def connect(
    *, codec: HistoryCodec | None, lazy: bool = False, runtime: Runtime | None = None, tracer: Tracer | None = None
) -> Client:
    """A client of the engine that the standard `TEMPORAL_*` variables name, which writes and reads by this codec.

    A lazy one connects with its first call, so that a process can start while the engine is away. With a `tracer`, what
    it and its workers do is traced: an order's trace goes on in headers from its start to its activities.
    """
    config: dict[str, Any] = {**ClientConfig.load_client_connect_config()}
    config.setdefault("target_host", "127.0.0.1:7233")
    config.setdefault("keep_alive_config", _KEEP_ALIVE)
    if config["target_host"].startswith(("127.", "localhost")):
        config["grpc_compression"] = GrpcCompression.NONE  # costs more than it saves on one machine
    interceptors = [] if tracer is None else [traced(tracer)]
    return await Client.connect(
        **config, data_converter=data_converter(codec), lazy=lazy, runtime=runtime, interceptors=interceptors
    )


def traced(tracer: Tracer) -> "TracingInterceptor":
    """Makes spans of what a client and its workers do, none of them when a workflow is replayed.

    A message to an order is a call in the trace of its own request; in the trace of the order, what it came to has a
    link there. An order can be told things for a week: its trace stays the story of the order.
    """
    from temporalio.contrib.opentelemetry import TracingInterceptor  # loads the SDK

    return TracingInterceptor(tracer)


class OrderEngine:
    """Starts the workflows of orders, and tells them what happened."""

    def __init__(
        self,
        client: Client,
        *,
        payment_budget: timedelta,
        delivery_deadline: timedelta,
        order_link: str = "",
        rpc_timeout: timedelta = timedelta(seconds=5),
    ) -> None:
        """`order_link` is where an operator can look an order up, with `{orderId}` for its id."""
        self._client = client
        self._order_link = order_link
        self._payment_budget = payment_budget
        self._delivery_deadline = delivery_deadline
        self._rpc_timeout = rpc_timeout

    async def start(self, order: Order) -> None:
        """Start an order's workflow; one that runs or has ended is fine. Raises `EngineUnavailable`."""
        try:
            with trace_of(order.traceparent):
                await self._client.start_workflow(
                    OrderWorkflow.run, self._input(order), rpc_timeout=self._rpc_timeout, **self._options(order)
                )
        except WorkflowAlreadyStartedError:
            return
        except _AWAY as error:
            raise EngineUnavailable(str(error)) from error

    async def resume(self, order: Order, resumed: Resumed) -> None:
        """Go on with an order whose workflow is gone; one that runs, or has come to its own end, is left alone.

        Raises `EngineUnavailable`.
        """
        try:
            with trace_of(order.traceparent):
                await self._client.start_workflow(
                    OrderWorkflow.run,
                    # What was under way when it was lost, and what was done in its last seconds, nobody wrote down.
                    self._input(order, replace(resumed, unsure=True)),
                    rpc_timeout=self._rpc_timeout,
                    **self._options(order, resumed, reuse=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY),
                )
        except WorkflowAlreadyStartedError:
            return
        except _AWAY as error:
            raise EngineUnavailable(str(error)) from error

    async def flag(self, order: Order, resumed: Resumed, flag: FlagOrder) -> None:
        """Call a person to an order; one that has ended is taken up again, until somebody has been.

        Once for each thing that a flag is about. One that has not ended and whose workflow is gone is to be resumed
        first. Raises `EngineUnavailable`; `TooLate` when an order that did not read so has ended meanwhile.
        """
        if not resumed.state.order_status.final:
            await self._tell(order.order_id, OrderWorkflow.flag, flag, refused=TooLate)
            return
        start = WithStartWorkflowOperation(
            OrderWorkflow.run,
            self._input(order, resumed),
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            **self._options(order, resumed, reuse=WorkflowIDReusePolicy.ALLOW_DUPLICATE),
        )
        try:
            async with asyncio.timeout(self._rpc_timeout.total_seconds()):
                with trace_of(order.traceparent):
                    await self._client.execute_update_with_start_workflow(  # pyright: ignore[reportUnknownMemberType]
                        OrderWorkflow.flag, flag, start_workflow_operation=start, rpc_timeout=self._rpc_timeout
                    )
        except (TimeoutError, UpdateTimeout, WorkflowUpdateFailedError, *_AWAY) as error:
            raise EngineUnavailable(str(error)) from error

    async def journal(self, order_id: str) -> RecordStatus:
        """What an order's workflow, open or ended, says that the view and the timeline must read.

        Raises `EngineUnavailable`, also where no worker answers, and `NotFound` where there is no workflow.
        """
        handle = self._client.get_workflow_handle_for(OrderWorkflow.run, order_id)
        try:
            return await handle.query(OrderWorkflow.journal, rpc_timeout=self._rpc_timeout)
        except WorkflowQueryFailedError as error:  # a worker of a release that knows no such query
            raise EngineUnavailable(str(error)) from error
        except _AWAY as error:
            if isinstance(error, RPCError) and error.status == RPCStatusCode.NOT_FOUND:
                raise NotFound(order_id) from error
            raise EngineUnavailable(str(error)) from error

    async def payment_known(self, order: Order, timeout: float) -> None:
        """Wait until it is known whether an order is paid, or so many seconds; never raises.

        Starts the order's workflow in the same round trip where nobody has yet.
        """
        start = WithStartWorkflowOperation(
            OrderWorkflow.run,
            self._input(order),
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            **self._options(order),
        )
        try:
            async with asyncio.timeout(timeout):
                with trace_of(order.traceparent):
                    await self._client.execute_update_with_start_workflow(  # pyright: ignore[reportUnknownMemberType]
                        OrderWorkflow.payment_known,
                        start_workflow_operation=start,
                        # One for all who wait: updates in flight are limited, and cancel needs room.
                        id="payment-known",
                        rpc_timeout=timedelta(seconds=timeout),
                    )
        except (TimeoutError, TemporalError, *_AWAY):
            return

    async def cancel(
        self,
        order_id: str,
        *,
        by: Literal["customer", "operator"],
        actor: str,
        if_version: int | None = None,
        note: str = "",
    ) -> None:
        """Cancel an order; with `if_version` only where that is still the version that readers are shown.

        Repeating it is harmless. Raises `TooLate`, also for whatever has ended, `PreconditionFailed`,
        `EngineUnavailable`.
        """
        request = CancelOrder(reason=CancelReason(by), actor=actor, if_version=if_version, note=note)
        await self._tell(order_id, OrderWorkflow.cancel, request, refused=TooLate)

    async def delivered(self, order_id: str) -> None:
        """The carrier handed an order over. Raises `NotDeliverable`, `EngineUnavailable`."""
        await self._tell(order_id, OrderWorkflow.delivered, refused=NotDeliverable)

    async def settle(
        self, order_id: str, *, step: str, action: Literal["retry", "skip"], actor: str, reason: str
    ) -> None:
        """Settle a stuck compensation. Raises `NotStuck`, `EngineUnavailable`."""
        settlement = SettleCompensation(undo=step, action=action, actor=actor, reason=reason)
        await self._tell(order_id, OrderWorkflow.settle, settlement, refused=NotStuck)

    async def waive_coupon(self, order_id: str, *, actor: str, reason: str) -> None:
        """Let an order go on without the coupon that it waits for. Raises `NotWaiting`, `EngineUnavailable`."""
        waiver = WaiveCoupon(actor=actor, reason=reason)
        await self._tell(order_id, OrderWorkflow.waive_coupon, waiver, refused=NotWaiting)

    async def clear_attention(self, order_id: str, *, actor: str, reason: str, about: str = "") -> None:
        """Note that a person has seen to what an order was flagged for: to this, or to everything.

        Raises `NotFlagged`, `EngineUnavailable`.
        """
        clearance = ClearAttention(actor=actor, reason=reason, about=about)
        await self._tell(order_id, OrderWorkflow.clear_attention, clearance, refused=NotFlagged)

    async def _tell(
        self, order_id: str, update: Any, *arguments: Any, refused: type[Refused], again: bool = False
    ) -> None:
        """Send an update and wait for its answer; a workflow that has ended refuses everything."""
        handle = self._client.get_workflow_handle(order_id)
        try:
            async with asyncio.timeout(self._rpc_timeout.total_seconds()):  # the SDK itself repeats for longer
                await handle.execute_update(  # pyright: ignore[reportUnknownMemberType]  (the SDK's type)
                    update, args=list(arguments), rpc_timeout=self._rpc_timeout
                )
        except WorkflowUpdateFailedError as error:
            code = error.cause.type if isinstance(error.cause, ApplicationError) else None
            for refusal in (refused, PreconditionFailed):
                if code == refusal.code:
                    raise refusal(order_id) from error
            raise
        except (UpdateTimeout, TimeoutError) as error:
            raise EngineUnavailable("no worker took the message in time") from error
        except _AWAY as error:
            if isinstance(error, RPCError) and error.status == RPCStatusCode.NOT_FOUND:
                # It has ended, or it was accepted so lately that it had not started.
                status = await self._status(order_id)
                if status is None or (again and status == WorkflowExecutionStatus.RUNNING):
                    raise EngineUnavailable("the order's workflow has not started yet") from error
                if status not in (WorkflowExecutionStatus.RUNNING, WorkflowExecutionStatus.COMPLETED):
                    raise EngineUnavailable("somebody ended the order's workflow; it will be taken up") from error
                if status == WorkflowExecutionStatus.RUNNING:  # it has started since
                    return await self._tell(order_id, update, *arguments, refused=refused, again=True)
                raise refused(order_id) from error
            raise EngineUnavailable(str(error)) from error

    async def _status(self, order_id: str) -> WorkflowExecutionStatus | None:
        """Where an order's workflow stands for the engine; nothing while there is none."""
        try:
            found = await self._client.get_workflow_handle(order_id).describe(rpc_timeout=self._rpc_timeout)
        except _AWAY as error:
            if isinstance(error, RPCError) and error.status == RPCStatusCode.NOT_FOUND:
                return None
            raise EngineUnavailable(str(error)) from error
        return found.status

    def _input(self, order: Order, resumed: Resumed | None = None) -> PlaceOrder:
        return PlaceOrder(
            order_id=order.order_id,
            user_id=order.user_id,
            product_id=order.product_id,
            product_name=order.product_name,
            qty=order.qty,
            amount=order.amount,
            currency=order.currency,
            payment_method=order.payment_method,
            deliver_within=self._delivery_deadline,
            pay_within=self._payment_budget,
            link=self._order_link.replace("{orderId}", order.order_id),
            resumed=resumed,
        )

    @staticmethod
    def _options(
        order: Order,
        resumed: Resumed | None = None,
        *,
        reuse: WorkflowIDReusePolicy = WorkflowIDReusePolicy.REJECT_DUPLICATE,
    ) -> dict[str, Any]:
        amount = format_amount(order.amount, order.currency)
        state = resumed.state if resumed else OrderState()
        more: list[SearchAttributePair[Any]] = []
        if state.cancel_reason is not None:
            more.append(SearchAttributePair(CANCEL_REASON, state.cancel_reason))
        if state.order_status is OrderStatus.ORDER_CANCELING:
            more.append(SearchAttributePair(CANCELING_SINCE, utc_now()))
        return {
            **({"memo": {"traceparent": order.traceparent}} if order.traceparent else {}),
            "id": order.order_id,
            "task_queue": ORDER_QUEUE,
            "id_reuse_policy": reuse,
            "static_summary": f"{order.product_name} × {order.qty} · {amount} · {order.user_id}",
            "search_attributes": TypedSearchAttributes(
                [
                    SearchAttributePair(ORDER_STATUS, state.order_status),
                    SearchAttributePair(CUSTOMER_ID, order.user_id),
                    SearchAttributePair(PRODUCT_ID, order.product_id),
                    SearchAttributePair(NEEDS_ATTENTION, state.needs_attention),
                    *more,
                ]
            ),
        }
