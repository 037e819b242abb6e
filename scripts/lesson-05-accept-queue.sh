#!/usr/bin/env bash
# Connections wait in a queue until they are accepted
. "$(dirname "$0")/lib.sh"

lesson "The kernel completes connections without the server, and keeps them in the accept
queue. backlog is the length of that queue, not the number of clients."

serve --workers 1 --backlog 1 --explain
connect A
tell A 'I am A'
hear A 'I am A'

predict "The only worker is busy with A. Will connect wait for accept? May B send already?"
connect B
tell B 'I am B'
wait_until "B has sent" grep -q 'send(.*) = 7' B.log
run "grep -oE '(connect|send|recv)\(.*\) = [^:]*' B.log"
connected_in=$(took B.log 'connect.* = 0')
say "The kernel makes the handshake by itself, and it is complete. accept only takes a complete
connection from the queue. The bytes of B wait in the buffer of that connection."
check "B is connected, though no process is in accept" is_connected B
check "connect took {connected_in} microseconds, less than a tenth of a second" test "$connected_in" -lt 100000
check "B has sent, and received nothing" test ! -s B

predict "Where is the connection of B now?"
run "prefork-echo status $port | grep -E 'accept queue|reading'"
queue_holds() { prefork-echo status "$port" | grep -q "accept queue: $1 waiting"; }
if on_linux; then
    check "one connection waits in the queue" queue_holds 1
fi

predict "With backlog 1 one or two connections find room in the queue. C and D come. Are they refused?"
connect C
connect D
tell C 'I am C'
tell D 'I am D'
wait_until "D calls connect" calls_connect D
if on_linux; then
    wait_until "C is in the queue" queue_holds 2
    check "the queue is full: backlog, and one" queue_holds 2
    check "the connect of D has not returned" is_not is_connected D
fi
check "no client is refused" is_not grep -q refused C.log D.log

predict "The server gets three workers more. Does backlog 1 allow four clients then?"
has_workers() { test "$(workers | wc -l)" -eq "$1"; }
for number in 2 3 4; do
    run "kill -TTIN $server"
    wait_until "there are {number} workers" has_workers "$number"
done
for name in B C D; do hear "$name" "I am $name"; done
run "prefork-echo status $port | grep -E 'accept queue|reading'"
check "four clients are served at once, by four workers" test "$(values state | grep -c reading)" = 4
check "no client was refused" is_not grep -q refused B.log C.log D.log

predict "How long did connect take for B, for C, and for D?"
run "grep -ohE 'connect.*= 0, after [^:]*' B.log C.log D.log"
say "backlog limits how many connections wait; the number of workers limits how many are served.
A client that finds no room in the queue is not refused: the kernel drops its request, and
the client's kernel sends the request again after a second."
if on_linux; then
    check "the connect of D returned only when there was room" \
        test "$(took D.log 'connect.* = 0')" -gt "$(took B.log 'connect.* = 0')"
fi
conclude
