"""The engine's namespace is made where there is none, and gets what it lacks, also one that an earlier release made."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from typing import Any, NoReturn

import pytest
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import WorkflowEnvironment

from deploy.namespace import chosen_retention, needed_retention, open_namespace, register
from deploy.stack import HOST, StackError, take_ports
from services.shared.settings import NamespaceSettings, OrderSettings
from tests.engines import real_engine
from workflows.messages import SEARCH_ATTRIBUTES

DAY = 24 * 60 * 60


async def names(client: Client) -> set[str]:
    request = ListSearchAttributesRequest(namespace=client.namespace)
    return {*(await client.operator_service.list_search_attributes(request)).custom_attributes}


async def kept_seconds(client: Client, namespace: str) -> int:
    known = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=namespace))
    return known.config.workflow_execution_retention_ttl.seconds


@pytest.fixture(scope="module")
async def engine() -> AsyncIterator[WorkflowEnvironment]:
    """With a namespace `default` that has one of the attributes."""
    async with real_engine(attributes={"OrderStatus": "Keyword"}) as engine:
        yield engine


async def run(engine: str, namespace: str, *arguments: str, **settings: str) -> tuple[int, str]:
    """The command as somebody runs it: its exit status, and what it says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.namespace", *arguments),
        env={**os.environ, "TEMPORAL_ADDRESS": engine, "TEMPORAL_NAMESPACE": namespace, **settings},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


def of(engine: WorkflowEnvironment) -> str:
    return engine.client.service_client.config.target_host


def at(engine: WorkflowEnvironment, namespace: str) -> Client:
    """A client of another namespace of the same engine."""
    return Client(engine.client.service_client, namespace=namespace)


class Refusing:
    """Somebody else's business, as on Temporal Cloud: whatever is asked of it is refused."""

    def __init__(self, status: RPCStatusCode) -> None:
        self.status = status

    async def __call__(self, *_: Any, **__: Any) -> NoReturn:
        raise RPCError("Request unauthorized.", self.status, b"")


@pytest.fixture(params=[RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNIMPLEMENTED])
def refusing(request: pytest.FixtureRequest) -> Refusing:
    return Refusing(request.param)


async def test_what_is_lacking_is_registered_and_what_is_there_is_left_alone(engine: WorkflowEnvironment) -> None:
    assert {*await register(engine.client)} == {*SEARCH_ATTRIBUTES} - {"OrderStatus"}
    assert {*SEARCH_ATTRIBUTES} <= await names(engine.client)
    assert await register(engine.client) == []


async def test_one_of_another_type_is_told() -> None:
    async with real_engine(attributes={"CancelingSince": "Keyword"}) as engine:
        with pytest.raises(StackError, match="CancelingSince is Keyword, and the shop needs Datetime"):
            await register(engine.client)


async def test_a_missing_namespace_is_made_and_can_be_used_at_once(engine: WorkflowEnvironment) -> None:
    status, said = await run(of(engine), "made")
    assert status == 0, said
    assert "made is made" in said
    assert await kept_seconds(engine.client, "made") == 37 * DAY
    assert await at(engine, "made").count_workflows("NeedsAttention = true AND OrderStatus = 'OrderPlaced'")
    assert await run(of(engine), "made") == (
        0,
        "The namespace made is there, and has the search attributes of orders (0 new)\n",
    )


async def test_several_at_once_make_one_namespace(engine: WorkflowEnvironment) -> None:
    client = at(engine, "contended")

    async def set_up() -> bool:
        is_new, days = await open_namespace(client, 40)
        await register(client)
        assert days == 40
        return is_new

    made = await asyncio.gather(*(set_up() for _ in range(8)))
    assert made.count(True) == 1
    assert {*SEARCH_ATTRIBUTES} <= await names(client)
    assert await kept_seconds(client, "contended") == 40 * DAY


async def test_an_existing_namespace_keeps_its_retention_and_a_short_one_is_told(engine: WorkflowEnvironment) -> None:
    await open_namespace(at(engine, "brief"), 30)
    status, said = await run(of(engine), "brief")
    assert status == 0, said
    assert "forgets what ended more than 30 days ago" in said
    assert "tcld namespace retention set --namespace brief --retention-days 31" in said
    assert await kept_seconds(engine.client, "brief") == 30 * DAY
    assert "forgets" not in (await run(of(engine), "brief", STREET12_RECONCILE_DAYS="29"))[1]


async def test_a_short_retention_is_lengthened_where_that_is_asked_for(engine: WorkflowEnvironment) -> None:
    await open_namespace(at(engine, "lengthened"), 1)
    status, said = await run(of(engine), "lengthened", "--lengthen-retention")
    assert (status, "forgets" in said) == (0, False), said
    assert await kept_seconds(engine.client, "lengthened") == 37 * DAY


def test_the_retention_covers_what_the_reconciliation_looks_back() -> None:
    days = OrderSettings().reconcile_days
    assert chosen_retention(NamespaceSettings(), days) > needed_retention(days) > days
    assert chosen_retention(NamespaceSettings(retention_days=90), days) == 90
    with pytest.raises(StackError, match=r"RETENTION_DAYS is 30, and .* needs 31"):
        chosen_retention(NamespaceSettings(retention_days=30), 30)


async def test_an_engine_that_is_away_is_told() -> None:
    status, said = await run(f"{HOST}:{take_ports({'': 0})['']}", "default")
    assert (status, said.startswith("street12: The engine cannot be reached")) == (1, True), said


async def test_a_namespace_that_is_not_ours_to_make_is_told(
    engine: WorkflowEnvironment, refusing: Refusing, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = at(engine, "shop.a1b2c")
    monkeypatch.setattr(client.workflow_service, "register_namespace", refusing)
    with pytest.raises(StackError, match="tcld namespace create --namespace shop --region REGION") as told:
        await open_namespace(client, 37)
    assert '--retention-days 37 --search-attribute "OrderStatus=Keyword"' in str(told.value)


async def test_where_attributes_are_somebody_elses_they_are_asked_for_by_using_them(
    engine: WorkflowEnvironment, refusing: Refusing, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = at(engine, f"there-{refusing.status.name.lower().replace('_', '-')}")
    await open_namespace(there, 37)
    for call in ("list_search_attributes", "add_search_attributes"):
        monkeypatch.setattr(there.operator_service, call, refusing)
    with pytest.raises(StackError) as told:
        await register(there)
    command = f"tcld namespace search-attributes add --namespace {there.namespace}"
    assert f'{command} --search-attribute "OrderStatus=Keyword"' in str(told.value)
    assert str(told.value).count("--search-attribute ") == len(SEARCH_ATTRIBUTES)
    monkeypatch.undo()
    await register(there)
    for call in ("list_search_attributes", "add_search_attributes"):
        monkeypatch.setattr(there.operator_service, call, refusing)
    assert await register(there) == []


async def test_attributes_that_may_be_listed_and_not_added_are_told(
    refusing: Refusing, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with real_engine(attributes={"OrderStatus": "Keyword"}) as engine:
        monkeypatch.setattr(engine.client.operator_service, "add_search_attributes", refusing)
        with pytest.raises(StackError, match="lacks CustomerId, ProductId, "):
            await register(engine.client)


async def test_an_attribute_of_another_type_is_found_by_using_it_too(
    refusing: Refusing, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = {**SEARCH_ATTRIBUTES, "NeedsAttention": "Keyword", "CancelReason": "Bool"}
    async with real_engine(attributes=wrong) as engine:
        monkeypatch.setattr(engine.client.operator_service, "list_search_attributes", refusing)
        with pytest.raises(StackError, match="lacks NeedsAttention, CancelReason, or has them of another type"):
            await register(engine.client)
