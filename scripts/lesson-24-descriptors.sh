#!/usr/bin/env bash
# A socket is a descriptor, like a file's
. "$(dirname "$0")/lib.sh"

lesson "A process has a row of numbers, its descriptors: one for each file, pipe or socket that
it has open. socket and accept return such a number, as open does for a file."

# descriptors PID: the command that lists them.
if on_linux; then
    descriptors() { echo "ls -l /proc/$1/fd | awk 'NR > 1 { print \$9, \$10, \$11 }' | sort -n"; }
else
    descriptors() { echo "lsof -nP -a -p $1 -d 0-99 | awk 'NR > 1 { sub(/.*\//, \"\", \$NF); print \$4, \$5, \$NF }'"; }
fi

serve --workers 1 --pid-file pid --explain=calls
predict "The parent has files, pipes and sockets open. Does each kind have a row of its own?"
run "$(descriptors "$server") | head -n 12"
row=$(eval "$(descriptors "$server") | head -n 12")
check "a file is in the row" grep -qE '[/ ](log|pid)$' <<<"$row"
check "a pipe is in the row" grep -qiE 'pipe' <<<"$row"
check "a socket is in the row" grep -qE 'socket:|IPv4' <<<"$row"
say "There is one row for all. A new descriptor gets the smallest number that is free: so socket
returned 3, the listening socket."
check "its log says so, too" grep -q 'socket() = 3' log

next_page
predict "This shell opens a connection as descriptor 7, and a file as descriptor 8. printf knows
write alone, not send. Can it write to both?"
# bash calls socket and connect by itself.
tcp=/dev/tcp/127.0.0.1/$port
show_command "exec 7<>$tcp"
exec 7<>"$tcp"
show_command "exec 8>file"
exec 8>file
run "printf 'hello\n' >&7"
run "printf 'hello\n' >&8"
run "head -n 1 <&7"
run "cat file"
check "the file has what was written" test "$(cat file)" = hello
check "the server has received by recv what printf has written" in_order log 'recv[(].* = 6' 'send[(].* = 6'
say "To a socket write does what send does, and read what recv does. send and recv have one
argument more: flags, for what files don't have."

next_page
predict "Both are read again. The file is at its end. What does read do in each?"
show_command "exec 9<file; read -r line <&9"
exec 9<file
read -r _ <&9
run "time -p read -t 1 -r line <&9"
file_status=$status
SECONDS=0
run "time -p read -t 1 -r line <&7"
check "for the file read returns at once: 0 bytes are its end" test "$file_status" -ne 0
check "for the socket read has waited: more may come" test "$SECONDS" -ge 1
say "This is the difference: a file ends where it ends. A connection ends when the other side closes
it. Until then read blocks (here for a second, -t 1)."

predict "This shell closes descriptor 7. What does recv return in the worker?"
show_command "exec 7>&- 8>&- 9>&-"
exec 7>&- 8>&- 9>&-
wait_until "the worker has closed its side" in_order log 'recv[(].* = 0' 'close[(]' 'accept[(]'
run "tail -n 3 log"
check "recv has returned 0: the end of file of a connection" grep -q 'recv(4) = 0' log

next_page
run "kill -QUIT $server"
wait "$server"
serve --workers 1 --model multiplex -q
predict "One process multiplexes three clients. Which numbers does it have?"
show_command "exec 7<>$tcp 8<>$tcp 9<>$tcp"
exec 7<>"$tcp" 8<>"$tcp" 9<>"$tcp"
wait_until "the worker has accepted three clients" serves 3
worker=$(workers | head -n 1)
run "$(descriptors "$worker")"
sockets=$(eval "$(descriptors "$worker")" | grep -cE 'socket:|IPv4')
check "four sockets: the listening one, and one for each client" test "$sockets" = 4
exec 7>&- 8>&- 9>&-
say "The number is all that a program has of a connection. A process with one client has one
such number; one that multiplexes keeps a table of them."
conclude
