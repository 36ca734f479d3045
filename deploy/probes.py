"""How a process of the shop shows that it has started, is ready and lives, and when it counts as lost.

Defined here alone: the one-machine supervisor goes by these probes, the manifests and the image say the same, and a
test compares them. Only the standard library, so that who checks manifests need not have the shop installed.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A question that is put again and again. Times are in seconds."""

    period_seconds: float
    timeout_seconds: float
    """How long an answer may take; none longer than a period, so that the next question is not late."""
    failure_threshold: int
    """So many failures in a row count; fewer are an accident."""

    @property
    def budget_seconds(self) -> float:
        """The longest that it takes from the trouble to the verdict."""
        return self.period_seconds * self.failure_threshold

    def _kubernetes(self) -> dict[str, Any]:
        return {
            "periodSeconds": self.period_seconds,
            "timeoutSeconds": self.timeout_seconds,
            "failureThreshold": self.failure_threshold,
        }


@dataclass(frozen=True, kw_only=True)
class HttpProbe(Probe):
    """`GET path` answers 200."""

    path: str

    def kubernetes(self, port: int | str) -> dict[str, Any]:
        """The probe as a container's manifest has it."""
        return {"httpGet": {"path": self.path, "port": port}, **self._kubernetes()}


@dataclass(frozen=True, kw_only=True)
class FileProbe(Probe):
    """A file that the process touches is younger than so many seconds."""

    younger_than_seconds: float
    grace_seconds: float
    """How long a process that failed may take to end before it is killed."""

    @property
    def budget_seconds(self) -> float:
        """As above; and the file was young until then."""
        return self.younger_than_seconds + super().budget_seconds

    def command(self, file: str) -> list[str]:
        """Ends with 0 while the process lives; the image's health check, too. Needs `sh` and GNU's `find`."""
        return ["sh", "-c", f"test -n \"$(find {file} -newermt '{self.younger_than_seconds} seconds ago')\""]

    def kubernetes(self, file: str) -> dict[str, Any]:
        """The probe as a container's manifest has it."""
        return {
            "exec": {"command": self.command(file)},
            **self._kubernetes(),
            "terminationGracePeriodSeconds": self.grace_seconds,
        }


LIVENESS_FILE = "/tmp/alive"
"""Of every process in the image, which sets it: nothing else there can be written to."""

# A process that starts is busy importing for some seconds, on a busy node for many. It answers before it has reached
# the engine or a database: that one of them is away is no reason to begin again.
STARTUP = HttpProbe(path="/livez", period_seconds=2, timeout_seconds=2, failure_threshold=30)

# Two failures in a row: all API processes ask the same database, and one slow answer must not take all of them out of
# the balancer at once. That a process drains need not be seen here: a pod that is ending is taken out by itself.
READINESS = HttpProbe(path="/readyz", period_seconds=5, timeout_seconds=3, failure_threshold=2)

# The file is touched each 5 s from the event loop: three touches must fail to come, and that three times in a row, so
# that neither a busy processor nor a machine that was asleep costs a process its life. Not asked over HTTP: a process
# with more connections than it can take would be restarted for being in demand. One whose event loop is blocked cannot
# drain, so there is little to wait for: 5 s are for one that was only late.
LIVENESS = FileProbe(period_seconds=5, timeout_seconds=5, failure_threshold=3, younger_than_seconds=15, grace_seconds=5)
