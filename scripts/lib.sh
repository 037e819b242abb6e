# shellcheck shell=bash
# What the lessons share: to say, to ask, to run, to check; a server; clients that
# speak when they are told to; and an end that leaves no process behind.
#
# For a lesson to source. Needs bash 3.2 and what Linux and macOS both have. A lesson
# with --no-pause, or without a terminal, runs through without waiting for Enter. What
# one Enter shows fits on a screen of 24 lines. Each text is in ko.po (text.sh).
set -u
unset CDPATH # cd would print where it leads

# What its user prefers is not to change what a lesson shows.
for name in ${!PREFORK_ECHO_*}; do unset "$name"; done

. "$(dirname "${BASH_SOURCE[0]}")/text.sh" # reads the options, and finds $scripts
if [ "${#arguments[@]}" -gt 0 ]; then
    echo "usage: $0 [--lang en | ko] [--no-pause]" >&2
    exit 2
fi

program=${LESSON_PROGRAM:-}
project=${scripts%/*}
if [ -z "$program" ] && [ ! -e "$project/Cargo.toml" ]; then
    # These are installed lessons, as of a package.
    program=$(command -v prefork-echo) || {
        wrap "" "" "$(text "the lessons need prefork-echo in a directory of PATH")" >&2
        exit 1
    }
elif [ -z "$program" ]; then
    program=${CARGO_TARGET_DIR:-$project/target}/release/prefork-echo
    [ -x "$program" ] || wrap "" "" "$(text "building prefork-echo, once; that takes a minute or two")" >&2
    cargo build --release --quiet --manifest-path "$project/Cargo.toml" || exit 1
fi
# So that what is shown as a command is the command that is run.
PATH=$(dirname "$program"):$PATH

if [ -z "$no_pause" ] && [ -t 0 ] && [ -t 1 ]; then pausing=yes; else pausing=no; fi

command -v ps >/dev/null || {
    wrap "" "" "$(text "the lessons need ps (Debian has it in the package procps)")" >&2
    exit 1
}

number=${0##*lesson-}
number=$((10#${number%%-*}))
title=$(title_of "$0")
title=$(text "lesson {number}: {title}")
server=""  # the pid of the server that runs
clients="" # those of the clients
failures=0
verdict=no # has it been said?
dir=$(mktemp -d)
cd "$dir" || exit 1

# Without a trap for INT and TERM, on purpose: bash runs this one then, too, and one
# for INT would wait for Enter where bash 3.2 reads it.
trap finish EXIT
finish() {
    local status=$?
    # shellcheck disable=SC2086 # several pids in one string, on purpose
    kill $clients
    kill -QUIT "$server" && kill -CONT "$server" # one that is stopped notices nothing else
    # shellcheck disable=SC2086
    wait $server $clients
    rm -rf "$dir"
    if [ "$verdict" = no ]; then
        printf '\nFAIL %s: %s\n' "$title" "$(text "not finished")"
        exit $((status > 0 ? status : 1))
    fi
} 2>/dev/null # what is gone already is no trouble

# ----- To say and to ask.

# lesson TEXT: what it is about; its title stands in the second line of its file.
lesson() {
    wrap '\n=== ' "    " "$title"
    translate "$1"
    wrap '\n' "" "$text"
}

say() {
    translate "$1"
    wrap '\n' "" "$text"
}

predict() {
    translate "$1"
    wrap '\n??? ' "    " "$text"
    pause "Your prediction? Enter shows what happens."
}

next_page() {
    pause "Enter shows more."
}

pause() {
    if [ "$pausing" = yes ]; then
        translate "$1"
        printf '    %s ' "$text"
        read -r _
    fi
}

# ----- To run.

# Shows a command line, runs it, and leaves its exit status in $status.
run() {
    show_command "$1"
    eval "$1" 2>&1 | indented
    status=${PIPESTATUS[0]}
}

# So and so is Linux's alone: does this machine have it?
on_linux() { [ "$(uname)" = Linux ]; }

# wait_until TEXT COMMAND...: until the command succeeds; after ten seconds the lesson ends.
wait_until() {
    translate "$1"
    local what=$text tries=0
    shift
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ "$tries" -ge 200 ]; then
            wrap '\n  [no] ' "       " "$(text "{what}: not within ten seconds")"
            failures=$((failures + 1))
            conclude
        fi
        sleep 0.05
    done
}

# ----- To check.

# check TEXT COMMAND...: was it so?
check() {
    translate "$1"
    shift
    if "$@" >/dev/null 2>&1; then
        wrap "  [ok] " "       " "$text"
    else
        local command=$*
        wrap "  [no] " "       " "$text"
        wrap "       " "       " "$(text "this has failed: {command}")"
        failures=$((failures + 1))
    fi
}

is_not() { ! "$@"; }

# in_order FILE PATTERN...: does the file have a line for each pattern, in this order?
in_order() {
    local file=$1 pattern at=0
    shift
    for pattern; do
        at=$(awk -v after="$at" -v pattern="$pattern" 'NR > after && $0 ~ pattern { print NR; exit }' "$file")
        if [ -z "$at" ]; then return 1; fi
    done
}

# took FILE PATTERN: the microseconds that a narrated call took, in the first such line.
took() {
    awk -v pattern="$2" '$0 ~ pattern {
        for (i = 1; $i != "after"; i++) if (i == NF) next
        time = $(i + 1)
        print int(time ~ /[0-9]s/ ? time * 1e6 : time ~ /ms/ ? time * 1e3 : time ~ /ns/ ? time / 1e3 : time + 0)
        exit
    }' "$1"
}

# The last line of a lesson, and its exit status.
conclude() {
    verdict=yes
    if [ "$failures" -eq 0 ]; then
        printf '\nPASS %s\n' "$title"
        exit 0
    fi
    printf '\nFAIL %s: %s\n' "$title" "$(text "not as shown ({failures})")"
    exit 1
}

# ----- A server, and looks at it.

# serve OPTIONS...: starts a server, at the port $port or at one that the kernel
# chooses. Its log is in the file log.
port=0
serve() {
    show_command "prefork-echo --bind $port $* 2>log &"
    start_server "$@"
    indented <listening
}
start_server() {
    local asked=$port attempt
    for attempt in 1 2 3 4 5 6 7 8; do
        : >listening
        (
            let_go_of_pipes
            exec prefork-echo --bind "$asked" "$@" >listening 2>log
        ) &
        server=$!
        wait_until "the server listens" test -s listening
        port=$(sed 's/.*:\([0-9]*\) .*/\1/' listening)
        # Where connections of an earlier server wait, the lists would show them, too.
        if [ "$asked" != 0 ] || [ "$attempt" = 8 ] || [ -z "$(connections_in_time_wait)" ]; then return; fi
        end_server
    done
}

# Ends it in order; $status says how it went.
stop_server() {
    show_command "kill -TERM $server"
    end_server
    wrap "    " "    " "$(text "the server has ended, with exit status {status}")"
}
end_server() {
    kill -TERM "$server"
    status=0
    wait "$server" || status=$?
    server=""
}

# What `status --json` says under a name, a line for each time that it stands there.
values() { prefork-echo status "$port" --json | fields "$1"; }
fields() { grep -o "\"$1\": *[^,}]*" | sed -e 's/^[^:]*: *//' -e 's/"//g'; }
workers() { values pid | sed 1d; } # the first is the parent's
parent_and_workers() { values pid; }
serves() { test "$(values clients | awk '{ n += $1 } END { print n + 0 }')" = "$1"; }

# What lists the threads of processes, whose pids are to follow; and how many they are.
if on_linux; then list_threads="ps -L -o pid,lwp,stat,comm -p"; else list_threads="ps -M -p"; fi
count_threads() {
    $list_threads "$(printf '%s,' "$@" | sed 's/,$//')" | sed 1d | wc -l | tr -d ' '
}

# ----- Clients that talk when they are told to: A, B, C, D.

# Each reads from a pipe that this shell holds open: for A the descriptor 3.
pipe_of() { echo $(($(printf '%d' "'$1") - 62)); }
let_go_of_pipes() { exec 3>&- 4>&- 5>&- 6>&-; }

# connect A: starts a client. What it prints goes to the file A, its narration to A.log.
connect() {
    local name=$1
    wrap '\n  ' "  " "$(text "Client {name}, in a terminal of its own:")"
    wrap "  $ " "" "prefork-echo client $port --explain 2>$name.log &"
    mkfifo "$name.pipe"
    (
        let_go_of_pipes
        exec prefork-echo client "$port" --timeout 1m --explain <"$name.pipe" >"$name" 2>"$name.log"
    ) &
    clients="$clients $!"
    eval "exec $(pipe_of "$name")>\"$name.pipe\""
}

# tell A WORDS: types a line.
tell() {
    local name=$1 words=$2
    wrap "  " "  " "$(text "{name} types: {words}")"
    # In a process of its own, which a client that is gone may end.
    (printf '%s\n' "$2" >&"$(pipe_of "$1")") 2>/dev/null
}

# hear A WORDS: waits until they have come back.
hear() {
    local name=$1 words=$2
    wait_until "{name} gets {words} back" grep -qx "$2" "$1"
    wrap "  " "  " "$(text "{name} reads: {words}")"
}

# quit A: Ctrl-D.
quit() {
    local name=$1
    wrap "  " "  " "$(text "{name} types Ctrl-D: it sends no more")"
    eval "exec $(pipe_of "$1")>&-"
}

# The address of a client's end, as it was told by its kernel.
address_of() { sed -n 's/.*getsockname([0-9]*) = \([^:]*:[0-9]*\):.*/\1/p' "$1.log"; }
is_connected() { grep -q 'connect(.*) = 0' "$1.log"; }
calls_connect() { grep -q 'connect(.*asleep' "$1.log"; }
# The pid of the worker that serves it.
worker_of() { prefork-echo status "$port" | awk -v peer="$(address_of "$1")" '$0 ~ peer { print $2 }'; }

# ----- Many clients at once.

# crowd NUMBER: so many, with ten messages a second each, until they are told to leave.
crowd() {
    set -- --connections "$1" --rate $(($1 * 10)) --duration 0
    show_command "prefork-echo bench $port $* >crowd &"
    (
        let_go_of_pipes
        exec prefork-echo bench "$port" "$@" >crowd 2>crowd.log
    ) &
    crowd=$!
    clients="$clients $crowd"
}
crowd_leaves() {
    kill -INT "$crowd"
    wait "$crowd"
    run "grep ^errors crowd"
}
# How many of its connections the server has closed, or its kernel reset.
cut_off() { grep '^errors' crowd | grep -oE '[0-9,]+ (lost|reset)' | awk '{ n += $1 } END { print n + 0 }'; }

# What lists the connections that have an end at $port (of maybe 100,000): state, local end, peer.
command_for_connections() {
    if command -v ss >/dev/null; then
        echo "ss -tan 'sport = :$port or dport = :$port'"
    elif command -v netstat >/dev/null; then
        echo "netstat -an | grep '[.:]$port'"
    else
        echo "grep -i ':$(printf %04x "$port")' /proc/net/tcp"
    fi
}
# In /proc/net/tcp the state is 06, the columns are others, and ports are hexadecimal.
connections_in_time_wait() { eval "$(command_for_connections)" | grep -E 'TIME.WAIT|: .* 06 '; }
