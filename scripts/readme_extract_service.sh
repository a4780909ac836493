#!/usr/bin/env bash
# Runs the README's words for moving one stall out, on a data directory of its own: the hall and its
# story first, then inventory in a process, and in a database, of its own.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$(mktemp -d); chmod 755 "$folder"
free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
export MARKETHALL_DATA_DIR=$folder/data MARKETHALL_LOG_FORMAT=json
export HALL=http://127.0.0.1:$(free) STALL=http://127.0.0.1:$(free)

finish() {
    for pid in "${INVENTORY:-}" "${REST:-}" "${WHOLE:-}"; do
        [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
    done
    wait || true
    rm -rf "$folder"
}
trap finish EXIT

# the README's own words, from a marker to the end of the block
words() {
    awk -v marker="<!-- $1:" 'index($0, marker) == 1 {found = 1} found && /^```$/ {exit}
        found && inside {print} found && /^```sh$/ {inside = 1}' README.md
}
words flow >"$folder/flow.sh"; words moving >"$folder/moving.sh"
grep -q sandbox_ok "$folder/flow.sh"; grep -q 'markethall relocate' "$folder/moving.sh"

.venv/bin/markethall serve --port "${HALL##*:}" >"$folder/whole.log" 2>&1 & WHOLE=$!
for _ in $(seq 600); do curl -fs "$HALL/ready" >/dev/null 2>&1 && break; sleep 0.1; done
.venv/bin/markethall demo
set +u
. "$folder/flow.sh" >"$folder/flow.out"
kill "$WHOLE"; wait "$WHOLE" || true; WHOLE=

# the block says nothing of what the servers log, so that goes where their banners go
set +e
. "$folder/moving.sh" >"$folder/moving.out" 2>"$folder/moving.err"
set -e
placed=$(grep -o '"status":"pending"' "$folder/moving.out" | wc -l)
[ "$placed" = 2 ] || { cat "$folder/moving.out" "$folder/moving.err"; echo "placed $placed of 2"; exit 1; }
.venv/bin/markethall topology | grep '^inventory.*/inventory$'
echo "moving flow: ok: an order from the stall's own process, and one from its own database"
