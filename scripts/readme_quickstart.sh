#!/usr/bin/env bash
# Runs the README's main command on a data directory of its own, and its founding flow by curl;
# then kills the server hard, starts it again, and finds everything there.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$(mktemp -d); chmod 755 "$folder"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export MARKETHALL_DATA_DIR=$folder/data HALL=http://127.0.0.1:$port
server=

start() {
    make --no-print-directory serve ARGS="--port $port" >>"$folder/serve.log" 2>&1 &
    for _ in $(seq 600); do
        curl -fs "$HALL/ready" >/dev/null 2>&1 && break
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

# the README's own words, from the marker to the end of the block
awk '/^<!-- flow:/ {found = 1} found && /^```$/ {exit} found && inside {print} found && /^```sh$/ {inside = 1}' \
    README.md >"$folder/flow.sh"
grep -q sandbox_ok "$folder/flow.sh"
{
    cat "$folder/flow.sh"
    echo 'printf "TOKEN=%s\nORDER_ID=%s\n" "$TOKEN" "$ORDER_ID" >'"$folder/kept"
} | bash -euo pipefail | sed 's/}{/}\n{/g'
echo
. "$folder/kept"

status() { curl -s "$HALL/orders/$ORDER_ID/status" -H "Authorization: Bearer $TOKEN"; }
becomes() {
    for _ in $(seq 300); do
        case $(status) in *"\"status\":\"$1\""*) return 0 ;; esac
        sleep 0.1
    done
    echo "the order is not $1 but: $(status)" >&2
    return 1
}

becomes processing
echo "kill -9 $server"
kill -9 "$server"; wait || true
start
becomes processing
echo "started again, everything is there: $(status)"

staff=$(curl -s "$HALL/token" -d grant_type=password -d username=boss@example.com \
    --data-urlencode password='open sesame, staff only' | sed -E 's/.*"access_token":"([^"]*)".*/\1/')
fulfilment=$(curl -s "$HALL/orders/$ORDER_ID/fulfilments" -H "Authorization: Bearer $staff" \
    -H 'Content-Type: application/json' -d '{"carrier": "DHL", "tracking_number": "JD0123456789"}' |
    sed -E 's/.*"fulfilment_id":"([^"]*)".*/\1/')
curl -s -X POST "$HALL/fulfilments/$fulfilment/deliver" -H "Authorization: Bearer $staff"
echo
becomes completed
echo "founding flow: ok: $(status)"
