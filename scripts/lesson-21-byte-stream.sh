#!/usr/bin/env bash
# TCP is a stream of bytes, not of messages
. "$(dirname "$0")/lib.sh"

lesson "TCP delivers all bytes, in their order. It does not keep where one send ended and the next
began. How many times does recv return for one send?"

# What narrated calls of a name have returned: with the bytes of a message, no end of file.
returned() { grep -oE "$1\([0-9]+\) = [1-9][0-9]*" "$2"; }
has_sent() { test "$(returned send "$1.log" | wc -l)" -ge "$2"; }
is_stopped() { ps -o stat= -p "$1" | grep -q '^T'; }
stop_worker() {
    worker=$(workers)
    run "kill -STOP $worker"
    wait_until "the worker is stopped" is_stopped "$worker"
}

# ----- Two sends, one recv.

serve --workers 1 --explain
connect A
tell A hello
hear A hello

predict "The worker is stopped, and A sends two lines of four bytes each. Then the worker goes on. Does
its recv return twice, as A has sent twice?"
stop_worker
tell A one
wait_until "A has sent" has_sent A 2
tell A two
wait_until "A has sent again" has_sent A 3
run "grep -oE 'send\([0-9]+\) = [0-9]+' A.log | tail -n 2"
run "kill -CONT $worker"
hear A two
run "grep -oE 'recv\([0-9]+\) = [1-9][0-9]*' log"
check "A has called send twice, with four bytes each" \
    test "$(returned send A.log | tail -n 2 | grep -c '= 4$')" = 2
check "one recv has returned all eight bytes" grep -q '= 8$' <<<"$(returned recv log | tail -n 1)"
next_page
say "The bytes have waited in the buffer of the connection, side by side, without a mark between
them. recv returns what is there. Here each line ends with a newline: so A knows where an
answer ends. A protocol on TCP needs such an end, or it tells the length first."
quit A

# ----- One send, several recvs.

predict "A client sends 100,001 bytes with one send: 100,000 digits and a newline. The server sends them
back. How many times does recv of the client return?"
run "prefork-echo client $port \$(printf %0100000d 0) --explain 2>B.log | wc -c"
run "grep -oE 'send\([0-9]+\) = [0-9]+' B.log"
returned recv B.log >pieces
run "grep -oE 'recv\([0-9]+\) = [1-9][0-9]*' B.log | tail -n 6"
check "one send has sent all 100,001 bytes" test "$(returned send B.log | sed 's/.*= //')" = 100001
number_of_pieces=$(wc -l <pieces | tr -d ' ')
longest=$(sed 's/.*= //' pieces | sort -n | tail -n 1)
check "recv has returned more than once ({number_of_pieces} times)" test "$number_of_pieces" -gt 1
check "the pieces are 100001 bytes together: no byte is lost" \
    test "$(awk '{ n += $NF } END { print n }' pieces)" = 100001
check "no piece is longer than the buffer of this client, 65536 bytes" test "$longest" -le 65536
say "recv returns when one byte or more is there, and no more than its buffer holds. So a program
calls recv again until it has the whole message."
end_server

# ----- The pieces of two clients.

next_page
serve --workers 1 --model multiplex --explain
connect C
connect D
wait_until "both clients are accepted" serves 2
predict "One worker has both clients: it multiplexes. It is stopped while each of them sends 600,001 bytes.
When it goes on, does it take all bytes of C before it takes any of D?"
stop_worker
for name in C D; do
    wrap "  " "  " "$(text "{name} types 600,000 digits and a newline")"
    # In the background: not all of it finds room before the worker goes on.
    (printf '%0600000d\n' 0 >&"$(pipe_of "$name")" &)
    wait_until "{name} has sent" has_sent "$name" 1
done
run "kill -CONT $worker"
has_all() { test "$(wc -c <"$1")" -eq 600001; }
for name in C D; do
    wait_until "{name} has all its bytes back" has_all "$name"
done
run "grep -oE 'recv\([0-9]+\) = [1-9][0-9]*' log | head -n 6"
# Does the first connection have its turn again after the second one?
take_turns() {
    returned recv log | awk -F '[()]' '$2 != last { turns++; last = $2 } END { exit !(turns > 2) }'
}
check "the pieces of the two connections take turns" take_turns
check "all 1,200,002 bytes have come" test "$(returned recv log | awk '{ n += $NF } END { print n }')" = 1200002
say "A worker with one client may wait in recv for the rest of a message. One thread with many
clients can't: it keeps what has come, for each descriptor, and goes on with the next client."
conclude
