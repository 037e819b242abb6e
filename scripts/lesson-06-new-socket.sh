#!/usr/bin/env bash
# accept makes a new socket, and two addresses tell connections apart
. "$(dirname "$0")/lib.sh"

lesson "The listening socket only listens. accept makes a new socket for each client, on
the same port. The client's kernel chooses the port of the client's end."

if on_linux; then sockets="ls -l /proc/%s/fd | grep socket:"; else sockets="lsof -nP -a -i -p %s"; fi
# shellcheck disable=SC2059 # the format is the command
list_sockets() { printf "$sockets" "$1"; }
number_of_sockets() { eval "$(list_sockets "$1")" | grep -cE 'socket:|TCP'; }

serve --workers 2 --explain
before=$(number_of_sockets "$(workers | head -n 1)")
run "$(list_sockets "$(workers | head -n 1)")"
check "a worker has one socket at first" test "$before" = 1

predict "Two clients connect. How many sockets has a worker then, and which ports do they have?"
connect A
tell A hello
hear A hello
connect B
tell B hello
hear B hello
run "$(list_sockets "$(worker_of A)")"
for name in A B; do
    check "the worker of {name} has one socket more" test "$(number_of_sockets "$(worker_of $name)")" = 2
done
check "A and B have two workers" test "$(worker_of A)" != "$(worker_of B)"

predict "Which addresses and ports have the two ends of each connection?"
run "$(command_for_connections)"
for name in A B; do
    address=$(address_of $name)
    check "{name} is at {address}, and the worker's new socket is for {address} alone" \
        grep -q "on the same port, 127.0.0.1:$port, for the client at $address alone" log
done
check "A and B have two ports" test "$(address_of A)" != "$(address_of B)"
say "A port number is often said to identify a process. At {port} there are two connections and
a listening socket, in three processes. The pair of both ends' addresses and ports
identifies a connection."
conclude
