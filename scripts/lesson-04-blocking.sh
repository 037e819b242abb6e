#!/usr/bin/env bash
# accept and recv block, and a process that is blocked costs nothing
. "$(dirname "$0")/lib.sh"

lesson "A call that has nothing to return puts its process to sleep until it has. So a
server waits without asking again and again, and needs no thread for it."

serve --workers 2 --explain
connect A
tell A hello
hear A hello
reading=$(worker_of A)
accepting=$(workers | grep -vx "$reading")

predict "One worker has a client that says nothing, one has none. What do they do, and the parent?"
run "ps -o pid,stat,time,comm -p $server,$reading,$accepting"
check "all three sleep (S)" test "$(ps -o stat= -p "$server,$reading,$accepting" | grep -c '^S')" = 3
check "$reading sleeps in recv" grep -q "recv(.*asleep" <<<"$(grep "(pid $reading): " log | tail -n 1)"
check "$accepting sleeps in accept" grep -q "accept(.*asleep" <<<"$(grep "(pid $accepting): " log | tail -n 1)"

if on_linux && ps -o wchan:30= -p "$accepting" | grep -q accept; then
    say "Linux tells in which of its functions a process sleeps. The parent's is that of poll: it
waits for signals."
    run "ps -o pid,wchan:30,comm -p $server,$reading,$accepting"
    check "the parent sleeps in poll" grep -q poll <<<"$(ps -o wchan:30= -p "$server")"
    check "the worker with a client does not sleep in accept" \
        is_not grep -q accept <<<"$(ps -o wchan:30= -p "$reading")"
else
    say "Linux would tell in which of its functions a process sleeps (ps -o wchan); here it can't be seen."
fi

say "recv needs a thread of its own? It needs something that may sleep: here, a process.
Each has one thread; while one worker sleeps in recv, the other serves."
if on_linux; then threads="ps -o nlwp= -p"; else threads="ps -M -p"; fi
run "$threads $reading"
if on_linux; then one=$($threads "$reading" | tr -d ' '); else one=$(($($threads "$reading" | wc -l) - 1)); fi
check "it has one thread" test "$one" = 1
run "prefork-echo client $port 'and me?'"
check "the other worker serves meanwhile" test "$(prefork-echo client "$port" 'and me?')" = 'and me?'
conclude
