#!/usr/bin/env bash
# The handshakes, as the kernel's states
. "$(dirname "$0")/lib.sh"

lesson "Three segments open a connection (3-way handshake), and four close it (4-way handshake).
In between, the kernel keeps a state for each end. This lesson shows six of these states."

serve --workers 1 --backlog 1
connections=$(command_for_connections) close_wait=CLOSE
if ! command -v ss >/dev/null && ! command -v netstat >/dev/null; then
    say "Without ss and netstat: the states are numbers in /proc/net/tcp. 01 is ESTABLISHED, 02
SYN_SENT, 05 FIN_WAIT2, 06 TIME_WAIT, 08 CLOSE_WAIT, and 0A LISTEN."
    close_wait=': .* 08 '
fi

# Two ends of a connection are two rows. With the server's, the local port is $port; with the
# client's, the peer's port is. In /proc/net/tcp ports and states are hexadecimal.
port_hex=$(printf '%04X' "$port")
server_end="[.:]$port +[0-9]|:$port_hex [0-9A-F]{8}:"
client_end="[.:]$port( *\$| +[A-Z])|:$port_hex [0-9A-F]{2} "
# ends END STATE NUMBER: how many ends are in this state, of all connections or of A's. (An
# earlier server of this port may have left some in TIME-WAIT.)
of=""
ends() { eval "$connections" | grep -E "$of" | grep -E "$2|: .* $3 " | grep -cE "$1"; }
has_ends() { test "$(ends "$2" "$3" "$4")" -eq "$1"; }

worker=$(workers)
is_stopped() { ps -o stat= -p "$worker" | grep -q '^T'; }
stop_worker() {
    run "kill -STOP $worker"
    wait_until "the worker is stopped" is_stopped
}

# ----- It opens.

predict "The worker is stopped: it can't return from accept. A connects. In which state are the two ends?"
stop_worker
connect A
wait_until "A is connected" is_connected A
client_port=$(address_of A | sed 's/.*://')
of="[.:]$client_port |[.:]$client_port\$|:$(printf '%04X' "$client_port") "
run "$connections"
check "the client's end is ESTABLISHED" has_ends 1 "$client_end" ESTAB 01
check "the server's end, too" has_ends 1 "$server_end" ESTAB 01
check "no worker has a client: accept has not returned" serves 0
say "SYN, SYN-ACK, ACK: the two kernels have done the 3-way handshake by themselves. accept only
takes the connection from the queue. The listening socket stays in LISTEN."

# ----- It closes.

next_page
run "kill -CONT $worker"
tell A hello
hear A hello
predict "The worker is stopped again, and A closes its side. The server can't call close. And now?"
stop_worker
quit A
wait_until "the client's kernel has sent its FIN" has_ends 1 "$server_end" CLOSE.WAIT 08
wait_until "the server's kernel has acknowledged it" has_ends 1 "$client_end" FIN.WAIT.?2 05
run "$connections"
check "the client's end is in FIN-WAIT-2: it has sent FIN, and has got the ACK" \
    has_ends 1 "$client_end" FIN.WAIT.?2 05
check "the server's end is in CLOSE-WAIT: it waits for the server's close" \
    has_ends 1 "$server_end" CLOSE.WAIT 08
say "Two of the four segments have been sent. The kernel sends the third, the server's FIN, only when
the server closes. A server that forgets to close collects connections in CLOSE-WAIT."

predict "The worker goes on: recv returns 0, and it closes the connection. Which end remains?"
run "kill -CONT $worker"
is_gone() { has_ends 0 "$server_end" 'ESTAB|CLOSE.WAIT|LAST.ACK' '(01|08|09)'; }
wait_until "the client's end is in TIME-WAIT" has_ends 1 "$client_end" TIME.WAIT 06
wait_until "the server's end is gone" is_gone
run "$connections"
check "the client's end, which has closed first, is in TIME-WAIT" has_ends 1 "$client_end" TIME.WAIT 06
check "the server's end is gone" is_gone
say "The server's FIN and the client's ACK were the last two of the four segments. Lesson 12 shows
what TIME-WAIT is for."

# ----- The first state, which is short.

predict "Before ESTABLISHED the client's end was in SYN-SENT, for microseconds. How can it be made to stay
there?"
stop_worker
connect B
wait_until "B is connected" is_connected B
connect C
wait_until "C calls connect" calls_connect C
if on_linux; then
    wait_until "C is connected" is_connected C
fi
connect D
of=""
has_request() { test "$(ends "$client_end" SYN.SENT 02)" -ge 1; }
wait_until "a client has sent its request" has_request
next_page
run "$connections"
check "the queue is full, and the request of D has no answer: SYN-SENT" has_request
check "the connect of D has not returned" is_not is_connected D
say "The kernel drops the request, so the server has no end of this connection: D has one row, and B
has two."

# ----- With each model.

next_page
{
    # shellcheck disable=SC2086 # several pids in one string, on purpose
    kill $clients
    kill -QUIT "$server"
    kill -CONT "$worker"
    # shellcheck disable=SC2086
    wait "$server" $clients
} 2>/dev/null
# left_behind NUMBER OPTIONS...: three clients are served, the first worker is stopped, and all
# three close. So many connections stay in CLOSE-WAIT.
left_behind() {
    local expected=$1 descriptor count=0
    shift
    serve "$@"
    for descriptor in 7 8 9; do
        count=$((count + 1))
        eval "exec $descriptor<>/dev/tcp/127.0.0.1/$port"
        wait_until "{count} clients are served" serves "$count"
    done
    worker=$(workers | head -n 1)
    stop_worker
    show_command "exec 7>&- 8>&- 9>&-"
    exec 7>&- 8>&- 9>&-
    wait_until "the server's kernel has the FIN of all three" has_ends 0 "$server_end" ESTAB 01
    wait_until "the number of connections in CLOSE-WAIT is {expected}" has_ends "$expected" "$server_end" CLOSE.WAIT 08
    run "$connections | grep '$close_wait'"
}
say "Three clients are served: descriptors 7, 8 and 9 of this shell. One worker is stopped. Then all
three clients close."
predict "Three processes serve them. How many connections stay in CLOSE-WAIT?"
left_behind 1 --workers 3
check "one: the other two processes have closed theirs" has_ends 1 "$server_end" CLOSE.WAIT 08
kill -CONT "$worker"
end_server
predict "And with one process that multiplexes?"
left_behind 3 --workers 1 --model multiplex
check "three: the one that should close them is stopped" has_ends 3 "$server_end" CLOSE.WAIT 08
say "The states are the same with each model, as they are the kernel's. The model decides how many
connections have to wait for one process. All threads of a process stop with it."
conclude
