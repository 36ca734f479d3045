"""What must be true of every overlay: functions of a cluster, each of which tells what is not."""

from collections.abc import Callable, Iterator

from tests.deploy.cluster import Cluster

Policy = Callable[[Cluster], Iterator[str]]
