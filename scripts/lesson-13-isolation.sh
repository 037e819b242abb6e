#!/usr/bin/env bash
# Processes are isolated: one dies, the others serve
. "$(dirname "$0")/lib.sh"

lesson "What a process does wrong, it does to itself: the kernel cleans up behind it. The
parent hears of the death by SIGCHLD, reaps the child, and forks another."

serve --workers 3
for name in A B; do
    connect $name
    tell $name hello
    hear $name hello
done
victim=$(worker_of A)
other=$(worker_of B)
predict "The worker of A is killed. What does A notice, what B, and what a new client?"
run "kill -9 $victim"
wait_until "the worker is replaced" grep -q "replaces pid $victim" log
wait_until "A notices" grep -q 'closed' A.log
run "tail -n 2 A.log"
tell B 'still there?'
hear B 'still there?'
run "prefork-echo client $port 'a new client'"
say "The kernel closes what a dead process had open: that is the end of file that A reads.
Nothing else was the dead one's to spoil."
check "A reads an end of file: the kernel has closed its connection" grep -q 'recv(.*) = 0: end of file' A.log
check "B has noticed nothing" test "$(cat B)" = "$(printf 'hello\nstill there?')"
check "its worker is the same as before" test "$(worker_of B)" = "$other"
check "a new client is served" test "$(prefork-echo client "$port" 'a new client')" = 'a new client'

run "grep 'pid $victim' log | grep parent"
check "the log explains the death" grep -q "(pid $victim) killed by SIGKILL" log
check "it says how long the replacement took" grep -qE "replaces pid $victim, [0-9.]+.*s after" log
check "there are three workers again, and the dead one is not among them" \
    test "$(workers | grep -vcx "$victim")" = 3
check "no zombie is left of it" is_not ps -p "$victim"
check "status has counted it" test "$(values restarts | head -n 1)" = 1
conclude
