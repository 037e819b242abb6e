#!/usr/bin/env bash
# fork: one parent, N children, and one socket that all of them have
. "$(dirname "$0")/lib.sh"

lesson "fork copies a process; what the copy has not is another socket: the descriptor in
it leads to the same one. It is said that processes can't share a port."

serve --workers 4
predict "How many processes are there, and how many listening sockets?"
run "ps -A -o pid,ppid,stat,comm | awk 'NR == 1 || \$1 == $server || \$2 == $server'"
check "they are five: a parent, and four whose parent it is" \
    test "$(ps -A -o pid=,ppid= | awk -v p="$server" '$1 == p || $2 == p' | wc -l | tr -d ' ')" = 5

if on_linux; then
    # A listening socket is in state 0A; the tenth column is its number.
    inode=$(awk -v port="$(printf ':%04X' "$port")" 'index($2, port) && $4 == "0A" { print $10 }' /proc/net/tcp)
    run "grep -i ':$(printf %04x "$port") .* 0A' /proc/net/tcp"
    for pid in $(parent_and_workers); do
        run "ls -l /proc/$pid/fd | grep 'socket:.$inode.'"
        check "$pid has socket $inode" test "$status" = 0 -a -n "$inode"
    done
    check "one socket listens at $port" test "$(wc -w <<<"$inode" | tr -d ' ')" = 1
else
    # The column DEVICE is the address of the socket in the kernel.
    run "lsof -nP -iTCP:$port -sTCP:LISTEN"
    check "five processes have it" test "$(lsof -nP -t -iTCP:"$port" -sTCP:LISTEN | wc -l | tr -d ' ')" = 5
    check "it is one socket" \
        test "$(lsof -nP -iTCP:"$port" -sTCP:LISTEN | awk 'NR > 1 { print $6 }' | sort -u | wc -l | tr -d ' ')" = 1
fi

say "So a port is shared by processes all right. And all of them serve there:"
run "prefork-echo bench $port --connections 4 --messages 20000 | tail -n 5"
by_worker=$(prefork-echo bench "$port" --connections 4 --messages 20000 --json | sed 's/.*"by_worker": *//')
check "four clients at once, 5,000 messages each, were answered by four processes" \
    test "${by_worker// /}" = '[5000,5000,5000,5000]}'
conclude
