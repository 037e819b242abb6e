#!/usr/bin/env bash
# Measures the three ways to serve beside each other and beside plain C, in turn, on
# this machine, now. First the same load on all of them, with 1 to 8,000 clients: a
# table, and scripts/models.svg drawn of it. Then the ratios, pair by pair. Medians.
#
# Linux only (it reads /proc); needs bash 5, cc, and a hard limit of 10,000
# descriptors; takes some ten minutes. With --quick each is done once and in
# small, which tells whether this script works, and no figures; the picture is
# then target/models.svg.
# It uses ports 17781 to 17999 of the loopback.
#
# Where go is installed, a server in Go is measured too; and one in tokio, where
# TOKIO_ECHO names a program that takes the port as its argument and prints
# "listening" when it listens.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."
case "${1:-}" in
    "") rounds=9 share=1 table_rounds=3 duration=2s picture=scripts/models.svg ;;
    --quick) rounds=1 share=20 table_rounds=1 duration=200ms picture=${CARGO_TARGET_DIR:-target}/models.svg ;;
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

cargo build --release --locked --quiet
cargo build --locked --quiet --example draw_models
program=${CARGO_TARGET_DIR:-target}/release/prefork-echo
cc -O2 -o "$work/plain" scripts/plain.c
cc -O2 -o "$work/measure" scripts/measure.c

median() { sort -n | awk '{ line[NR] = $1 } END { print line[int((NR + 1) / 2)] }'; }

# start NAME PORT COMMAND...: starts a server and waits until it listens.
start() {
    local name=$1
    shift
    : >"$work/$name.line"
    "$@" >"$work/$name.line" 2>"$work/log" &
    started+=("$!")
    printf -v "$name" %s "$!"
    until grep -q listening "$work/$name.line"; do
        kill -0 "${!name}" || { cat "$work/log" >&2; exit 1; }
        sleep 0.01
    done
}
ours() { start "$1" "$program" -q --bind "127.0.0.1:$2" "${@:3}"; }
theirs() { start "$1" "$work/plain" "$2" "${workers:-4}" "${@:3}"; }
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

# ----- The same load on all of them.

machine="$(nproc) processors, Linux $(uname -r | cut -d. -f1,2), $(date -u +%F)"

if command -v go >/dev/null; then
    cat >"$work/echo.go" <<'GO'
package main

import (
	"fmt"
	"net"
	"os"
)

func serve(client net.Conn) {
	defer client.Close()
	buffer := make([]byte, 65536)
	for {
		n, err := client.Read(buffer)
		if err != nil {
			return
		}
		if _, err := client.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("listening")
	for {
		if client, err := listener.Accept(); err == nil {
			go serve(client)
		}
	}
}
GO
    GOCACHE=$work/go-cache go build -o "$work/go-echo" "$work/echo.go"
fi

servers=(process thread multiplex "C, epoll")
absent=()
if [ -x "$work/go-echo" ]; then servers+=(Go); else absent+=("Go (no go here)"); fi
if [ -n "${TOKIO_ECHO:-}" ]; then servers+=(tokio); else absent+=("tokio (TOKIO_ECHO names none)"); fi

# threads PID: the threads of a server and of its workers.
threads() {
    local of tasks=() children
    children=$(cat "/proc/$1/task/$1/children")
    for of in "$1" $children; do tasks+=("/proc/$of/task/"*); done
    echo "${#tasks[@]}"
}

# launch SERVER PORT CLIENTS: starts it with room for so many clients, on four workers where
# these are enough, and waits for all its processes and threads. Leaves its pid in $server.
launch() {
    local port=$2 clients=$3 workers=$(($3 < 4 ? $3 : 4)) each expected=1
    case "$1" in
        process) ours server "$port" --workers "$clients" && expected=$((clients + 1)) ;;
        thread)
            # A worker has 512 threads that serve, at most.
            [ $((workers * 512)) -ge "$clients" ] || workers=$(((clients + 511) / 512))
            each=$(((clients + workers - 1) / workers))
            ours server "$port" --workers "$workers" --model thread --clients "$each"
            expected=$((workers * (each + 1) + 1))
            ;;
        multiplex) ours server "$port" --workers "$workers" --model multiplex --clients 10000 && expected=$((workers + 1)) ;;
        "C, epoll") theirs server "$port" epoll && expected=$((workers + 1)) ;;
        Go) start server "$work/go-echo" "$port" ;;
        tokio) start server "$TOKIO_ECHO" "$port" ;;
    esac
    for _ in $(seq 3000); do
        [ "$(threads "$server")" -lt "$expected" ] || return 0
        sleep 0.01
    done
    echo "models.sh: $1 has not started all that is to serve $clients clients" >&2
    exit 1
}

# field NAME: a number of the JSON that bench has printed.
field() { sed "s/.*\"$1\":\([0-9.]*\).*/\1/" "$work/bench"; }

# load CLIENTS: leaves $rate, $p50, $p99 and $time; what accepting them takes is in $time, too.
load() {
    local before
    before=$("$work/measure" cpu "$server")
    "$program" bench "127.0.0.1:$port" --connections "$1" --duration "$duration" --timeout 30s --json >"$work/bench"
    time=$(($("$work/measure" cpu "$server") - before))
    rate=$(field per_second) p50=$(field p50) p99=$(field p99)
    time=$(awk -v ms="$time" -v n="$(field messages)" 'BEGIN { printf "%.2f", ms * 1000 / n }')
}

# row SERVER PORT CLIENTS: one measurement, separated by tabs.
row() {
    local server port=$2 clients=$3 rate p50 p99 time memory
    launch "$@"
    memory=$("$work/measure" pss "$server")
    "$work/measure" many "$port" "$clients" 0 "$clients" "$server" >"$work/result"
    # The whole server's, shared out: also what waits for clients is there for them.
    memory=$(awk -v before="$memory" -v clients="$clients" '{ printf "%.1f", (before + $2) / clients }' "$work/result")
    load "$clients"
    printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "$clients" "$rate" "$p50" "$p99" "$time" "$memory" \
        "$(threads "$server")" "$("$work/measure" count "$server")"
    forget "$server"
}

# fits SERVER CLIENTS: can it, and can this machine?
fits() {
    { [ "$1" != process ] || [ "$2" -le 4096 ]; } &&
        { [ "$descriptors" = unlimited ] || [ "$descriptors" -ge $(($2 + 100)) ]; } &&
        { [ "$processes" = unlimited ] || [ "$processes" -ge $(($2 * 2)) ]; }
}

# medians FILE: of each column, by itself.
medians() {
    local column
    cut -f1,2 "$1" | head -n 1
    for column in 3 4 5 6 7 8 9; do cut -f"$column" "$1" | median; done
}

descriptors=$(ulimit -Hn) processes=$(ulimit -u)
ulimit -Sn "$descriptors"
next_port=17784
echo "$machine"
echo "echoes of 64 bytes on kept connections; medians of $table_rounds; times in microseconds"
header='%7s %-9s %8s %8s %8s %8s %10s %7s %6s\n'
# shellcheck disable=SC2059 # the format of all rows
printf "$header" clients server echoes/s p50 p99 CPU/echo kB/client threads procs
echo "# $machine; echoes of 64 bytes on kept connections" >"$work/table"
for clients in 1 8 100 1000 8000; do
    for name in "${servers[@]}"; do
        if fits "$name" "$clients"; then
            rm -f "$work/rows"
            for _ in $(seq "$table_rounds"); do
                row "$name" "$next_port" "$clients" >>"$work/rows"
                next_port=$((next_port + 1))
            done
            medians "$work/rows" | paste -s >>"$work/table"
        else
            printf '%s\t%s\t-\t-\t-\t-\t-\t-\t-\n' "$name" "$clients" >>"$work/table"
        fi
        IFS=$'\t' read -r _ _ rate p50 p99 time memory tasks count < <(tail -n 1 "$work/table")
        # shellcheck disable=SC2059
        printf "$header" "$clients" "$name" "${rate%.*}" "${p50%.*}" "${p99%.*}" "$time" "$memory" "$tasks" "$count"
    done
done
echo "-: no figure. A server of processes has 4,096 of them at most."
[ "${#absent[@]}" = 0 ] || { printf 'Left out:'; printf ' %s;' "${absent[@]}"; echo; }
cargo run --locked --quiet --example draw_models -- "$work/table" "$picture"

# ----- The ratios, pair by pair.

echo "medians of $rounds:"
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
