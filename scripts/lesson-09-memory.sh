#!/usr/bin/env bash
# Each process has its own memory, and shares what it maps as shared
. "$(dirname "$0")/lib.sh"

lesson "Each worker counts its clients twice: in a variable of the program, and on the
scoreboard, a file that all processes have mapped into their memory."

serve --workers 4
run "prefork-echo bench $port --mode connect --messages 200 | head -n 2"
predict "200 clients were served. What is in the variable of each process, and of the parent?"
run "prefork-echo status $port | grep -E '^(private|SLOT| +[0-9]+ +[0-9]+ [a-z])'"

address=$(values address | tail -n 1 | tr -d '{')
private=$(values private_counter | sed 1d)
sum() { awk '{ total += $1 } END { print total + 0 }'; }
check "the variable has one address in all of them: {address}" grep -q '^0x' <<<"$address"
check "each worker has counted its own clients, together 200" test "$(sum <<<"$private")" = 200
check "at least two workers have served clients" test "$(grep -cv '^0$' <<<"$private")" -ge 2
check "the parent's variable is 0: the children never write to the parent's memory" test "$(values parent)" = 0
say "fork has copied the parent's memory. So the variable has the same address in each process,
and each process changes its own copy (PRIVATE). SERVED is in shared memory."

# The eight bytes at that address in a process: the kernel shows them to a process that may trace it.
in_memory() {
    dd if="/proc/$1/mem" bs=8 count=1 skip=$((address)) iflag=skip_bytes 2>/dev/null | od -An -td8 | tr -d ' '
}
if on_linux && [ -n "$(in_memory "$server")" ]; then
    predict "Linux can read the memory of each process. What is at {address} in each of the five?"
    for pid in $(parent_and_workers); do
        printf '    in %s: %s\n' "$pid" "$(in_memory "$pid")"
    done
    check "status has shown what is in the memory of the workers" \
        test "$(for pid in $(workers); do in_memory "$pid"; done)" = "$private"
    check "in the parent there is 0" test "$(in_memory "$server")" = 0
else
    say "On Linux, root can read the memory of each process (/proc/PID/mem). That is not possible here."
fi

predict "A worker is killed. Which of its two counts is left?"
victim=$(workers | head -n 1)
served=$(values connections | sed -n 2p)
run "kill -9 $victim"
is_replaced() { test -n "$(workers | head -n 1)" -a "$(workers | head -n 1)" != "$victim"; }
wait_until "it is replaced" is_replaced
run "prefork-echo status $port | awk '\$1 == \"SLOT\" || \$1 == 0 && NF > 8'"
say "PRIVATE was in the memory of the killed process, and ended with it. SERVED is in memory that
is shared (mmap with MAP_SHARED), and stays."
check "the new process has counted no client" test "$(values private_counter | sed -n 2p)" = 0
check "the scoreboard still has {served}" test "$(values connections | sed -n 2p)" = "$served"
conclude
