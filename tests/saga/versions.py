"""Versions of workers, as whoever rolls them out deals with them."""

import asyncio

from temporalio.api.deployment.v1 import WorkerDeploymentVersion as VersionMessage
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.workflowservice.v1 import (
    DescribeWorkerDeploymentVersionRequest,
    SetWorkerDeploymentCurrentVersionRequest,
)
from temporalio.client import Client
from temporalio.common import WorkerDeploymentVersion
from temporalio.service import RPCError, RPCStatusCode

from tests.saga.world import PATIENCE


async def queues_of(client: Client, version: WorkerDeploymentVersion) -> set[str]:
    """The queues on which the engine has seen a version's workers ask for workflows."""
    asked = DescribeWorkerDeploymentVersionRequest(
        namespace=client.namespace,
        deployment_version=VersionMessage(deployment_name=version.deployment_name, build_id=version.build_id),
    )
    try:
        seen = await client.workflow_service.describe_worker_deployment_version(asked)
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            return set()
        raise
    return {one.name for one in seen.version_task_queues if one.type == TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW}


async def registered(client: Client, version: WorkerDeploymentVersion) -> set[str]:
    """The version's queues, once the engine knows it."""
    async with asyncio.timeout(PATIENCE):
        while not (queues := await queues_of(client, version)):  # noqa: ASYNC110  (there is no event to await)
            await asyncio.sleep(0.1)
    return queues


async def make_current(client: Client, version: WorkerDeploymentVersion) -> None:
    """From now on what is not pinned goes to this version's workers."""
    await registered(client, version)
    await client.workflow_service.set_worker_deployment_current_version(
        SetWorkerDeploymentCurrentVersionRequest(
            namespace=client.namespace,
            deployment_name=version.deployment_name,
            build_id=version.build_id,
            identity=client.identity,
        )
    )
