#!/usr/bin/env bash
# A single thread must never block
. "$(dirname "$0")/lib.sh"

lesson "With --work 100ms each answer waits for 100 ms before it is sent, as if it had
to be computed, or fetched from a database that blocks."

rows=""
# time_all OPTIONS...: eight clients at once, one message each; the longest wait, in ms.
time_all() {
    serve --work 100ms "$@"
    run "prefork-echo bench $port --connections 8 --messages 8 --json >answers"
    # shellcheck disable=SC2046 # a pid is a word
    threads=$(count_threads $(workers))
    median=$(fields p50 <answers | awk '{ printf "%.0f", $1 / 1000 }')
    longest=$(fields max <answers | awk '{ printf "%.0f", $1 / 1000 }')
    printf '    half of the clients had waited %s ms, the last one %s ms\n' "$median" "$longest"
    rows="$rows$*|$(workers | wc -l | tr -d ' ')|$threads|$median ms|$longest ms
"
    check "all eight have got their answer" test "$(fields messages <answers)" = 8
    stop_server
}

predict "Eight clients ask eight processes at once, 100 ms of work each. How long does the
last one wait?"
time_all --workers 8
of_processes=$longest
check "about as long as one" test "$of_processes" -lt 400

predict "And with eight threads of one process?"
time_all --workers 1 --model thread --clients 8
of_threads=$longest
check "no longer: while one thread waits, the others run" test "$of_threads" -lt 400

predict "And with one thread that has all eight clients?"
time_all --workers 1 --model multiplex
of_multiplex=$longest
check "eight times as long: while it works for one, all others wait" test "$of_multiplex" -ge 800
check "that is more than twice as long as with processes and threads" \
    test "$of_multiplex" -gt $((2 * of_processes)) -a "$of_multiplex" -gt $((2 * of_threads))

pause "    Enter shows what was measured in one table."
table <<TABLE
eight clients, 100 ms each|processes|threads|median|last
$rows
TABLE
say "So a server that multiplexes must never block. What takes long, or may block, is for
other threads or processes; its one thread waits for them in the same epoll or kqueue."
conclude
