#!/usr/bin/env bash
# Threads share the memory of their process; processes don't
. "$(dirname "$0")/lib.sh"

lesson "Two ways to serve eight clients at once: eight processes, or one process with
eight threads. Each process has one variable that counts its clients."

counters() { values private_counter | sed 1d | xargs; }
show_counters="awk 'NF > 8 && /^[ S]/ { print \$2, \$(NF-1) }'"
# kill_one: kills a worker. The clients of the crowd that it cuts off come again.
kill_one() {
    victim=$(workers | head -n 1)
    run "kill -9 $victim"
    wait_until "the worker is replaced" grep -q "replaces pid $victim" log
    wait_until "all eight are served again" serves 8
    crowd_leaves
}

serve --workers 8
crowd 8
wait_until "eight clients are served" serves 8
predict "Eight clients are served by eight processes. What does each process count?"
run "prefork-echo status $port | $show_counters"
processes=$(workers | wc -l | tr -d ' ')
# shellcheck disable=SC2046 # a pid is a word
threads=$(count_threads $(workers))
of_processes=$(counters)
check "eight private counters of one" test "$of_processes" = "1 1 1 1 1 1 1 1"
check "eight processes have eight threads: one each" test "$processes $threads" = "8 8"

predict "One of the eight processes is killed. How many of the eight clients are cut off?"
kill_one
cut_by_process=$(cut_off)
check "one is: the killed process served no other" test "$cut_by_process" = 1
stop_server

serve --workers 1 --model thread --clients 8
crowd 8
wait_until "eight clients are served" serves 8
predict "Now one process serves them, with eight threads. What does it count?"
run "prefork-echo status $port | $show_counters"
worker=$(workers)
run "$list_threads $worker"
say "Nine threads: eight serve, each as a worker of before does, and sleeps in accept or in
recv. The first one serves no client: it waits for signals."
of_threads=$(counters)
threads_of_one=$(count_threads "$worker")
check "one private counter of eight: all threads count in one variable" test "$of_threads" = 8
check "one process, and nine threads" test "$(workers | wc -l | tr -d ' ') $threads_of_one" = "1 9"

predict "That process is killed. How many of the eight clients are cut off?"
kill_one
cut_by_thread=$(cut_off)
check "all eight are: threads live and die with their process" test "$cut_by_thread" = 8

table <<TABLE
eight clients on|processes|threads|counters|kill -9 cuts
--workers 8|$processes|$threads|$of_processes|$cut_by_process
--workers 1 --model thread|1|$threads_of_one|$of_threads|$cut_by_thread
TABLE
say "Shared memory is at hand for threads, and processes must ask for it (lesson 9). For
that, a process keeps to itself what goes wrong in it (lesson 13)."
conclude
