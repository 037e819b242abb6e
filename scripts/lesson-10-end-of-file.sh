#!/usr/bin/env bash
# recv returns 0 when the client has closed
. "$(dirname "$0")/lib.sh"

lesson "There is no byte that means \"the end\". recv says it by a length of 0, and the
server then closes its socket, too, and goes back to accept."

serve --workers 1 --explain
connect A
tell A hello
hear A hello
predict "A says nothing now, and the worker sleeps in recv. What does recv return when A leaves?"
before=$(wc -l <log)
quit A
wait_until "the worker is back in accept" in_order log 'closed 127' 'accept[(].*asleep'
run "sed '1,${before##* }d' log"
sed "1,${before##* }d" log >after
say "The 0 is no message of A's: it is how recv says that the other side has closed, and that
all it had sent was received before."
check "recv returned 0, close followed, and accept" \
    in_order after 'recv[(].* = 0: end of file' 'close[(]' 'accept[(].*asleep'
check "the log counts what was echoed" grep -q 'end of file, 6 bytes echoed' after

predict "A client sends, says at once that it sends no more, and only then reads. Does it get its bytes?"
run "printf 'famous last words\n' | prefork-echo client $port"
check "yes: it has closed one direction, and the other still works" \
    test "$(printf 'famous last words\n' | prefork-echo client "$port")" = 'famous last words'
conclude
