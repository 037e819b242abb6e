#!/usr/bin/env bash
# bind fails when the port is taken
. "$(dirname "$0")/lib.sh"

lesson "A port of an address belongs to the socket that is bound to it. A second server
on that port gets an error from bind, and reports it."

serve --workers 1
predict "What does a second server say, and with which exit status does it end?"
run "prefork-echo --bind $port 2>complaint; echo \"exit status \$?\" >end; cat complaint end"
say "socket succeeded, and bind failed. A server without its port can't work, so it ends."
check "its exit status is 1" grep -qx 'exit status 1' end
check "it gives the reason, in one line" test "$(grep -c 'address already in use' complaint) of $(grep -c '' complaint)" = '1 of 1'


predict "The message names a command that finds the server at this port. What does it show?"
run "prefork-echo status $port | head -n 1"
check "the message names the command status" grep -q "prefork-echo status 127.0.0.1:$port" complaint
check "status names the first server" grep -q "(pid $server)" <<<"$(prefork-echo status "$port")"


predict "The first server stops. Can another server bind the port then?"
run "prefork-echo client $port 'still here'"
check "the first server still serves" test "$(prefork-echo client "$port" 'still here')" = 'still here'
stop_server
serve --workers 1
check "yes: the port is free again" test "$(prefork-echo client "$port" 'a new one')" = 'a new one'
conclude
