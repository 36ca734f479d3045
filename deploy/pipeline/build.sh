#!/usr/bin/env bash
# Builds the image of the commit that is checked out; of nothing that is not committed. Leaves image.tar and its tag, such
# as 0.2.0-1f0c2e5a9b7d.
# SOURCE_URL: where the repository is to be found, for the image's label.
source "$(dirname "$0")/settings.sh"

need_program git "install git"
engine=$(engine)
revision=$(git rev-parse --verify HEAD) || fail "this is no clone: let the pipeline hand over a full clone, with its .git"
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
[ -n "$version" ] || fail "pyproject.toml names no version"
[ -z "$(git status --porcelain)" ] || say "what is not committed does not get into the image"
tag=$version-${revision:0:12}

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
git archive HEAD | tar -x -C "$context"

labels=(
  --label "org.opencontainers.image.title=$IMAGE_NAME"
  --label "org.opencontainers.image.version=$version"
  --label "org.opencontainers.image.revision=$revision"
  --label "org.opencontainers.image.created=$(git show --no-patch --format=%cI HEAD)"
)
[ -z "${SOURCE_URL:-}" ] || labels+=(--label "org.opencontainers.image.source=$SOURCE_URL")

"$engine" build --file "$context/deploy/Dockerfile" --tag "$IMAGE_NAME:$tag" "${labels[@]}" "$context"
rm -f "$PIPELINE_STATE/image.tar"
"$engine" save --output "$PIPELINE_STATE/image.tar" "$IMAGE_NAME:$tag"
echo "$tag" >"$PIPELINE_STATE/tag"
rm -f "$PIPELINE_STATE/scanned" "$PIPELINE_STATE/image"
say "built $IMAGE_NAME:$tag"
