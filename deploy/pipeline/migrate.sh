#!/usr/bin/env bash
# Brings the teams' databases and Temporal's namespace to what the new code needs, before any of it runs: applies the jobs
# of MIGRATIONS with the new image, waits for them and prints what they say. They only add (docs/data.md), so the code that
# runs goes on, and a roll-back leaves them.
source "$(dirname "$0")/settings.sh"
source deploy/pipeline/cluster.sh

image=$(image)
render "$OVERLAY" "$image" "$PIPELINE_STATE/manifests"
record "$image" # before the first change; the network policies come with the migrations
manifests=$PIPELINE_STATE/migrations
render "$MIGRATIONS" "$image" "$manifests"
mapfile -t jobs < <(files "$manifests" job)
[ ${#jobs[@]} -gt 0 ] || fail "there is no job in $MIGRATIONS"
mapfile -t first < <(references "$manifests")
mapfile -t around < <(surroundings "$manifests" | grep -vxF -f <(printf '%s\n' "${jobs[@]}"))

apply "${first[@]}"
apply "${around[@]}"
# A job cannot be changed. Of an earlier delivery's nothing is left to do.
arguments=()
for job in "${jobs[@]}"; do arguments+=(-f "$job"); done
kubectl delete "${arguments[@]}" --ignore-not-found --wait --timeout="${MIGRATION_SECONDS}s"
apply "${jobs[@]}"

logs() {
  local job
  for job in "${jobs[@]}"; do
    kubectl logs "$(kubectl get -f "$job" -o name)" --namespace "$KUBE_NAMESPACE" --all-containers --prefix --tail=-1 >&2 || true
  done
}

# outcome JOB: what is true of it, such as Complete. `kubectl wait` would sit out its time on a job that has failed.
outcome() { kubectl get -f "$1" -o 'jsonpath={.status.conditions[?(@.status=="True")].type}'; }

waiting=("${jobs[@]}")
SECONDS=0
while [ ${#waiting[@]} -gt 0 ]; do
  still=()
  for job in "${waiting[@]}"; do
    case " $(outcome "$job") " in
      *" Failed "*) logs; fail "$(basename "$job") failed, and says why above: nothing was rolled out" ;;
      *" Complete "*) ;;
      *) still+=("$job") ;;
    esac
  done
  waiting=("${still[@]}")
  if [ ${#waiting[@]} -gt 0 ]; then
    [ "$SECONDS" -lt "$MIGRATION_SECONDS" ] || { logs; fail "after $MIGRATION_SECONDS s (MIGRATION_SECONDS) these" \
      "are not done, and nothing was rolled out: ${waiting[*]##*/}"; }
    sleep "$POLL_SECONDS"
  fi
done
logs
say "migrated with $image"
