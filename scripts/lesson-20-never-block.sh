#!/usr/bin/env bash
# A single thread must never block
. "$(dirname "$0")/lib.sh"

lesson "With --work 100ms the server sleeps for 100 ms before it sends an answer, as if it
asked a database that blocks."

rows=""
# time_all OPTIONS...: eight clients at once, one message each; the longest wait, in ms. (bench
# tells first of the answers, then of the wait for accept.)
time_all() {
    serve --work 100ms "$@"
    run "prefork-echo bench $port --connections 8 --messages 8 --json >answers"
    # shellcheck disable=SC2046 # a pid is a word
    threads=$(count_threads $(workers))
    median=$(fields p50 <answers | awk 'NR == 1 { printf "%.0f", $1 / 1000 }')
    longest=$(fields max <answers | awk 'NR == 1 { printf "%.0f", $1 / 1000 }')
    say "Half of the clients waited {median} ms or less, and the last one waited {longest} ms."
    rows="$rows$*|$(workers | wc -l | tr -d ' ')|$threads|$median ms|$longest ms
"
    check "all eight have their answers" test "$(fields messages <answers)" = 8
    stop_server
}

predict "Eight clients come at once to eight processes. How long does the last one wait?"
time_all --workers 8
of_processes=$longest
check "about as long as a single client" test "$of_processes" -lt 400

predict "And with eight threads of one process?"
time_all --workers 1 --model thread --clients 8
of_threads=$longest
check "no longer: while one thread sleeps, the others run" test "$of_threads" -lt 400

predict "And with one thread that has all eight clients?"
time_all --workers 1 --model multiplex
of_multiplex=$longest
check "eight times as long: while the thread works for one client, all others wait" test "$of_multiplex" -ge 800
check "that is more than twice as long as with processes and threads" \
    test "$of_multiplex" -gt $((2 * of_processes)) -a "$of_multiplex" -gt $((2 * of_threads))

next_page
table "eight clients, 100 ms each|processes|threads|median|last" <<TABLE
$rows
TABLE
say "So a server that multiplexes must never block. Work that takes long or may block is done by
other threads or processes. The one thread waits for them with the same epoll or kqueue."
conclude
