#!/usr/bin/env bash
# Brings the scanned image into ECR, and leaves what to deploy in image: repository@sha256:…
# IMAGE_REPOSITORY: the repository, such as 123456789012.dkr.ecr.ap-northeast-2.amazonaws.com/street12
source "$(dirname "$0")/settings.sh"

need IMAGE_REPOSITORY "the ECR repository, such as 123456789012.dkr.ecr.ap-northeast-2.amazonaws.com/street12"
need_program aws "install the AWS CLI, version 2"
tag=$(left tag build)
[ "$(left scanned scan)" = "$tag" ] || fail "$IMAGE_NAME:$tag was not scanned: run deploy/pipeline/scan.sh first"
engine=$(engine)
registry=${IMAGE_REPOSITORY%%/*}
name=${IMAGE_REPOSITORY#*/}
region=$(sed -n 's/^[0-9]*\.dkr\.ecr\.\([a-z0-9-]*\)\..*/\1/p' <<<"$registry")
[ -n "$region" ] || fail "IMAGE_REPOSITORY is $IMAGE_REPOSITORY, which is no repository of ECR"
rm -f "$PIPELINE_STATE/image"

of_ecr() { aws ecr "$@" --region "$region" --output text; }
digest() {
  of_ecr batch-get-image --repository-name "$name" --image-ids "imageTag=$tag" --query 'images[0].imageId.imageDigest'
}

# What was scanned under a tag must stay what the tag names.
mutability=$(of_ecr describe-repositories --repository-names "$name" --query 'repositories[0].imageTagMutability')
[[ $mutability == IMMUTABLE* ]] || fail "tags of $name can be moved: aws ecr put-image-tag-mutability" \
  "--repository-name $name --image-tag-mutability IMMUTABLE --region $region"

found=$(digest)
if [[ $found == sha256:* ]]; then
  say "$name:$tag is there already, from an earlier run for this commit: that image is deployed"
else
  aws ecr get-login-password --region "$region" | "$engine" login --username AWS --password-stdin "$registry"
  trap '"$engine" logout "$registry" >/dev/null' EXIT
  "$engine" load --input "$PIPELINE_STATE/image.tar"
  "$engine" tag "$IMAGE_NAME:$tag" "$IMAGE_REPOSITORY:$tag"
  "$engine" push "$IMAGE_REPOSITORY:$tag"
  found=$(digest)
  [[ $found == sha256:* ]] || fail "ECR does not know $name:$tag after it was pushed"
fi
echo "$IMAGE_REPOSITORY@$found" >"$PIPELINE_STATE/image"
say "pushed $IMAGE_REPOSITORY:$tag, which is $found"
