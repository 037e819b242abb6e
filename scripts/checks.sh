# shellcheck shell=bash
# What faults.sh and machines.sh share: to say, to wait, to check. For a script to source; the
# logs of what it runs are in its directory $dir, and have names that end with "log".
failures=0
: "${dir:?is to be set before}"

say() { printf '\n== %s\n' "$*"; }
figure() { printf '   %s\n' "$*"; }
check() { # WHAT COMMAND...
    if "${@:2}" >/dev/null 2>&1; then
        printf '   [ok] %s\n' "$1"
    else
        printf '   [no] %s (%s)\n' "$1" "${*:2}"
        failures=$((failures + 1))
    fi
}
is_not() { ! "$@"; }
wait_for() { # WHAT COMMAND...: for ten seconds
    local end=$((SECONDS + 10))
    until "${@:2}" >/dev/null 2>&1; do
        if [ "$SECONDS" -gt "$end" ]; then
            echo "!! in vain waited until $1" >&2
            tail -n 20 "$dir"/*log >&2
            exit 1
        fi
        sleep 0.01
    done
}
