# shellcheck shell=bash
# Sourced by every step: where things are, and what is said when something is missing. Each can be set in the environment.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

PIPELINE_STATE=${PIPELINE_STATE:-.local/pipeline} # what one step leaves for the next
IMAGE_NAME=${IMAGE_NAME:-street12}                # the image's name in the manifests, whatever registry stands before it
KUBE_NAMESPACE=${KUBE_NAMESPACE:-street12}
OVERLAY=${OVERLAY:-deploy/kubernetes/overlays/production}
MIGRATIONS=${MIGRATIONS:-$OVERLAY/migrate}
MIGRATION_SECONDS=${MIGRATION_SECONDS:-900} # for all migrations together
ROLL_OUT_SECONDS=${ROLL_OUT_SECONDS:-600}   # for each deployment
POLL_SECONDS=${POLL_SECONDS:-2}

# What takes work from whom decides the order (docs/changing-workflows.md): activities before the workflows that ask for
# them, workers before the API that tells them something new. The codec server only reads, so it learns first.
# shellcheck disable=SC2034  # used where this is sourced
STAGES=("codec-server worker-delivery worker-marketing" "worker-order" "api")

mkdir -p "$PIPELINE_STATE"

say() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; }

fail() {
  say "$*"
  exit 1
}

# need VARIABLE WHAT: a setting without a default.
need() { [ -n "${!1:-}" ] || fail "$1 is not set: set it to $2"; }

# need_program PROGRAM HOW: a program, and how to get it.
need_program() { command -v "$1" >/dev/null || fail "there is no $1 on this machine: $2"; }

# left FILE STEP: what an earlier step left.
left() {
  [ -s "$PIPELINE_STATE/$1" ] || fail "there is no $PIPELINE_STATE/$1: run deploy/pipeline/$2.sh first"
  cat "$PIPELINE_STATE/$1"
}

# The program that builds and pushes images. Podman understands the same commands.
engine() {
  command -v docker || command -v podman || fail "there is neither docker nor podman on this machine: install one of them"
}
