"""Mistakes in how pods come, are looked after and go."""

from tests.deploy.plants import GONE, OURS, POD, Mistake
from tests.deploy.policies import lives

_API = "Deployment api"
_ORDER = "Deployment worker-order"
MISTAKES = [
    Mistake(lives.everybody_is_looked_after, _API, f"{OURS}.livenessProbe", GONE, "has no livenessProbe"),
    Mistake(
        lives.everybody_is_looked_after, _ORDER, f"{OURS}.readinessProbe.failureThreshold", 3,
        "has another readinessProbe",
    ),
    Mistake(
        lives.everybody_is_looked_after, "WorkerDeployment worker-order", f"{OURS}.startupProbe", GONE,
        "has no startupProbe", "production, versioned",
    ),
    Mistake(
        lives.the_file_of_the_liveness_probe_is_touched, "Deployment codec-server", f"{OURS}.env.-",
        {"name": "STREET12_CODEC_LIVENESS_FILE", "value": "/tmp/other"}, "a file that it does not touch",
    ),
    Mistake(
        lives.each_has_the_time_that_it_needs_to_end, _ORDER, f"{POD}.terminationGracePeriodSeconds", 30,
        "is given 30 s to end and needs 40",
    ),
    Mistake(
        lives.each_has_the_time_that_it_needs_to_end, _ORDER, f"{OURS}.env.-",
        {"name": "STREET12_WORKER_GRACE_SECONDS", "value": "60"}, "is given 45 s to end and needs 75",
    ),
    Mistake(
        lives.each_has_the_time_that_it_needs_to_end, _API, f"{POD}.terminationGracePeriodSeconds", 20,
        "is given 20 s to end and needs 25",
    ),
    Mistake(lives.each_has_the_time_that_it_needs_to_end, _API, f"{OURS}.lifecycle", GONE, "its preStop takes 0 s"),
    Mistake(
        lives.nobody_is_missed_during_a_roll_out, _API, "spec.strategy.rollingUpdate.maxUnavailable", 1,
        "is fewer during",
    ),
    Mistake(
        lives.nobody_is_missed_during_a_roll_out, "Deployment codec-server", "spec.strategy", {"type": "Recreate"},
        "is fewer during",
    ),
    Mistake(lives.each_job_ends, "Job namespace", "spec.activeDeadlineSeconds", GONE, "has no activeDeadlineSeconds"),
]  # fmt: skip
