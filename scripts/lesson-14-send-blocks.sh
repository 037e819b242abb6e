#!/usr/bin/env bash
# send blocks, too
. "$(dirname "$0")/lib.sh"

lesson "send only puts bytes into a buffer. A client that sends and never reads lets all
buffers on the way fill up, and then both ends sleep in send, each for the other."

serve --workers 2 --idle-timeout 3s --explain
predict "A client sends 64 MB and reads nothing. How much of it does the server take?"
say "The client is this shell: bash connects a descriptor, and only writes to it."
greedy="exec 7<>/dev/tcp/127.0.0.1/$port; head -c 64000000 /dev/zero >&7"
printf '\n  $ (%s) &\n' "$greedy"
(eval "$greedy") 2>/dev/null &
clients="$clients $!"
wait_until "the worker's send finds no room" grep -q 'find no room' log
run "prefork-echo status $port | grep -E 'SLOT|writing'"
run "grep 'find no room' log | tail -n 1"
say "send returns when a buffer has taken the bytes, not when the client has read them. Both
directions are full now: the client waits for room to send, and so does the worker."
check "the worker sleeps in send (writing)" test "$(values state | grep -c writing)" = 1
echoed=$(values bytes | head -n 1)
check "of 64 MB the server has sent back $echoed bytes: that is what the buffers hold" test "$echoed" -lt 64000000

predict "Do the other workers notice?"
run "prefork-echo bench $port --connections 1 --messages 1000 | head -n 3"
check "they serve on" prefork-echo bench "$port" --connections 1 --messages 100

predict "How does it end?"
wait_until "the idle time-out ends it" grep -q 'idle for too long' log
run "grep 'idle for too long' log"
has_worker_free() { test "$(values state | grep -c idle)" = 2; }
wait_until "the worker accepts again" has_worker_free
check "a client that takes no bytes for 3 s is closed, and its worker is free" has_worker_free
conclude
