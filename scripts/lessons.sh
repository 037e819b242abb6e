#!/usr/bin/env bash
# The lessons: each an experiment, which ends with PASS or FAIL. Lists them, runs one,
# or all.
set -u
unset CDPATH # cd would print where it leads
. "$(dirname "$0")/text.sh" # reads --lang and --no-pause; the rest is in $arguments

usage() {
    wrap "" "" "$(text "usage: scripts/lessons.sh [NUMBER | all] [--lang en | ko] [--no-pause]")"
    wrap '\n' "" "$(text "Without a NUMBER it lists the lessons. A lesson shows commands, and waits for Enter before it shows what they do; with --no-pause it does not wait. --lang ko speaks Korean, as does a LANG that begins with ko.")"
}

list() {
    local number
    for lesson in "$scripts"/lesson-*.sh; do
        number=${lesson##*/lesson-}
        wrap "$(printf '%3d  ' "$((10#${number%%-*}))")" "     " "$(title_of "$lesson")"
    done
    wrap '\n' "" "$(text "scripts/lessons.sh NUMBER runs one, scripts/lessons.sh all runs all; Enter goes on")"
}

run() { bash "$1" --lang "$language" ${no_pause:+"$no_pause"}; }

run_all() {
    local failed="" seconds
    for lesson in "$scripts"/lesson-*.sh; do
        run "$lesson" || failed="$failed ${lesson##*/}"
    done
    if [ -n "$failed" ]; then
        printf '\nFAIL:%s\n' "$failed"
        exit 1
    fi
    seconds=$SECONDS
    printf '\nPASS: %s\n' "$(text "all lessons, in {seconds} s")"
}

# run_one NUMBER: by name, as a number may be too large for the shell.
run_one() {
    local argument=$1 number=${1#0}
    case $number in
    "" | *[!0-9]*) ;; # no number
    *)
        [ "${#number}" -eq 1 ] && number=0$number
        for lesson in "$scripts/lesson-$number"-*.sh; do
            if [ -f "$lesson" ]; then
                run "$lesson"
                exit
            fi
        done
        ;;
    esac
    wrap "" "" "$(text "there is no lesson {argument}; scripts/lessons.sh lists them")" >&2
    exit 2
}

if [ "${#arguments[@]}" -gt 1 ]; then
    usage >&2
    exit 2
fi
# An empty array is unset for bash 3.2.
case ${arguments[0]-} in
"") list ;;
-h | --help) usage ;;
all) run_all ;;
*) run_one "${arguments[0]}" ;;
esac
