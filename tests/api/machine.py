"""An API served in the test's loop, and a machine that tries on it what its OpenAPI document allows and forbids."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import schemathesis
import uvicorn
from fastapi import FastAPI
from schemathesis import Case, HookContext, Response
from schemathesis.core.failures import Failure
from schemathesis.core.parameters import ParameterLocation
from schemathesis.engine import StopReason, events, from_schema
from schemathesis.engine.run import PhaseName
from schemathesis.openapi.checks import RejectedPositiveData

from services.gateway.server import listen
from tests.api.test_overload import Quiet

SETTINGS: dict[str, Any] = {
    "seed": 12,
    "continue-on-failure": True,
    "request-timeout": 60,
    "cache": {"enabled": False},
    "generation": {"database": "none", "deterministic": True, "no-shrink": True},
}
# What no schema can say: these depend on what the shop knows. 409 and 404, which do as well, are never held against it.
_DEPENDING = {"invalid-cursor", "precondition-failed", "payment-declined", "insufficient-funds"}


@dataclass
class Report:
    """What came of it. `answers` counts them by operation and status, `followed` by the two ends of a link."""

    faults: list[str] = field(default_factory=list[str])
    answers: Counter[tuple[str, int]] = field(default_factory=Counter[tuple[str, int]])
    followed: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])

    @property
    def accepted(self) -> set[str]:
        """The operations that went through at least once."""
        return {operation for operation, status in self.answers if status < 300}

    def hear(self, event: events.EngineEvent) -> None:
        match event:
            case events.ScenarioFinished(phase=phase, recorder=recorder):
                self._count(recorder, stateful=phase is PhaseName.STATEFUL_TESTING)
            case events.NonFatalError(value=error) | events.FatalError(exception=error):
                self.faults.append(f"error: {error!r}")
            case events.SchemaAnalysisWarnings(warnings=warnings):
                self.faults += [f"warning: {warning!r}" for warning in warnings]
            case events.EngineFinished(stop_reason=reason) if reason is not StopReason.COMPLETED:
                self.faults.append(f"error: {reason}")
            case _:
                pass

    def _count(self, recorder: Any, *, stateful: bool) -> None:
        for case_id, exchange in recorder.interactions.items():
            node = recorder.cases[case_id]
            if exchange.response is None:
                continue
            operation, status = _id(node.value), exchange.response.status_code
            self.answers[operation, status] += 1
            if stateful and node.transition and not node.transition.is_inferred and status < 300:
                self.followed[_id(recorder.cases[node.transition.parent_id].value), operation] += 1
        for case_id, checks in recorder.checks.items():
            for check in checks:
                if check.failure_info is not None:
                    response = recorder.interactions[case_id].response
                    answer = "nothing" if response is None else f"{response.status_code} {response.text}"
                    why = check.failure_info
                    self.faults.append(f"{check.name}: {why.failure.message}\n{why.code_sample}\n-> {answer}\n")


@asynccontextmanager
async def served(app: FastAPI) -> AsyncGenerator[str]:
    """The address of an app whose lifespan somebody else looks after."""
    listener = listen("127.0.0.1", 0)
    config = uvicorn.Config(app, http="h11", lifespan="off", log_config=None, access_log=False)
    server = Quiet(config, asyncio.Event(), asyncio.Event())
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield "http://{}:{}".format(*listener.getsockname())
    finally:
        server.should_exit = True
        await serving


async def tried(
    app: FastAPI,
    callers: Mapping[str, dict[str, str]],
    *,
    known: Mapping[str, Any],
    phases: dict[str, Any],
) -> Report:
    """What a machine finds that calls each operation as its caller; all checks are on.

    It is told what no document can tell it: the values of fields that are `known`, and that a key is good for one
    request. What one caller sees of another's it does not try (`test_access.py`).
    """

    def run(url: str) -> Report:
        own = [{"include-operation-id": operation, "headers": headers} for operation, headers in callers.items()]
        config = schemathesis.Config.from_dict({**SETTINGS, "operations": own, "phases": phases})  # pyright: ignore[reportUnknownMemberType]
        schema: Any = schemathesis.openapi.from_url(f"{url}/openapi.json", config=config)
        requests: dict[str, str] = {}

        def map_case(_: HookContext, case: Any) -> Any:
            body, headers = case.body, case.headers
            if _is_object(body) and not case.meta.is_negative_at(ParameterLocation.BODY):
                body.update({name: value for name, value in known.items() if name in body})
            key = headers.get("Idempotency-Key")
            if key is not None and not case.meta.is_negative_at(ParameterLocation.HEADER):
                request = repr((case.operation.label, case.path_parameters, body))
                if requests.setdefault(key, request) != request:
                    headers["Idempotency-Key"] = f"key-{len(requests)}"
                    requests[headers["Idempotency-Key"]] = request
            return case

        def filter_failure(_: HookContext, failure: Failure, case: Case[Any], response: Response) -> bool:
            return not isinstance(failure, RejectedPositiveData) or response.json().get("code") not in _DEPENDING

        schema.hook(map_case)
        schema.hook(filter_failure)
        report = Report()
        for event in from_schema(schema).execute():
            report.hear(event)
        return report

    async with served(app) as url:
        return await asyncio.to_thread(run, url)


def _is_object(body: object) -> bool:
    return isinstance(body, dict)


def _id(case: Any) -> str:
    return case.operation.definition.raw["operationId"]
