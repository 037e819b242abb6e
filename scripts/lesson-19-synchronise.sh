#!/usr/bin/env bash
# Threads must synchronise what they share
. "$(dirname "$0")/lib.sh"

lesson "The careless counter counts each client in three steps: read the variable, work
(here for 100 ms), write back what was read and one. The private counter does it
in one step that nothing can interrupt (an atomic addition)."

rows=""
# count WAY ORDER OPTIONS...: eight clients of a server with these options are counted.
count() {
    local way=$1 order=$2 load
    shift 2
    load="--connections 8 --messages 8"
    if [ "$order" = "in turn" ]; then load="--mode connect --connections 1 --messages 8"; fi
    serve --work 100ms "$@"
    run "prefork-echo bench $port $load >report"
    private=$(values private_counter | sed 1d | xargs)
    careless=$(values careless_counter | xargs)
    lost=$(values careless_counter | awk '{ n += $1 } END { print 8 - n }')
    rows="$rows$way|$order|$private|$careless|$lost
"
    printf '\n    private counter:  %s\n    careless counter: %s\n' "$private" "$careless"
    check "eight clients were served" test "$(values connections | head -n 1)" = 8
}

predict "Eight clients come at once, to eight processes. What is in the two counters of each?"
count processes "at once" --workers 8
check "each process has counted its one client, in both" \
    test "$private, $careless" = "1 1 1 1 1 1 1 1, 1 1 1 1 1 1 1 1"
stop_server

predict "The same eight clients come to eight threads of one process. What now?"
count threads "at once" --workers 1 --model thread --clients 8
say "All threads have read the variable before the first one wrote it. So they all write
the same number: that is a race, and it has lost counts. The program has no other error."
check "the atomic counter says eight" test "$private" = 8
check "the careless one says $careless: more than half of the counts are lost" test "$careless" -le 4
stop_server

predict "Is the careless counter wrong with threads in each case? Now they come in turn."
count threads "in turn" --workers 1 --model thread --clients 8
check "it has counted all eight: a race shows only when two come at once" test "$private, $careless" = "8, 8"
say "So a test in which clients come one after the other finds no error."
stop_server

pause "    Enter shows what was counted in one table."
table <<TABLE
served by|come|private counters|careless counters|lost
$rows
TABLE
say "What threads share and change must be changed in one step (atomic), or by one thread
at a time (a lock). Processes share only what they have shared on purpose, and that needs
the same care: the scoreboard's counts are atomic."
conclude
