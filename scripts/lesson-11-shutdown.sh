#!/usr/bin/env bash
# Two sockets to close: the connection's, and at the end the listening one
. "$(dirname "$0")/lib.sh"

lesson "A server that is told to stop finishes with its clients first. When the last
process has closed the listening socket, the port is free."

serve --workers 2 --explain
connect A
tell A hello
hear A hello
predict "A is connected. What becomes of it when the server gets SIGTERM?"
before=$(wc -l <log)
stop_server
left_with=$status
run "sed '1,${before##* }d' log | grep -E 'SIGTERM: sh|kill|shutdown\(|close\(|left|the end'"
say "Parent and workers each had the listening socket open; it is gone when the last of them
has closed it, or has left."
check "the workers are told to leave, A reads its end of file, and both sockets are closed" \
    in_order log 'SIGTERM: shutting down' 'kill[(].*SIGTERM' 'worker.*shutdown[(].*, SHUT_WR[)] = 0' \
    'worker.*close[(]' 'parent.*left with exit code 0' 'close[(]' 'the end, with exit status 0'
check "the exit status of the server is 0: no client was cut off" test "$left_with" = 0
check "A has all its bytes" grep -qx hello A

predict "Is the port free at once?"
run "prefork-echo client $port hello"
check "no process listens there any more" test "$status" = 1
serve --workers 2
check "and the next server can have it at once" test "$(prefork-echo client "$port" again)" = again
conclude
