# shellcheck shell=bash
# The language of the lessons: the English stands in them, the Korean in the catalogue
# ko.po, under that English. For lib.sh and lessons.sh to source: it takes their arguments.
#
# In a text {name} stands for the value of the variable of that name, which is filled in
# when the text has been looked up. A $name would be filled in before: the catalogue
# has no such text, and scripts/catalogue.sh --check says so.

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# ----- The options that all lessons have.

case ${LC_ALL:-${LC_MESSAGES:-${LANG:-}}} in ko*) language=ko ;; *) language=en ;; esac
export LC_ALL=C # what the lessons run speaks English, and awk counts bytes
no_pause=""
arguments=() # what is no option

while [ $# -gt 0 ]; do
    case $1 in
    --no-pause) no_pause=$1 ;;
    --lang)
        case ${2:-} in
        en | ko) language=$2 ;;
        *)
            echo "--lang is followed by en (English) or ko (Korean)" >&2
            exit 2
            ;;
        esac
        shift
        ;;
    *) arguments+=("$1") ;;
    esac
    shift
done

# ----- To look up a text, and to fill in what it leaves open.

# read_catalogue FILE: an English text, and in the next line its translation; and so on.
read_catalogue() {
    awk '
        function tell() { if (text["id"] != "" && text["str"] != "") print text["id"] "\n" text["str"] }
        /^msgid/ { tell(); text["id"] = text["str"] = "" }
        /^msg/ { part = $1 == "msgid" ? "id" : "str" }
        /^(msgid |msgstr )?"/ {
            sub(/^[a-z]* ?"/, "")
            sub(/"$/, "")
            gsub(/\\n/, " ")
            gsub(/\\"/, "\"")
            text[part] = text[part] $0
        }
        END { tell() }' "$1"
}

messages=()
if [ "$language" != en ]; then
    # A line is an element, whatever stands in it.
    set -f
    IFS=$'\n'
    # shellcheck disable=SC2207 # bash 3.2 has no mapfile
    messages=($(read_catalogue "$scripts/$language.po"))
    unset IFS
    set +f
fi

# translate TEXT: leaves it in $text, in the language chosen. Without a translation it
# stays English. Its line breaks are blanks: what shows it breaks the lines anew.
newline=$'\n'
translate() {
    local _at=0 _rest _name
    text=${1//$newline/ }
    while [ "$_at" -lt "${#messages[@]}" ]; do
        if [ "${messages[_at]}" = "$text" ]; then
            text=${messages[_at + 1]}
            break
        fi
        _at=$((_at + 2))
    done

    _rest=$text text=""
    while [[ $_rest == *"{"*"}"* ]]; do
        text=$text${_rest%%\{*} _rest=${_rest#*\{}
        _name=${_rest%%\}*} _rest=${_rest#*\}}
        case $_name in
        "" | *[!a-z_]*) text="$text{$_name}" ;; # no variable: braces
        *) text=$text${!_name} ;;
        esac
    done
    text=$text$_rest
}

# text TEXT: says it on stdout, for a text within a line.
text() {
    translate "$1"
    printf '%s' "$text"
}

# title_of FILE: the title of a lesson, which stands in its second line.
title_of() {
    translate "$(sed -n '2s/^# //p' "$1")"
    printf '%s' "$text"
}

# ----- To show it on a terminal of 80 columns.

# For awk: the columns that a text takes. A Korean syllable takes two; what comes before
# it in Unicode takes one. Some awks count characters, and some bytes: for those, the
# first byte of a character counts, and the others do not.
width='
    BEGIN { bytes = length("가") > 1; wide = bytes ? "\343" : "⺀" }
    function width(text,    i, byte, columns) {
        columns = 0
        for (i = 1; i <= length(text); i++) {
            byte = substr(text, i, 1)
            if (!(bytes && byte >= "\200" && byte < "\300")) columns += byte >= wide ? 2 : 1
        }
        return columns
    }
    # Breaks a text between words, with what the first line and the others begin with.
    function wrapped(text, first, others,    words, n, i, line, all) {
        n = split(text, words, " ")
        line = first words[1]
        for (i = 2; i <= n; i++) {
            if (width(line " " words[i]) <= limit) line = line " " words[i]
            else { all = all line "\n"; line = others words[i] }
        }
        return all line
    }'

# wrap FIRST OTHERS TEXT: breaks a paragraph into lines of 80 columns or less. FIRST stands
# before the first line, OTHERS before each other one.
wrap() {
    printf '%s\n' "$3" | awk -v first="$1" -v others="$2" -v limit="${limit:-80}" "$width"'{ print wrapped($0, first, others) }'
}

# A command is broken between its words, as a shell would read it.
show_command() {
    printf '\n'
    limit=78 wrap "  $ " "      " "$1" | sed '$!s/$/ \\/'
}

# Lines of a command's output: those of the log without time and level, long ones broken;
# those of a table, which have blanks side by side, with less in front of them.
indented() {
    sed -E -e 's/([0-9-]+ )?[0-9:.]+ \[[A-Z ]+\] //' -e 's/ +$//' | awk -v limit=80 "$width"'
        { columns = width($0) }
        columns <= 76 { print "    " $0; next }
        columns <= 80 && /[^ ]  / { print sprintf("%" 80 - columns "s", "") $0; next }
        { print wrapped($0, "    ", "        ") }'
}

# table HEADER <<ROWS: what a lesson has measured, with | between the cells of a row.
table() {
    translate "$1"
    { printf '%s\n' "$text" && cat; } | awk -F '|' "$width"'
        function blanks(n) { return sprintf("%" n "s", "") }
        NF { rows++; if (NF > columns) columns = NF }
        { for (i = 1; i <= NF; i++) { cell[rows, i] = $i; if (width($i) > widest[i]) widest[i] = width($i) } }
        END {
            for (row = 1; row <= rows; row++) {
                line = "\n  " cell[row, 1] blanks(widest[1] - width(cell[row, 1]))
                for (i = 2; i <= columns; i++) line = line "  " blanks(widest[i] - width(cell[row, i])) cell[row, i]
                printf "%s", line
            }
            print ""
        }' || failures=$((failures + 1))
}
