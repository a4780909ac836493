#!/usr/bin/env bash
# Runs the commands of docs/extracting-a-service.md with a temporary data directory: first the
# README's quickstart with one process, then inventory with its own process and database.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$(mktemp -d); chmod 755 "$folder"
free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
export MARKETHALL_DATA_DIR=$folder/data MARKETHALL_LOG_FORMAT=json
export APP=http://127.0.0.1:$(free) SERVICE=http://127.0.0.1:$(free)

finish() {
    for pid in "${INVENTORY:-}" "${REST:-}" "${MONOLITH:-}"; do
        [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
    done
    wait || true
    rm -rf "$folder"
}
trap finish EXIT

# prints the code block after a marker: `block MARKER FILE`
block() {
    awk -v marker="<!-- $1:" 'index($0, marker) == 1 {found = 1} found && /^```$/ {exit}
        found && inside {print} found && /^```sh$/ {inside = 1}' "$2"
}
block quickstart README.md >"$folder/quickstart.sh"
block extract docs/extracting-a-service.md >"$folder/extract.sh"
grep -q sandbox_ok "$folder/quickstart.sh"; grep -q 'markethall relocate' "$folder/extract.sh"

.venv/bin/markethall serve --port "${APP##*:}" >"$folder/monolith.log" 2>&1 & MONOLITH=$!
for _ in $(seq 600); do curl -fs "$APP/ready" >/dev/null 2>&1 && break; sleep 0.1; done
.venv/bin/markethall demo
set +u
. "$folder/quickstart.sh" >"$folder/quickstart.out"
kill "$MONOLITH"; wait "$MONOLITH" || true; MONOLITH=

# the output also contains the logs of the servers, so only the statuses of orders are counted
set +e
. "$folder/extract.sh" >"$folder/extract.out" 2>"$folder/extract.err"
set -e
placed=$(grep -o '"status":"pending"' "$folder/extract.out" | wc -l)
[ "$placed" = 2 ] || { cat "$folder/extract.out" "$folder/extract.err"; echo "placed $placed of 2"; exit 1; }
.venv/bin/markethall topology | grep '^inventory.*/inventory$'
echo "extract a service: ok: one order with inventory in its own process, one with its own database"
