"""Sets up the engine's namespace for the shop: `python -m deploy.namespace`.

Makes it where there is none, and gives it the search attributes that orders are found by: before the release that needs
them, as often as you like, and by several at once. The standard `TEMPORAL_*` variables say which engine and namespace.
Where the engine leaves that to others (Temporal Cloud does), it looks whether they did it, and says what is left.
"""

import argparse
import asyncio
import math
import sys
import time
from collections.abc import Awaitable, Callable, Collection
from datetime import timedelta
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.namespace.v1 import NamespaceConfig
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    RegisterNamespaceRequest,
    UpdateNamespaceRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from deploy.stack import StackError, read_settings
from services.shared.process import end
from services.shared.settings import NamespaceSettings, OrderSettings
from workflows.client import connect
from workflows.messages import SEARCH_ATTRIBUTES

T = TypeVar("T")
_RPC = timedelta(seconds=10)
_PATIENCE_SECONDS = 60.0
"""What is made at one of the engine's servers, the others come to know within seconds; a minute is a lot."""
_AGAIN_SECONDS = 0.25
_MARGIN_DAYS, _NEEDED_MARGIN_DAYS = 7, 1
# What somebody is told who may not set things up here, or where nobody may: Temporal Cloud has other doors for it.
_LEFT_TO_OTHERS = frozenset({RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNIMPLEMENTED})
_REFUSED = _LEFT_TO_OTHERS | {RPCStatusCode.UNAUTHENTICATED}
# A condition that is refused where the attribute is not there, or is of another type.
_CONDITIONS = {"Keyword": "{} STARTS_WITH 'x'", "Bool": "{} = true", "Datetime": "{} > '2000-01-01T00:00:00Z'"}


def needed_retention(reconcile_days: float) -> int:
    """How many days an ended workflow must be kept so that the reconciliation of so many days sees it.

    Where it is forgotten and its order reads as open (after a restore of the order database, say), it is taken for
    lost: another goes on, also with an order that had been cancelled, instead of the view being brought up to date.
    """
    return math.ceil(reconcile_days) + _NEEDED_MARGIN_DAYS


def chosen_retention(settings: NamespaceSettings, reconcile_days: float) -> int:
    """How many days a new namespace keeps ended workflows. Raises `StackError` where that was set too short."""
    needed = needed_retention(reconcile_days)
    chosen = settings.retention_days or math.ceil(reconcile_days) + _MARGIN_DAYS
    if chosen < needed:
        raise StackError(
            f"STREET12_NAMESPACE_RETENTION_DAYS is {chosen}, and the reconciliation of {reconcile_days:g} days"
            f" (STREET12_RECONCILE_DAYS) needs {needed}: set one of them otherwise."
        )
    return chosen


async def open_namespace(client: Client, days: int) -> tuple[bool, float]:
    """Make the client's namespace unless it is there. Says whether it is new, and how many days it keeps what ended.

    Raises `StackError`, also where it is missing and not to be made here.
    """
    namespace = client.namespace
    try:
        known = await _described(client)
        if known is not None:
            return False, known
        await client.workflow_service.register_namespace(
            RegisterNamespaceRequest(namespace=namespace, workflow_execution_retention_period=_days(days)), timeout=_RPC
        )
    except RPCError as error:
        if error.status == RPCStatusCode.ALREADY_EXISTS:  # somebody made it just now
            return False, float(days)
        if error.status in _LEFT_TO_OTHERS:
            name = namespace.partition(".")[0]  # Temporal Cloud appends the account
            attributes = " ".join(map(_flag, SEARCH_ATTRIBUTES))
            raise StackError(
                f"The namespace {namespace} is not there, or not for us to see, and not ours to make ({error.message})."
                f" On Temporal Cloud:\n"
                f"  tcld namespace create --namespace {name} --region REGION --auth-method api_key"
                f" --retention-days {days} {attributes}"
            ) from error
        raise StackError(f"The namespace {namespace} cannot be set up: {error.message}") from error
    return True, float(days)


async def lengthen(client: Client, days: int, *, patience: float = _PATIENCE_SECONDS) -> None:
    """Have the namespace keep ended workflows for so many days. Raises `StackError`."""
    config = NamespaceConfig(workflow_execution_retention_ttl=_days(days))
    request = UpdateNamespaceRequest(namespace=client.namespace, config=config)
    deadline = time.monotonic() + patience
    try:
        await _patiently(
            lambda: client.workflow_service.update_namespace(request, timeout=_RPC), deadline, but_for=_REFUSED
        )
    except RPCError as error:
        raise StackError(f"The retention of {client.namespace} cannot be changed: {error.message}") from error


async def register(client: Client, *, patience: float = _PATIENCE_SECONDS) -> list[str]:
    """Register the search attributes that the namespace lacks, see that they can be used, and say which were lacking.

    Raises `StackError` where the engine refuses, has one of the same name that is of another type, or leaves it to
    somebody else who has not done it.
    """
    deadline = time.monotonic() + patience
    try:
        added = await _patiently(lambda: _add(client), deadline, but_for={*_REFUSED, RPCStatusCode.INVALID_ARGUMENT})
        await _patiently(lambda: _ask(client, SEARCH_ATTRIBUTES), deadline, but_for=_REFUSED)
    except RPCError as error:
        raise StackError(
            f"The search attributes of {client.namespace} cannot be registered: {error.message}"
        ) from error
    return added


async def _add(client: Client) -> list[str]:
    wanted = {
        name: IndexedValueType.Value(f"INDEXED_VALUE_TYPE_{kind.upper()}") for name, kind in SEARCH_ATTRIBUTES.items()
    }
    listed = ListSearchAttributesRequest(namespace=client.namespace)
    try:
        known = (await client.operator_service.list_search_attributes(listed, timeout=_RPC)).custom_attributes
    except RPCError as error:
        if error.status not in _LEFT_TO_OTHERS:
            raise
        lacking = [name for name in SEARCH_ATTRIBUTES if not await _can_be_asked(client, name)]
        if lacking:
            raise _left(client, lacking) from error
        return []
    for name, kind in wanted.items():
        if known.get(name, kind) != kind:
            raise StackError(
                f"The search attribute {name} is {_called(known[name])}, and the shop needs {_called(kind)}:"
                " rename or remove it, or use another namespace (TEMPORAL_NAMESPACE)."
            )
    lacking = [name for name in wanted if name not in known]
    if lacking:
        attributes = {name: wanted[name] for name in lacking}
        try:
            await client.operator_service.add_search_attributes(
                AddSearchAttributesRequest(namespace=client.namespace, search_attributes=attributes), timeout=_RPC
            )
        except RPCError as error:
            if error.status in _LEFT_TO_OTHERS:
                raise _left(client, lacking) from error
            raise
    return lacking


async def _described(client: Client) -> float | None:
    """For how many days the client's namespace keeps ended workflows; nothing where there is no such namespace."""
    try:
        request = DescribeNamespaceRequest(namespace=client.namespace)
        known = await client.workflow_service.describe_namespace(request, timeout=_RPC)
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            return None
        raise
    return known.config.workflow_execution_retention_ttl.ToTimedelta() / timedelta(days=1)


async def _ask(client: Client, names: Collection[str]) -> None:
    """Look for orders by these attributes, as people do. Raises `RPCError` where one is not known."""
    query = " AND ".join(_CONDITIONS[SEARCH_ATTRIBUTES[name]].format(name) for name in names)
    await client.count_workflows(query, rpc_timeout=_RPC)


async def _can_be_asked(client: Client, name: str) -> bool:
    try:
        await _ask(client, [name])
    except RPCError as error:
        if error.status == RPCStatusCode.INVALID_ARGUMENT:
            return False
        raise
    return True


async def _patiently(step: Callable[[], Awaitable[T]], deadline: float, *, but_for: Collection[RPCStatusCode]) -> T:
    """Take a step again while the engine has not come to know all of it, or others are changing the same."""
    while True:
        try:
            return await step()
        except RPCError as error:
            if error.status in but_for or time.monotonic() > deadline:
                raise
        await asyncio.sleep(_AGAIN_SECONDS)


def _left(client: Client, lacking: Collection[str]) -> StackError:
    return StackError(
        f"The namespace {client.namespace} lacks {', '.join(lacking)}, or has them of another type,"
        " and search attributes are not ours to add. On Temporal Cloud:\n"
        f"  tcld namespace search-attributes add --namespace {client.namespace} {' '.join(map(_flag, lacking))}"
    )


def _flag(name: str) -> str:
    return f'--search-attribute "{name}={SEARCH_ATTRIBUTES[name]}"'


def _days(days: int) -> Duration:
    return Duration(seconds=days * 24 * 60 * 60)


def _called(kind: IndexedValueType.ValueType) -> str:
    return IndexedValueType.Name(kind).removeprefix("INDEXED_VALUE_TYPE_").capitalize()


async def _run(*, lengthens: bool) -> None:
    reconcile_days = read_settings(OrderSettings).reconcile_days
    days, needed = chosen_retention(read_settings(NamespaceSettings), reconcile_days), needed_retention(reconcile_days)
    try:
        client = await connect(codec=None)
    except (RuntimeError, ValueError, OSError) as error:  # what the SDK raises of an engine, a setting, a file
        raise StackError(f"The engine cannot be reached: {error}") from error
    is_new, kept = await open_namespace(client, days)
    if kept < needed and lengthens:
        await lengthen(client, days)
    elif kept < needed:
        print(
            f"street12: The namespace {client.namespace} forgets what ended more than {kept:g} days ago, and the"
            f" reconciliation looks back {reconcile_days:g} (STREET12_RECONCILE_DAYS): it would take the workflows of"
            f" orders restored from a backup for lost. Keep them for {needed} days or more:\n"
            f"  temporal operator namespace update --namespace {client.namespace} --retention {needed}d\n"
            "or, on Temporal Cloud:\n"
            f"  tcld namespace retention set --namespace {client.namespace} --retention-days {needed}",
            file=sys.stderr,
        )
    added = await register(client)
    made = "is made, and" if is_new else "is there, and"
    print(f"The namespace {client.namespace} {made} has the search attributes of orders ({len(added)} new)", flush=True)


def main() -> int:
    """The process's exit status: 1 when something is missing still."""
    parser = argparse.ArgumentParser(prog="python -m deploy.namespace", description=__doc__)
    parser.add_argument(
        "--lengthen-retention",
        action="store_true",
        help="have an existing namespace that forgets ended workflows too early keep them longer, instead of warning",
    )
    arguments = parser.parse_args()
    try:
        asyncio.run(_run(lengthens=arguments.lengthen_retention))
    except StackError as error:
        print(f"street12: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    end(main())
