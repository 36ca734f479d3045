"""The schedule is there once, as it is set; an operator's pause is kept; and there is one run at a time."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import timedelta
from itertools import count

import pytest
from temporalio.client import Client, ScheduleActionStartWorkflow, ScheduleDescription
from temporalio.testing import WorkflowEnvironment

from tests.engines import real_engine
from tests.reconciliation.fakes import Stores, working
from tests.saga.stage import street
from workflows.client import EngineUnavailable
from workflows.reconciling import SCHEDULE, ReconciliationSchedule

HOUR = timedelta(hours=1)
NAMESPACES = tuple(f"shop-{number}" for number in range(1, 8))
_next = count()


@pytest.fixture(scope="module")
async def engine() -> AsyncGenerator[WorkflowEnvironment]:
    async with real_engine(namespaces=NAMESPACES) as environment:
        yield environment


@pytest.fixture
async def client(engine: WorkflowEnvironment) -> Client:
    """Of a namespace that no other test has."""
    return await street(engine, NAMESPACES[next(_next)])


async def scheduled(client: Client) -> ScheduleDescription:
    return await client.get_schedule_handle(SCHEDULE).describe()


def setting(found: ScheduleDescription) -> tuple[timedelta, float]:
    """How often it runs, and how far it looks back."""
    action = found.schedule.action
    assert isinstance(action, ScheduleActionStartWorkflow)
    [payload] = action.args
    days = payload.data.decode()  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue, reportUnknownVariableType]
    return found.schedule.spec.intervals[0].every, float(days.split('"days":')[1].split(",")[0])


async def test_many_workers_at_once_make_one_schedule(client: Client) -> None:
    schedules = [ReconciliationSchedule(client) for _ in range(5)]
    await asyncio.gather(*(schedule.ensure(every=HOUR, days=30) for schedule in schedules))
    assert [one.id async for one in await client.list_schedules()] in ([SCHEDULE], [])  # listed a little later
    assert setting(await scheduled(client)) == (HOUR, 30.0)


async def test_a_changed_setting_is_taken_over(client: Client) -> None:
    schedule = ReconciliationSchedule(client)
    await schedule.ensure(every=HOUR, days=30)
    await schedule.ensure(every=timedelta(minutes=30), days=7)
    assert setting(await scheduled(client)) == (timedelta(minutes=30), 7.0)


async def test_an_operators_pause_is_kept(client: Client) -> None:
    schedule = ReconciliationSchedule(client)
    await schedule.ensure(every=HOUR, days=30)
    await client.get_schedule_handle(SCHEDULE).pause(note="the delivery team is counting")
    await schedule.ensure(every=timedelta(minutes=30), days=30)
    state = (await scheduled(client)).schedule.state
    assert (state.paused, state.note) == (True, "the delivery team is counting")


async def test_before_there_is_a_schedule_nothing_can_be_triggered(client: Client) -> None:
    with pytest.raises(EngineUnavailable):
        await ReconciliationSchedule(client).trigger()


async def test_two_runs_never_overlap(client: Client) -> None:
    stores = Stores()
    schedule = ReconciliationSchedule(client)
    await schedule.ensure(every=HOUR, days=30)
    assert await schedule.trigger()  # no worker is there yet: the run waits
    async with asyncio.timeout(30):
        while not (await scheduled(client)).info.running_actions:  # noqa: ASYNC110  (there is no event to await)
            await asyncio.sleep(0.05)
    assert not await schedule.trigger()
    await client.get_schedule_handle(SCHEDULE).trigger()  # as in the Web UI
    async with working(client, stores):
        async with asyncio.timeout(30):
            while not any(report.finished for report in stores.reports):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    assert len({report.reconciliation_id for report in stores.reports}) == 1


async def test_an_engine_that_is_away_holds_no_worker_up(
    engine: WorkflowEnvironment, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workflows.reconciling._AGAIN_SECONDS", 0.05)
    schedule = ReconciliationSchedule(client)
    create, away = client.create_schedule, [True, True]

    async def sometimes(*given: object, **more: object) -> object:
        if away:
            away.pop()
            raise RuntimeError("away")
        return await create(*given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(client, "create_schedule", sometimes)
    async with asyncio.timeout(30):
        await schedule.keep(every=HOUR, days=30)
    assert setting(await scheduled(client))[0] == HOUR
    assert not away
