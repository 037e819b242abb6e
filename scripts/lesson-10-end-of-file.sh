#!/usr/bin/env bash
# recv returns 0 when the client has closed
. "$(dirname "$0")/lib.sh"

lesson "No byte means \"the end\". At the end recv returns a length of 0. The server then
closes its socket too, and calls accept again."

serve --workers 1 --explain
connect A
tell A hello
hear A hello
predict "A sends nothing, and the worker sleeps in recv. What does recv return when A closes?"
before=$(wc -l <log | tr -d ' ')
quit A
wait_until "the worker is back in accept" in_order log 'closed 127' 'accept[(].*asleep'
run "tail -n +$((before + 1)) log"
tail -n +$((before + 1)) log >after
say "The 0 is not a message of A. It means that A has closed, and that all bytes of A were
received before."
check "recv returns 0; close and accept follow" \
    in_order after 'recv[(].* = 0: end of file' 'close[(]' 'accept[(].*asleep'
check "the log says how many bytes were echoed" grep -q 'end of file, 6 bytes echoed' after

predict "A client sends, closes its sending direction at once, and reads only then. Does it get its
bytes?"
run "printf 'famous last words\n' | prefork-echo client $port"
check "yes: one direction is closed, and the other still works" \
    test "$(printf 'famous last words\n' | prefork-echo client "$port")" = 'famous last words'
conclude
