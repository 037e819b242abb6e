#!/usr/bin/env bash
# The lessons: each an experiment, which ends with PASS or FAIL. Lists them, runs one,
# or all.
# usage: scripts/lessons.sh [NUMBER | all] [--no-pause]
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
    lesson=$(printf '%s/lesson-%02d-' "$scripts" "$((10#$1))" 2>/dev/null)
    for lesson in "$lesson"*.sh; do
        [ -f "$lesson" ] && exec bash "$lesson" ${2+"$2"}
    done
    echo "there is no lesson $1; scripts/lessons.sh lists them" >&2
    exit 2
    ;;
esac
