#!/usr/bin/env bash
# A process a client: forked when it connects, or before
. "$(dirname "$0")/lib.sh"

lesson "Many introductions fork when a client has connected: accept, fork, and the child serves
the client. This server forks before. What does a client cost in each?"

# In C, or in perl where nothing compiles it: macOS has a cc that only asks for the real one.
cp "$scripts"/fork_per_client.* .
compile="cc -O2 -o fork_per_client fork_per_client.c"
if $compile 2>/dev/null; then
    source=fork_per_client.c
    forking_server=./fork_per_client
elif perl -MSocket -e 1 2>/dev/null; then
    source=fork_per_client.pl
    forking_server="perl fork_per_client.pl"
    say "No C compiler works here (cc; Debian: apt install gcc; macOS: xcode-select --install), so the
server is in Perl. A process of Perl is larger than one of C: its fork takes longer."
    next_page
else
    say "This lesson needs a C compiler, cc (Debian: apt install gcc; macOS: xcode-select --install), or
perl (Debian: apt install perl). Both are missing."
    exit 1 # not finished
fi

# How many processes have said that they serve a client: each says so before it does.
forks() { grep -c ' serves a client$' forking.log; }
run "sed -n '/for (;;)/,\$p' $source"
next_page
if [ "$source" = fork_per_client.c ]; then show_command "$compile"; fi
show_command "$forking_server 0 2>forking.log &"
(
    let_go_of_pipes
    # shellcheck disable=SC2086 # a command and its argument
    exec $forking_server 0 >forking 2>forking.log
) &
forking=$!
clients="$clients $forking"
wait_until "the server listens" test -s forking
port_forking=$(sed 's/.*://' forking)

predict "Five clients connect, one after another. How many processes does this server make?"
for word in one two three four five; do prefork-echo client "$port_forking" $word; done >answers
run "cat forking.log"
check "it has forked five times: a process for each client" test "$(forks)" = 5
check "these were five processes" test "$(sort -u forking.log | grep -c .)" = 5
check "each client had its answer" test "$(tr '\n' ' ' <answers)" = "one two three four five "

next_page
serve --workers 4 -q
before=$(workers)
predict "The same five clients connect to a server with four workers. How many processes does it
make for them?"
for word in one two three four five; do prefork-echo client "$port" $word; done >answers
run "prefork-echo status $port | grep -E 'SLOT|idle'"
after=$(workers)
check "none: the four workers are those of before" test "$after" = "$before"
check "together they have served five clients" test "$(values connections | sed 1d | awk '{ n += $1 } END { print n }')" = 5

next_page
load="--mode connect --connections 4 --messages 1000 --json"
predict "1,000 connections, each with one echo, four at once, three times: which server takes
longer?"
forked_before=$(forks)
cost() { # of a connection, in microseconds
    # shellcheck disable=SC2086 # several options
    prefork-echo bench "$1" $load | fields elapsed_s | awk '{ printf "%.0f\n", $1 * 1e6 / 1000 }'
}
show_command "prefork-echo bench $port_forking $load"
show_command "prefork-echo bench $port $load"
for _ in 1 2 3; do
    cost "$port_forking" >>when_connected
    cost "$port" >>forked_before
done
median() { sort -n "$1" | sed -n 2p; }
forked=$(($(forks) - forked_before))
now=$(median when_connected) early=$(median forked_before)
ratio=$(awk -v a="$now" -v b="$early" 'BEGIN { printf "%.1f", a / b }')
table "a process is forked|forks for 3,000 connections|a connection takes" <<TABLE
$(text "when a client connects")|$forked|$now µs
$(text "before: four workers")|0|$early µs
TABLE
check "the one has forked for each connection" test "$forked" = 3000
check "the other has forked for none: the workers are still the same" test "$(workers)" = "$before"
say "Forking copies the parent's page tables and descriptor table, for each client: here a
connection takes {ratio} times as long. But each client gets a process at once, while the machine
has room for one more. A server with four workers serves four clients at once: others wait in the
queue, and it never has more processes than you allow. Threads and multiplexing have a price of
their own (lesson 18)."
conclude
