#!/usr/bin/env bash
# HTTP is text on such a socket
. "$(dirname "$0")/lib.sh"

lesson "A browser and a web server talk by sockets like these. TCP carries the bytes; HTTP says
what they mean. Here a request goes to the echo server, so it can be read as it comes back."

serve --workers 1 -q
predict "This is a request for /index.html. What does the echo server answer?"
run "printf 'GET /index.html HTTP/1.1\r\nHost: me\r\n\r\n' >request"
run "prefork-echo client $port <request >answer"
run "cat -v answer"
check "the request itself: the server does not know what it means" cmp request answer
say "It is text: three lines. Each ends with CR LF, carriage return and line feed; cat -v shows
CR as ^M."

predict "A web server reads it line by line. Which words does it take from the first line?"
run "read -r method path version <answer; echo \"\$method | \$path | \$version\""
first=$(sed -n 1p answer)
check "the method, the path, and the version" test "$(tr -d '\r' <<<"$first")" = "GET /index.html HTTP/1.1"
empty_line=$(tr -d '\r' <answer | grep -n '^$' | cut -d : -f 1)
check "line {empty_line} is empty: here the headers end" test "$empty_line" = 3
say "TCP keeps no boundaries (lesson 21): so HTTP ends a line with CR LF, and the headers with
an empty line."

# An older curl takes any answer for HTTP/0.9, and does not know the option.
if curl --http0.9 --version >/dev/null 2>&1; then
    export no_proxy=127.0.0.1 # where a proxy is set, curl would ask that
    next_page
    predict "curl speaks HTTP, as a browser does. HTTP/0.9, of 1991, had no headers: what came was the
page. With --http0.9 curl accepts that. What does it show?"
    run "curl --silent --show-error --http0.9 --max-time 1 http://127.0.0.1:$port/hello >answer"
    curl_status=$status
    run "cat answer"
    check "curl has sent its request as text, and got it back" grep -q '^GET /hello HTTP/1.1' answer
    check "it has waited for the end of the answer: status 28, a time-out" test "$curl_status" = 28
    predict "An answer of today has headers. What does curl say without --http0.9?"
    run "curl --silent --show-error --max-time 1 http://127.0.0.1:$port/hello"
    check "an answer that begins with GET is none of HTTP/1.1" test "$status" -ne 0
    say "The answer of a web server begins with HTTP/1.1 200 OK. The connection was right; what was
said on it was not HTTP."
else
    say "With curl 7.64 or later (Debian: apt install curl) this lesson would also show what a program
for the web says to this answer."
fi

next_page
stop_server
predict "Does HTTP look different on a server of threads, or on one that multiplexes?"
for model in thread multiplex; do
    serve --workers 1 --model "$model" -q
    run "prefork-echo client $port <request | head -n 1"
    prefork-echo client "$port" <request >answer
    check "with {model} the same bytes come back" cmp request answer
    end_server
done
say "How a server serves many clients is its own affair. What is said on a connection does not
depend on it."
conclude
