#!/usr/bin/env bash
# Attacks the server with what cargo test can't bring along: faults in its system calls,
# no descriptors, a jump of the clock, a container without an init.
# Each blow is shown with the figure that was measured, and checked; the script fails
# when one isn't so.
#
# Linux only, as root; needs bash 5, strace, faketime, prlimit, unshare and
# nsenter (Debian: strace faketime util-linux). Takes a minute and a half.
# usage: scripts/faults.sh [part of a fault's name]
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "$(uname)" != Linux ] || [ "$(id -u)" != 0 ]; then
    echo "faults.sh: only Linux's root may do all that (sudo scripts/faults.sh)" >&2
    exit 1
fi
for tool in strace faketime prlimit unshare nsenter; do
    command -v "$tool" >/dev/null || {
        echo "faults.sh: it needs $tool (Debian: apt-get install strace faketime util-linux)" >&2
        exit 1
    }
done

cargo build --release --quiet
program=$(realpath "${CARGO_TARGET_DIR:-target}/release/prefork-echo")
only=${1:-}
dir=$(mktemp -d)
chmod 755 "$dir"
server="" # the pid of the server that runs
started=() # all that may still run at the end

finish() {
    local pid
    exec 3>&- 2>/dev/null || true
    for pid in "${started[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
    rm -rf "$dir"
}
trap finish EXIT
. scripts/checks.sh

milliseconds() { # since $1, a time of EPOCHREALTIME
    awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%d", (b - a) * 1000 }'
}

# ----- The server.

serve() { # OPTIONS...; what is to stand before it, in $before
    : >"$dir/line"
    # shellcheck disable=SC2086 # words
    ${before:-} "$program" --bind 127.0.0.1:0 "$@" >"$dir/line" 2>"$dir/log" </dev/null &
    server=$!
    started+=("$server")
    wait_for "the server listens" test -s "$dir/line"
    port=$(sed 's/.*:\([0-9]*\) .*/\1/' "$dir/line")
    server=$(sed 's/.*(pid \([0-9]*\),.*/\1/' "$dir/line")
}
stop() { # TERM; its exit status must be $1
    local status=0
    kill -TERM "$server"
    wait "$server" || status=$?
    check "exit status $1 on TERM" test "$status" -eq "$1"
}
workers() { cat "/proc/$server/task/$server/children"; }
has_workers() { test "$(workers | wc -w)" -eq "$1"; }
alive() { test -d "/proc/$1"; }
echoes() { "$program" client "$port" hello --timeout 10s; }
logged() { grep -qE "$1" "$dir/log"; }

# ----- strace: it makes a call fail, and counts it.

tracer=""
inject() { # PID CALLS ERROR
    : >"$dir/calls"
    strace -qq -o "$dir/calls" -e trace="$2" -e inject="$2:error=$3" -p "$1" 2>"$dir/strace" &
    tracer=$!
    started+=("$tracer")
    wait_for "strace has attached" attached_or_gone "$1"
}
attached_or_gone() { grep -q "TracerPid:.*$tracer" "/proc/$1/status" || ! alive "$1"; }
let_go() {
    kill "$tracer" 2>/dev/null || true
    wait "$tracer" 2>/dev/null || true
}
calls() { grep -c "$1" "$dir/calls" || true; }

accept_fails() { # ERROR: for two seconds, with a client waiting
    local error=$1 worker from rate
    serve --workers 1
    worker=$(workers | tr -d ' ')
    inject "$worker" accept "$error"
    kill -CONT "$worker" # It is in a call that began before: look around, and accept anew.
    echoes >"$dir/answer" &
    local client=$!
    sleep 2 # The time that is looked at.
    rate=$(($(calls "$error") / 2))
    from=$EPOCHREALTIME
    let_go
    wait "$client" || true
    figure "accept fails with $error: $rate calls a second; the client was served $(milliseconds "$from") ms after the end of it"
    check "no busy loop: under 20 a second" test "$rate" -lt 20
    check "it was tried again" test "$rate" -gt 0
    check "served within a second" test "$(milliseconds "$from")" -lt 1000
    check "the client got its answer" grep -qx hello "$dir/answer"
    check "the worker lives" alive "$worker"
    stop 0
}

accept_is_broken() { # ERROR: one that doesn't mend
    local worker
    serve --workers 1
    worker=$(workers | tr -d ' ')
    inject "$worker" accept "$1"
    kill -CONT "$worker" 2>/dev/null || true # It may have called accept, and left, by now.
    wait_for "the worker has left" is_not alive "$worker"
    let_go
    figure "accept fails with $1: the worker leaves after $(calls "$1") call, and is replaced"
    check "one call was enough" test "$(calls "$1")" -eq 1
    check "the next one serves" echoes
    stop 0
}

fork_fails() { # ERROR: for two seconds
    local worker rate from
    serve --workers 2
    worker=$(workers | cut -d' ' -f1)
    inject "$server" clone,clone3,fork "$1"
    kill -KILL "$worker"
    sleep 2 # The time that is looked at.
    rate=$(($(calls "$1") / 2))
    check "the other worker serves" echoes
    check "the parent lives" alive "$server"
    from=$EPOCHREALTIME
    let_go
    wait_for "the worker is replaced" logged "replaces pid $worker"
    figure "fork fails with $1: $rate calls a second; the worker was replaced $(milliseconds "$from") ms after the end of it"
    check "no busy loop: under 20 a second" test "$rate" -lt 20
    check "it was tried again" test "$rate" -gt 0
    check "replaced within a second" test "$(milliseconds "$from")" -lt 1000
    stop 0
}

fault_01_accept_fails() {
    local error
    say "accept fails: for want of something, or as the network has it"
    for error in EMFILE ENFILE ENOBUFS ENOMEM; do accept_fails "$error"; done
    for error in ECONNABORTED EPROTO EPERM ENETDOWN EHOSTUNREACH ETIMEDOUT EOPNOTSUPP; do accept_fails "$error"; done
    say "accept fails for good"
    for error in EBADF EINVAL ENOTSOCK; do accept_is_broken "$error"; done
}

fault_02_fork_fails() {
    say "fork fails"
    fork_fails EAGAIN
    fork_fails ENOMEM
}

fault_03_no_descriptors() {
    local worker rate from client
    say "no descriptors are left"
    serve --workers 1
    worker=$(workers | tr -d ' ')
    prlimit --pid "$worker" --nofile=1:
    : >"$dir/calls"
    strace -qq -o "$dir/calls" -e trace=accept -p "$worker" 2>"$dir/strace" &
    tracer=$!
    started+=("$tracer")
    wait_for "strace has attached" attached_or_gone "$worker"
    kill -CONT "$worker"
    echoes >"$dir/answer" &
    client=$!
    sleep 2 # The time that is looked at.
    rate=$(($(calls EMFILE) / 2))
    from=$EPOCHREALTIME
    prlimit --pid "$worker" --nofile=1000:
    wait "$client" || true
    figure "$rate accepts a second; the client was served $(milliseconds "$from") ms after there were descriptors again"
    check "no busy loop: under 20 a second" test "$rate" -lt 20
    check "it was tried again" test "$rate" -gt 0
    check "served within a second" test "$(milliseconds "$from")" -lt 1000
    let_go
    stop 0
}

writes() { "$program" status "$port" --json | grep -q '"state":"writing"'; }

fault_04_clock() {
    local preload from worker took status
    say "the wall clock jumps by an hour"
    preload=$(dirname "$(dpkg -L libfaketime | grep '/libfaketime\.so\.1$')")/libfaketime.so.1
    # The sandbox would keep the worker from looking up what time it is to be.
    for jump in +3600 -3600; do
        echo "+0" >"$dir/clock"
        before="env LD_PRELOAD=$preload FAKETIME_TIMESTAMP_FILE=$dir/clock FAKETIME_NO_CACHE=1 \
            FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1" \
            serve --workers 2 --no-sandbox --idle-timeout 2s --grace 2s
        exec 3<>"/dev/tcp/127.0.0.1/$port"
        echo hello >&3
        read -r _ <&3
        from=$EPOCHREALTIME
        echo "$jump" >"$dir/clock"
        cat <&3 >/dev/null # to the end of file
        exec 3>&-
        took=$(milliseconds "$from")
        figure "$jump s: an idle client was closed after $took ms (--idle-timeout 2s)"
        check "not earlier, and not a second later" test "$took" -ge 1900 -a "$took" -lt 3000
        check "the log shows the other hour, so the clock has jumped" is_not test \
            "$(tail -n 1 "$dir/log" | cut -c1-13)" = "$(head -n 1 "$dir/log" | cut -c1-13)"
        # One that crashes at its start comes back after 0.1 s, by whatever clock.
        worker=$(workers | cut -d' ' -f1)
        kill -KILL "$worker"
        wait_for "the worker is replaced" logged "replaces pid $worker"
        worker=$(sed -n "s/.*(pid \([0-9]*\)) replaces pid $worker,.*/\1/p" "$dir/log")
        from=$EPOCHREALTIME
        kill -ABRT "$worker"
        wait_for "it is to be replaced in 0.1 s" logged "is replaced in 1"
        echo "${jump/3/7}" >"$dir/clock"
        wait_for "it is replaced" logged "replaces pid $worker"
        took=$(milliseconds "$from")
        figure "and another time: a worker that had crashed was replaced after $took ms"
        check "not earlier, and not a second later" test "$took" -ge 90 -a "$took" -lt 1100
        # A client that never reads holds the server up until the grace is over.
        cat /dev/zero >"/dev/tcp/127.0.0.1/$port" 2>/dev/null &
        local client=$!
        started+=("$client")
        wait_for "its worker waits in send" writes
        from=$EPOCHREALTIME
        kill -TERM "$server"
        echo "$jump" >"$dir/clock"
        status=0
        wait "$server" || status=$?
        took=$(milliseconds "$from")
        figure "and back: a client that never reads was cut after $took ms (--grace 2s), exit status $status"
        check "not earlier, and not a second later" test "$took" -ge 1900 -a "$took" -lt 3000
        check "the status says that it was cut" test "$status" -eq 3
        wait "$client" 2>/dev/null || true
    done
}

fault_05_process_1() {
    local outside
    say "as process 1, with strangers to reap"
    before="unshare --pid --fork --kill-child --mount-proc" serve --workers 2
    check "it is process 1" test "$server" -eq 1
    outside=$(cat "/proc/$!/task/$!/children" | tr -d ' ')
    server=$outside
    # shellcheck disable=SC2016 # for the shell in the container
    # In its container each of these forks a child, and is gone before that one ends.
    nsenter --target "$outside" --pid --mount sh -c 'for i in $(seq 100); do (sleep 0.2 & exit); done'
    strangers() { ps -o pid=,stat= --ppid "$outside" | awk -v w="$1" '$2 ~ w' | wc -l; }
    all_reaped() { test "$(ps -o pid= --ppid "$outside" | wc -l)" -eq 2; }
    check "strangers are its children" test "$(ps -o pid= --ppid "$outside" | wc -l)" -gt 50
    wait_for "all strangers are reaped" all_reaped
    figure "100 strangers reaped, no zombie: $(strangers '^Z')"
    check "the workers live, and serve" echoes
    kill -TERM "$outside"
    local status=0
    wait "$!" || status=$?
    check "exit status 0 on TERM" test "$status" -eq 0
}

fault_06_no_standard_files() {
    say "descriptors 0 to 2 are closed"
    # With stdout closed the server cannot tell its port, so the script chooses one.
    port=17773
    "$program" --bind "$port" --workers 2 <&- >&- 2>&- &
    server=$!
    started+=("$server")
    wait_for "it serves" echoes
    local worker
    worker=$(workers | cut -d' ' -f1)
    kill -KILL "$worker"
    wait_for "the worker is dead" is_not alive "$worker"
    wait_for "there are two again" has_workers 2
    check "it serves" echoes
    check "descriptors 0 to 2 are /dev/null, and no client's" \
        test "$(readlink /proc/"$server"/fd/{0,1,2} | sort -u)" = /dev/null
    stop 0
}

in_sandbox() { # does status show it?
    "$program" status "$port" >"$dir/status" && grep -q "sandbox: $1" "$dir/status"
}

# without CALL ERROR SANDBOX: the kernel has no such call; what is in force then?
without() {
    before="strace -qq -f -o $dir/calls -e trace=$1 -e inject=$1:error=$2" serve -q --workers 2
    started+=("$server")
    wait_for "a worker has settled" in_sandbox ""
    figure "$1 fails with $2: $(sed -n 's/.*\(sandbox: .*\)/\1/p' "$dir/status")"
    check "status shows what is left" in_sandbox "$3\$"
    check "one worker says so" test "$(grep -c "the sandbox lacks" "$dir/log")" -eq 1
    check "it serves" echoes
    kill -TERM "$server"
    wait "$!" || true
}

fault_07_kernel_without_sandbox() {
    say "a kernel without parts of the sandbox"
    without landlock_create_ruleset ENOSYS "no_new_privs, seccomp"
    without landlock_create_ruleset EOPNOTSUPP "no_new_privs, seccomp"
    without landlock_restrict_self E2BIG "no_new_privs, seccomp"
    without seccomp EINVAL "no_new_privs, landlock"
}

fault_08_kernel_without_close_range() {
    local worker error
    say "a kernel without close_range: what the server was started with is closed all the same"
    exec 9</etc/passwd
    for error in ENOSYS EPERM; do
        before="strace -qq -f -o $dir/calls -e trace=close_range -e inject=close_range:error=$error" serve -q --workers 1
        started+=("$server")
        wait_for "a worker has settled" in_sandbox ""
        worker=$(workers | tr -d ' ')
        open=$(cd "/proc/$worker/fd" && echo *)
        figure "close_range fails with $error: the worker has open $open"
        check "the server has the file, the worker has not" \
            test -e "/proc/$server/fd/9" -a ! -e "/proc/$worker/fd/9"
        check "nor anything else but 0 to 2 and the listening socket" test "$(echo "$open" | wc -w)" -eq 4
        check "it serves" echoes
        kill -TERM "$server"
        wait "$!" || true
    done
    exec 9<&-
}

fault_09_kernel_without_splice() {
    local call error
    say "a kernel or a container without splice: bulk goes through the buffer"
    for call in splice:ENOSYS splice:EPERM splice:EINVAL pipe2:EMFILE; do
        error=${call#*:} call=${call%:*}
        serve -q --workers 1
        inject "$(workers | tr -d ' ')" "$call" "$error"
        "$program" bench "$port" -c 1 --mode stream --duration 500ms --json >"$dir/bench" || true
        let_go
        figure "$call fails with $error: $(sed 's/.*"mb_per_second":\([0-9.]*\).*/\1/' "$dir/bench") MB a second"
        check "every byte comes back" grep -q '"wrong":0,"lost":0,"refused":0,"reset":0,"timeout":0' "$dir/bench"
        check "it is called once for the connection" test "$(calls "$call")" -eq 1
        stop 0
    done
}

ran=0
faults=$(declare -F | awk '/fault_[0-9]/ { print $3 }')
for fault in $faults; do
    case "$fault" in *"$only"*)
        $fault
        ran=$((ran + 1))
        ;;
    esac
done
if [ "$ran" -eq 0 ]; then
    echo "faults.sh: no fault is called $only; there are:" "$faults" >&2
    exit 2
fi
if [ "$failures" -gt 0 ]; then
    printf '\n%s checks failed\n' "$failures"
    exit 1
fi
printf '\nall faults were survived\n'
