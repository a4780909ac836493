#!/usr/bin/env bash
# Runs `make serve` and the quickstart of the README with a temporary data directory. Then it kills
# the server with SIGKILL, starts it again, checks that no data is lost, and completes the order.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$(mktemp -d); chmod 755 "$folder"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export MARKETHALL_DATA_DIR=$folder/data APP=http://127.0.0.1:$port
server=

start() {
    make --no-print-directory serve ARGS="--port $port" >>"$folder/serve.log" 2>&1 &
    for _ in $(seq 600); do
        curl -fs "$APP/ready" >/dev/null 2>&1 && break
        sleep 0.1
    done
    server=$(pgrep -f "markethall serve --port $port" | tail -n 1)
}
finish() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    wait || true
    rm -rf "$folder"
}
trap finish EXIT

start
.venv/bin/markethall demo
echo 'open sesame, staff only' | .venv/bin/markethall create-staff boss@example.com --role admin --password-stdin

# prints the code block of the README after the marker
awk '/^<!-- quickstart:/ {found = 1} found && /^```$/ {exit} found && inside {print} found && /^```sh$/ {inside = 1}' \
    README.md >"$folder/flow.sh"
grep -q sandbox_ok "$folder/flow.sh"
{
    cat "$folder/flow.sh"
    echo 'printf "TOKEN=%s\nORDER_ID=%s\n" "$TOKEN" "$ORDER_ID" >'"$folder/variables"
} | bash -euo pipefail | sed 's/}{/}\n{/g'
echo
. "$folder/variables"

status() { curl -s "$APP/orders/$ORDER_ID/status" -H "Authorization: Bearer $TOKEN"; }
wait_for_status() {
    for _ in $(seq 300); do
        case $(status) in *"\"status\":\"$1\""*) return 0 ;; esac
        sleep 0.1
    done
    echo "the order is not $1: $(status)" >&2
    return 1
}

wait_for_status processing
echo "kill -9 $server"
kill -9 "$server"; wait || true
start
wait_for_status processing
echo "no data is lost after the restart: $(status)"

staff=$(curl -s "$APP/token" -d grant_type=password -d username=boss@example.com \
    --data-urlencode password='open sesame, staff only' | sed -E 's/.*"access_token":"([^"]*)".*/\1/')
fulfilment=$(curl -s "$APP/orders/$ORDER_ID/fulfilments" -H "Authorization: Bearer $staff" \
    -H 'Content-Type: application/json' -d '{"carrier": "DHL", "tracking_number": "JD0123456789"}' |
    sed -E 's/.*"fulfilment_id":"([^"]*)".*/\1/')
curl -s -X POST "$APP/fulfilments/$fulfilment/deliver" -H "Authorization: Bearer $staff"
echo
wait_for_status completed
echo "quickstart: ok: $(status)"
