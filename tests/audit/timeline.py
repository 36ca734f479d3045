"""What the saga allows on an order's timeline, and the status that each timeline comes to.

Steps, undos and their sequence are the saga's own table: a new step is covered without a change here.
"""

from collections.abc import Sequence

from services.order.statuses import EventType, OrderStatus
from workflows.steps import SAGA

_DONE = [str(step.done) for step in SAGA]
_COUPON = str(EventType.COUPON_ISSUED)
# What may still be told of an order that has ended: the undo of a waived coupon, and what a person is called for.
_AFTERWARDS = {
    EventType.ATTENTION_RAISED,
    EventType.ATTENTION_CLEARED,
    EventType.COUPON_REVOKED,
    EventType.COMPENSATION_RETRIED,
    EventType.COMPENSATION_SKIPPED,
}
_UNDONE = [str(step.undone) for step in SAGA]
_ENDS = {
    EventType.DELIVERED: OrderStatus.DELIVERED,
    EventType.PAYMENT_DECLINED: OrderStatus.PAYMENT_DECLINED,
    EventType.ORDER_CANCELED: OrderStatus.ORDER_CANCELED,
}
# What the order reads once a step is done. The delivery reads as started when the goods are out of stock, too.
_READS = {
    EventType.ORDER_PLACED: OrderStatus.ORDER_PLACED,
    EventType.COUPON_ISSUED: OrderStatus.COUPON_ISSUED,
    EventType.STOCK_ADJUSTED: OrderStatus.DELIVERY_STARTED,
}


def status_after(types: Sequence[str]) -> OrderStatus:
    """What an order reads after these events."""
    status = OrderStatus.ORDER_RECEIVED
    for place, type in enumerate(types):
        if type == _COUPON and EventType.COUPON_WAIVED in types[:place]:
            continue
        if type in _ENDS:
            status = _ENDS[EventType(type)]
        elif type == EventType.ORDER_CANCELING:
            status = OrderStatus.ORDER_CANCELING
        elif type in _READS and status is not OrderStatus.ORDER_CANCELING:  # a step that was under way may still end
            status = _READS[EventType(type)]
    return status


def impossible(types: Sequence[str], skipped: frozenset[str] = frozenset()) -> str | None:
    """The first thing on a timeline that the saga does not do; nothing where there is none.

    `skipped` are the undos that the timeline says an operator did without.
    """
    done, undone = list[str](), set[str]()
    canceling = attention = late = waived = False
    end: str | None = None
    for place, type in enumerate(types, start=1):
        where = f"{type} as version {place}"
        if (place == 1) != (type == EventType.ORDER_RECEIVED):
            return f"{where}: OrderReceived is the first event, and no other"
        undoing = canceling or (waived and type == EventType.COUPON_REVOKED)
        if end is not None and type not in _AFTERWARDS:
            return f"{where}: nothing happens after {end}"
        if type in _DONE:
            before = _DONE[: _DONE.index(type)]
            if done not in (before, [step for step in before if not (waived and step == _COUPON)]):
                return f"{where}: the steps done before it are {done or 'none'}"
            if canceling and late:
                return f"{where}: no further step begins after OrderCanceling"
            late = canceling
            done.append(type)
        elif type in _UNDONE:
            if not undoing or type in undone or (end is not None and not waived):
                return f"{where}: an undo comes after OrderCanceling, and once"
            if _UNDONE.index(type) > len(done) + waived:
                return f"{where}: its step had not begun"
            undone.add(type)
        elif type == EventType.COUPON_WAIVED:
            if done != _DONE[: _DONE.index(_COUPON)] or canceling or waived:
                return f"{where}: only an order that waits for its coupon goes on without"
            waived = True
        elif type == EventType.ORDER_CANCELING:
            if canceling:
                return f"{where}: it was being cancelled already"
            canceling = True
        elif type in (EventType.COMPENSATION_RETRIED, EventType.COMPENSATION_SKIPPED):
            if not (canceling or waived) or not attention:
                return f"{where}: only an undo that needed attention is settled"
        elif type == EventType.ATTENTION_RAISED:
            attention = True
        elif type == EventType.ATTENTION_CLEARED:
            if not attention:
                return f"{where}: there was nothing to clear"
        elif type in _ENDS:
            if type == EventType.DELIVERED and (canceling or done[-1:] != _DONE[-1:]):
                return f"{where}: only what was sent, and not cancelled, is delivered"
            if type == EventType.PAYMENT_DECLINED and done:
                return f"{where}: the payment had succeeded"
            if type == EventType.ORDER_CANCELED:
                if not canceling:
                    return f"{where}: it was not being cancelled"
                left = [
                    step.done
                    for step in SAGA
                    if step.done in done and not {step.undone, step.undo} & {*undone, *skipped}
                ]
                if left:
                    return f"{where}: never undone are {', '.join(left)}"
            end = type
        elif type != EventType.ORDER_RECEIVED:
            return f"{where}: the saga has no such event"
    return None
