#!/usr/bin/env bash
# The end that closes first waits: TIME_WAIT
. "$(dirname "$0")/lib.sh"

lesson "The end that closes first keeps the connection in TIME_WAIT for a while, so that
late bytes of it don't reach the next connection. Which end is that?"

# Is a connection in TIME_WAIT whose local port, or the peer's, is so and so?
waits() {
    local here=$1 there=$2 here_hex there_hex
    here_hex=$(printf ':%04X' "$here")
    there_hex=$(printf ':%04X' "$there")
    connections_in_time_wait |
        grep -qE "[.:]$here +[^ ]*[.:]$there( |\$)|$here_hex [^ ]*$there_hex "
}
port_of() { address_of "$1" | sed 's/.*://'; }

serve --workers 1
predict "A client closes first. Which end is in TIME_WAIT then?"
connect A
tell A hello
hear A hello
quit A
wait_until "a connection is in TIME_WAIT" waits "$(port_of A)" "$port"
run "$(command_for_connections)"
client_port=$(port_of A)
check "the client's end is in TIME_WAIT (local port {client_port}, the peer's {port})" waits "$(port_of A)" "$port"
check "the server's end is not" is_not waits "$port" "$(port_of A)"

predict "Now the server closes first, because its worker is killed. Which end is in TIME_WAIT?"
connect B
tell B hello
hear B hello
run "kill -9 $(worker_of B)"
wait_until "the server's end is in TIME_WAIT" waits "$port" "$(port_of B)"
run "$(command_for_connections)"
client_port=$(port_of B)
check "the server's end is in TIME_WAIT (local port {port}, the peer's {client_port})" waits "$port" "$client_port"

predict "What does a server lose that closes first: a port for each connection?"
still_serves() { waits "$port" "$client_port" && prefork-echo client "$port" 'next, please'; }
check "no: the connection in TIME_WAIT and the listening socket have one port, {port}" still_serves
say "An accepted connection has the port of the listening socket. TIME_WAIT keeps some memory
for it, and its pair of addresses, for a minute or so: this client port can't connect here
in that time. The end that connects, and closes first, loses that port in the same way.
With many clients it is better that they close first."

predict "Connections of this port are in TIME_WAIT. The server stops. Can a new one bind the port?"
stop_server
serve --workers 1 --explain
run "grep SO_REUSEADDR log"
check "yes, because it sets SO_REUSEADDR before bind" in_order log 'SO_REUSEADDR[)] = 0' 'bind[(].* = 0'
conclude
