#!/usr/bin/env bash
# A pool that grows: the same five clients with and without --max-workers
. "$(dirname "$0")/lib.sh"

lesson "A fixed number of workers bounds how many clients are served at once. With
--max-workers the parent forks more workers while clients wait, and a worker that is idle leaves
again. What does that give, and what does it cost?"

names="A B C D E"
# The sums and lists that the checks compare.
has_workers() { test "$(workers | grep -c .)" -eq "$1"; }
queue_holds() { test "$(values length)" = "$1"; } # Linux alone tells
served() { for name in $names; do if [ -s "$name" ]; then echo "$name"; fi; done | xargs; }
forked_meanwhile() { grep -oE 'busy: [0-9]+ more' log | awk '{ n += $2 } END { print n + 0 }'; }
have_left() { test "$(grep -c 'parent.*left with exit code 0' log)" = "$1"; }
times_asleep() { grep -c 'parent.*poll(): asleep' log; }

# come: five clients connect, the first two one after the other; each sends a line and stays.
come() {
    local name
    wrap '\n' "" "$(text "Five clients, A to E, each in a terminal of its own. This is A:")"
    for name in $names; do
        connect "$name" >/dev/null
        tell "$name" "I am $name" >/dev/null
        case $name in
        A | B)
            wait_until "{name} has an answer" test -s "$name"
            ;;
        esac
    done
    show_command "prefork-echo client $port --explain 2>A.log &"
    for name in $names; do
        wait_until "{name} is connected" is_connected "$name"
    done
}
# leave: all of them, at once.
leave() {
    wrap '\n' "" "$(text "All five type Ctrl-D: they send no more, and leave.")"
    for name in $names; do quit "$name" >/dev/null; done
    # shellcheck disable=SC2086 # several pids in one string, on purpose
    wait $clients
    clients=""
}

serve --workers 2
wait_until "there are two workers" has_workers 2
rest_of_two=$(parent_and_workers | grep -c .)
predict "Five clients connect to two workers. Each types a line, and stays. What does each of them get?"
come
if on_linux; then
    wait_until "three connections wait" queue_holds 3
    run "prefork-echo status $port | grep 'accept queue'"
fi
rows=""
for name in $names; do
    answer=$(text "none: it waits")
    if [ -s "$name" ]; then answer=$(cat "$name"); fi
    rows="$rows$name|$(sed -n 's/.*connect(.*) = \([0-9-]*\),.*/\1/p' "$name.log")|$answer
"
done
table "client|connect returned|its answer" <<TABLE
$rows
TABLE
served_by_two=$(served)
check "two are served: A and B" test "$served_by_two" = "A B"
check "the two workers have one client each" serves 2
if on_linux; then
    check "three connections wait in the accept queue: C, D and E" queue_holds 3
else
    say "C, D and E wait in the accept queue. Linux tells how many are in it; here the system does not."
fi

next_page
leave
stop_server
rm -f A* B* C* D* E*
serve --workers 2 --max-workers 5 --spare-for 1s --explain
wait_until "there are two workers" has_workers 2
first=$(workers)
rest_of_growing=$(parent_and_workers | grep -c .)
predict "The same five clients come. There are two workers again, but there may be five. Which
are served, and by which workers?"
come
for name in C D E; do
    wait_until "{name} has an answer" test -s "$name"
done
rows="" by_new_workers=""
for name in $names; do
    worker=$(worker_of "$name")
    forked=$(text "at the start")
    if [ -n "$worker" ] && ! grep -qx "$worker" <<<"$first"; then
        forked=$(text "while clients waited")
        by_new_workers="$by_new_workers $name"
    fi
    rows="$rows$name|$worker|$forked|$(cat "$name")
"
done
table "client|its worker|forked|its answer" <<TABLE
$rows
TABLE
served_by_growing=$(served)
check "all five are served" test "$served_by_growing" = "A B C D E"
check "C, D and E are served by workers that did not exist when they connected" test "$by_new_workers" = " C D E"

predict "The log says why the parent has forked, and when. How many workers did it add?"
run "grep -E 'busy: |parent.*forked\$' log"
say "Each line with busy says how many connections waited at that moment: so many workers are
forked at once. Another line means that more clients came a little later."
check "three workers were added, for three connections that waited" test "$(forked_meanwhile)" = 3
if on_linux; then
    check "no connection waits any more" queue_holds 0
fi

predict "There are five workers now, and the parent. A sixth client comes. Is it served?"
run "ps -A -o pid,ppid,stat,comm | awk 'NR == 1 || \$1 == $server || \$2 == $server'"
check "there are six processes: a parent and its five children" \
    test "$(ps -A -o pid=,ppid= | awk -v p="$server" '$1 == p || $2 == p' | wc -l | tr -d ' ')" = 6
run "prefork-echo client $port --timeout 300ms sixth"
check "it is connected, and gets no echo" test "$status" = 1
check "there are still five workers: --max-workers is the most that the machine has to bear" has_workers 5

predict "All five clients leave. How many workers stay?"
leave
wait_until "three workers leave" have_left 3
run "grep 'not needed' log"
check "three workers have left, because they were idle for a second" test "$(grep -c 'was idle for 1s' log)" = 3
check "two workers are left" has_workers 2
check "the two that stay are those of the start" test "$(workers)" = "$first"

predict "Twenty clients come now, one after another, and a worker is idle for each. How often does the
parent wake up?"
sleeps_in_poll() { grep 'parent.*poll()' log | tail -n 1 | grep -q 'asleep until a signal comes, or a worker is ready$'; }
wait_until "the parent sleeps" sleeps_in_poll
before=$(times_asleep)
run "for i in 1 2 3 4 5 6 7 8 9 10; do prefork-echo client $port a; prefork-echo client $port b; done | xargs"
woken=$(($(times_asleep) - before))
wait_until "the parent sleeps" sleeps_in_poll
run "grep 'parent.*poll()' log | tail -n 1"
check "it was not woken for each client: {woken} times for twenty" test "$woken" -lt 10
check "it sleeps without a time-out: nothing ticks" sleeps_in_poll
check "no worker was added for them" has_workers 2

next_page
load="--connections 5 --messages 5 --json"
# last_waits WORKERS: until the last of five clients that come at once has its answer, in
# microseconds: the median of five rounds, each of which begins with so many workers.
last_waits() {
    local round workers=$1
    rm -f waits
    for round in 1 2 3 4 5; do
        wait_until "there are {workers} workers" has_workers "$workers"
        # shellcheck disable=SC2086 # several options in one string, on purpose
        prefork-echo bench "$port" $load | fields wait_max_us >>waits
    done
    show_command "prefork-echo bench $port $load"
    waited=$(sort -n waits | awk 'NR == 3 { printf "%.0f", $1 }')
}
stop_server
predict "Five clients at once, five times: once for two workers that may become five, once for five that
were forked before. How long does the last client wait?"
serve --workers 2 --max-workers 5 --spare-for 100ms
last_waits 2
waited_growing=$waited
run "grep busy: log | tail -n 1"
added=$(forked_meanwhile)
check "{added} workers were forked while clients waited" test "$added" -gt 0
stop_server
serve --workers 5
last_waits 5
rest_of_five=$(parent_and_workers | grep -c .)
by_two=$(wc -w <<<"$served_by_two" | tr -d ' ')
by_growing=$(wc -w <<<"$served_by_growing" | tr -d ' ')
by_five=$(workers | grep -c .) # a client each
check "no worker was added to the five" test "$(forked_meanwhile)" = 0

next_page
table "workers|processes at rest|clients at once|the last of five waits" <<TABLE
--workers 2|$rest_of_two|$by_two|$(text "until another leaves")
2, --max-workers 5|$rest_of_growing|$by_growing|$waited_growing µs
--workers 5|$rest_of_five|$by_five|$waited µs
TABLE
check "at rest the pool that can grow is as small as the fixed one" test "$rest_of_growing" = "$rest_of_two"
say "A pool that grows serves more clients at once, and takes memory for more workers only while they
are needed. The price is a fork while a client waits: one for each worker more, not one for each
client as in lesson 26. And --max-workers still bounds what the machine has to bear: beyond that,
clients wait in the queue."
conclude
