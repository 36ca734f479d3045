"""A namespace gets the search attributes that it lacks, also one that was made by an earlier release."""

import pytest
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.client import Client

from deploy.namespace import register
from deploy.stack import StackError
from tests.engines import real_engine
from workflows.messages import SEARCH_ATTRIBUTES


async def names(client: Client) -> set[str]:
    request = ListSearchAttributesRequest(namespace=client.namespace)
    return {*(await client.operator_service.list_search_attributes(request)).custom_attributes}


async def test_what_is_lacking_is_registered_and_what_is_there_is_left_alone() -> None:
    async with real_engine(attributes={"OrderStatus": "Keyword"}) as engine:
        assert {*await register(engine.client)} == {*SEARCH_ATTRIBUTES} - {"OrderStatus"}
        assert {*SEARCH_ATTRIBUTES} <= await names(engine.client)
        assert await register(engine.client) == []


async def test_one_of_another_type_is_told() -> None:
    async with real_engine(attributes={"CancelingSince": "Keyword"}) as engine:
        with pytest.raises(StackError, match="CancelingSince is Keyword, and the shop needs Datetime"):
            await register(engine.client)
