#!/usr/bin/env bash
# Compares prefork-echo with what one might take instead, on this machine, now: the
# same load on each in turn, round after round, and the medians of all rounds.
#
#   usage: scripts/compare.sh [--rounds N] [--time DURATION] [--workers W] [--csv FILE]
#
# The load is prefork-echo's own `bench`, which checks every byte. Servers that are
# not installed are left out, and it says how to get them. Linux only: what a server
# costs stands in /proc. Needs cc; uses the ports 17781 to 17787 of the loopback.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(uname)" = Linux ] || { echo "compare.sh: it reads /proc, which only Linux has" >&2; exit 1; }

usage() { sed -n 's/^# *usage: /usage: /p' "$0" >&2; exit 2; }
rounds=5 time=1s workers=4 csv=${CARGO_TARGET_DIR:-target}/compare.csv
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || usage
    case $1 in
        --rounds) rounds=$2 ;;
        --time) time=$2 ;;
        --workers) workers=$2 ;;
        --csv) csv=$2 ;;
        *) usage ;;
    esac
    shift 2
done
[[ $rounds =~ ^[1-9][0-9]*$ && $workers =~ ^[1-9][0-9]*$ && $time =~ ^[1-9][0-9]*(ms|s|m)$ ]] || usage

work=$(mktemp -d)
declare -A wrapper=() server=() port=() idle=()
cleanup() {
    local name
    # Each server runs in a session of its own, which is killed as a whole.
    for name in "${!wrapper[@]}"; do kill -KILL -- "-${wrapper[$name]}" 2>/dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT

cargo build --release --quiet
echo_server=${CARGO_TARGET_DIR:-target}/release/prefork-echo
cc -O2 -o "$work/plain" scripts/plain.c
cc -O2 -o "$work/measure" scripts/measure.c

has() { command -v "$1" >/dev/null || { echo "  left out: $2; to have it: apt-get install $3, or the like"; return 1; }; }
first_of() { local path; for path; do [ ! -e "$path" ] || { echo "$path"; return; }; done; false; }

# The contestants: each sets `command`, which is to serve at 127.0.0.1:$1 with
# $workers workers where it has such, and `version`.
prefork_echo() {
    version=$("$echo_server" --version)
    command=("$echo_server" -q --bind "127.0.0.1:$1" --workers "$workers" --scoreboard "$work/scoreboard")
}
plain_c() {
    version="scripts/plain.c: accept, read, write, close"
    command=("$work/plain" "$1" "$workers")
}
httpd() {
    local binary modules
    binary=$(command -v apache2 || command -v httpd) || has httpd "httpd with mod_echo" apache2 || return
    if ! modules=$(first_of /usr/lib/apache2/modules /usr/lib64/httpd/modules /usr/lib/httpd/modules) ||
        [ ! -e "$modules/mod_echo.so" ]; then
        echo "  left out: httpd has no mod_echo here"
        return 1
    fi
    version=$("$binary" -v | sed -n 's/^Server version: //p')
    cat >"$work/httpd.conf" <<CONF
ServerName localhost
PidFile $work/httpd.pid
ErrorLog $work/httpd.log
LoadModule mpm_prefork_module $modules/mod_mpm_prefork.so
LoadModule echo_module $modules/mod_echo.so
StartServers $workers
MinSpareServers $workers
MaxSpareServers $workers
ServerLimit $workers
MaxRequestWorkers $workers
MaxConnectionsPerChild 0
ListenBacklog 1024
Listen 127.0.0.1:$1
ProtocolEcho On
CONF
    # Root's workers must be another user, as httpd sees it.
    [ "$(id -u)" -ne 0 ] || printf 'User nobody\nGroup %s\n' "$(id -gn nobody)" >>"$work/httpd.conf"
    command=("$binary" -d "$work" -f "$work/httpd.conf" -DFOREGROUND)
}
net_server() {
    has perl "Net::Server::PreFork" "perl libnet-server-perl" || return
    version=$(perl -MNet::Server -e 'print "Net::Server::PreFork $Net::Server::VERSION, perl $^V"' 2>/dev/null) ||
        has "" "Net::Server::PreFork" libnet-server-perl || return
    # The variables are perl's.
    # shellcheck disable=SC2016
    command=(perl -e '
        package Echo;
        use base "Net::Server::PreFork";
        sub process_request { my $bytes; syswrite(STDOUT, $bytes) while sysread(STDIN, $bytes, 65536); }
        my ($port, $workers) = @ARGV;
        @ARGV = ();
        Echo->run(host => "127.0.0.1", port => $port, ipv => 4, listen => 1024, log_level => 0,
            min_servers => $workers, max_servers => $workers + 1, min_spare_servers => 0,
            max_spare_servers => $workers, max_requests => 1e9);' "$1" "$workers")
}
socat_fork() {
    has socat "socat" socat || return
    version="$(socat -V | sed -n 's/^\(socat version [^ ]*\).*/\1/p'), which forks, and executes cat, for each client"
    command=(socat "TCP4-LISTEN:$1,bind=127.0.0.1,reuseaddr,fork,backlog=1024,nodelay" EXEC:cat)
}
# In bulk it may come to a standstill: it and cat both write, and neither reads.
ncat_fork() {
    has ncat "ncat" ncat || return
    version="$(ncat --version 2>&1 | sed -n 's/^Ncat: Version \([^ ]*\) .*/ncat \1/p'), which does the same"
    command=(ncat -4 -l -k 127.0.0.1 "$1" -m 1000 -e /bin/cat)
}
python_fork() {
    has python3 "Python's ForkingTCPServer" python3 || return
    version="$(python3 --version): ForkingTCPServer, which forks for each client"
    command=(python3 -c '
import socketserver, sys
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)
class Server(socketserver.ForkingTCPServer):
    allow_reuse_address, request_queue_size, max_children = True, 1024, 1000
Server(("127.0.0.1", int(sys.argv[1])), Echo).serve_forever()' "$1")
}
prefork="prefork_echo plain_c httpd net_server" # These have workers to be killed.
read -ra all <<<"$prefork socat_fork ncat_fork python_fork"
contestants=()

count() { "$work/measure" count "${wrapper[$1]}"; }

start() {
    local name=$1 command version tries=0
    port[$name]=$((17781 + ${#port[@]}))
    "$name" "${port[$name]}" || return 0
    if "$echo_server" client "127.0.0.1:${port[$name]}" </dev/null >/dev/null 2>&1; then
        echo "  left out: $name, because another program listens on port ${port[$name]}"
        return 0
    fi
    "$work/measure" run "${command[@]}" >"$work/$name.log" 2>&1 &
    wrapper[$name]=$!
    disown # Or bash would report each that we kill.
    until "$echo_server" client "127.0.0.1:${port[$name]}" hello --timeout 1s >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ "$tries" -gt 100 ]; then
            echo "  left out: $name does not serve:"
            tail -n 3 "$work/$name.log"
            return 0
        fi
        sleep 0.05
    done
    server[$name]=$(cut -d' ' -f1 "/proc/${wrapper[$name]}/task/${wrapper[$name]}/children")
    sleep 0.6 # Python reaps twice a second.
    idle[$name]=$(count "$name")
    contestants+=("$name")
    printf '  %-13s %s\n' "$name" "$version"
}

# settle NAME: until the processes of the last clients are gone, and reaped.
settle() {
    local tries=0
    until [ "$(count "$1")" -le "${idle[$1]}" ] || [ "$tries" -eq 100 ]; do
        tries=$((tries + 1))
        sleep 0.03
    done
}

field() { sed "s/.*\"$1\":\([0-9.]*\).*/\1/" "$work/result"; }
record() { echo "$3" >>"$work/$1.$2"; }
per() { awk -v cost="$1" -v number="$2" 'BEGIN { if (number > 0) printf "%.2f\n", cost / number }'; }

# load NAME FIGURE BENCH-OPTION...: what it did a second, and cost an operation.
load() {
    local name=$1 figure=$2 before spent
    shift 2
    before=$("$work/measure" cpu "${wrapper[$name]}")
    if ! "$echo_server" bench "127.0.0.1:${port[$name]}" --json "$@" >"$work/result" 2>"$work/error"; then
        # Bytes were lost, so this round gives no figure.
        echo "$name, $figure: $(cat "$work/error")" >&2
        settle "$name"
        return
    fi
    settle "$name"
    spent=$(($("$work/measure" cpu "${wrapper[$name]}") - before))
    if [ "$figure" = bulk ]; then
        record "$name" "$figure" "$(field mb_per_second)"
        record "$name" "$figure.cpu" "$(per $((spent * 1000000)) $(($(field messages) * 65536 / 1000)))"
    else
        record "$name" "$figure" "$(field per_second)"
        record "$name" "$figure.cpu" "$(per $((spent * 1000)) "$(field messages)")"
    fi
}

# The memory of all its processes while every client is served.
memory() {
    local name=$1 clients
    "$echo_server" bench "127.0.0.1:${port[$name]}" -c "$workers" --rate 200 --duration 1s --json >/dev/null 2>&1 &
    clients=$!
    sleep 0.5
    record "$name" memory "$("$work/measure" pss "${server[$name]}")"
    wait "$clients" || true
    settle "$name"
}

respawn() {
    case " $prefork " in *" $1 "*) ;; *) return 0 ;; esac
    "$work/measure" respawn "${server[$1]}" 3 | awk '{ print $1 / 1000 }' >>"$work/$1.respawn"
}

echo "machine: $(nproc) processors, $(uname -sr); $workers workers; rounds: $rounds, $time a load (connections: 400ms)"
for name in "${all[@]}"; do start "$name"; done

in_order=("${contestants[@]}")
for ((round = 1; round <= rounds; round++)); do
    [ ! -t 2 ] || printf '\rround %d of %d ' "$round" "$rounds" >&2
    for name in "${contestants[@]}"; do load "$name" one -c 1 --duration "$time"; done
    for name in "${contestants[@]}"; do load "$name" all -c "$workers" --duration "$time"; done
    # Short: after some 14,000 connections the kernel, which keeps the port of each
    # closed one for a second (TIME_WAIT), would be what is measured.
    for name in "${contestants[@]}"; do load "$name" connect -c "$workers" --mode connect --duration 400ms; done
    for name in "${contestants[@]}"; do load "$name" bulk -c 1 --mode stream --size 65536 --duration "$time"; done
    for name in "${contestants[@]}"; do memory "$name"; done
    for name in "${contestants[@]}"; do respawn "$name"; done
    # The first of them finds another machine than the last.
    contestants=("${contestants[@]:1}" "${contestants[0]}")
done
contestants=("${in_order[@]}")
[ ! -t 2 ] || printf '\r%20s\r' '' >&2

# The columns: file, format, heading of two lines.
columns=(
    "one|%.0f|echoes/s|1 conn" "all|%.0f|echoes/s|$workers conns" "connect|%.0f|conns/s|$workers at once" "bulk|%.0f|MB/s|1 conn"
    "one.cpu|%.1f|cpu us|an echo" "connect.cpu|%.0f|cpu us|a conn" "bulk.cpu|%.0f|cpu us|a MB"
    "memory|%.0f|memory|kB" "respawn|%.2f|respawn|ms"
)
median() {
    if [ -s "$1" ]; then sort -n "$1" | awk '{ line[NR] = $1 } END { print line[int((NR + 1) / 2)] }'; else echo -; fi
}
for column in "${columns[@]}"; do
    file=${column%%|*}
    for name in "${contestants[@]}"; do median "$work/$name.$file" >"$work/$name.$file.median"; done
done

# table FORMAT-OR-EMPTY: a line a server; each figure, or its ratio to ours.
table() {
    local title=$1 column file format above below name figure ours
    printf '\n%-13s' "$title"
    for column in "${columns[@]}"; do IFS='|' read -r file format above below <<<"$column"; printf '%10s' "$above"; done
    printf '\n%-13s' ""
    for column in "${columns[@]}"; do IFS='|' read -r file format above below <<<"$column"; printf '%10s' "$below"; done
    echo
    for name in "${contestants[@]}"; do
        printf '%-13s' "$name"
        for column in "${columns[@]}"; do
            IFS='|' read -r file format above below <<<"$column"
            figure=$(cat "$work/$name.$file.median") ours=$(cat "$work/prefork_echo.$file.median")
            if [ "$title" = ratios ]; then figure=$(ratio "$figure" "$ours") format=%.2f; fi
            # The format is one of those above.
            # shellcheck disable=SC2059
            if [ "$figure" = - ]; then printf '%10s' -; else printf '%10s' "$(printf "$format" "$figure")"; fi
        done
        echo
    done
}
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { if (a == "-" || b == "-" || b == 0) print "-"; else printf "%.3f", a / b }'; }

table medians
table ratios
echo "(a ratio is a server's figure by prefork_echo's; more is better for what is done in a second, less for the rest)"

mkdir -p "$(dirname "$csv")"
{
    echo "server,figure,unit,median,ratio_to_prefork_echo"
    for name in "${contestants[@]}"; do
        for column in "${columns[@]}"; do
            IFS='|' read -r file _ above below <<<"$column"
            figure=$(cat "$work/$name.$file.median") ours=$(cat "$work/prefork_echo.$file.median")
            echo "$name,$file,$above $below,$figure,$(ratio "$figure" "$ours")"
        done
    done
} >"$csv"
echo "as CSV: $csv"
