#!/bin/sh
# What the delivery's scripts call, as far as they call it: run by the name of the program that it stands for.
#
# Each call is written down in $FAKES/calls. A file $FAKES/<program>-fails makes that program fail; others, named below, make
# it say something else. The cluster is the directory $FAKES/cluster with what was applied, object by object.
set -eu

program=${0##*/}
{
  printf '%s' "$program"
  for word; do
    case $word in
      /*) word=${word##*/} ;;
    esac
    printf ' %s' "$word"
  done
  echo
} >>"$FAKES/calls"

# said FILE OTHERWISE
said() {
  if [ -e "$FAKES/$1" ]; then cat "$FAKES/$1"; else printf '%s' "$2"; fi
}

# each COMMAND ARGUMENT...: run a command for each file that stands after an -f, with its object's name
each() {
  command=$1
  shift
  while [ $# -gt 0 ]; do
    if [ "$1" = -f ]; then
      name=${2##*/}
      "$command" "$2" "${name%.*}"
      shift
    fi
    shift
  done
}

apply() { cp "$1" "$FAKES/cluster/$2"; }
delete() { rm -f "$FAKES/cluster/$2"; }
image() { sed -n 's/^ *\(- \)\{0,1\}image: //p' "$FAKES/cluster/$1" | tr -d '\n'; }

get() {
  [ -e "$FAKES/cluster/$2" ] || return 0
  case $question in
    *last-applied*) cat "$FAKES/cluster/$2" ;;
    *image*) image "$2" ;;
    *conditions*) said "outcome-$2" "SuccessCriteriaMet Complete" ;;
    name) echo "job.batch/${2#batch_v1_job_}" ;;
  esac
}

# A workload gets ready, unless it is told to be stuck with the image that it has.
status() {
  [ "$(image "$2")" = "$(said "stuck-${2##*_}" "no image")" ] || return 0
  if [ -e "$FAKES/reached" ]; then # a pipe: whoever reads it learns that this waits
    echo now >"$FAKES/reached"
    sleep 600
  fi
  exit 1
}

case "$program $*" in
  "kubectl kustomize "*) exec "$KUBECTL" "$@" ;;
  "kubectl apply "*) each apply "$@" ;;
  "kubectl delete "*) each delete "$@" ;;
  "kubectl get "*) for question; do :; done; each get "$@" ;;
  "kubectl logs "*) echo "what $2 says" ;;
  "kubectl rollout "* | "kubectl wait "*) each status "$@" ;;
  "aws ecr batch-get-image "*) said pushed None ;;
  "aws ecr describe-repositories "*) said mutability IMMUTABLE ;;
  "docker push "*) printf 'sha256:%064d' 0 | tr 0 d >"$FAKES/pushed" ;;
  "docker save "*) echo "an image" >"$3" ;;
  "docker build "*) for context; do :; done; ls -A "$context" >"$FAKES/context" ;;
esac
[ ! -e "$FAKES/$program-fails" ]
