#!/usr/bin/env bash
# The end that closes first waits: TIME_WAIT
. "$(dirname "$0")/lib.sh"

lesson "The end that closes first keeps the connection for a while, lest late bytes of it
reach the next one. A server with many clients prefers that they close first."

# Is a connection in TIME_WAIT whose local port, or the peer's, is so and so?
# In /proc/net/tcp that is state 06, the columns are others, and ports are hexadecimal.
waits() {
    local here=$1 there=$2 here_hex there_hex
    here_hex=$(printf ':%04X' "$here")
    there_hex=$(printf ':%04X' "$there")
    eval "$(command_for_connections)" | grep -E 'TIME.WAIT|: .* 06 ' |
        grep -qE "[.:]$here +[^ ]*[.:]$there( |\$)|$here_hex [^ ]*$there_hex "
}
port_of() { address_of "$1" | sed 's/.*://'; }

serve --workers 1
predict "A client says goodbye first. Which end has TIME_WAIT, and which nothing?"
connect A
tell A hello
hear A hello
quit A
wait_until "a TIME_WAIT is there" waits "$(port_of A)" "$port"
run "$(command_for_connections)"
check "the client's end waits (local port $(port_of A), the peer's $port)" waits "$(port_of A)" "$port"
check "the server's end doesn't" is_not waits "$port" "$(port_of A)"

predict "Now the server closes first: its worker is killed. And now?"
connect B
tell B hello
hear B hello
run "kill -9 $(worker_of B)"
wait_until "another TIME_WAIT is there" waits "$port" "$(port_of B)"
run "$(command_for_connections)"
check "the server's end waits (local port $port, the peer's $(port_of B))" waits "$port" "$(port_of B)"

say "TIME_WAIT is at the end that has closed first. It costs a server that closes first a port
and some memory for each client, for a minute or so."

predict "The port is in TIME_WAIT. Can a new server have it?"
stop_server
serve --workers 1 --explain
run "grep SO_REUSEADDR log"
check "yes, because it asks for SO_REUSEADDR before bind" in_order log 'SO_REUSEADDR[)] = 0' 'bind[(].* = 0'
conclude
