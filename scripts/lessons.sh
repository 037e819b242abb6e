#!/usr/bin/env bash
# The lessons: each an experiment, which ends with PASS or FAIL. Lists them, runs one,
# or all.
# usage: scripts/lessons.sh [NUMBER | all] [--no-pause]; without a NUMBER it lists the lessons
set -u
unset CDPATH # cd would print where it leads
scripts=$(cd "$(dirname "$0")" && pwd)

case "${1:-}" in
"")
    for lesson in "$scripts"/lesson-*.sh; do
        number=${lesson##*/lesson-}
        printf '%3d  %s\n' "$((10#${number%%-*}))" "$(sed -n '2s/^# //p' "$lesson")"
    done
    printf '\nscripts/lessons.sh NUMBER runs one, scripts/lessons.sh all runs all; Enter goes on\n'
    ;;
-h | --help)
    sed -n 's/^# usage:/usage:/p' "$scripts/lessons.sh"
    ;;
all)
    failed=""
    for lesson in "$scripts"/lesson-*.sh; do
        bash "$lesson" ${2+"$2"} || failed="$failed ${lesson##*/}"
    done
    if [ -n "$failed" ]; then
        printf '\nFAIL:%s\n' "$failed"
        exit 1
    fi
    printf '\nPASS: all lessons, in %s s\n' "$SECONDS"
    ;;
*)
    number=${1#0}
    case $number in
    "" | *[!0-9]*) ;; # no number
    *)
        # By name: a number may be too large for the shell.
        [ "${#number}" -eq 1 ] && number=0$number
        for lesson in "$scripts/lesson-$number"-*.sh; do
            [ -f "$lesson" ] && exec bash "$lesson" ${2+"$2"}
        done
        ;;
    esac
    echo "there is no lesson $1; scripts/lessons.sh lists them" >&2
    exit 2
    ;;
esac
