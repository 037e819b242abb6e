#!/usr/bin/env bash
# fork: one parent, N children, and one socket that all of them have
. "$(dirname "$0")/lib.sh"

lesson "fork copies a process. It does not copy the socket: the child's descriptor refers
to the same socket. Processes are often said to be unable to share a port."

serve --workers 4
predict "How many processes are there, and how many listening sockets?"
run "ps -A -o pid,ppid,stat,comm | awk 'NR == 1 || \$1 == $server || \$2 == $server'"
check "there are five: a parent and its four children" \
    test "$(ps -A -o pid=,ppid= | awk -v p="$server" '$1 == p || $2 == p' | wc -l | tr -d ' ')" = 5


predict "All five listen. Do they have five sockets, or one?"
if on_linux; then
    # A listening socket is in state 0A; the tenth column is its number.
    inode=$(awk -v port="$(printf ':%04X' "$port")" 'index($2, port) && $4 == "0A" { print $10 }' /proc/net/tcp)
    # shellcheck disable=SC2046 # a pid is a word
    run "ls -l $(printf '/proc/%s/fd ' $(parent_and_workers)) | grep -E 'proc|$inode'"
    # shellcheck disable=SC2010,SC2046 # the names are the kernel's
    check "all five have the socket {inode}" test \
        "$(ls -l $(printf '/proc/%s/fd ' $(parent_and_workers)) | grep -c "socket:.$inode.")" = 5
    check "one socket listens at {port}" test "$(wc -w <<<"$inode" | tr -d ' ')" = 1
else
    # The column DEVICE is the address of the socket in the kernel.
    run "lsof -nP -iTCP:$port -sTCP:LISTEN"
    check "five processes have it" test "$(lsof -nP -t -iTCP:"$port" -sTCP:LISTEN | wc -l | tr -d ' ')" = 5
    check "it is one socket" \
        test "$(lsof -nP -iTCP:"$port" -sTCP:LISTEN | awk 'NR > 1 { print $6 }' | sort -u | wc -l | tr -d ' ')" = 1
fi


predict "Four clients come at once, to the same port. Which of the processes answer them?"
run "prefork-echo bench $port --connections 4 --messages 20000 | tail -n 5"
by_worker=$(prefork-echo bench "$port" --connections 4 --messages 20000 --json 2>&1 | sed 's/.*"by_worker": *//')
check "four processes have answered 5,000 messages each" test "${by_worker// /}" = '[5000,5000,5000,5000]}'
say "So processes can share a port: they inherit its socket."
conclude
