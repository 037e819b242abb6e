#!/usr/bin/env bash
# Threads must synchronise what they share
. "$(dirname "$0")/lib.sh"

lesson "The careless counter counts a client in three steps: it reads the variable, works
(here for 100 ms), and writes the number that was read plus one. The private counter
adds one in a single step that nothing can interrupt (an atomic addition)."

rows=""
together="--connections 8 --messages 8"
in_turn="--mode connect --connections 1 --messages 8"
# count WAY LOAD OPTIONS...: eight clients of a server with these options are counted.
count() {
    local way=$1 load=$2
    shift 2
    serve --work 100ms "$@"
    run "prefork-echo bench $port $load >report"
    private=$(values private_counter | sed 1d | xargs)
    careless=$(values careless_counter | xargs)
    lost=$(values careless_counter | awk '{ n += $1 } END { print 8 - n }')
    rows="$rows$way|$private|$careless|$lost
"
    printf '\n    private counter:  %s\n    careless counter: %s\n' "$private" "$careless"
    check "eight clients were served" test "$(values connections | head -n 1)" = 8
}

predict "Eight clients come at once to eight processes. What is in the two counters of each?"
count "$(text "processes, all at once")" "$together" --workers 8
check "each process has counted its one client in both counters" \
    test "$private, $careless" = "1 1 1 1 1 1 1 1, 1 1 1 1 1 1 1 1"
stop_server

predict "The same eight clients come to eight threads of one process. What is in the two counters?"
count "$(text "threads, all at once")" "$together" --workers 1 --model thread --clients 8
check "the atomic counter is eight" test "$private" = 8
check "the careless counter is {careless}: more than half of the counts are lost" test "$careless" -le 4
say "All threads read the variable before the first one wrote it. So they write the same number:
this is a race condition, and it loses counts."
stop_server

predict "Now the eight clients come one after the other. What is in the two counters?"
count "$(text "threads, one after the other")" "$in_turn" --workers 1 --model thread --clients 8
check "both have counted all eight: the race needs two clients at once" test "$private, $careless" = "8, 8"
say "So a test with one client after the other does not find this error."
stop_server

next_page
table "eight clients come to|private counters|careless counters|lost" <<TABLE
$rows
TABLE
say "What threads share and change must be changed in one step (atomic), or by one thread at a
time (a lock). Processes share only what they map as shared. That needs the same care: the
counts of the scoreboard are atomic."
conclude
