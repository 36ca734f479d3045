"""Mistakes in what a process is told."""

from tests.deploy.plants import GONE, OURS, Mistake
from tests.deploy.policies import told

_API = "Deployment api"
_ORDER = "Deployment worker-order"
MISTAKES = [
    Mistake(
        told.each_is_told_what_it_reads, _API, f"{OURS}.env.-", {"name": "STREET12_API_DRAIN_SECOND", "value": "5"},
        "does not read STREET12_API_DRAIN_SECOND",
    ),
    Mistake(
        told.each_is_told_what_it_reads, _API, f"{OURS}.env.-",
        {"name": "STREET12_API_DRAIN_SECONDS", "value": "soon"}, "STREET12_API_DRAIN_SECONDS is 'soon'",
    ),
    Mistake(
        told.each_is_told_what_it_reads, "Deployment worker-marketing", f"{OURS}.env.-",
        {"name": "STREET12_ORDER_DATABASE_URL", "value": "mysql+aiomysql://order:pass@db/order"},
        "Deployment worker-marketing does not read STREET12_ORDER_DATABASE_URL",
    ),
    Mistake(
        told.each_is_told_what_it_reads, _ORDER, f"{OURS}.env.STREET12_PAYMENT_KEY", GONE,
        "STREET12_PAYMENT_KEY is not set",
    ),
    Mistake(
        told.each_is_told_what_it_reads, _ORDER, f"{OURS}.env.STREET12_ORDER_DATABASE_URL", GONE,
        "lacks STREET12_ORDER_DATABASE_URL",
    ),
    Mistake(
        told.each_is_told_what_it_reads, _API, f"{OURS}.env.STREET12_CODEC_KEYS.valueFrom.secretKeyRef.key", "key",
        "nobody keeps a secret codec with the key key",
    ),
    Mistake(told.each_is_told_what_it_reads, _API, f"{OURS}.envFrom.0.configMapRef.name", "t", "no ConfigM"),
    Mistake(told.each_is_told_what_it_reads, _API, f"{OURS}.envFrom.0", GONE, "not know where the engine"),
    Mistake(
        told.each_is_told_what_it_reads, _API, f"{OURS}.env.-", {"name": "STREET12_API_HOST", "value": "0.0.0.0"},
        "repeats the image's STREET12_API_HOST",
    ),
    Mistake(
        told.each_is_told_what_it_reads, _API, f"{OURS}.env.-", {"name": "TEMPORAL_TLS", "value": "false"},
        "would be sent in clear", "production, API key",
    ),
    Mistake(
        told.each_is_told_what_it_reads, _API, f"{OURS}.volumeMounts.temporal-tls", GONE, "nobody mounts",
        "production, mTLS",
    ),
    Mistake(
        told.nothing_is_set_twice, "WorkerDeployment worker-order", f"{OURS}.env.-",
        {"name": "TEMPORAL_NAMESPACE", "value": "x"}, "sets TEMPORAL_NAMESPACE twice", "production, versioned",
    ),
    Mistake(
        told.nothing_is_set_twice, _API, f"{OURS}.env.-", {"name": "STREET12_CODEC_KEYS", "value": "x"},
        "sets STREET12_CODEC_KEYS twice",
    ),
    Mistake(
        told.the_controller_finds_the_engine_where_the_others_do, "Connection temporal", "spec.hostPort", "x:7233",
        "another engine", "production, versioned",
    ),
    Mistake(
        told.the_controller_finds_the_engine_where_the_others_do, "Connection temporal", "spec.apiKeySecretRef",
        GONE, "not the same access", "versioned, API key",
    ),
    Mistake(
        told.secrets_are_kept_elsewhere, "ConfigMap codec", "data.STREET12_CODEC_KEYS", "x",
        "holds STREET12_CODEC_KEYS",
    ),
]  # fmt: skip
