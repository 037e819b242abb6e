#!/usr/bin/env bash
# The order of the calls, on both ends
. "$(dirname "$0")/lib.sh"

lesson "A server calls socket, bind, listen, accept, recv, send, close. A client calls
socket, connect, send, recv, close. With --explain=calls both log each of these calls."

predict "There is a parent and one worker: which of the calls does each of them make?"
serve --workers 1 --explain=calls
run "prefork-echo client $port hello --explain=calls 2>client.log"
wait_until "the worker is back in accept" in_order log 'worker.*close[(]' 'worker.*accept[(]'
run "grep '^parent' log"
check "the parent calls socket, bind, listen, fork" \
    in_order log 'parent.*socket[(]' 'parent.*bind[(].* = 0' 'parent.*listen[(].* = 0' 'parent.*fork[(]'
next_page
run "grep '^worker' log"
check "the worker calls accept, recv, send, recv (which returns 0), close, accept" \
    in_order log 'worker.*accept[(].* = ' 'worker.*recv[(].* = 6' 'worker.*send[(].* = 6' \
    'worker.*recv[(].* = 0' 'worker.*close[(]' 'worker.*accept[(].*waits'
check "the worker never calls bind or listen, the parent never accept" \
    is_not grep -E 'worker.* (bind|listen)\(|parent.* accept\(' log
say "The parent makes the socket ready and forks. It serves no client. The worker has inherited
the socket, and makes all calls for a client."

predict "Which calls does the client make, and in which order?"
run "cat client.log"
check "the client calls socket, connect, send, recv, close" \
    in_order client.log 'socket[(]' 'connect[(].* = 0' 'send[(].* = 6' 'recv[(].* = 6' 'close[(]'

if on_linux && strace -o calls true 2>/dev/null; then
    predict "strace shows the calls from outside, as the kernel gets them: recv is called recvfrom there,
and send is called sendto. Are they the same calls?"
    run "strace -o calls prefork-echo client $port hello"
    run "grep -E '^(socket|connect|send|recv|shut)' calls"
    check "strace shows the calls that the client has logged" \
        in_order calls '^socket' '^connect.* = 0' '^sendto.* = 6' '^recvfrom.* = 6' '^shutdown.* = 0' '^recvfrom.* = 0'
else
    say "On Linux, strace shows the same calls from outside. It is not available here."
fi
conclude
