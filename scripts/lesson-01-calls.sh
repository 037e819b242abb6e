#!/usr/bin/env bash
# The order of the calls, on both ends
. "$(dirname "$0")/lib.sh"

lesson "A server calls socket, bind, listen, accept, recv, send, close; a client socket,
connect, send, recv, close. Here both tell each call when it has returned."

predict "There is a parent and one worker: which of the calls does each of them make?"
serve --workers 1 --explain
run "prefork-echo client $port hello --explain"
wait_until "the worker has said goodbye" grep -q 'closed ' log
run "grep -E 'parent .*(socket|bind|listen|fork)\(.*\) = ' log"
run "grep -E 'worker .*(accept|recv|send|close)\(' log"

say "The parent has made the socket ready and forked; it serves no client. The worker has
inherited the socket, and makes all calls that have to do with a client."
check "the parent calls socket, bind, listen, fork" \
    in_order log 'parent.*socket[(]' 'parent.*bind[(].* = 0' 'parent.*listen[(].* = 0' 'parent.*fork[(]'
check "the worker calls accept, recv, send, then recv says 0, close, and accept again" \
    in_order log 'worker.*accept[(].* = ' 'worker.*recv[(].* = 6' 'worker.*send[(].* = 6' \
    'worker.*recv[(].* = 0' 'worker.*close[(]' 'worker.*accept[(].*asleep'
check "the worker never calls bind or listen, the parent never accept" \
    is_not grep -E 'worker.* (bind|listen)\(|parent.* accept\(' log
prefork-echo client "$port" hello --explain >/dev/null 2>client.log
check "the client calls socket, connect, send, recv, close" \
    in_order client.log 'socket[(]' 'connect[(].* = 0' 'send[(].* = 6' 'recv[(].* = 6' 'close[(]'

if on_linux && strace -o calls true 2>/dev/null; then
    say "Is the narration true? On Linux strace shows what the kernel is really asked; there
recv is called recvfrom, and send sendto."
    run "strace -o calls prefork-echo client $port hello; grep -E '^(socket|connect|send|recv|shut)' calls"
    check "the client has told the truth" \
        in_order calls '^socket' '^connect.* = 0' '^sendto.* = 6' '^recvfrom.* = 6' '^shutdown.* = 0' '^recvfrom.* = 0'
else
    say "On Linux, strace would show the same calls from outside; here it can't be had."
fi
conclude
