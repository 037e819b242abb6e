# shellcheck shell=bash
# Three servers behind HAProxy, and load on them: what machines.sh looks at. For it to source.
# It has set $program, $dir (a directory), $model, $workers, $clients, and $others.
: "${program:?}" "${dir:?}" "${model:?}" "${workers:?}" "${clients:?}"

# ----- The servers: 1, 2, 3, and for the costs 4 and 5.

# Ports that another run hardly has, below those that the kernel gives to clients.
base=$((18000 + $$ % 1000 * 10))
address() { if [ "$(uname)" = Linux ] && [ "$1" -le 3 ]; then echo "127.0.0.$1:$base"; else echo "127.0.0.1:$((base + $1))"; fi; }
balancer=127.0.0.1:$((base + 9)) statistics=$((base + 6))

start() { # SERVER OPTION...
    local n=$1
    shift
    : >"$dir/$n.line"
    PREFORK_ECHO_SCOREBOARD=$dir/$n.scoreboard "$program" --bind "$(address "$n")" --model "$model" --workers "$workers" \
        --clients "$clients" --pid-file "$dir/$n.pid" --log-file "$dir/$n.log" "$@" >"$dir/$n.line" </dev/null &
    child=$!
    wait_for "server $n listens" test -s "$dir/$n.line"
}
pid() { cat "$dir/$1.pid"; }
status_of() { "$program" status --json --scoreboard "$dir/$1.scoreboard"; }
value() { sed "s/.*\"$2\":\([0-9]*\).*/\1/" "$1"; } # FILE NAME
# Connections that have ended, and had a PROXY header. One without a header is a check of HAProxy: where
# there is no TCP_QUICKACK (macOS), it completes the handshake before it resets, so a worker accepts it.
ends() { grep ' closed .* via ' "$dir/$1.log"; }
served() { ends "$1" | wc -l | tr -d ' '; }
counted() { status_of "$1" | sed 's/.*"totals":{"connections":\([0-9]*\).*/\1/'; } # on macOS the checks, too
now_connected() { status_of "$1" | grep -o '"clients":[0-9]*' | awk -F: '{ n += $2 } END { print n + 0 }'; }
pids() { status_of "$1" | grep -o '"pid":[0-9]*' | cut -d: -f2; }
worker_pids() { pids "$1" | sed "1d; $((workers + 1))q"; } # those that leave come after them
other_workers() { # SERVER FILE: are all workers that serve others than those in the file?
    worker_pids "$1" >"$dir/workers"
    [ "$(wc -l <"$dir/workers")" -eq "$workers" ] && ! grep -qxFf "$2" "$dir/workers"
}
ended() { grep -q "parent $2: the end, with exit status 0" "$dir/$1.log"; } # SERVER PID

# ----- HAProxy.

configure() { # what an operator would: addresses, ports, paths
    sed -e "s/127.0.0.1:7770/$balancer/" -e "s/127.0.0.1:7771/127.0.0.1:$statistics/" -e "s#/run/haproxy#$dir#" \
        -e "s/one 127.*/one $(address 1) port $(port_of 1)/" -e "s/two 127.*/two $(address 2) port $(port_of 2)/" \
        -e "s/three 127.*/three $(address 3) port $(port_of 3)/" packaging/haproxy.cfg
}
port_of() { address "$1" | sed 's/.*://'; }
# Only root can change the user.
mine() { if [ "$(id -u)" = 0 ]; then cat; else sed -e '/^ *user /d' -e '/^ *group /d' -e '/^ *chroot /d'; fi; }
balance() { # FILE
    haproxy -c -q -f "$1"
    haproxy -f "$1" >"$1.log" 2>&1 </dev/null &
    others="$others $!"
}
csv() { (exec 9<>"/dev/tcp/127.0.0.1/$statistics" && printf 'GET /;csv HTTP/1.0\r\n\r\n' >&9 && cat <&9); }
names=(BACKEND one two three)
haproxy_says() { # SERVER COLUMN
    csv | awk -F, -v name="${names[$1]}" -v column="$2" '
        /^#/ { for (i = 1; i <= NF; i++) if ($i == column) at = i } $1 == "echo" && $2 == name { print $at }'
}
is() { [ "$(haproxy_says "$1" status)" = "$2" ]; }
assigned_since() { [ "$(haproxy_says "$1" stot)" -ge $(($2 + $3)) ]; } # SERVER BEFORE NUMBER

# ----- The load: connections that come and go, and long ones that are never quiet.

rate=2000
[ "$(uname)" = Linux ] || rate=300 # macOS keeps the ports of closed connections for longer.
bench=("$program" bench "$balancer" --timeout 10s --json)
load() { # [NUMBER]: so many long ones, and 6 clients that connect again and again
    local number=${1:-6} n
    "${bench[@]}" -c "$number" --rate 1000 --duration 0 >"$dir/long" 2>"$dir/long.log" &
    long=$!
    others="$others $long"
    wait_for "the long connections are there" all_connected "$number"
    for n in 1 2 3; do now_connected "$n" >"$dir/$n.long"; done
    "${bench[@]}" --mode connect -c 6 --rate "$rate" --duration 0 >"$dir/short" 2>"$dir/short.log" &
    short=$!
    others="$others $short"
    wait_for "the others come" assigned_since 0 "$(haproxy_says 0 stot)" 100
}
all_connected() { [ $(($(now_connected 1) + $(now_connected 2) + $(now_connected 3))) -eq "$1" ]; }
long_at() { cat "$dir/$1.long"; }
leave() { # short or long: its clients leave, and it says what they saw
    local pid=${!1}
    kill -INT "$pid"
    wait "$pid" || true
    others=$(echo " $others " | sed "s/ $pid / /")
}
errors() { grep -o '"errors":{[^}]*}' "$dir/$1" | grep -o ':[0-9][0-9]*' | awk -F: '{ n += $2 } END { print (NR == 5 ? n : "unknown") }'; }
