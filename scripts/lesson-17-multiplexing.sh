#!/usr/bin/env bash
# One thread serves many clients, if it waits for all at once
. "$(dirname "$0")/lib.sh"

lesson "recv sleeps for one client, so one thread serves one client (lesson 7). With
multiplexing it sleeps in one call for all: epoll on Linux, kqueue on macOS."

# greedy_client: it sends 64 MB and reads nothing, until all buffers on the way are full.
greedy_client() {
    (eval "$send") 2>/dev/null &
    greedy=$!
    clients="$clients $greedy"
    seen=0 still=0
    wait_until "its buffers are full" stands_still
}
# Has the server sent it nothing more, in five looks one after the other?
stands_still() {
    local bytes
    bytes=$(values bytes | head -n 1)
    if [ "$bytes" -gt 0 ] && [ "$bytes" = "$seen" ]; then still=$((still + 1)); else still=0; fi
    seen=$bytes
    [ "$still" -ge 5 ]
}
# stop JOB: and bash is not to say that it was terminated.
stop() { { kill "$1" && wait "$1"; } 2>/dev/null; }

serve --workers 1 --model multiplex
send="exec 7<>/dev/tcp/127.0.0.1/$port; exec head -c 64000000 /dev/zero >&7"
worker=$(workers)
say "One client sends 64 MB and reads nothing, until all buffers on the way are full
(lesson 14):"
printf '\n  $ (%s) &\n' "$send"
greedy_client
predict "Seven more clients come, and the worker has one thread. Which of the eight does it
serve?"
crowd 7
wait_until "eight clients are connected" serves 8
run "$list_threads $worker"
check "the worker has one thread" test "$(count_threads "$worker")" = 1
check "it has eight clients" serves 8
has_answered() { test "$(values bytes | head -n 1)" -ge $((seen + 7 * 64)); }
wait_until "the seven have got answers" has_answered
check "it answers the seven" has_answered

# The descriptor that stands for the set; the kernel lists those that are in it.
set_of() { grep -l '^tfd:' /proc/"$1"/fdinfo/* | head -n 1; }
if on_linux && [ -n "$(set_of "$worker")" ]; then
    predict "For how many descriptors does the one thread wait, and for what at each?"
    run "awk '/^tfd:/ { print \$1, \$2, \$3, \$4 }' $(set_of "$worker")"
    say "That is the set that epoll_wait waits for: the listening socket, and one for each
client. 19 at the end means: wake me when there is something to read; 1c: when there is
room to send. That is the client that reads nothing."
    check "nine descriptors are in the set" test "$(grep -c '^tfd:' "$(set_of "$worker")")" = 9
    check "one of them waits for room" test "$(grep -c '^tfd:.* 1c ' "$(set_of "$worker")")" = 1
fi

tracer=""
if on_linux && command -v strace >/dev/null; then
    calls="?epoll_wait,?epoll_pwait,?epoll_pwait2,recvfrom,sendto"
    strace -s 0 -e trace="$calls" -o calls -p "$worker" 2>traced &
    tracer=$!
    clients="$clients $tracer"
    is_decided() { grep -q attached traced || is_not kill -0 "$tracer"; }
    wait_until "strace may look, or not" is_decided
    grep -q attached traced || tracer=""
fi
if [ -n "$tracer" ]; then
    predict "In which order does it call epoll_wait, recv and send? strace shows them (recv as
recvfrom, send as sendto)."
    has_calls() { test "$(grep -c '^sendto.* = 64' calls)" -ge 70; }
    wait_until "70 answers are traced" has_calls
    stop "$tracer"
    printf '\n  $ strace -s 0 -p %s\n' "$worker"
    awk 'NR <= 6 { print "    " substr($0, 1, 75) }' calls
    say "It sleeps in epoll_wait alone, which returns when a client is ready, and tells which;
recvfrom and sendto are told not to wait (MSG_DONTWAIT)."
    # in_calls CALL: the first descriptor of each such call, each once.
    in_calls() { sed -n "s/^$1(\\([0-9]*\\),.* = [1-9].*/\\1/p" calls | sort -u; }
    check "one wait for all: epoll_wait is always for the same set" \
        test "$(in_calls 'epoll_p*wait2*' | wc -l | tr -d ' ')" = 1
    check "seven clients are answered meanwhile" test "$(in_calls sendto | wc -l | tr -d ' ')" = 7
    check "no recv and no send may wait" \
        is_not grep -q '^[rs]' <<<"$(grep -v MSG_DONTWAIT calls)"
else
    say "On Linux, strace would show the one wait for all (root may look); here it can't be had."
fi
crowd_leaves
check "every byte of the seven came back" grep -q '^errors: none' crowd
stop "$greedy"
end_server

predict "The same eight clients in the other ways to serve: how many of the seven get an
answer within a second?"
rows=""
answered() {
    printf '\n  $ prefork-echo --bind %s %s &\n' "$port" "$*"
    start_server "$@"
    greedy_client
    # shellcheck disable=SC2046 # a pid is a word
    threads=$(count_threads $(workers)) processes=$(workers | wc -l | tr -d ' ')
    load="--connections 7 --messages 7 --timeout 1s --json"
    # shellcheck disable=SC2086 # several options in one string, on purpose
    of_seven=$(prefork-echo bench "$port" $load 2>errors | fields messages)
    rows="$rows$*|$processes|$threads|${of_seven:=0} of 7
"
    stop "$greedy"
    end_server
}
answered --workers 1
check "the only process waits for the client that reads nothing" test "$of_seven" = 0
answered --workers 8
check "of eight processes one waits, and seven serve" test "$of_seven" = 7
answered --workers 1 --model thread --clients 8
check "of eight threads one waits, and seven serve" test "$of_seven" = 7
answered --workers 1 --model multiplex
check "one thread serves all seven: it waits for none alone" test "$of_seven" = 7
table <<TABLE
one client reads nothing|processes|threads|answered
$rows
TABLE
conclude
