#!/usr/bin/env bash
# accept and recv block, and a process that is blocked costs nothing
. "$(dirname "$0")/lib.sh"

lesson "accept and recv put their process to sleep until they have something to return.
So a server waits without processor time, and without asking again and again."

serve --workers 2 --explain
connect A
tell A hello
hear A hello
reading=$(worker_of A)
accepting=$(workers | grep -vx "$reading")

predict "One worker has a client that sends nothing, one has no client. What do they do, and what
does the parent do?"
run "ps -o pid,stat,time,comm -p $server,$reading,$accepting"
check "all three sleep (S)" test "$(ps -o stat= -p "$server,$reading,$accepting" | grep -c '^S')" = 3
check "{reading} sleeps in recv" grep -q "recv(.*asleep" <<<"$(grep "(pid $reading): " log | tail -n 1)"
check "{accepting} sleeps in accept" grep -q "accept(.*asleep" <<<"$(grep "(pid $accepting): " log | tail -n 1)"

if on_linux && ps -o wchan:30= -p "$accepting" | grep -q accept; then
    predict "Linux shows in which function of the kernel each of them sleeps. Which ones do you expect?"
    run "ps -o pid,wchan:30,comm -p $server,$reading,$accepting"
    say "inet_csk_accept is accept. wait_woken is recv: the function in which the kernel waits for the
bytes of a connection. The parent sleeps in poll: it waits for signals."
    check "the parent sleeps in poll" grep -q poll <<<"$(ps -o wchan:30= -p "$server")"
    check "the worker with a client does not sleep in accept" \
        is_not grep -q accept <<<"$(ps -o wchan:30= -p "$reading")"
else
    say "On Linux, ps -o wchan shows in which function of the kernel a process sleeps. It is not
available here."
fi


predict "recv is often said to need a thread of its own. How many threads has this worker?"
if on_linux; then threads="ps -o nlwp= -p"; else threads="ps -M -p"; fi
run "$threads $reading"
if on_linux; then one=$($threads "$reading" | tr -d ' '); else one=$(($($threads "$reading" | wc -l) - 1)); fi
check "it has one thread" test "$one" = 1
run "prefork-echo client $port 'and me?'"
check "the other worker serves meanwhile" test "$(prefork-echo client "$port" 'and me?')" = 'and me?'
say "recv needs something that may sleep: a thread, or, as here, a process. While one worker sleeps
in recv, the other one serves."
conclude
