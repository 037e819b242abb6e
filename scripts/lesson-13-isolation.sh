#!/usr/bin/env bash
# Processes are isolated: one dies, the others serve
. "$(dirname "$0")/lib.sh"

lesson "An error of a process ends that process alone, and the kernel closes what it had
open. The parent gets SIGCHLD, reaps the child, and forks a new one."

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
wait_until "A reads the end of file" grep -q 'closed' A.log
run "tail -n 1 A.log"
tell B 'still there?'
hear B 'still there?'
run "prefork-echo client $port 'a new client'"
check "A reads an end of file, because the kernel has closed its connection" grep -q 'recv(.*) = 0: end of file' A.log
check "B has noticed nothing" test "$(cat B)" = "$(printf 'hello\nstill there?')"
check "the worker of B is the same as before" test "$(worker_of B)" = "$other"
check "a new client is served" test "$(prefork-echo client "$port" 'a new client')" = 'a new client'


predict "What has the parent done, and how long did it take?"
run "grep 'pid $victim' log | grep parent"
check "the log gives the cause of the death" grep -q "(pid $victim) killed by SIGKILL" log
check "the log says how long the replacement took" grep -qE "replaces pid $victim, [0-9.]+.*s after" log
check "there are three workers again, without the killed one" \
    test "$(workers | grep -vcx "$victim")" = 3
check "the killed worker is reaped: no zombie is left" is_not ps -p "$victim"
check "status counts one restart" test "$(values restarts | head -n 1)" = 1
conclude
