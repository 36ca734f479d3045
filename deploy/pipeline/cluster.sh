# shellcheck shell=bash
# Sourced by the steps that talk to the cluster.
# IMAGE: what to deploy, by its digest; without it, what push.sh left.
# EKS_CLUSTER: the cluster's name, AWS_REGION: where it is. Without a name, the kubeconfig's own context.

need_program kubectl "install the one of the cluster's version, give or take one"
if [ -n "${EKS_CLUSTER:-}" ]; then
  need_program aws "install the AWS CLI, version 2"
  need AWS_REGION "the region of the cluster $EKS_CLUSTER"
  export KUBECONFIG=$PWD/$PIPELINE_STATE/kubeconfig
  aws eks update-kubeconfig --name "$EKS_CLUSTER" --region "$AWS_REGION" --kubeconfig "$KUBECONFIG" >&2
fi

# The image to deploy. A tag is refused: it need not be what was tested.
image() {
  local image=${IMAGE:-}
  [ -n "$image" ] || image=$(left image push)
  [[ $image =~ ^[^@[:space:]]+@sha256:[0-9a-f]{64}$ ]] || fail "the image $image has no digest: repository@sha256:…"
  echo "$image"
}

# render KUSTOMIZATION IMAGE DIRECTORY: its objects with our image, a file each. No tracked file is changed: a kustomization
# in DIRECTORY.with takes the given one as its base.
render() {
  local kustomization=$1 image=$2 directory=$3 names name
  [ -d "$kustomization" ] || fail "there is no $kustomization: set OVERLAY and MIGRATIONS to kustomizations of this repository"
  names=$(kubectl kustomize "$kustomization" | images_of | sed 's/[@:].*//' | sort -u)
  [ -n "$names" ] || fail "nothing in $kustomization runs the image $IMAGE_NAME"
  rm -rf "$directory" "$directory.with"
  mkdir -p "$directory" "$directory.with"
  {
    printf 'resources:\n- %s\nimages:\n' "$(realpath --relative-to="$directory.with" "$kustomization")"
    for name in $names; do
      printf -- '- {name: "%s", newName: "%s", digest: "%s"}\n' "$name" "${image%@*}" "${image#*@}"
    done
  } >"$directory.with/kustomization.yaml"
  kubectl kustomize "$directory.with" --output "$directory"
}

# Which of the images in manifests are ours, in whatever registry.
images_of() {
  sed -n 's/^[- ]*image: *"\{0,1\}\([^" ]*\)"\{0,1\} *$/\1/p' | grep -E "(^|/)$IMAGE_NAME([:@]|\$)" || true
}

# files DIRECTORY KIND...: the objects of these kinds. Kustomize names files apps_v1_deployment_api.yaml.
files() {
  local directory=$1 kind
  shift
  for kind in "$@"; do
    find "$directory" -maxdepth 1 -type f -name "*_${kind}_*" | sort
  done
}

# workload DIRECTORY COMPONENT: its file, whether Kubernetes or the worker controller runs it; nothing where there is none.
workload() { find "$1" -maxdepth 1 -type f -name "*_*deployment_$2.*"; }

# apply FILE...: client-side, so that each object keeps what was applied, which is what roll-back.sh goes back to.
apply() {
  local file arguments=()
  for file in "$@"; do arguments+=(-f "$file"); done
  [ $# = 0 ] || kubectl apply "${arguments[@]}"
}

# The objects that pods refer to; everything else that is no workload.
references() { files "$1" namespace serviceaccount configmap; }
surroundings() {
  find "$1" -maxdepth 1 -type f | sort | grep -vxF -f <(references "$1"; files "$1" deployment workerdeployment) || true
}

# rolled_out FILE: wait until every pod of a workload is of the new template, and ready.
rolled_out() {
  if [[ $1 == *_workerdeployment_* ]]; then
    kubectl wait --for=condition=Ready -f "$1" --timeout="${ROLL_OUT_SECONDS}s"
  else
    kubectl rollout status -f "$1" --timeout="${ROLL_OUT_SECONDS}s"
  fi
}

# running FILE: the image of a workload in the cluster; nothing where it is not there.
running() { kubectl get -f "$1" --ignore-not-found -o 'jsonpath={.spec.template.spec.containers[0].image}'; }

# record IMAGE: what there is before IMAGE is rolled out, for roll-back.sh: what was applied last, object by object, so not
# the image alone, but also its settings, probes and policies. Secrets are left out, which have no business in files.
record() {
  local previous=$PIPELINE_STATE/previous file applied name
  if [ -e "$PIPELINE_STATE/open" ]; then
    say "the last roll-out was neither verified nor rolled back: what was there before that one is what to go back to"
    echo "$1" >"$previous.for"
    return
  fi
  rm -rf "$previous" "$previous".*
  mkdir -p "$previous"
  for file in "$PIPELINE_STATE/manifests"/*; do
    [[ $file != *_secret_* ]] || continue
    applied=$(kubectl get -f "$file" --ignore-not-found \
      -o 'jsonpath={.metadata.annotations.kubectl\.kubernetes\.io/last-applied-configuration}')
    name=$(basename "$file" .yaml)
    [ -z "$applied" ] || printf '%s\n' "$applied" >"$previous/$name.json"
    [[ $file != *deployment_* ]] || printf '%s %s\n' "$name" "$(running "$file")" >>"$previous.images"
  done
  say "before this: $(tr '\n' ';' <"$previous.images")"
  echo "$1" >"$previous.for"
}
