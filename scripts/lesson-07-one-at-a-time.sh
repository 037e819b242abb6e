#!/usr/bin/env bash
# One process serves one client at a time
. "$(dirname "$0")/lib.sh"

lesson "A worker that sleeps in recv for one client can't accept the next one. So as many
clients are served at once as there are workers."

serve --workers 1
connect A
tell A 'first'
hear A 'first'
predict "The one worker has a client, A. What does another client see, that waits for one second?"
run "prefork-echo client $port --timeout 1s second"
say "It is connected, by the kernel. But the worker sleeps in recv, for A, and can't be in
accept at the same time."
check "no echo, within its second" test "$status" = 1
connect B
tell B 'second'
wait_until "B is connected" is_connected B
check "B is connected, and has no echo" test ! -s B

predict "What happens to B when A leaves?"
quit A
hear B 'second'
check "B is served when A has left" grep -qx second B

predict "And with two workers?"
quit B
stop_server
serve --workers 2
connect C
connect D
tell C 'third'
tell D 'fourth'
hear C 'third'
hear D 'fourth'
check "two workers serve two clients at once" test "$(values state | grep -c reading)" = 2
conclude
