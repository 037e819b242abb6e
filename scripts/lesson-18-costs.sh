#!/usr/bin/env bash
# What each way to serve costs, and where it stops
. "$(dirname "$0")/lib.sh"

lesson "The same clients are served by processes, by the threads of one process, and by
one thread. What does a client cost, and how many clients does each way serve?"

processes() { echo "--workers $1"; }
threads() { echo "--workers 1 --model thread --clients $1"; }
multiplex() { echo "--workers 1 --model multiplex"; }

# ----- Where each stops.

# ninth OPTIONS...: eight clients stay; is a ninth served?
ninth() {
    serve "$@"
    crowd 8
    wait_until "eight clients are served" serves 8
    run "prefork-echo client $port --timeout 1s ninth 2>&1 | cut -c 1-62 | tee ninth"
    served=yes
    if ! grep -qx ninth ninth; then
        served=no
        if on_linux; then
            run "prefork-echo status $port | grep 'accept queue'"
            check "one connection is in the queue" test "$(values length)" = 1
        fi
    fi
    crowd_leaves >/dev/null
    end_server
}
predict "Eight clients are served by eight processes, and a ninth comes. Is it served?"
ninth --workers 8
check "no: it is connected, and waits for a process" test "$served" = no
predict "And with eight threads of one process?"
ninth --workers 1 --model thread --clients 8
check "no: it is connected, and waits for a thread" test "$served" = no
predict "And with one thread that multiplexes?"
ninth --workers 1 --model multiplex
check "yes: one thread that multiplexes can take another client" test "$served" = yes

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
    unknown=$(text "The rest of this lesson needs Linux, which shows in /proc what a process costs.")
elif ! command -v cc >/dev/null; then
    unknown=$(text "The rest of this lesson needs a C compiler (cc), for scripts/measure.c.")
elif ! [ -r /proc/self/schedstat ] || ! [ -r /proc/self/smaps_rollup ]; then
    unknown=$(text "The rest of this lesson needs a kernel with /proc/PID/schedstat and smaps_rollup.")
elif [ "$(ulimit -Hn)" != unlimited ] && [ "$(ulimit -Hn)" -lt 600 ]; then
    unknown=$(text "The rest of this lesson needs 600 descriptors for 500 clients (ulimit -Hn).")
fi
if [ -n "$unknown" ]; then
    wrap '\n' "" "$unknown"
    conclude
fi

predict "With 1, 8, 100 and 500 clients, what does one client cost in each of the three ways? To
measure it takes some ten seconds."
cc -O2 -o measure "$scripts/measure.c" || exit 1
memory_rows="" time_rows=""
for model in processes threads multiplex; do
    case $model in
    processes) way=$(text "processes") ;;
    threads) way=$(text "threads") ;;
    multiplex) way=$(text "multiplexing") ;;
    esac
    memory_row=$(text "{way}, kB a client") time_row=$(text "{way}, us an echo")
    for number in 1 8 100 500; do
        cost $model $number
        memory_row="$memory_row|$memory" time_row="$time_row|$time"
    done
    # What is left are those with 500 clients.
    eval "memory_$model=$memory time_$model=$time"
    memory_rows="$memory_rows$memory_row
" time_rows="$time_rows$time_row
"
done
# shellcheck disable=SC2154 # eval has set them
{
    check "with 500 clients, processes take the most memory" is_less "$memory_threads" "$memory_processes"
    check "multiplexing takes the least memory" is_less "$memory_multiplex" "$memory_threads"
    check "multiplexing takes less processor time an echo than processes" is_less "$time_multiplex" "$time_processes"
}
table "clients|1|8|100|500" <<TABLE
$memory_rows$time_rows
TABLE
say "With one client the figure is that of the whole server. With 500, a client costs a process,
a thread with its stack, or a few kB in one process."
say "Multiplexing saves processor time when many clients are ready at once: one call returns them
all. Processes and threads sleep and wake for each echo."
conclude
