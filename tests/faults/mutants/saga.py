"""What the workflow sees to: no step's outcome is lost, and whatever was begun is undone."""

from tests.faults.mutants.mutant import Edit, Mutant, Tests
from tests.faults.mutants.runs import SHORT

_ORDER = "workflows/order.py"
_LOST = "faults/test_lost_decisions.py::test_what_is_written_down_is_decided_for_good"
_SAGA = "saga/test_order_saga.py::"
_OPERATORS = "saga/test_operators.py::"
_RESUMED = "saga/test_resumed.py::"
_SITUATION = "saga/test_every_situation.py::test_an_order_ends_with_all_effects_or_none[steady-"

SAGA = (
    Mutant(
        name="compensation registered before the step",
        guards="a step that took effect and still failed is undone",
        edits=(
            Edit(
                file=_ORDER,
                old="            self._begun.append(step)  # before the step: it may take effect and still fail\n",
                new="            pass\n",
            ),
            Edit(
                file=_ORDER,
                old="            changes = step.achieved(activity.result())\n",
                new="            changes = step.achieved(activity.result())\n            self._begun.append(step)\n",
            ),
        ),
        proofs=(
            Tests.of(f"{_SITUATION}pay_order: canceled while it waits to be repeated]"),
            SHORT,
        ),
    ),
    Mutant(
        name="the shield around the story",
        guards="a Request Cancellation loses no step's outcome",
        edits=(Edit(file=_ORDER, old="await asyncio.shield(story)", new="await story"),),
        proofs=(Tests.of(f"{_SITUATION}issue_coupon: operator cancels as it completes]"),),
    ),
    Mutant(
        name="a withdrawn step is waited for",
        guards="a step's true outcome is known before anything is undone",
        edits=(
            Edit(
                file=_ORDER,
                old="cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED",
                new="cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL",
            ),
        ),
        proofs=(Tests.of(f"{_SITUATION}issue_coupon: customer cancels during]"),),
    ),
    Mutant(
        name="an undo that failed for good waits for a person",
        guards="no order reads as cancelled while something of it stands that nobody decided on",
        edits=(
            Edit(
                file=_ORDER,
                old='                if await self._settled(step) == "skip":\n                    break\n',
                new="                break\n",
            ),
        ),
        proofs=(Tests.of(f"{_SITUATION}issue_coupon: its undo fails for good]"),),
    ),
    Mutant(
        name="a status write is repeated by the server",
        guards="the customer sees where the order stands, however long the database was away",
        edits=(
            Edit(
                file="workflows/journal.py",
                old="except FailureError:  # a local activity fails with its bare cause\n                pass\n",
                new="except FailureError:\n                return True\n",
            ),
        ),
        proofs=(Tests.of(f"{_SAGA}test_a_failing_status_write_kills_no_order_and_loses_no_entry"),),
    ),
    Mutant(
        name="what a message decided is written once it is remembered",
        guards="nobody is told what the engine then forgets",
        edits=(Edit(file="workflows/journal.py", old="self._undecided = True", new="self._undecided = False"),),
        proofs=(Tests.of("faults/test_lost_decisions.py"),),
    ),
    Mutant(
        name="a message is heeded in its turn",
        guards="what was told of an order stays as it was told",
        edits=(
            Edit(
                file=_ORDER,
                old='await workflow.execute_local_activity("take_turn", start_to_close_timeout=limit, summary=why)',
                new="pass",
            ),
        ),
        proofs=(Tests.of("faults/test_lost_decisions.py"),),
    ),
    Mutant(
        name="what may be allowed in its turn is not refused before",
        guards="a carrier is not sent back with goods that were on their way",
        edits=(
            Edit(
                file=_ORDER,
                old="if self._cancel is not None or steps.SAGA[-1] not in self._begun:",
                new="if self._journal.state.order_status not in (OrderStatus.DELIVERY_STARTED, OrderStatus.DELIVERED):",
            ),
        ),
        proofs=(
            Tests.of(f"{_SAGA}test_delivered_is_heeded_though_it_is_told_together_with_the_end_of_the_last_step"),
            Tests.of(f"{_LOST}[None-StockAdjusted-delivered]"),
        ),
    ),
    Mutant(
        name="messages have their turns one after the other",
        guards="of delivered and cancelled the first wins",
        edits=(Edit(file=_ORDER, old="async with self._turn:", new="async with asyncio.Lock():"),),
        proofs=(Tests.of(f"{_SAGA}test_of_delivered_and_cancelled_in_one_activation_the_first_wins"),),
    ),
    Mutant(
        name="delivered is refused once it is cancelled",
        guards="delivered and cancelled cannot both win",
        edits=(
            Edit(
                file=_ORDER,
                old="if self._journal.state.order_status not in (OrderStatus.DELIVERY_STARTED, OrderStatus.DELIVERED):",
                new="if self._journal.state.order_status is OrderStatus.PAYMENT_DECLINED:",
            ),
        ),
        proofs=(Tests.of(f"{_SAGA}test_of_delivered_and_cancelled_in_one_activation_the_first_wins[cancelled]"),),
    ),
    Mutant(
        name="cancel is refused once it is delivered",
        guards="nobody is promised their money back for what they keep",
        edits=(
            Edit(
                file=_ORDER,
                old="        if self._delivered or self._journal.state.order_status.final:\n            raise",
                new="        if self._journal.state.order_status is OrderStatus.PAYMENT_DECLINED:\n            raise",
            ),
        ),
        proofs=(Tests.of(f"{_SAGA}test_delivered_and_cancelled_cannot_both_win"),),
    ),
    Mutant(
        name="a waived coupon is revoked",
        guards="an order that goes on without its coupon has none, whatever an attempt did that the engine gave up",
        edits=(
            Edit(
                file=_ORDER,
                old="            self._begin_undo(step)  # an attempt may have issued it all the same, or still may\n",
                new="            pass\n",
            ),
        ),
        proofs=(
            Tests.of(f"{_OPERATORS}test_a_coupon_that_is_just_being_issued_while_it_is_waived_is_revoked"),
            Tests.of(
                f"{_OPERATORS}test_an_order_whose_coupon_is_waived_is_delivered_while_marketing_is_away_and_never_gets_one"
            ),
        ),
    ),
    Mutant(
        name="a flagged order stays open",
        guards="what an order was flagged for can be cleared, and is found until then",
        edits=(
            Edit(
                file=_ORDER,
                old='if not self._attention or not workflow.patched("flagged-orders-stay-open"):',
                new="if True:",
            ),
        ),
        proofs=(Tests.of(f"{_OPERATORS}test_an_order_that_ended_flagged_stays_open_until_a_person_has_seen_to_it"),),
    ),
    Mutant(
        name="a resumed order knows what is done",
        guards="nothing is told twice, and what is known to be done is not asked for again",
        edits=(
            Edit(
                file=_ORDER,
                old="self._begun = [step for step in steps.SAGA if step.done in self._earlier]",
                new="self._begun = list[Step]()",
            ),
        ),
        proofs=(
            Tests.of(
                f"{_RESUMED}test_an_order_that_the_engine_lost_goes_on_where_it_stood[adjust_stock-after the effect]"
            ),
        ),
    ),
    Mutant(
        name="an order that came to its own end is not taken up",
        guards="an order that was read a moment before its end is not undone after it",
        edits=(
            Edit(
                file="workflows/client.py",
                old="self._options(order, resumed, reuse=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY)",
                new="self._options(order, resumed, reuse=WorkflowIDReusePolicy.ALLOW_DUPLICATE)",
            ),
        ),
        proofs=(Tests.of(f"{_RESUMED}test_an_order_that_runs_or_has_come_to_its_own_end_is_left_alone"),),
    ),
    Mutant(
        name="a terminated order is undone",
        guards="nothing stays of an order whose workflow somebody terminated",
        edits=(
            Edit(
                file=_ORDER,
                old="if status.final or (not canceling and not resumed.undo):",
                new="if status.final or not canceling:",
            ),
        ),
        proofs=(Tests.of(f"{_RESUMED}test_an_order_under_way_that_is_terminated_is_undone"),),
    ),
)
