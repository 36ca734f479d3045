#!/usr/bin/env bash
# Goes back to what ran before a roll-out that was not verified: API first, then the order team's workers, then the others.
# Without such a roll-out it does nothing. It can be run again.
#
# It applies again what was applied before, with the digest of then. `kubectl rollout undo` would be shorter, but brings back
# pod templates alone, goes one release too far for a workload that the roll-out had not reached yet, and leaves behind what
# the next `kubectl apply` does not know of and therefore does not take away.
source "$(dirname "$0")/settings.sh"

previous=$PIPELINE_STATE/previous
if [ ! -e "$PIPELINE_STATE/open" ]; then
  say "no roll-out is open: nothing to go back from"
  exit 0
fi
source deploy/pipeline/cluster.sh

cat >&2 <<'WARNING'
roll-back: Databases stay as they were migrated: migrations only add.
roll-back: Orders that the new release has already taken along a changed way do not replay with the old workflow code. They
roll-back: stand still until a release that knows both ways is out; nothing of them is lost. To see them:
roll-back:   temporal workflow list --query 'TemporalReportedProblems IN ("cause=WorkflowTaskFailedCauseNonDeterministicError")'
roll-back: What to do: docs/changing-workflows.md, "When it happened all the same".
WARNING

mapfile -t first < <(references "$previous")
mapfile -t around < <(surroundings "$previous")
apply "${first[@]}"
trouble=()
for ((stage = ${#STAGES[@]} - 1; stage >= 0; stage--)); do
  for name in ${STAGES[stage]}; do
    file=$(workload "$previous" "$name")
    [ -z "$file" ] || apply "$file" || trouble+=("$name")
  done
  for name in ${STAGES[stage]}; do
    file=$(workload "$previous" "$name")
    [ -z "$file" ] || rolled_out "$file" || trouble+=("$name")
  done
done
apply "${around[@]}" || trouble+=("what is around the workloads")

while read -r name was; do
  if [ -z "$was" ]; then
    say "$name is new with this release, and stays: there is nothing to go back to"
  elif [ "$(running "$PIPELINE_STATE/manifests/$name.yaml")" != "$was" ]; then
    trouble+=("$name does not run $was")
  else
    say "$name runs $was again"
  fi
done <"$previous.images"
[ ${#trouble[@]} = 0 ] || fail "not everything went back, see to it by hand, then run this again: ${trouble[*]}"
rm -f "$PIPELINE_STATE/open" "$PIPELINE_STATE/previous.for"
