#!/usr/bin/env bash
# What each way to serve costs, and where it stops
. "$(dirname "$0")/lib.sh"

lesson <<'TEXT'
The same clients are served by processes, by the threads of one process, and by
one thread. What does a client cost, and how many does each way serve?
TEXT

processes() { echo "--workers $1"; }
threads() { echo "--workers 1 --model thread --clients $1"; }
multiplex() { echo "--workers 1 --model multiplex"; }

# ----- Where each stops.

stops=""
# ninth OPTIONS...: eight clients stay; is a ninth served?
ninth() {
    serve "$@"
    crowd 8
    wait_until "eight clients are served" serves 8
    run "prefork-echo client $port --timeout 1s ninth 2>&1 | cut -c 1-76 | tee ninth"
    reply="waits in the accept queue"
    if grep -qx ninth ninth; then reply="is served"; fi
    crowd_leaves >/dev/null
    end_server
}
predict "Eight clients are served by eight processes, and a ninth comes. Is it served?"
ninth --workers 8
of_processes=$reply
check "it has a connection, and no process: it $of_processes" test "$of_processes" != "is served"
predict "And with eight threads? And with one thread that multiplexes?"
ninth --workers 1 --model thread --clients 8
of_threads=$reply
check "with eight threads it $of_threads" test "$of_threads" != "is served"
ninth --workers 1 --model multiplex
of_multiplex=$reply
check "one thread that multiplexes has room: it $of_multiplex" test "$of_multiplex" = "is served"

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
    kept=$(./measure many "$port" "$2" 0 "$server" | awk '{ print $2 }')
    memory=$(awk "BEGIN { printf \"%.1f\", ($before + $kept) / $2 }")
    connected=$(processor_time)
    ./measure many "$port" "$2" "$echoes" "$server" >/dev/null
    # Less what the connections cost, which was measured by those without echoes.
    time=$(awk "BEGIN { printf \"%.1f\", ($(processor_time) - 2 * $connected + $start) / $echoes }")
    end_server
}
is_less() { awk "BEGIN { exit !($1 < $2) }"; }

if ! on_linux; then
    say "What each costs, Linux alone tells (in /proc): that part is left out here."
elif ! command -v cc >/dev/null; then
    say "What each costs is measured by scripts/measure.c, which needs a C compiler (cc): there
is none here, and that part is left out."
elif ! [ -r /proc/self/schedstat ] || ! [ -r /proc/self/smaps_rollup ]; then
    say "This kernel doesn't tell what each costs (schedstat, smaps_rollup): that part is left out."
else
    cc -O2 -o measure "$scripts/measure.c" || exit 1
    predict "1, 8, 100 and 500 clients: what does one more cost, in each of the three ways?
That takes some ten seconds."
    memory_rows="" time_rows=""
    for model in processes threads multiplex; do
        memory_row=$model time_row=$model
        for number in 1 8 100 500; do
            cost $model $number
            memory_row="$memory_row|$memory" time_row="$time_row|$time"
            eval "memory_${model}_$number=$memory time_${model}_$number=$time"
        done
        memory_rows="$memory_rows$memory_row
" time_rows="$time_rows$time_row
"
    done
    table <<TABLE
memory a client, kB|1|8|100|500
$memory_rows
TABLE
    table <<TABLE
processor time an echo, us|1|8|100|500
$time_rows
TABLE
    say "The first client pays for the parent, too. With 500 clients, each has a process, a
thread with its stack, or some bytes in one process."
    say "Multiplexing saves processor time where many clients are ready at once: one wait tells
of all of them. Processes and threads sleep and wake for each echo."
    # shellcheck disable=SC2154 # eval has set them
    {
        check "of 500 clients a process each costs the most memory" \
            is_less "$memory_threads_500" "$memory_processes_500"
        check "multiplexing costs the least" is_less "$memory_multiplex_500" "$memory_threads_500"
        check "with 500 clients its echo costs less time than that of processes" \
            is_less "$time_multiplex_500" "$time_processes_500"
    }
fi
table <<TABLE
the way|eight clients|the ninth
--workers 8|are served|$of_processes
--workers 1 --model thread --clients 8|are served|$of_threads
--workers 1 --model multiplex|are served|$of_multiplex
TABLE
conclude
