"""The worker controller's kinds, as far as they are used here: no package has its schemas.

From the custom resource definitions of the controller v1.8 and the rules of its webhooks. What is not here is refused,
also where the controller would take it: add it with the definition beside you.
"""

from typing import Any

_NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"}
_DURATION = {"type": "string", "pattern": "^([0-9]+h)?([0-9]+m)?([0-9]+s)?$", "minLength": 2}


def _object(required: str, **properties: Any) -> dict[str, Any]:
    """An object with these properties and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


def _kind(spec: dict[str, Any]) -> dict[str, Any]:
    metadata = _object("name namespace", name=_NAME | {"maxLength": 63}, namespace=_NAME, labels={"type": "object"})
    return _object("apiVersion kind metadata spec", apiVersion={}, kind={}, metadata=metadata, spec=spec)


CONNECTION = _kind(
    _object(
        "hostPort",
        hostPort={"type": "string", "pattern": "^[a-zA-Z0-9.-]+:[0-9]+$"},
        mutualTLSSecretRef=_object("name", name=_NAME),
        apiKeySecretRef=_object("name key", name=_NAME, key={"type": "string"}),
    )
    | {"not": {"required": ["mutualTLSSecretRef", "apiKeySecretRef"]}}
)
_STEP = _object(
    "rampPercentage pauseDuration",
    rampPercentage={"type": "integer", "minimum": 1, "maximum": 99},
    pauseDuration=_DURATION,
)
WORKER_DEPLOYMENT = _kind(
    _object(
        "template rollout sunset workerOptions",  # no `replicas`: a HorizontalPodAutoscaler's number would be set back
        minReadySeconds={"type": "integer", "minimum": 0},
        progressDeadlineSeconds={"type": "integer", "minimum": 1},
        template={"type": "object"},  # looked at as the Deployment that it becomes
        rollout=_object(
            "strategy gate steps",
            strategy={"const": "Progressive"},
            gate=_object("workflowType", workflowType={"type": "string"}),  # with no input, which would stand in clear
            steps={"type": "array", "items": _STEP, "minItems": 1, "maxItems": 20},
        ),
        sunset=_object("scaledownDelay deleteDelay", scaledownDelay=_DURATION, deleteDelay=_DURATION),
        workerOptions=_object(
            "connectionRef temporalNamespace",
            connectionRef=_object("name", name=_NAME),
            temporalNamespace={"type": "string", "minLength": 1},
        ),
    )
)
# The webhook wants the target empty, fills it in, and by default allows nothing but this kind.
_AUTOSCALER = _object(
    "apiVersion kind spec",
    apiVersion={"const": "autoscaling/v2"},
    kind={"const": "HorizontalPodAutoscaler"},
    spec={
        "type": "object",
        "properties": {"scaleTargetRef": {"const": {}}, "minReplicas": {"minimum": 1}},
        "required": ["scaleTargetRef", "minReplicas", "maxReplicas"],
    },
)
WORKER_RESOURCE_TEMPLATE = _kind(
    _object("workerDeploymentRef template", workerDeploymentRef=_object("name", name=_NAME), template=_AUTOSCALER)
)
TEMPORAL = {
    "Connection": CONNECTION,
    "WorkerDeployment": WORKER_DEPLOYMENT,
    "WorkerResourceTemplate": WORKER_RESOURCE_TEMPLATE,
}
