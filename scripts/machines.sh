#!/usr/bin/env bash
# HAProxy before three servers, on the loopback interface: one ends, is killed, is replaced,
# under load. Each figure is shown and checked; the script fails when one is not so.
#
# HAProxy runs with packaging/haproxy.cfg, of which only addresses and paths are replaced. As
# root it changes its user, as for an operator. The servers are on 127.0.0.1, 127.0.0.2 and
# 127.0.0.3; on macOS on three ports. Needs haproxy 2.6 or later; bash 3.2 and BSD tools do.
# Takes a minute; --rounds 2 takes half of that. No wait is longer than some 20 s.
#
# usage: scripts/machines.sh [--rounds N] [--model process|thread|multiplex]
#   --rounds N   how often servers are ended (TERM), reloaded (HUP) and upgraded (USR2); 10
#   --model      how the servers' workers serve; process
set -euo pipefail
cd "$(dirname "$0")/.."

usage() { sed -n -e 's/^# usage: /usage: /p' -e 's/^#   --/  --/p' scripts/machines.sh; }
rounds=10 model=process
while [ $# -gt 0 ]; do
    case $1 in
        --help) usage; exit ;;
        --rounds) rounds=${2:-} ;;
        --model) model=${2:-} ;;
        *) usage >&2; exit 2 ;;
    esac
    if [ $# -lt 2 ]; then usage >&2; exit 2; fi
    shift 2
done
# As many places for clients as haproxy.cfg says with maxconn.
case $model in
    process) workers=16 clients=1 ;;
    thread | multiplex) workers=4 clients=4 ;;
    *) usage >&2; exit 2 ;;
esac
case $rounds in "" | 0* | *[!0-9]*) usage >&2; exit 2 ;; esac
command -v haproxy >/dev/null || {
    echo "machines.sh: it needs HAProxy (Debian: apt-get install haproxy; Homebrew: brew install haproxy)" >&2
    exit 1
}
for name in ${!PREFORK_ECHO_*}; do unset "$name"; done # what its user prefers
cargo build --release --quiet
program=${CARGO_TARGET_DIR:-target}/release/prefork-echo
dir=$(mktemp -d)
others="" # the pids of what is no server
part=start # what is under way
trap finish EXIT
trap 'exit 130' INT TERM
finish() {
    local pid end=$((SECONDS + 5))
    set +e
    [ -z "$part" ] || echo "FAIL $part: not finished"
    # shellcheck disable=SC2013 # one word a line
    for pid in $(cat "$dir"/*.pid); do kill -QUIT "$pid"; done
    for pid in $others; do kill -KILL "$pid"; done
    # A server that hangs does not take QUIT: `wait` would never return. Its workers leave once it is gone.
    while [ -n "$(jobs -rp)" ] && [ "$SECONDS" -le "$end" ]; do sleep 0.1; done
    for pid in $(jobs -rp); do kill -KILL "$pid"; done
    wait
    rm -rf "$dir"
} 2>/dev/null # what is gone already is no trouble
. scripts/checks.sh
. scripts/balancer.sh

# ----- What may happen to a server.

takes_part() { # SERVER: HAProxy gives it its share again
    wait_for "server $1 is up again" is "$1" UP
    local before
    before=$(haproxy_says 1 stot),$(haproxy_says 2 stot),$(haproxy_says 3 stot)
    wait_for "server $1 serves again" assigned_since "$1" "$(echo "$before" | cut -d, -f"$1")" 100
    share=$(echo "$before,$(haproxy_says 1 stot),$(haproxy_says 2 stot),$(haproxy_says 3 stot)" |
        awk -F, -v n="$1" '{ printf "%d", 100 * ($(n + 3) - $n) / ($4 + $5 + $6 - $1 - $2 - $3) }')
}
others_serve() { # without SERVER
    local n before without
    without=$(haproxy_says "$1" stot)
    for n in 1 2 3; do
        [ "$n" = "$1" ] && continue
        before=$(haproxy_says "$n" stot)
        wait_for "server $n serves" assigned_since "$n" "$before" 50
    done
    [ "$(haproxy_says "$1" stot)" = "$without" ]
}

term() { # ROUND: one server ends, and comes back
    local n=$(($1 % 3 + 1)) old
    old=$(pid "$n")
    kill -TERM "$old"
    wait_for "HAProxy says that server $n is down" is "$n" DOWN
    others_serve "$n" || shared=no
    leave long # Or they would be cut when --grace is over.
    status=0
    wait "${children[n]}" || status=$?
    ended "$n" "$old" || status="$status, not in order"
    start "$n" --proxy-protocol
    children[n]=$child
    takes_part "$n"
    leave short
}

hup() { # all workers of all servers are replaced
    local n
    for n in 1 2 3; do
        worker_pids "$n" >"$dir/before"
        kill -HUP "$(pid "$n")"
        wait_for "server $n has other workers" other_workers "$n" "$dir/before"
    done
    more_comes
    leave long
    leave short
}
more_comes() { # to see what the new workers do
    wait_for "more connections come" assigned_since 0 "$(haproxy_says 0 stot)" 1000
}

usr2() { # all servers are replaced
    local n old olds=""
    for n in 1 2 3; do
        old=$(pid "$n")
        kill -USR2 "$old"
        wait_for "server $n has another parent" other_parent "$n" "$old"
        olds="$olds $n,$old"
    done
    more_comes
    leave long
    leave short
    for old in $olds; do wait_for "the old server ${old%,*} has ended in order" ended "${old%,*}" "${old#*,}"; done
}
other_parent() { [ "$(pid "$1")" != "$2" ]; }

# ----- What is shown.

part_spread() {
    local n counts="" shares=""
    say "the load is spread over the three"
    "${bench[@]}" --mode connect -c 6 -n 9000 >"$dir/short" 2>"$dir/short.log" || true # errors are counted
    for n in 1 2 3; do
        wait_for "server $n and HAProxy count alike" alike "$n"
        counts="$counts $(served "$n")"
    done
    shares=$(echo "$counts" | awk '{ n = $1 + $2 + $3; printf "%d %d %d", 100 * $1 / n, 100 * $2 / n, 100 * $3 / n }')
    figure "connections:$counts, by the servers' logs and by HAProxy's count; per cent: $shares"
    for n in $shares; do check "$n %: between 30 and 36" test "$n" -ge 30 -a "$n" -le 36; done
    "${bench[@]}" -c 60 -n 6000 >"$dir/short" 2>"$dir/short.log" || true
    figure "60 clients for 48 places: up to $(haproxy_says 0 qmax) wait in HAProxy, $(errors short) are lost"
    check "12 wait there" test "$(haproxy_says 0 qmax)" -eq 12
    for n in 1 2 3; do check "server $n had up to $(haproxy_says "$n" smax) at once: 16" test "$(haproxy_says "$n" smax)" -eq 16; done
    check "none is lost" test "$(errors short)" = 0
    check "the checks of HAProxy are no bad headers" is_not grep -q '"bad_headers":[1-9]' <(status_of 1; status_of 2; status_of 3)
}
alike() {
    local served
    served=$(served "$1")
    [ "$served" = "$(haproxy_says "$1" stot)" ] && { [ "$(uname)" != Linux ] || [ "$served" = "$(counted "$1")" ]; }
}

part_addresses() {
    local client n
    say "the true addresses of clients arrive"
    mkfifo "$dir/words"
    "$program" client "$balancer" --timeout 20s --explain <"$dir/words" >"$dir/answer" 2>"$dir/client.log" &
    others="$others $!"
    exec 8>"$dir/words"
    echo hello >&8
    wait_for "hello has come back" grep -qx hello "$dir/answer"
    client=$(sed -n 's/.*getsockname([0-9]*) = \([^ ]*[0-9]\): .*/\1/p' "$dir/client.log")
    figure "the client's own kernel says that its address is $client"
    cat "$dir"/[123].log >"$dir/log"
    check "the servers' log has it, with HAProxy's" grep -qE "PROXY header on .*: $client via 127.0.0.1:[0-9]+" "$dir/log"
    for n in 1 2 3; do status_of "$n"; done >"$dir/status"
    check "status has it, with HAProxy's" grep -qE "\"peer\":\"$client\",\"via\":\"127.0.0.1:[0-9]+\"" "$dir/status"
    exec 8>&-
    wait_for "the client has left" all_left
}
all_left() { [ "$(haproxy_says 0 scur)" = 0 ]; }

part_term() {
    say "a server is told TERM: no connection is lost"
    load
    shared=yes
    term 1
    figure "$(value "$dir/short" messages) connections, one after another by 6 clients, and 6 long ones: $(errors short) and $(errors long) lost"
    check "none is lost" test "$(errors short),$(errors long)" = 0,0
    check "exit status $status" test "$status" = 0
    check "once it is down, new connections go to the others, and only to them" test "$shared" = yes
    check "it comes back, and gets $share % of the connections" test "$share" -ge 20 -a "$share" -le 50
}

part_kill() {
    local n=2 had others_cut
    say "a server is killed, parent and workers at once (kill -9): its own clients are cut"
    load 12
    others_cut=$(($(not_in_order 1) + $(not_in_order 3)))
    # shellcheck disable=SC2046 # several pids
    kill -KILL $(pids "$n")
    wait "${children[n]}" 2>/dev/null || true
    rm "$dir/$n.pid" # It is no pid of ours any more.
    wait_for "HAProxy says that server $n is down" is "$n" DOWN
    had=$(($(haproxy_says "$n" stot) - $(served "$n")))
    shared=yes
    others_serve "$n" || shared=no
    start "$n" --proxy-protocol
    children[n]=$child
    takes_part "$n"
    others_cut=$(($(not_in_order 1) + $(not_in_order 3) - others_cut))
    leave long
    leave short
    figure "it had $(long_at "$n") of 12 long connections, and with others, until all its processes were dead, $had"
    check "$(errors long) long and $(errors short) others are lost: its long ones, and no more than it had" \
        test "$(errors long)" -ge "$(long_at "$n")" -a $(($(errors long) + $(errors short))) -le "$had"
    check "the other servers: $others_cut connections ended otherwise than in order" test "$others_cut" -eq 0
    check "new connections go to the others meanwhile, and only to them" test "$shared" = yes
    check "it comes back, and gets $share % of the new ones (it has the fewest connections)" test "$share" -ge 20
}
# Long connections that have ended, and others that did not bring 64 bytes.
not_in_order() { ends "$1" | grep -vc ': end of file, 64 bytes echoed' || true; }

part_rounds() {
    local what round connections lost bad
    say "$rounds rounds each, under load: TERM to one server, HUP to all, USR2 to all"
    printf '   %-6s %8s %12s %6s\n' "" rounds connections lost
    for what in term hup usr2; do
        connections=0 lost=0 bad=""
        for ((round = 1; round <= rounds; round++)); do
            status=0 shared=yes share=33
            load
            "$what" "$round"
            connections=$((connections + $(value "$dir/short" messages) + 6))
            lost=$((lost + $(errors short) + $(errors long)))
            [ "$status,$shared" = 0,yes ] && [ "$share" -ge 20 ] || bad="$bad round $round: status $status, to the others: $shared, share: $share %;"
        done
        printf '   %-6s %8d %12d %6d\n' "$(echo "$what" | tr '[:lower:]' '[:upper:]')" "$rounds" "$connections" "$lost"
        check "none is lost" test "$lost" = 0
        check "each server ends in order, and gets its share when it is back${bad:+:$bad}" test -z "$bad"
    done
}

# ----- The costs: one server, directly and through HAProxy, without the header and with it.

part_costs() {
    local run i measured="direct direct+header HAProxy HAProxy+header"
    say "what it costs: medians of $costs_runs runs of 400 ms, in turn"
    start 4 -q
    start 5 -q --proxy-protocol
    ways=("$(address 4)" "$(address 5) --proxy-header v2" "127.0.0.1:$((base + 7))" "127.0.0.1:$((base + 8))")
    single 4 7 | sed 's/send-proxy-v2//' >"$dir/plain.cfg"
    single 5 8 >"$dir/header.cfg"
    balance "$dir/plain.cfg"
    balance "$dir/header.cfg"
    for i in 2 3; do wait_for "HAProxy serves" "$program" client "${ways[$i]}" hello; done
    for ((run = 0; run < costs_runs; run++)); do
        for i in 0 1 2 3; do measure "$i" connect -c 4; measure "$i" keep -c 1; done
    done
    printf '   %-16s %14s %18s\n' "" "connections/s" "round trip (µs)"
    for i in 0 1 2 3; do
        # shellcheck disable=SC2086 # words
        set -- $measured
        shift "$i"
        printf '   %-16s %14.0f %18.1f\n' "$1" "$(median "$i.connect" per_second)" "$(median "$i.keep" p50)"
    done
    check "no byte was wrong, and none was lost" is_not grep -qE '"(wrong|lost|refused|reset|timeout)":[1-9]' "$dir"/[0-3].keep "$dir"/[0-3].connect
}
single() { # SERVER PORT: HAProxy at this port before one server, without statistics
    configure | mine | sed -e "s/$balancer/127.0.0.1:$((base + $2))/" -e "s/one 127.*/one $(address "$1") port $(port_of "$1")/" \
        -e '/server two/d' -e '/server three/d' -e '/stats socket/d' -e '/^# http/,$d'
}
measure() { # WAY MODE OPTION...
    # shellcheck disable=SC2086 # an address, and maybe an option
    "$program" bench ${ways[$1]} --mode "$2" --duration 400ms --json "${@:3}" >>"$dir/$1.$2" || true
}
median() { grep -o "\"$2\":[0-9.]*" "$dir/$1" | cut -d: -f2 | sort -n | sed -n "$((costs_runs / 2 + 1))p"; }
costs_runs=5

for n in 1 2 3; do
    start "$n" --proxy-protocol
    children[n]=$child
done
configure | mine >"$dir/haproxy.cfg"
balance "$dir/haproxy.cfg"
for n in 1 2 3; do wait_for "HAProxy serves" is "$n" UP; done
for part in spread addresses term kill rounds costs; do
    before=$failures
    "part_$part"
    if [ "$failures" -eq "$before" ]; then echo "PASS $part"; else echo "FAIL $part"; fi
    part=""
done
[ "$failures" -eq 0 ]
