#!/usr/bin/env bash
# listen makes a socket passive, and waits for no client
. "$(dirname "$0")/lib.sh"

lesson "From listen on the kernel takes connections for the socket; before, it refuses
them. listen is often said to wait for a request: see which call does."

serve --workers 1
stop_server
predict "No process listens at port $port any more. What does a client get there?"
run "prefork-echo client $port hello"
check "it is refused, at once" grep -q 'connection refused' <<<"$(prefork-echo client "$port" hello 2>&1)"
check "its exit status is 1" test "$status" = 1

predict "Now a server listens. How long does listen take, and how long accept?"
serve --workers 1 --explain
run "prefork-echo client $port hello"
check "now the client is served" test "$(prefork-echo client "$port" hello)" = hello
run "grep -E '(listen|accept)\(.*\) = ' log"

listening=$(took log 'listen[(].* = 0')
accepting=$(took log 'accept[(].* = ')
say "listen took $listening microseconds. accept slept for $accepting: accept is the call that waits."
check "listen has returned within a tenth of a second" test "$listening" -lt 100000
check "accept has waited longer than listen" test "$accepting" -gt "$listening"
conclude
