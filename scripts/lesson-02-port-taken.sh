#!/usr/bin/env bash
# bind fails when the port is taken
. "$(dirname "$0")/lib.sh"

lesson "A port of an address belongs to the socket that is bound to it. A second server
there gets an error from bind, and has to tell its user."

serve --workers 1
predict "What does a second server say, and with which exit status does it end?"
run "prefork-echo --bind $port 2>complaint; echo \"exit status \$?\" >end; cat complaint end"
say "socket worked, bind did not. A server that can't have its port has nothing to do."
check "its exit status is 1" grep -qx 'exit status 1' end
check "it says why, in one line" test "$(grep -c 'address already in use' complaint) of $(grep -c '' complaint)" = '1 of 1'

say "The message names two ways to see which process holds the port. This is the first:"
run "prefork-echo status $port | head -n 1"
check "the message tells of status" grep -q "prefork-echo status 127.0.0.1:$port" complaint
check "status names the first server" grep -q "(pid $server)" <<<"$(prefork-echo status "$port")"

say "Another port of the same address is free, and so is this port once its server has left."
run "prefork-echo client $port 'still here'"
check "the first server serves on" test "$(prefork-echo client "$port" 'still here')" = 'still here'
stop_server
serve --workers 1
check "now the port can be had" test "$(prefork-echo client "$port" 'a new one')" = 'a new one'
conclude
