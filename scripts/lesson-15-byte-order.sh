#!/usr/bin/env bash
# The order of bytes: hosts and networks
. "$(dirname "$0")/lib.sh"

lesson "A port has two bytes. On the wire the high byte is first (big-endian). The network is often
said to be little-endian, and hosts to be big-endian."

serve --workers 1
hex=$(printf '%04x' "$port")
high=${hex%??} low=${hex#??}
predict "{port} is {hex} in hexadecimal. In which order are the bytes {high} and {low} in this
machine's memory?"
run "printf '\\x$low\\x$high' | od -An -tu2"
run "printf '\\x$high\\x$low' | od -An -tu2"
number() { printf '%b' "$1" | od -An -tu2 | tr -d ' '; }
if [ "$(number '\x61\x1e')" = 7777 ]; then
    order="little-endian" first=$low second=$high
else
    order="big-endian" first=$high second=$low
fi
say "od reads two bytes as a number, in the order of this machine. It is {order}: {first} is first."
check "{first} {second} in this order make {port}" test "$(number "\\x$first\\x$second")" = "$port"

predict "Which order has the port in the address that the server gives to the kernel?"
run "prefork-echo --bind $port --explain 2>&1 | grep 'the kernel gets'"
check "{port} is {hex}, and its high byte is first, as on every machine: {high} {low}" \
    grep -q "the port in it is $high $low, " <<<"$(prefork-echo --bind "$port" --explain 2>&1)"
say "The first two bytes are the kind of address. The kernel does not send them: on Linux they are
a number (2) in this machine's order, on macOS a length (16) and that number."
if on_linux; then
    if [ $order = little-endian ]; then kind='02 00'; else kind='00 02'; fi
    check "both orders stand side by side: {kind}, and then {high} {low}" \
        grep -q "the bytes $kind $high $low 7f 00 00 01" <<<"$(prefork-echo --bind "$port" --explain 2>&1)"
fi
say "So the network's order is big-endian, and the memory of a PC or a Mac is little-endian. htons
converts from the machine's order to the network's."
conclude
