#!/usr/bin/env bash
# Runs steps of a delivery, one after the other: deploy/pipeline/run.sh gates test build scan push migrate roll-out verify
# Both pipelines call it. It is the one place that knows what follows a failure: a roll-out that was begun and is not verified,
# because a step failed or because somebody stopped it, is rolled back, and the delivery has failed.
source "$(dirname "$0")/settings.sh"

STEPS="gates test build scan push migrate roll-out verify roll-back"
[ $# -gt 0 ] || fail "name the steps to run: $STEPS"
for step in "$@"; do
  [[ " $STEPS " == *" $step "* ]] || fail "there is no step $step, only: $STEPS"
done

child='' stopped=''
stop() {
  stopped=$1
  [ -z "$child" ] || kill -TERM -- "-$child" 2>/dev/null || true
}
trap 'stop 129' HUP
trap 'stop 130' INT
trap 'stop 143' TERM

# A step leads a process group of its own, so that being stopped reaches its kubectl, too, and nothing of it goes on beside
# the roll-back.
run() {
  local code=0
  set -m
  "deploy/pipeline/$1.sh" </dev/null &
  child=$!
  set +m
  until wait "$child"; do # a signal interrupts it
    code=$?
    kill -0 "$child" 2>/dev/null || break
  done
  child=''
  return "${stopped:-$code}"
}

for step in "$@"; do
  say "$step …"
  code=0
  if [ -n "$stopped" ]; then code=$stopped; else run "$step" || code=$?; fi
  if [ "$code" != 0 ]; then
    say "$step failed ($code)"
    trap '' HUP INT TERM # going back is not left half done
    if [ -e "$PIPELINE_STATE/open" ] && [ "$step" != roll-back ]; then
      deploy/pipeline/roll-back.sh || say "the roll-back failed, too: what runs now is a mixture"
    fi
    exit "$code"
  fi
done
