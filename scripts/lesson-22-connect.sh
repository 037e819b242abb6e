#!/usr/bin/env bash
# connect succeeds, is refused, or times out
. "$(dirname "$0")/lib.sh"

lesson "connect sends a connection request (SYN), and sleeps until it knows the outcome. There
are three: a connection, a refusal, or no answer. How long does each take?"

rows=""
# try SITUATION ANSWER OPTIONS...: a client connects. The log says when connect began, and when
# it returned. Leaves its $outcome, and the milliseconds in $took_ms.
try() {
    local situation=$1 answer=$2 begin_and_end
    shift 2
    # Without the pipes of A, B, and C, whose numbers it would not use.
    (let_go_of_pipes && run "prefork-echo client $port hello $* --explain 2>client.log")
    run "cut -d ' ' -f 2,7- client.log | grep 'connect(' | cut -d ';' -f 1"
    begin_and_end=$(grep 'connect(' client.log | cut -d ' ' -f 2 | tr '\n' ' ')
    # At midnight the clock begins anew.
    took_ms=$(awk -v times="$begin_and_end" 'BEGIN {
        split(times, t, /[: ]/)
        ms = ((t[4] - t[1]) * 3600 + (t[5] - t[2]) * 60 + t[6] - t[3]) * 1000
        printf "%.0f", ms < 0 ? ms + 86400000 : ms
    }')
    outcome=$(grep -oE 'connect\(.*(= 0|refused|timed out)' client.log | grep -oE '(= 0|connection refused|timed out)$')
    rows="$rows$situation|${outcome#= }|$took_ms ms|$answer
"
}

serve --workers 1 --backlog 1
predict "The server listens. What does connect return, and after how long?"
try "$(text "a server listens")" "SYN-ACK"
check "connect returns 0: the connection stands" test "$outcome" = "= 0"
check "it has returned after {took_ms} ms: the kernel there answers at once" test "$took_ms" -lt 250

predict "The server ends. No socket listens at port {port} now. Does connect wait for one?"
stop_server
try "$(text "no socket listens")" "RST"
check "connect fails: connection refused" test "$outcome" = "connection refused"
check "it has failed after {took_ms} ms: it waits for no server" test "$took_ms" -lt 250
say "A refusal is an answer, too: the kernel of that machine sends RST. So the machine can be
reached, and no process of it listens at this port."

next_page
serve --workers 1 --backlog 1
say "The one worker serves A. B and C fill the accept queue, which holds backlog and one on Linux."
connect A
tell A hello
hear A hello
connect B
wait_until "B is connected" is_connected B
connect C
wait_until "C calls connect" calls_connect C
if on_linux; then
    wait_until "C is connected" is_connected C
fi
predict "D connects, with a time-out of 500 ms. The server is alive, and listens. Which outcome has D?"
try "$(text "the queue is full")" "-" --timeout 500ms
check "connect has no answer: timed out" test "$outcome" = "timed out"
check "it has taken {took_ms} ms: all of the time-out" test "$took_ms" -ge 450
say "The kernel drops a request that finds the queue full, as a firewall does. The client's
kernel sends the request again after 1 s, and then several times more. Without a time-out
of the program it gives up after one or two minutes."

next_page
run "kill -QUIT $server"
wait "$server"
serve --workers 1 --model multiplex --backlog 1
say "Again three clients are there first: three descriptors of this shell. The one worker
multiplexes now."
waiting=0
for descriptor in 7 8 9; do
    waiting=$((waiting + 1))
    show_command "exec $descriptor<>/dev/tcp/127.0.0.1/$port"
    eval "exec $descriptor<>/dev/tcp/127.0.0.1/$port"
    wait_until "the worker has accepted {waiting} clients" serves "$waiting"
done
predict "The backlog is the same, and there is one worker, as before. Does the connect of D time out?"
try "$(text "the queue is empty")" "SYN-ACK" --timeout 500ms
check "no: this worker has accepted all others, and the queue is empty" test "$outcome" = "= 0"
check "D gets its answer, too" grep -q 'recv(.*) = 6' client.log
exec 7>&- 8>&- 9>&-

next_page
table "situation|connect|after|answer of the kernel there" <<TABLE
$rows
TABLE
say "A full queue is a sign that the server accepts too slowly: it has too few workers, or each is
busy for too long. A larger backlog only makes more clients wait."
conclude
