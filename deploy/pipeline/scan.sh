#!/usr/bin/env bash
# Looks for known holes in the image that build.sh left: fails on HIGH and CRITICAL ones that a newer package mends, and on
# secrets. With trivy or grype; where neither is installed, with trivy's image.
# SCANNER_IMAGE: trivy's image in a registry of yours, by its digest: …/trivy@sha256:…
source "$(dirname "$0")/settings.sh"

tag=$(left tag build)
archive=$PIPELINE_STATE/image.tar
[ -s "$archive" ] || fail "there is no $archive: run deploy/pipeline/build.sh first"
rm -f "$PIPELINE_STATE/scanned"
trivy=(image --scanners "vuln,secret" --severity "HIGH,CRITICAL" --ignore-unfixed --exit-code 1 --no-progress)

if command -v trivy >/dev/null; then
  scan=(trivy "${trivy[@]}" --input "$archive")
elif command -v grype >/dev/null; then
  scan=(grype "docker-archive:$archive" --only-fixed --fail-on high)
elif [ -n "${SCANNER_IMAGE:-}" ]; then
  # A tag can be moved to something else, and this reads the whole image.
  [[ $SCANNER_IMAGE == *@sha256:* ]] || fail "SCANNER_IMAGE is $SCANNER_IMAGE: name the image by its digest, …@sha256:…"
  scan=("$(engine)" run --rm --volume "$(realpath "$archive"):/image.tar:ro" "$SCANNER_IMAGE" "${trivy[@]}" --input /image.tar)
else
  fail "there is no scanner on this machine: install trivy (aquasecurity/trivy) or grype (anchore/grype)," \
    "or set SCANNER_IMAGE to trivy's image by its digest"
fi
"${scan[@]}" || fail "$IMAGE_NAME:$tag is not clean, or could not be scanned: it is not pushed"
echo "$tag" >"$PIPELINE_STATE/scanned"
