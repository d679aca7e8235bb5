#!/bin/sh
# Asks for a revert over the gateway: submit.sh USAGE_ID AMOUNT ORG_ID MESSAGE_ID
# Prints {} for a success. Otherwise it prints the error, with exit status 1. A request that is sent
# again with the same id gets the same answer, so curl may try again by itself.
url=${REVERTD_GATEWAY_URL:-http://127.0.0.1:7400}
printf '{"usage_id": "%s", "amount": "%s", "org_id": "%s"}' "$1" "$2" "$3" |
  curl --silent --show-error --fail-with-body --max-time 15 --retry 3 --retry-connrefused \
    --user "$REVERTD_CLIENT_ID:$REVERTD_CLIENT_SECRET" \
    --header 'Content-Type: application/json' --header "Idempotency-Key: $4" --data-binary @- \
    "$url/v1beta1/organizations/billing/usages/revert" || exit 1
