#!/usr/bin/env bash
# What each way to serve costs, and where it stops
. "$(dirname "$0")/lib.sh"

lesson "The same clients are served by processes, by the threads of one process, and by
one thread. What does a client cost, and how many does each way serve?"

processes() { echo "--workers $1"; }
threads() { echo "--workers 1 --model thread --clients $1"; }
multiplex() { echo "--workers 1 --model multiplex"; }

# ----- Where each stops.

# ninth OPTIONS...: eight clients stay; is a ninth served?
ninth() {
    serve "$@"
    crowd 8
    wait_until "eight clients are served" serves 8
    run "prefork-echo client $port --timeout 1s ninth 2>&1 | cut -c 1-76 | tee ninth"
    reply=waits
    if grep -qx ninth ninth; then
        reply="is served"
    elif on_linux; then
        run "prefork-echo status $port | grep 'accept queue'"
        check "one connection is in the queue" test "$(values length)" = 1
    fi
    crowd_leaves >/dev/null
    end_server
}
predict "Eight clients are served by eight processes, and a ninth comes. Is it served?"
ninth --workers 8
ninth_processes=$reply
check "it has a connection, and no process: it $ninth_processes" test "$ninth_processes" != "is served"
predict "And with eight threads of one process?"
ninth --workers 1 --model thread --clients 8
ninth_threads=$reply
check "with eight threads it $ninth_threads" test "$ninth_threads" != "is served"
predict "And with one thread that multiplexes?"
ninth --workers 1 --model multiplex
ninth_multiplex=$reply
check "one thread that multiplexes has room: it $ninth_multiplex" test "$ninth_multiplex" = "is served"

# ----- What each costs: Linux tells of memory and processor time in /proc.

# The processor time of the server and of all its threads so far, in microseconds.
processor_time() {
    for pid in $(parent_and_workers); do echo "/proc/$pid/task/"*/schedstat; done |
        xargs cat | awk '{ ns += $1 } END { printf "%.0f", ns / 1000 }'
}
# cost MODEL CLIENTS: leaves $memory (kB a client) and $time (us an echo).
cost() {
    local start connected echoes=10000 before kept
    # shellcheck disable=SC2046 # several options in one string, on purpose
    start_server -q $("$1" "$2")
    before=$(./measure pss "$server")
    start=$(processor_time)
    kept=$(./measure many "$port" "$2" 0 "$2" "$server" | awk '{ print $2 }')
    memory=$(awk "BEGIN { printf \"%.1f\", ($before + $kept) / $2 }")
    connected=$(processor_time)
    ./measure many "$port" "$2" "$echoes" "$2" "$server" >/dev/null
    # Less what the connections cost, which was measured by those without echoes.
    time=$(awk "BEGIN { printf \"%.1f\", ($(processor_time) - 2 * $connected + $start) / $echoes }")
    end_server
}
is_less() { awk "BEGIN { exit !($1 < $2) }"; }

unknown=""
if ! on_linux; then
    unknown="What each costs, Linux alone tells (in /proc): that part is left out here."
elif ! command -v cc >/dev/null; then
    unknown="What each costs is measured by scripts/measure.c, which needs a C compiler (cc):
there is none here, and that part is left out."
elif ! [ -r /proc/self/schedstat ] || ! [ -r /proc/self/smaps_rollup ]; then
    unknown="This kernel doesn't tell what each costs (/proc/PID/schedstat, smaps_rollup): that
part is left out."
elif [ "$(ulimit -Hn)" != unlimited ] && [ "$(ulimit -Hn)" -lt 600 ]; then
    unknown="500 clients need 600 descriptors (ulimit -Hn): what each way costs is left out."
fi
if [ -n "$unknown" ]; then
    say "$unknown"
    table <<TABLE
eight clients are served|a ninth
by processes|$ninth_processes
by threads|$ninth_threads
by one thread that multiplexes|$ninth_multiplex
TABLE
    conclude
fi

predict "1, 8, 100 and 500 clients: what does one more cost, in each of the three ways?
That takes some ten seconds."
cc -O2 -o measure "$scripts/measure.c" || exit 1
memory_rows="" time_rows=""
for model in processes threads multiplex; do
    memory_row="$model, kB a client" time_row="$model, us an echo"
    for number in 1 8 100 500; do
        cost $model $number
        memory_row="$memory_row|$memory" time_row="$time_row|$time"
    done
    # What is left are those with 500 clients.
    eval "memory_$model=$memory time_$model=$time reply=\$ninth_$model"
    memory_rows="$memory_rows$memory_row|$reply
" time_rows="$time_rows$time_row|
"
done
# shellcheck disable=SC2154 # eval has set them
{
    check "of 500 clients a process each costs the most memory" is_less "$memory_threads" "$memory_processes"
    check "multiplexing costs the least memory" is_less "$memory_multiplex" "$memory_threads"
    check "and less processor time an echo than processes" is_less "$time_multiplex" "$time_processes"
}
say "The first client's figure is the whole server's. With 500, a client costs a process, a
thread with its stack, or some bytes in one process."
say "Multiplexing saves processor time where many clients are ready at once: one wait tells
of all of them. Processes and threads sleep and wake for each echo."
table <<TABLE
clients|1|8|100|500|a ninth, of 8
$memory_rows$time_rows
TABLE
conclude
