#!/usr/bin/env bash
# Shows what a pre-fork server does: one parent and its workers on one socket;
# a worker that is killed and replaced; an orderly end that leaves nothing.
# Each step is shown, then checked; the script fails if a check fails. On a terminal
# it waits for Enter before each step but the first.
#
# Needs bash 3.2, ps and kill: what Linux and macOS both have.
# usage: scripts/demo.sh [path of prefork-echo]
set -euo pipefail
cd "$(dirname "$0")/.."

server=""
log=$(mktemp)
line=$(mktemp)

finish() {
    if [ -n "$server" ]; then kill -QUIT "$server" 2>/dev/null || true; fi
    rm -f "$log" "$line"
}
trap finish EXIT

steps=0
say() {
    if [ "$steps" -gt 0 ] && [ -t 0 ] && [ -t 1 ]; then
        printf '\n   Enter shows the next step. '
        read -r _ || true
    fi
    steps=$((steps + 1))
    printf '\n== %s\n' "$*"
}
fail() {
    printf '!! this check failed: %s\n' "$*" >&2
    cat "$log" >&2
    exit 1
}

# wait_for WHAT COMMAND...: until the command succeeds, for ten seconds.
wait_for() {
    local what=$1 tries=0
    shift
    until "$@"; do
        tries=$((tries + 1))
        [ "$tries" -lt 200 ] || fail "$what"
        sleep 0.05
    done
}

# The children of the server: pids, one a line. A Z is dead already.
workers() {
    ps -A -o pid=,ppid=,stat= | awk -v parent="$server" '$2 == parent && $3 !~ /^Z/ { print $1 }'
}
show() {
    ps -A -o pid,ppid,stat,comm | awk -v parent="$server" 'NR == 1 || $1 == parent || $2 == parent'
}
has_workers() { [ "$(workers | wc -l)" -eq "$1" ]; }
is_new() { ! workers | grep -qx "$1"; }
are_new() {
    local pid
    has_workers 4 || return 1
    for pid in $1; do is_new "$pid" || return 1; done
}

# echo_once TEXT: one client, over bash's own /dev/tcp; prints what comes back.
# Opening fd 3 is socket and connect, the rest is send, recv and close.
echo_once() {
    local answer
    exec 3<>"/dev/tcp/127.0.0.1/$port"
    printf '%s\n' "$1" >&3
    IFS= read -r -t 10 answer <&3 || fail "the server sent $1 back"
    exec 3>&- 3<&-
    printf '%s\n' "$answer"
}
check_echo() {
    printf '   sent: %s\n   back: ' "$1"
    local answer
    answer=$(echo_once "$1")
    printf '%s\n' "$answer"
    [ "$answer" = "$1" ] || fail "what came back is what was sent"
}

program=${1:-}
if [ -z "$program" ]; then
    cargo build --release --quiet
    program=${CARGO_TARGET_DIR:-target}/release/prefork-echo
fi

say "prefork-echo --workers 4: one process binds and listens, then forks four"
"$program" --workers 4 --bind 127.0.0.1:0 >"$line" 2>"$log" &
server=$!
wait_for "the server says that it listens" test -s "$line"
cat "$line"
port=$(sed 's/.*:\([0-9]*\) .*/\1/' "$line")
wait_for "there are four workers" has_workers 4
show

say "a client connects, sends, and gets its bytes back from one of the workers"
check_echo "hello, worker"

victim=$(workers | head -n 1)
say "kill -9 $victim: the parent sees the death and forks a new worker"
kill -9 "$victim"
wait_for "worker $victim is gone" is_new "$victim"
wait_for "there are four workers again" has_workers 4
show
grep "pid $victim" "$log" | grep parent || true
grep -q "replaces pid $victim" "$log" || fail "the log says which worker replaces pid $victim"
check_echo "one died, the others serve"

all=$(workers | tr '\n' ' ')
say "kill -9 $all: all at once"
# Several pids in one string, on purpose.
# shellcheck disable=SC2086
kill -9 $all
wait_for "four new workers are there" are_new "$all"
show
check_echo "all died, and the socket never closed"

say "status: three clients were served, five workers replaced; PRIVATE was lost with each process"
"$program" status "$port"
"$program" status "$port" | grep -q "^served: 3 connections, .*; 5 restarts$" || fail "the counts survive the kills"

say "kill -TERM $server: the server finishes with its clients and leaves"
kill -TERM "$server"
status=0
wait "$server" || status=$?
tail -n 1 "$log"
[ "$status" -eq 0 ] || fail "the exit status is 0 (it is $status)"
[ -z "$(workers)" ] || fail "no worker is left"
if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then fail "no process listens any more"; fi
server=""
echo "   exit status 0, no worker left, no process listens on port $port"

printf '\n== all checks passed\n'
