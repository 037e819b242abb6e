#!/usr/bin/env bash
# Measures the three ways to serve beside each other and beside plain C, in turn:
# processor time of the server an echo, and memory for quiet connections. Medians,
# on this machine, now.
#
# Linux only (it reads /proc); needs bash 5, cc, and a hard limit of 10,000
# descriptors; takes some five minutes. With --quick each is done once and in
# small, which tells whether this script works, and no figures.
# It uses ports 17781 to 17783 of the loopback.
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in
    "") rounds=9 share=1 ;;
    --quick) rounds=1 share=20 ;;
    *) echo "usage: scripts/models.sh [--quick]" >&2; exit 2 ;;
esac
[ "$(uname)" = Linux ] || { echo "models.sh: it reads /proc, which only Linux has" >&2; exit 1; }

work=$(mktemp -d)
started=()
cleanup() {
    local pid workers
    for pid in ${started[@]+"${started[@]}"}; do
        workers=$(cat "/proc/$pid/task/$pid/children" 2>/dev/null) || continue # It is gone already.
        # The plain server's workers outlive it. Unquoted: several pids.
        # shellcheck disable=SC2086
        kill -KILL "$pid" $workers 2>/dev/null || true
    done
    rm -rf "$work"
}
trap cleanup EXIT

cargo build --release --quiet
program=${CARGO_TARGET_DIR:-target}/release/prefork-echo
cc -O2 -o "$work/plain" scripts/plain.c
cc -O2 -o "$work/measure" scripts/measure.c

median() { sort -n | awk '{ line[NR] = $1 } END { print line[int((NR + 1) / 2)] }'; }

# start NAME PORT COMMAND...: starts a server and waits until it listens.
start() {
    local name=$1
    shift
    "$@" >"$work/$name.line" 2>"$work/log" &
    started+=("$!")
    printf -v "$name" %s "$!"
    until grep -q listening "$work/$name.line"; do
        kill -0 "${!name}" || { cat "$work/log" >&2; exit 1; }
        sleep 0.01
    done
}
ours() { start "$1" "$program" -q --bind "127.0.0.1:$2" "${@:3}"; }
theirs() { start "$1" "$work/plain" "$2" 4 "${@:3}"; }
# forget PID: ends a server and its workers.
forget() {
    local workers
    workers=$(cat "/proc/$1/task/$1/children")
    # shellcheck disable=SC2086
    kill -KILL "$1" $workers
    wait "$1" 2>/dev/null || true
}

# pairs FILE FILE: the median of the ratios, pair by pair.
pairs() { paste "$1" "$2" | awk '$2 > 0 { printf "%.2f\n", $1 / $2 }' | median; }

echo "machine: $(nproc) processors, Linux $(uname -r); medians of $rounds"
echo "4 clients, echoes of 64 bytes; processor time of the server an echo, in microseconds:"
echoes=$((40000 / share))
for _ in $(seq "$rounds"); do
    ours process 17781 --workers 4
    ours thread 17782 --workers 1 --model thread --clients 4
    for which in process thread; do
        if [ "$which" = process ]; then port=17781; else port=17782; fi
        before=$("$work/measure" cpu "${!which}")
        "$work/measure" echo "$port" 4 "$echoes" 64 >/dev/null
        after=$("$work/measure" cpu "${!which}")
        awk -v time=$((after - before)) -v n=$((4 * echoes)) 'BEGIN { printf "%.3f\n", time * 1000 / n }' >>"$work/$which"
        forget "${!which}"
    done
done
echo "  process $(median <"$work/process"), thread $(median <"$work/thread"), ratio pair by pair $(pairs "$work/thread" "$work/process")"

for clients in 100 1000 8000; do
    echo "$clients clients on 4 workers, echoes of 64 bytes on all of them in turn:"
    rm -f "$work"/many.*
    for _ in $(seq "$rounds"); do
        ours multiplex 17781 --workers 4 --model multiplex --clients 10000
        theirs epoll 17782 epoll
        for which in multiplex epoll; do
            if [ "$which" = multiplex ]; then port=17781; else port=17782; fi
            "$work/measure" many "$port" "$clients" $((80000 / share)) 1 "${!which}" >"$work/result"
            cut -d' ' -f1 "$work/result" >>"$work/many.$which"
            cut -d' ' -f2 "$work/result" >>"$work/many.$which.memory"
            forget "${!which}"
        done
    done
    echo "  processor time an echo, in microseconds: multiplex $(median <"$work/many.multiplex"), plain C with epoll $(median <"$work/many.epoll"), ratio pair by pair $(pairs "$work/many.multiplex" "$work/many.epoll")"
    echo "  memory for the connections, in kB: multiplex $(median <"$work/many.multiplex.memory"), plain C $(median <"$work/many.epoll.memory")"
done
