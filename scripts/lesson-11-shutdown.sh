#!/usr/bin/env bash
# Two sockets to close: the connection's, and then the listening one
. "$(dirname "$0")/lib.sh"

lesson "A server that gets SIGTERM finishes with its clients before it ends. The port is
free when the last process has closed the listening socket."

serve --workers 2 --explain
connect A
tell A hello
hear A hello
predict "A is connected. What happens to the connection when the server gets SIGTERM?"
stop_server
check "the exit status of the server is 0: no client was cut off" test "$status" = 0
check "A has received all its bytes" grep -qx hello A

predict "Which processes have closed which sockets? Which one was the last?"
run "sed '/shutting/,\$!d' log | grep -oE '[a-z]+ [0-9].*(TERM\)|WR\)|close\(.\)|left|the end)'"

check "the parent signals the workers, A gets its end of file, both sockets are closed" \
    in_order log 'SIGTERM: shutting down' 'kill[(].*SIGTERM' 'worker.*shutdown[(].*, SHUT_WR[)] = 0' \
    'worker.*close[(]' 'parent.*left with exit code 0' 'close[(]' 'the end, with exit status 0'
say "The parent and the workers each had the listening socket open. It is closed when the last of
them has closed it, or has ended."

predict "Is the port free at once?"
run "prefork-echo client $port hello"
check "no process listens there any more" test "$status" = 1
serve --workers 2
check "the next server can bind the port at once" test "$(prefork-echo client "$port" again)" = again
conclude
