#!/usr/bin/env bash
# The catalogue scripts/ko.po: what the lessons and the program say, and its Korean.
#
# Adds to it what the lessons say now (say, check, table, ... in scripts/), their titles,
# and what the program says (tr("...") in src/); what is said no more is taken out. Then
# the Korean is to be written, into the file or with a tool for such files (Poedit).
# With --check the catalogue stays as it is, and what is wrong with it is told.
# Needs gettext (Debian has it in the package gettext; Homebrew, too).
#
# usage: scripts/catalogue.sh [--check]
set -euo pipefail
cd "$(dirname "$0")/.."
catalogue=scripts/ko.po

mode=${1:-}
case $mode in
"" | --check) ;;
*)
    sed -n 's/^# usage:/usage:/p' scripts/catalogue.sh
    exit 2
    ;;
esac
command -v msgmerge >/dev/null || {
    echo "scripts/catalogue.sh needs gettext" >&2
    exit 1
}

. scripts/text.sh # for read_catalogue
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
commands="lesson say predict pause check wait_until table text"
scripts=(scripts/lib.sh scripts/lessons.sh scripts/lesson-*.sh)

# ----- What is said.

# A message FILE:LINE:TEXT in each line becomes an entry of a catalogue.
entries() {
    printf '%s\n' 'msgid ""' 'msgstr "Content-Type: text/plain; charset=UTF-8\n"'
    sed -E 's/^([^:]*:[0-9]+):(.*)$/\n#: \1\nmsgid "\2"\nmsgstr ""/'
}
titles() {
    awk 'FNR == 2 { sub(/^# /, ""); gsub(/"/, "\\\""); print FILENAME ":2:" $0 }' scripts/lesson-*.sh
}
# The text that follows tr( in the same line or, as rustfmt has it, in the next one.
literals_of_the_program() {
    # shellcheck disable=SC2016 # awk's variables
    find src -name '*.rs' | sort | xargs awk '
        { line = before $0; before = line ~ /(^|[^a-z_])tr\($/ ? "tr(" : "" }
        {
            while (match(line, /(^|[^a-z_])tr\( *"([^"\\]|\\.)*"/)) {
                found = substr(line, RSTART, RLENGTH)
                line = substr(line, RSTART + RLENGTH)
                sub(/^[^"]*"/, "", found)
                sub(/"$/, "", found)
                print FILENAME ":" FNR ":" found
            }
        }'
}

# shellcheck disable=SC2046,SC2086 # several words in one string, on purpose
xgettext --language=Shell --from-code=UTF-8 --keyword $(printf -- '--keyword=%s:1 ' $commands) \
    --output="$dir/shell.pot" "${scripts[@]}"
titles | entries >"$dir/titles.pot"
literals_of_the_program | entries | msguniq >"$dir/program.pot"
# msgfmt is to compare what stands in braces: that has a name in gettext.
msgcat --use-first "$dir/shell.pot" "$dir/titles.pot" "$dir/program.pot" |
    awk 'BEGIN { RS = ""; ORS = "\n\n" } /[{][a-z_]+[}]/ { sub(/\nmsgid /, "\n#, python-brace-format\nmsgid ") } 1' \
        >"$dir/all.pot"

if [ -z "$mode" ]; then
    msgmerge --quiet --previous --add-location=file "$catalogue" "$dir/all.pot" |
        msgattrib --no-obsolete --output-file="$catalogue"
    echo "$catalogue: $(LC_ALL=C msgfmt --statistics --output-file=/dev/null "$catalogue" 2>&1)"
    exit 0
fi

# ----- Is the catalogue as it is to be?

wrong=0
# complain WHAT FILE: if there is something in the file.
complain() {
    if [ -s "$2" ]; then
        echo "$catalogue: $1" >&2
        cat "$2" >&2
        wrong=1
    fi
}

# What xgettext has left out.
sed -n 's/^#: //p' "$dir/shell.pot" | tr ' ' '\n' >"$dir/found"
awk -v commands="$commands" -v found="$dir/found" '
    BEGIN {
        gsub(/ /, "|", commands)
        while ((getline line <found) > 0) is_found[line] = 1
    }
    $0 ~ "(^|[^-_a-z0-9.\"$])(" commands ") [\"\047]" && !((FILENAME ":" FNR) in is_found) {
        print FILENAME ":" FNR ":" $0
    }' "${scripts[@]}" >"$dir/left-out"
complain "such a command begins its line, or follows \$(; its text has {name} for \$name or \$(command)" "$dir/left-out"

msgmerge --quiet --no-fuzzy-matching "$catalogue" "$dir/all.pot" >"$dir/merged.po"
msgattrib --untranslated --no-obsolete "$dir/merged.po" | sed '1,/^$/d' >"$dir/untranslated"
msgattrib --only-fuzzy --no-obsolete "$dir/merged.po" | sed '1,/^$/d' >"$dir/fuzzy"
msgattrib --only-obsolete "$dir/merged.po" >"$dir/unused"
complain "these have no Korean (msgstr):" "$dir/untranslated"
complain "these are fuzzy: the English has changed; see whether the Korean is right, and delete the mark:" "$dir/fuzzy"
complain "this no lesson and no source says any more:" "$dir/unused"
msgfmt --check --output-file=/dev/null "$dir/merged.po" || wrong=1
read_catalogue "$catalogue" |
    awk -F '|' 'NR % 2 { cells = NF; text = $0 } NR % 2 == 0 && NF != cells { print text }' >"$dir/cells"
complain "the Korean of this has another number of cells (|):" "$dir/cells"

if [ "$wrong" -ne 0 ]; then
    echo "scripts/catalogue.sh adds to $catalogue what is missing, and takes out what isn't used;" >&2
    echo "then write the Korean." >&2
    exit 1
fi
echo "$catalogue: complete"
