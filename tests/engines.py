"""The engines that tests run on: the real server, and one that skips time. Both are this process's own."""

import sys
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.common import SearchAttributeKey
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment

from workflows.messages import SEARCH_ATTRIBUTES

_KEYS: dict[str, Callable[[str], SearchAttributeKey[Any]]] = {
    "Keyword": SearchAttributeKey.for_keyword,
    "Bool": SearchAttributeKey.for_bool,
    "Datetime": SearchAttributeKey.for_datetime,
}


@asynccontextmanager
async def real_engine(
    *,
    identity: str | None = None,
    namespaces: Iterable[str] = (),
    attributes: Mapping[str, str] = SEARCH_ATTRIBUTES,
    more: Iterable[str] = (),
) -> AsyncGenerator[WorkflowEnvironment]:
    """The real server: what happens when a cancel meets a completion is its doing, and the test server's differs.

    `identity` is what histories call its client and workers; otherwise they are called by process and machine.
    Besides `default` it has these `namespaces`, each as good as a server of its own; all with the search `attributes`.
    `more` is what the server is started with besides.
    """
    async with await WorkflowEnvironment.start_local(  # pyright: ignore[reportUnknownMemberType]  (the SDK's type)
        dev_server_existing_path=_binary("temporal"),
        data_converter=pydantic_data_converter,
        search_attributes=[_KEYS[kind](name) for name, kind in attributes.items()],
        dev_server_log_level="error",
        dev_server_extra_args=[*(part for name in namespaces for part in ("--namespace", name)), *more],
        identity=identity,
    ) as environment:
        yield environment


@asynccontextmanager
async def skipping_engine(*, identity: str | None = None) -> AsyncGenerator[WorkflowEnvironment]:
    """The time-skipping server, for what takes hours and days. One clock for all that runs on it."""
    async with await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=_binary("temporal-test-server"),
        data_converter=pydantic_data_converter,
        identity=identity,
    ) as environment:
        await environment.client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(
                namespace="default",
                search_attributes={
                    name: IndexedValueType.Value(f"INDEXED_VALUE_TYPE_{kind.upper()}")
                    for name, kind in SEARCH_ATTRIBUTES.items()
                },
            )
        )
        yield environment


def _binary(name: str) -> str:
    return str(Path(sys.executable).with_name(name))
