"""What sees to it that an order that was accepted is there, gets its workflow, and is not one too many."""

from tests.faults.mutants.mutant import Edit, Mutant, Tests
from tests.faults.mutants.runs import DATABASE_DIES

_REPOSITORY = "services/order/repository.py"

INTAKE = (
    Mutant(
        name="acceptance in one transaction",
        guards="what is refused leaves nothing behind",
        edits=(
            Edit(
                file="services/order/acceptance.py",
                old="            if not await self._admission.take(session, [one.order.order_id for one in orders]):\n"
                "                raise _Overtaken\n\n"
                "        await self._database.write(work)\n",
                new="\n"
                "        async def admit(session: repository.AsyncSession) -> None:\n"
                "            if not await self._admission.take(session, [one.order.order_id for one in orders]):\n"
                "                raise _Overtaken\n\n"
                "        await self._database.write(work)\n"
                "        await self._database.write(admit)\n",
            ),
        ),
        proofs=(
            Tests.of(
                "database/test_admission.py::test_of_all_who_ask_at_once_as_many_get_in_as_payments_may_be_in_flight"
            ),
        ),
    ),
    Mutant(
        name="the lock of the admission",
        guards="no more payments are in flight than may be",
        edits=(
            Edit(
                file=_REPOSITORY,
                old="statement.with_for_update() if lock else statement",
                new="statement",
            ),
        ),
        proofs=(
            Tests.of(
                "database/test_admission.py::test_of_all_who_ask_at_once_as_many_get_in_as_payments_may_be_in_flight"
            ),
        ),
    ),
    Mutant(
        name="the lock of a claim",
        guards="of all who sweep, one starts an order",
        edits=(Edit(file=_REPOSITORY, old="limit(limit).with_for_update(skip_locked=True)", new="limit(limit)"),),
        proofs=(Tests.of("database/test_dispatch.py::test_side_by_side_each_order_is_claimed_once"),),
    ),
    Mutant(
        name="the lease of a claim",
        guards="whoever claimed an order is left alone with it for a while",
        edits=(
            Edit(
                file=_REPOSITORY,
                old=".values(claimed_until=until)",
                new=".values(claimed_until=now)",
            ),
        ),
        proofs=(Tests.of("database/test_dispatch.py::test_a_claimed_order_is_held_for_a_lease"),),
    ),
    Mutant(
        name="what has started is claimed no more",
        guards="an order's workflow is started once",
        edits=(
            Edit(
                file=_REPOSITORY,
                old="where(col(Order.started_at).is_(None), col(Order.claimed_until) <= now)",
                new="where(col(Order.claimed_until) <= now)",
            ),
        ),
        proofs=(Tests.of("database/test_dispatch.py::test_an_order_is_claimed_when_its_lease_has_run_out"),),
    ),
    Mutant(
        name="the sweep",
        guards="an order that was accepted is never lost",
        edits=(
            Edit(
                file="worker.py",
                old="    await stack.enter_async_context(background(Dispatcher(inbox, engine.start)"
                ".sweep(rules.dispatch_seconds)))\n",
                new="",
            ),
        ),
        proofs=(
            Tests.of(
                "e2e/test_kills.py"
                "::test_an_accepted_order_is_started_once_though_its_api_dies_and_the_engine_was_away[sqlite]"
            ),
        ),
    ),
    Mutant(
        name="an order's id is used once",
        guards="an order that has ended is not begun again",
        edits=(
            Edit(
                file="workflows/client.py",
                old="WorkflowIDReusePolicy.REJECT_DUPLICATE",
                new="WorkflowIDReusePolicy.ALLOW_DUPLICATE",
            ),
        ),
        proofs=(Tests.of("saga/test_starting.py"),),
    ),
    Mutant(
        name="the version of a status",
        guards="nobody sees an order go back",
        edits=(
            Edit(
                file=_REPOSITORY,
                old='col(OrderView.order_id) == bindparam("moved"), col(OrderView.version) < bindparam("version")',
                new='col(OrderView.order_id) == bindparam("moved")',
            ),
        ),
        proofs=(Tests.of("database/test_order_book.py::test_a_late_record_fills_the_timeline_and_leaves_the_view"),),
    ),
    Mutant(
        name="a commit is on the disk before it is answered",
        guards="what was acknowledged survives the database server's death",
        edits=(
            Edit(
                file="deploy/mariadb.py",
                old='                "--skip-name-resolve",\n',
                new='                "--skip-name-resolve",\n                "--innodb-flush-log-at-trx-commit=0",\n',
            ),
        ),
        proofs=(DATABASE_DIES,),
    ),
)
