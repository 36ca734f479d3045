"""Mistakes that let a pod do more than it has to."""

from tests.deploy.plants import GONE, OURS, POD, Mistake
from tests.deploy.policies import pods

_API = "Deployment api"
_ORDER = "Deployment worker-order"
MISTAKES = [
    Mistake(pods.nobody_is_root, _API, f"{POD}.securityContext", {}, "may run as root"),
    Mistake(pods.nobody_is_root, "Job migrate-order", f"{OURS}.securityContext.privileged", True, "can gain rights"),
    Mistake(pods.nobody_is_root, _API, f"{OURS}.securityContext.runAsUser", 0, "sets for itself"),
    Mistake(pods.nobody_is_root, _API, f"{OURS}.securityContext.capabilities.add", ["NET_RAW"], "capabil"),
    Mistake(
        pods.nobody_is_root, "WorkerDeployment worker-order", f"{OURS}.securityContext.readOnlyRootFilesystem",
        False, "can be written to", "production, versioned",
    ),
    Mistake(pods.nobody_is_root, _API, f"{POD}.hostNetwork", True, "has hostNetwork"),
    Mistake(
        pods.nobody_is_root, _API, f"{POD}.volumes.-", {"name": "d", "hostPath": {"path": "/"}},
        "reads the node's files",
    ),
    Mistake(pods.nobody_has_a_token, _API, f"{POD}.automountServiceAccountToken", GONE, "has a token"),
    Mistake(pods.nobody_has_a_token, _ORDER, f"{POD}.serviceAccountName", "api", "has the service account of"),
    Mistake(pods.nobody_has_a_token, "ServiceAccount api", "automountServiceAccountToken", True, "hands out tokens"),
    Mistake(pods.each_image_is_a_certain_one, _API, f"{OURS}.image", "street12", "can be anything"),
    Mistake(pods.each_image_is_a_certain_one, _API, f"{OURS}.image", "r.io/street12:latest", "can be anyth"),
    Mistake(pods.everybody_has_limits, _API, f"{OURS}.resources.limits.cpu", GONE, "no request or no limit"),
    Mistake(pods.everybody_has_limits, _API, f"{OURS}.resources.requests.memory", "1Mi", "less memory"),
    Mistake(
        pods.everybody_has_limits, "Deployment worker-delivery", f"{POD}.volumes.tmp.emptyDir.sizeLimit", "128Mi",
        "fill a quarter",
    ),
    Mistake(pods.what_is_written_is_writable, _API, f"{OURS}.volumeMounts", [], "cannot write to /tmp"),
]  # fmt: skip
