#!/usr/bin/env bash
# Connections wait in a queue until they are accepted
. "$(dirname "$0")/lib.sh"

lesson "The kernel completes connections by itself and keeps them in the accept queue.
backlog is the length of that queue, not the number of clients."

serve --workers 1 --backlog 1 --explain
connect A
tell A 'I am A'
hear A 'I am A'

predict "The only worker is busy with A. Will connect wait for accept? May B send already?"
connect B
tell B 'I am B'
wait_until "B has sent" grep -q 'send(.*) = 7' B.log
run "grep -E '(connect|send|recv)\(' B.log"
say "The handshake is the kernel's work, and it is done: accept only takes the finished
connection off the queue. What B has sent waits in the buffer of that connection."
check "B is connected, though no process is in accept" is_connected B
check "and that took $(took B.log 'connect.* = 0') microseconds, less than a tenth of a second" \
    test "$(took B.log 'connect.* = 0')" -lt 100000
check "B has sent, and got nothing back" test ! -s B
run "prefork-echo status $port | grep -E 'accept queue|reading'"
queue_holds() { prefork-echo status "$port" | grep -q "accept queue: $1 waiting"; }
if on_linux; then check "one waits in the queue" queue_holds 1; fi

predict "A queue of backlog 1 holds one more or two. What becomes of C and D: refused?"
connect C
connect D
tell C 'I am C'
tell D 'I am D'
wait_until "D calls connect" calls_connect D
if on_linux; then
    wait_until "C is in the queue" queue_holds 2
    check "the queue is full: backlog, and one" queue_holds 2
    check "D's connect has not returned" is_not is_connected D
fi
check "no client is refused" is_not grep -q refused C.log D.log

predict "Four clients, and backlog 1: is that one too many, with more workers?"
has_workers() { test "$(workers | wc -l)" -eq "$1"; }
for number in 2 3 4; do
    run "kill -TTIN $server   # one worker more"
    wait_until "there are $number workers" has_workers "$number"
done
for name in B C D; do hear "$name" "I am $name"; done
run "prefork-echo status $port | grep -E 'accept queue|reading'"
say "backlog limits how many wait, the number of workers how many are served. A client
without room in the queue is not refused: the kernel drops the request, and the client's
kernel repeats it."
check "four clients are served at once, by four workers" test "$(values state | grep -c reading)" = 4
check "no client was refused" is_not grep -q refused B.log C.log D.log
run "grep 'connect(.*) = ' B.log C.log D.log"
if on_linux; then
    check "D's connect has returned only when there was room" \
        test "$(took D.log 'connect.* = 0')" -gt "$(took B.log 'connect.* = 0')"
fi
conclude
