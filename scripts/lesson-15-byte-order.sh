#!/usr/bin/env bash
# The order of bytes: hosts and networks
. "$(dirname "$0")/lib.sh"

lesson "A port has two bytes. On the wire the high one goes first (big-endian); it is
often said that the network is little-endian and hosts are big-endian."

predict "7777 is 1e61 in hexadecimal. Which two bytes, in which order, make it in this machine's memory?"
run "printf '\x61\x1e' | od -An -tu2     # 61 first"
run "printf '\x1e\x61' | od -An -tu2     # 1e first"
number() { printf '%b' "$1" | od -An -tu2 | tr -d ' '; }
if [ "$(number '\x61\x1e')" = 7777 ]; then order=little; else order=big; fi
say "This machine's memory is $order-endian."
check "the other order makes another number" test "$(number '\x61\x1e')" != "$(number '\x1e\x61')"

predict "And in the address that the server hands to the kernel, which sends it over the wire?"
serve --workers 1
run "prefork-echo --bind $port --explain 2>&1 | grep 'the kernel gets'"
wire=$(printf '%04x' "$port" | sed 's/\(..\)/\1 /; s/ $//')
check "$port is $(printf '%04x' "$port"), and its high byte goes first, as on every machine: $wire" \
    grep -q "the port in it is $wire, " <<<"$(prefork-echo --bind "$port" --explain 2>&1)"
say "The first two bytes are the kind of address, for the kernel alone: on Linux a number (2) in
this machine's order, on macOS a length (16) and that number."
if on_linux; then
    if [ $order = little ]; then two='02 00'; else two='00 02'; fi
    check "both orders stand side by side: $two, and then $wire" \
        grep -q "the bytes $two $wire 7f 00 00 01" <<<"$(prefork-echo --bind "$port" --explain 2>&1)"
fi
say "So it is the other way round: the network's order is big-endian, and a PC's or Mac's memory
little-endian. htons turns the one into the other."
conclude
