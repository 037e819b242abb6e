#!/usr/bin/env bash
# Measures what docs/measurements.md and the tests say in words: how soon a killed worker
# is replaced, how soon the server leaves, what a worker costs, and how echoing
# compares with the plainest server in C; and `bench` with the plainest client.
# Medians, on this machine, now.
#
# Linux only (it reads /proc); needs bash 5, cc, taskset, and strace for the system
# calls; takes some five minutes. With --quick each is done once and in small, which
# tells whether this script works, and no figures.
# It uses ports 17771 to 17773 of the loopback.
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in
    "") quick=no ;;
    --quick) quick=yes ;;
    *) echo "usage: scripts/figures.sh [--quick]" >&2; exit 2 ;;
esac
[ "$(uname)" = Linux ] || { echo "figures.sh: it reads /proc, which only Linux has" >&2; exit 1; }

work=$(mktemp -d)
started=()
cleanup() {
    local pid workers
    for pid in "${started[@]}"; do
        workers=$(children "$pid" 2>/dev/null) || continue # It is gone already.
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
ours=17771 theirs=17772 bare=17773

nap() { sleep 0.002; }
times() { seq "$([ $quick = yes ] && echo 1 || echo "$1")"; }
load() { [ $quick = yes ] && echo $(($1 / 20)) || echo "$1"; }
median() { sort -n | awk '{ line[NR] = $1 } END { print line[int((NR + 1) / 2)] }'; }
milliseconds() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.1f\n", (b - a) * 1000 }'; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'; }
children() { cat "/proc/$1/task/$1/children"; }

# Starts the server with the options given; $server is its pid.
serve() {
    : >"$work/line"
    "$program" --bind "127.0.0.1:$ours" -q "$@" >"$work/line" 2>"$work/log" &
    server=$!
    started+=("$server")
    until [ -s "$work/line" ]; do
        kill -0 "$server" || { cat "$work/log" >&2; exit 1; }
        nap
    done
}

# SIGTERM, and the milliseconds to the end in $took; checks the exit status.
stop() {
    local from=$EPOCHREALTIME
    kill -TERM "$server"
    wait "$server"
    took=$(milliseconds "$from" "$EPOCHREALTIME")
}

echo "machine: $(nproc) processors, Linux $(uname -r); medians"

serve --workers 4
"$work/plain" "$theirs" 4 >/dev/null &
plain=$!
disown
started+=("$plain")
"$work/measure" echo "$ours" 4 1000 64 >/dev/null

echo "respawn, from SIGKILL to the next worker (51 times), in microseconds:"
echo "  prefork-echo $("$work/measure" respawn "$server" 51 | median), plain C $("$work/measure" respawn "$plain" 51 | median)"

for pid in $(children "$server"); do awk '/^Pss:/ { print $2 }' "/proc/$pid/smaps_rollup"; done | median \
    | sed 's/^/memory of an idle worker (PSS of 4), in kB: /'

# compare NAME UNIT COMMAND...: seven rounds in turn; rate and processor time.
compare() {
    local name=$1 unit=$2 port pid before
    shift 2
    for _ in $(times 7); do
        for which in ours theirs; do
            port=${!which}
            if [ "$which" = ours ]; then pid=$server; else pid=$plain; fi
            before=$("$work/measure" cpu "$pid")
            "$work/measure" "$1" "$port" "${@:2}" >>"$work/$name.$which.rate"
            echo $(($("$work/measure" cpu "$pid") - before)) >>"$work/$name.$which.cpu"
        done
    done
    local a b c d
    a=$(median <"$work/$name.ours.rate") b=$(median <"$work/$name.theirs.rate")
    c=$(median <"$work/$name.ours.cpu") d=$(median <"$work/$name.theirs.cpu")
    echo "  $unit: $a, plain C $b, ratio $(ratio "$a" "$b"); processor time $c ms, plain C $d ms, ratio $(ratio "$c" "$d")"
}
echo "the same load on both, in turn:"
compare one "echoes of 64 bytes a second, 1 connection" echo 1 "$(load 40000)" 64
compare four "echoes of 64 bytes a second, 4 connections" echo 4 "$(load 20000)" 64
compare bulk "echoes of 500 kB a second, 1 connection" echo 1 "$(load 2000)" 500000
compare connect "connections with an echo a second" connect "$(load 10000)"
stop

# Sent and taken at the same time, so that the server never waits for a client that only sends.
echo "in bulk, 1 connection, processor time a megabyte in microseconds, in turn with plain C (nine rounds):"
for model in process thread multiplex; do
    serve --workers 1 --model "$model"
    rm -f "$work"/bulk.*
    for round in $(times 9); do
        # Each is the first as often as the second.
        for which in $((round % 2)) $(((round + 1) % 2)); do
            if [ "$which" = 0 ]; then pid=$server port=$ours name=ours; else pid=$plain port=$theirs name=theirs; fi
            "$work/measure" stream "$port" "$(load 1000)" 65536 "$pid" >>"$work/bulk.$name"
        done
    done
    a=$(cut -d' ' -f1 "$work/bulk.ours" | median) b=$(cut -d' ' -f1 "$work/bulk.theirs" | median)
    pairs=$(paste -d' ' "$work/bulk.ours" "$work/bulk.theirs" | awk '{ printf "%.2f\n", $1 / $3 }' | median)
    echo "  $model: $a, plain C $b, ratio $(ratio "$a" "$b"), pair by pair $pairs; megabytes a second: $(cut -d' ' -f2 "$work/bulk.ours" | median), plain C $(cut -d' ' -f2 "$work/bulk.theirs" | median)"
    echo "    memory of the worker after that (PSS), in kB: $("$work/measure" pss "$(children "$server" | tr -d ' ')")"
    stop
done

echo "from SIGTERM to the exit, in milliseconds:"
for _ in $(times 7); do
    serve --workers 4
    stop
    echo "$took"
done | median | sed 's/^/  4 idle workers: /'
for _ in $(times 3); do
    serve --workers 4
    exec 3<>"/dev/tcp/127.0.0.1/$ours"
    echo hello >&3
    read -r _ <&3
    stop
    echo "$took"
    cat <&3 # an end of file; a reset would fail
    exec 3>&-
done | median | sed 's/^/  with a client connected that sits there: /'

# status_takes: the median of 21 runs, in milliseconds.
status_takes() {
    local from
    for _ in $(times 21); do
        from=$EPOCHREALTIME
        "$program" status "127.0.0.1:$ours" >/dev/null
        milliseconds "$from" "$EPOCHREALTIME"
    done | median
}
echo "status answers, in milliseconds:"
serve --workers 4
echo "  4 workers: $(status_takes)"
"$work/measure" echo "$ours" 4 "$(load 50000)" 64 >/dev/null &
busy=$!
started+=("$busy")
echo "  all of them busy: $(status_takes)"
kill -STOP "$server"
echo "  and the parent stopped: $(status_takes)"
kill -CONT "$server"
wait "$busy"
stop
serve --workers 1000
echo "  1,000 workers: $(status_takes)"
stop
[ $quick = yes ] || echo "the scoreboard's cost, in processor time, with and without it in turn:"
[ $quick = yes ] || taskset -c 0 cargo run --release --quiet --example scoreboard_cost

# On a processor of their own, beside the client's: which worker runs where makes more
# of a difference than the sandbox.
serve --workers 1
taskset -cp 0 "$(children "$server" | tr -d ' ')" >/dev/null
"$program" --bind "127.0.0.1:$bare" -q --workers 1 --no-sandbox >"$work/line" &
without=$!
started+=("$without")
until grep -q "pid $without," "$work/line"; do nap; done
taskset -cp 0 "$(children "$without" | tr -d ' ')" >/dev/null
spent() { cut -d' ' -f1 "/proc/$(children "$1" | tr -d ' ')/schedstat"; } # in nanoseconds
for pair in $(times 15); do
    for which in $((pair % 2)) $(((pair + 1) % 2)); do
        if [ "$which" = 0 ]; then pid=$server port=$ours name=with; else pid=$without port=$bare name=without; fi
        before=$(spent "$pid")
        taskset -c 1 "$work/measure" echo "$port" 1 "$(load 40000)" 64 >/dev/null
        echo $((($(spent "$pid") - before) / $(load 40000))) >>"$work/sandbox.$name"
    done
done
kill -TERM "$without"
wait "$without"
stop
echo "processor time of an echo in nanoseconds, in the sandbox and without, in turn: $(median <"$work/sandbox.with") and $(median <"$work/sandbox.without"), pair by pair $(paste "$work/sandbox.with" "$work/sandbox.without" | awk '{ printf "%.3f\n", $1 / $2 }' | median)"

# The client side must not be what is measured: `bench` beside the plainest client
# in C, on the same server, in turn.
field() { sed "s/.*\"$1\":\([0-9.]*\).*/\1/"; }
bench() { "$program" bench "127.0.0.1:$ours" --json "$@"; }
for clients in 1 4; do
    rm -f "$work"/client.*
    # A server of its own for each pair: on which processor the kernel puts which
    # makes more of a difference, and stays so for long.
    for pair in $(times 21); do
        serve --workers 4
        # Each is the first as often as the second.
        for which in $((pair % 2)) $(((pair + 1) % 2)); do
            if [ "$which" = 0 ]; then
                "$work/measure" echo "$ours" "$clients" $(($(load 60000) / clients)) 64 >>"$work/client.c"
            else
                bench -c "$clients" -n "$(load 60000)" | field per_second >>"$work/client.bench"
            fi
        done
        stop
    done
    a=$(median <"$work/client.bench") b=$(median <"$work/client.c")
    pairs=$(paste "$work/client.bench" "$work/client.c" | awk '{ printf "%.2f\n", $1 / $2 }' | median)
    echo "bench, echoes of 64 bytes a second, connections: $clients: $a, C client $b, ratio $(ratio "$a" "$b"), pair by pair $pairs"
done
serve --workers 4
rm -f "$work"/client.*
for _ in $(times 15); do
    "$work/measure" latency "$ours" "$(load 20000)" 64 >>"$work/client.c"
    bench -c 1 -n "$(load 20000)" >"$work/result"
    for quantile in p50 p90 p99; do field "$quantile" <"$work/result"; done | tr '\n' ' ' >>"$work/client.bench"
    echo >>"$work/client.bench"
done
for column in 1 2 3; do
    a=$(cut -d' ' -f "$column" "$work/client.bench" | median) b=$(cut -d' ' -f "$column" "$work/client.c" | median)
    echo "latency in microseconds, $(echo p50 p90 p99 | cut -d' ' -f "$column"): bench $a, C client $b, ratio $(ratio "$a" "$b")"
done
stop

echo "1,000 workers, in milliseconds:"
for _ in $(times 3); do
    from=$EPOCHREALTIME
    serve --workers 1000
    started_in=$(milliseconds "$from" "$EPOCHREALTIME")
    stop
    echo "$started_in $took"
done >"$work/thousand"
serve --workers 1000
echo "  bench with 1,000 connections: $(bench -c 1000 -n "$(load 100000)" --timeout 20s | sed 's/,"by_worker.*/}/')"
stop
echo "  to start $(cut -d' ' -f1 "$work/thousand" | median), to leave on SIGTERM $(cut -d' ' -f2 "$work/thousand" | median)"

if command -v strace >/dev/null; then
    trace() { # OPTION...: the calls of the only worker, from the one in which it waits
        : >"$work/calls"
        strace -qq "$@" -o "$work/calls" -p "$(children "$server" | tr -d ' ')" 2>"$work/strace" &
        tracer=$!
        until grep -Eq 'accept|epoll_wait' "$work/calls"; do
            if ! kill -0 "$tracer" 2>/dev/null; then
                echo "strace cannot attach: $(cat "$work/strace")" >&2
                exit 1
            fi
            nap
        done
    }
    traced() { # to the end of the server
        kill "$tracer"
        wait "$tracer" || true
        stop
    }
    serve --workers 1
    trace
    "$work/measure" echo "$ours" 1 1000 64 >/dev/null
    "$work/measure" connect "$ours" 1000 >/dev/null
    traced
    echo "system calls of the worker for 1 connection with 1,000 echoes and 1,000 with one each:"
    sed 's/(.*//' "$work/calls" | sort | uniq -c | sort -rn | awk '{ print "  " $2 " " $1 }'

    # The header has a send of its own, so it may come apart from the first bytes.
    echo "system calls of the worker for a connection with one echo, plain and with a PROXY header:"
    for model in process thread multiplex; do
        for options in "" "--proxy-protocol --proxy-header v2"; do
            # shellcheck disable=SC2086 # words, on purpose
            serve --workers 1 --model "$model" ${options%% *}
            trace -f
            # shellcheck disable=SC2086
            bench -c 1 -n 1000 -m connect ${options#* } >/dev/null
            traced
            awk -v what="$model ${options%% *}" '/resumed/ { next } { n++ } END { printf "  %s: %.2f\n", what, n / 1000 }' "$work/calls"
        done
    done
fi
