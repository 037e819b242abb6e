#!/usr/bin/env bash
# accept makes a new socket, and two addresses tell connections apart
. "$(dirname "$0")/lib.sh"

lesson "The listening socket only listens; each client gets a socket of its own, on the
same port. The port of the client's end is chosen by the client's kernel."

if on_linux; then sockets="ls -l /proc/%s/fd | grep socket:"; else sockets="lsof -nP -a -i -p %s"; fi
# shellcheck disable=SC2059 # the format is the command
list_sockets() { printf "$sockets" "$1"; }
number_of_sockets() { eval "$(list_sockets "$1")" | grep -cE 'socket:|TCP'; }

serve --workers 2 --explain
before=$(number_of_sockets "$(workers | head -n 1)")
run "$(list_sockets "$(workers | head -n 1)")"
check "a worker begins with one socket" test "$before" = 1

predict "Two clients connect. How many sockets has a worker then, and which ports do they have?"
connect A
tell A hello
hear A hello
connect B
tell B hello
hear B hello
run "$(list_sockets "$(worker_of A)")"
run "$(command_for_connections)"
run "grep 'goes on listening' log"
for name in A B; do
    check "the worker of $name has one socket more" test "$(number_of_sockets "$(worker_of $name)")" = 2
    check "it is $(address_of $name) here, and at the server's end as well" \
        grep -q "on the same port, 127.0.0.1:$port, for the client at $(address_of $name) alone" log
done
check "the workers of A and B are two" test "$(worker_of A)" != "$(worker_of B)"
check "the ports of A and B are two" test "$(address_of A)" != "$(address_of B)"

say "Does a port number identify a process? At $port there are two connections and a
listening socket, in three processes. What is unique is the pair of both ends' addresses."
conclude
