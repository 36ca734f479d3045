#!/usr/bin/env bash
# Puts the new image in place of the running one, stage by stage (STAGES in settings.sh), each ready before the next begins.
# Leaves what was there before in previous, for roll-back.sh.
source "$(dirname "$0")/settings.sh"
source deploy/pipeline/cluster.sh

image=$(image)
manifests=$PIPELINE_STATE/manifests
render "$OVERLAY" "$image" "$manifests"
[ -z "$(files "$manifests" job)" ] || fail "there is a job in $OVERLAY: it belongs to MIGRATIONS, which are over before this"

components="${STAGES[*]}"
for file in $(files "$manifests" deployment workerdeployment); do
  name=${file##*deployment_} name=${name%.yaml}
  [[ " $components " == *" $name "* ]] || fail "$OVERLAY has a workload $name that no stage names: STAGES in settings.sh"
done
for name in $components; do
  [ -n "$(workload "$manifests" "$name")" ] || say "there is no $name in $OVERLAY"
done

[ "$(cat "$PIPELINE_STATE/previous.for" 2>/dev/null)" = "$image" ] || record "$image"
echo "$image" >"$PIPELINE_STATE/open"

mapfile -t first < <(references "$manifests")
mapfile -t around < <(surroundings "$manifests")
apply "${first[@]}"
apply "${around[@]}"
for stage in "${STAGES[@]}"; do
  started=()
  for name in $stage; do
    file=$(workload "$manifests" "$name")
    [ -z "$file" ] || started+=("$file")
  done
  apply "${started[@]}"
  for file in "${started[@]}"; do
    rolled_out "$file" || fail "${file##*deployment_} was not ready within $ROLL_OUT_SECONDS s (ROLL_OUT_SECONDS)"
  done
done
say "rolled out $image"
