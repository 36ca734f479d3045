"""Gives the engine's namespace the search attributes that orders are found by: `python -m deploy.namespace`.

Before the release that sets them, and as often as you like. The standard `TEMPORAL_*` variables say which engine.
"""

import asyncio
import sys

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.service import RPCError

from deploy.stack import StackError
from services.shared.process import end
from workflows.client import connect
from workflows.messages import SEARCH_ATTRIBUTES


async def register(client: Client) -> list[str]:
    """Register the search attributes that the namespace lacks, and say which.

    Raises `StackError` where the engine refuses, or has one of the same name that is of another type.
    """
    wanted = {
        name: IndexedValueType.Value(f"INDEXED_VALUE_TYPE_{kind.upper()}") for name, kind in SEARCH_ATTRIBUTES.items()
    }
    try:
        listed = ListSearchAttributesRequest(namespace=client.namespace)
        known = (await client.operator_service.list_search_attributes(listed)).custom_attributes
        for name, kind in wanted.items():
            if known.get(name, kind) != kind:
                raise StackError(
                    f"The search attribute {name} is {_called(known[name])}, and the shop needs {_called(kind)}:"
                    " rename or remove it, or use another namespace (TEMPORAL_NAMESPACE)."
                )
        lacking = {name: kind for name, kind in wanted.items() if name not in known}
        if lacking:
            await client.operator_service.add_search_attributes(
                AddSearchAttributesRequest(namespace=client.namespace, search_attributes=lacking)
            )
    except RPCError as error:
        raise StackError(f"The search attributes of {client.namespace} cannot be registered: {error}") from error
    return [*lacking]


def _called(kind: IndexedValueType.ValueType) -> str:
    return IndexedValueType.Name(kind).removeprefix("INDEXED_VALUE_TYPE_").capitalize()


async def _run() -> None:
    try:
        client = await connect(codec=None)
    except RuntimeError as error:  # what the SDK raises when it cannot connect
        raise StackError(f"The engine does not answer: {error}") from error
    added = await register(client)
    print(f"The namespace {client.namespace} has the search attributes of orders ({len(added)} new)", flush=True)


def main() -> int:
    """The process's exit status: 1 when something is missing still."""
    try:
        asyncio.run(_run())
    except StackError as error:
        print(f"street12: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    end(main())
