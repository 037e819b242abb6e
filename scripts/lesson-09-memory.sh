#!/usr/bin/env bash
# Each process has its own memory; what is to be shared must be shared on purpose
. "$(dirname "$0")/lib.sh"

lesson "Each worker counts its clients twice: in a variable of its program, and on the
scoreboard, a file that all processes have mapped into their memory."

serve --workers 4
run "prefork-echo bench $port --mode connect --connections 4 --messages 200 | head -n 2"
predict "200 clients were served. What is in the variable of each process, the parent's too?"
run "prefork-echo status $port | head -n 10"

say "fork has copied the parent's memory: the variable lies at the same address in each
process, and each has changed its own copy (PRIVATE). SERVED is what all can see."

address=$(values address | tail -n 1 | tr -d '{')
private=$(values private_counter | sed 1d)
sum() { awk '{ total += $1 } END { print total + 0 }'; }
check "the variable lies at one address in all of them: $address" grep -q '^0x' <<<"$address"
check "each worker has counted its own clients; together they make 200" test "$(sum <<<"$private")" = 200
check "at least two have counted some" test "$(grep -cv '^0$' <<<"$private")" -ge 2
check "the parent's is 0: what its children write never comes to it" test "$(values parent)" = 0

# The eight bytes at that address in a process: the kernel shows them to a process that may trace it.
in_memory() {
    dd if="/proc/$1/mem" bs=8 count=1 skip=$((address)) iflag=skip_bytes 2>/dev/null | od -An -td8 | tr -d ' '
}
if on_linux && [ -n "$(in_memory "$server")" ]; then
    say "Is it true? Linux shows the memory of each, at $address:"
    for pid in $(parent_and_workers); do
        printf '    in %s: %s\n' "$pid" "$(in_memory "$pid")"
    done
    check "there it is, as status says" \
        test "$(for pid in $(workers); do in_memory "$pid"; done)" = "$private"
    check "and 0 in the parent" test "$(in_memory "$server")" = 0
else
    say "On Linux, root could look into the memory of each (/proc/PID/mem); here that isn't to be had."
fi

predict "A worker is killed. Which of its two counts is left?"
victim=$(workers | head -n 1)
served=$(values connections | sed -n 2p)
run "kill -9 $victim"
is_replaced() { test -n "$(workers | head -n 1)" -a "$(workers | head -n 1)" != "$victim"; }
wait_until "it is replaced" is_replaced
run "prefork-echo status $port | sed -n '6,7p'"
say "PRIVATE is gone with its process. SERVED lies in memory that is shared on purpose
(mmap with MAP_SHARED), and outlives it."
check "the memory died with its process: the new one has counted none" test "$(values private_counter | sed -n 2p)" = 0
check "the scoreboard has not forgotten: $served" test "$(values connections | sed -n 2p)" = "$served"
conclude
