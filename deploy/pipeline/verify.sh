#!/usr/bin/env bash
# Whether the shop works as it was rolled out: every workload runs the new image and is ready, and the public address answers
# with products. With a token, an order is placed and cancelled, which charges and refunds.
# PUBLIC_URL: where customers find the API, such as https://api.shop.example
# SMOKE_TOKEN: a customer's access token; SMOKE_ORDER: the order's body, as of POST /orders. Both or none.
# PROMETHEUS_URL: a Prometheus; an alert that pages somebody and fires there is a failure (leave it out to roll out
# what mends it).
source "$(dirname "$0")/settings.sh"
source deploy/pipeline/cluster.sh

need PUBLIC_URL "where customers find the API, such as https://api.shop.example"
[ -z "${SMOKE_TOKEN:-}" ] || need SMOKE_ORDER "the body of an order to place and cancel, as of POST /orders"
need_program curl "install curl"
need_program jq "install jq"
image=$(image)
manifests=$PIPELINE_STATE/manifests
[ -d "$manifests" ] || fail "there is no $manifests: run deploy/pipeline/roll-out.sh first"

for file in $(files "$manifests" deployment workerdeployment); do
  rolled_out "$file" || fail "${file##*deployment_} is not ready"
  found=$(running "$file")
  [ "$found" = "$image" ] || fail "${file##*deployment_} runs $found, not $image"
done

# ask METHOD PATH [CURL'S OPTIONS]: what the shop answers. Asks again where that is harmless: every call here can be repeated.
ask() {
  local method=$1 path=$2
  shift 2
  curl --silent --show-error --fail-with-body --max-time 20 --retry "${SMOKE_RETRIES:-5}" --retry-delay "$POLL_SECONDS" \
    --retry-all-errors --request "$method" "$@" "${PUBLIC_URL%/}$path"
}

products=$(ask GET /products) || fail "GET $PUBLIC_URL/products failed: $products"
jq --exit-status '.items | length > 0' <<<"$products" >/dev/null || fail "GET $PUBLIC_URL/products names no product: $products"

if [ -n "${SMOKE_TOKEN:-}" ]; then
  # The token goes in by a file, not by the command line that every process on this machine can read.
  headers=$(mktemp)
  trap 'rm -f "$headers"' EXIT
  printf 'Authorization: Bearer %s\nContent-Type: application/json\n' "$SMOKE_TOKEN" >"$headers"
  key=smoke-${image: -12}-$(date +%s)
  placed=$(ask POST /orders --header "@$headers" --header "Idempotency-Key: $key" --header 'Prefer: wait=15' --data "$SMOKE_ORDER") ||
    fail "POST /orders failed: $placed"
  order=$(jq --raw-output .orderId <<<"$placed")
  say "placed $order: $(jq --raw-output .orderStatus <<<"$placed")"
  cancelled=$(ask POST "/orders/$order/cancel" --header "@$headers") || fail "$order cannot be cancelled: $cancelled"
  SECONDS=0
  until [ "$(jq --raw-output .orderStatus <<<"$cancelled")" = OrderCanceled ]; do
    [ "$SECONDS" -lt "${SMOKE_SECONDS:-60}" ] || fail "$order is not cancelled after ${SMOKE_SECONDS:-60} s: $cancelled"
    sleep "$POLL_SECONDS"
    cancelled=$(ask GET "/orders/$order" --header "@$headers") || fail "$order cannot be read: $cancelled"
  done
  say "cancelled $order"
else
  say "no SMOKE_TOKEN is set: no order was placed"
fi

if [ -n "${PROMETHEUS_URL:-}" ]; then
  alerts=$(curl --silent --show-error --fail --max-time 20 "${PROMETHEUS_URL%/}/api/v1/alerts") || fail "Prometheus does not answer"
  firing=$(jq --raw-output '[.data.alerts[] | select(.state == "firing" and .labels.severity == "page") | .labels.alertname]
    | unique | join(", ")' <<<"$alerts")
  [ -z "$firing" ] || fail "alerts fire: $firing"
fi
rm -f "$PIPELINE_STATE/open" "$PIPELINE_STATE/previous.for"
say "$image serves customers"
