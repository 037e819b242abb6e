#!/usr/bin/env bash
# listen makes a socket passive, and waits for no client
. "$(dirname "$0")/lib.sh"

lesson "From listen on the kernel accepts connection requests for the socket; before, it refuses
them. listen is often said to wait for a request. Which call does wait?"

# perl calls what we tell it to, one call at a time; Linux and macOS both have it.
if perl -MSocket -e 1 2>/dev/null; then
    # shellcheck disable=SC2016 # perl's variables
    calls='
    socket(S, PF_INET, SOCK_STREAM, 0);
    bind(S, pack_sockaddr_in(0, INADDR_LOOPBACK));
    print((unpack_sockaddr_in(getsockname(S)))[0], "\n");
    <STDIN>;  listen(S, 5);
    <STDIN>;'
    mkfifo enter
    perl -MSocket -e "\$| = 1; $calls" <enter >port &
    clients=$!
    exec 3>enter
    wait_until "the socket is bound" test -s port
    port=$(cat port)
    say "A program in Perl calls socket and bind, and prints its port. It calls listen when it gets a
line:"
    printf '%s\n\n    %s\n' "$calls" "$port"
    predict "The socket is bound to port {port}, but listen was not called. What does a client get?"
    run "prefork-echo client $port hello"
    check "the connection is refused, at once" grep -q 'connection refused' \
        <<<"$(prefork-echo client "$port" hello 2>&1)"
    check "the exit status of the client is 1" test "$status" = 1
    check "yet the port is taken: a second bind fails" grep -q 'address already in use' \
        <<<"$(prefork-echo --bind "$port" 2>&1)"

    predict "Now the program calls listen, and no accept. What does a client get, that waits for a second?"
    printf '\n' >&3
    is_listening() { prefork-echo client "$port" --timeout 100ms hello 2>&1 | grep -q 'no answer'; }
    wait_until "the socket listens" is_listening
    run "prefork-echo client $port --timeout 1s --explain hello 2>&1 | grep -oE '(connect|send)\(.*= [^:]*|no answer.*\)'"
    check "the connection succeeds, and no answer comes" grep -q 'no answer' \
        <<<"$(prefork-echo client "$port" --timeout 100ms hello 2>&1)"
    say "The same socket refuses before listen, and connects after it. No process has called accept."
    exec 3>&-
    port=0
fi

predict "A server starts. How long does its listen take, and how long its accept?"
serve --workers 1 --explain
run "prefork-echo client $port hello"
check "the client is served" test "$status" = 0
run "grep -oE '(parent|worker) .*(listen|accept)\(.*\) = .*, after [^:]*' log"

listening=$(took log 'listen[(].* = 0')
accepting=$(took log 'accept[(].* = ')
say "listen took {listening} microseconds. accept slept for {accepting}: accept is the call that waits."
check "listen returned within a tenth of a second" test "$listening" -lt 100000
check "accept took longer than listen" test "$accepting" -gt "$listening"
conclude
