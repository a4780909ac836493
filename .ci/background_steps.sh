# Functions of .ci/run, which runs some of its steps in the background.

logs=$(mktemp -d)
declare -A started

# `start NAME` runs the function NAME in the background, in a process group of its own
start() {
    set -m # job control gives each background job its own process group
    ("$1") >"$logs/$1" 2>&1 &
    set +m
    started[$1]=$!
}

# `finish NAME` waits for the step, prints its output and ends the run if the step has failed
finish() {
    local status=0
    wait "${started[$1]}" || status=$?
    unset "started[$1]"
    cat "$logs/$1"
    [ "$status" -eq 0 ] || { printf '\n== failed: %s\n' "$1"; exit "$status"; }
}

# end the steps that still run, with the processes that they have started
end_all() {
    for group in "${started[@]}"; do kill -- "-$group" 2>/dev/null || true; done
    wait
    rm -rf "$logs"
}
trap end_all EXIT
