//! `--proxy-protocol`: behind a balancer each connection begins with a PROXY header. It names the
//! client, it is never echoed, and the bytes after it are the first that come back.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use ppp::{HeaderResult, v1, v2};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use crate::common::models::{ALL, in_each, start};
use crate::common::servers::reset;
use crate::common::{Server, echo, read_to_end, rounds, status, wait_until};

const CLIENT: &str = "192.0.2.7:40312";

/// As HAProxy sends it: `command` is 0x21, or 0x20 in a health check.
fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = (rest.len() as u16).to_be_bytes();
    [v2::PROTOCOL_PREFIX, &[command, family], &length, rest].concat()
}

/// The addresses in a header of version 2: 192.0.2.7:40312 to 127.0.0.1:7777.
const ADDRESSES: [u8; 12] = [192, 0, 2, 7, 127, 0, 0, 1, 157, 120, 30, 97];

fn headers() -> Vec<(&'static str, Vec<u8>, Option<&'static str>)> {
    let six = [&[0x20, 1, 0x0d, 0xb8], &[0; 11][..], &[1], &[0; 15], &[1], &[157, 120, 30, 97]].concat();
    // PP2_TYPE_NOOP of three bytes, and a type of the user's own.
    let tlvs = [&ADDRESSES[..], &[4, 0, 3, 0, 0, 0], &[0xe0, 0, 2, b'h', b'i']].concat();
    let most = [&ADDRESSES[..], &[4, 0x0f, 0xe1], &[0; 0x0fe1]].concat();
    vec![
        ("v1", b"PROXY TCP4 192.0.2.7 127.0.0.1 40312 7777\r\n".into(), Some(CLIENT)),
        ("v1 of IPv6", b"PROXY TCP6 2001:db8::1 ::1 40312 7777\r\n".into(), Some("[2001:db8::1]:40312")),
        ("v1 UNKNOWN", b"PROXY UNKNOWN\r\n".into(), None),
        ("v1 UNKNOWN with anything", b"PROXY UNKNOWN a b c d \xff\r e f g\r\n".into(), None),
        ("v1 UNKNOWN with addresses", b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n".into(), None),
        ("v2", version_2(0x21, 0x11, &ADDRESSES), Some(CLIENT)),
        ("v2 of IPv6", version_2(0x21, 0x21, &six), Some("[2001:db8::1]:40312")),
        ("v2 with TLVs", version_2(0x21, 0x11, &tlvs), Some(CLIENT)),
        ("v2 as long as can be", version_2(0x21, 0x11, &most), Some(CLIENT)),
        ("v2 LOCAL", version_2(0x20, 0x00, &[]), None),
        ("v2 LOCAL with addresses", version_2(0x20, 0x11, &ADDRESSES), None),
        ("v2 LOCAL with what is no address", version_2(0x20, 0x99, b"any"), None),
        ("v2 of an unspecified family", version_2(0x21, 0x00, &[]), None),
        ("v2 of UDP", version_2(0x21, 0x12, &ADDRESSES), None),
        ("v2 of a Unix socket", version_2(0x21, 0x31, &[b'/'; 216]), None),
    ]
}

fn wrong_headers() -> Vec<(&'static str, Vec<u8>)> {
    let long = [&ADDRESSES[..], &[4, 0x0f, 0xe2], &[0; 0x0fe2]].concat();
    vec![
        ("no header", b"hello, server\n".into()),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".into()),
        ("a line that is too long", [&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat()),
        ("v1 without the carriage return", b"PROXY TCP4 192.0.2.7 127.0.0.1 40312 7777\n".into()),
        ("v1 with a port too high", b"PROXY TCP4 192.0.2.7 127.0.0.1 70000 7777\r\n".into()),
        ("v1 with a sign", b"PROXY TCP4 192.0.2.7 127.0.0.1 +40312 7777\r\n".into()),
        ("v1 with an address of IPv6", b"PROXY TCP4 ::1 127.0.0.1 40312 7777\r\n".into()),
        ("v2 with a byte too many", version_2(0x21, 0x11, &long)),
        ("v2 that says 65535 bytes", [version_2(0x21, 0x11, &[])[..14].to_vec(), vec![255; 2]].concat()),
        ("v2 of version 3", version_2(0x31, 0x11, &ADDRESSES)),
        ("v2 with an unknown command", version_2(0x22, 0x11, &ADDRESSES)),
        ("v2 with an unknown family", version_2(0x21, 0x41, &ADDRESSES)),
        ("v2 with no room for the addresses", version_2(0x21, 0x11, &ADDRESSES[..8])),
    ]
}

fn local(client: &TcpStream) -> SocketAddr {
    client.local_addr().unwrap()
}

/// The server closes it, and nothing comes back. That may be a reset, where it had not read all.
#[track_caller]
fn is_closed(what: &str, mut client: TcpStream) {
    let mut answer = Vec::new();
    let end = client.read_to_end(&mut answer);
    assert!(answer.is_empty(), "{what}: {answer:?} came back");
    assert!(!end.is_err_and(|error| is_timeout(&error)), "{what}: it stays open");
}

#[test]
fn a_header_names_the_client_and_is_not_echoed() {
    in_each(&ALL, |model| {
        let server = start(model, 1, &["--proxy-protocol"]);
        for (what, header, named) in headers() {
            let mut client = server.connect();
            let balancer = local(&client);
            client.write_all(&[&header[..], b"first"].concat()).unwrap();
            let mut answer = [0; 5];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"first", "{model}, {what}");
            echo(&mut client, b"and then");
            let peer = named.map_or(balancer.to_string(), |named| format!("{named} via {balancer}"));
            if let Some(named) = named {
                server.wait_for_log(&["PROXY header on descriptor", &format!(": {peer}")]);
                server.wait_for_status("the client and its balancer are shown", |look| {
                    let worker = &look["workers"][0];
                    worker["peer"] == named && worker["via"] == balancer.to_string()
                });
            } else {
                let look = server.status();
                assert_eq!(look["workers"][0]["peer"], balancer.to_string(), "{model}, {what}");
                assert!(look["workers"][0]["via"].is_null(), "{model}, {what}");
            }
            client.shutdown(Shutdown::Write).unwrap();
            assert!(read_to_end(&mut client).is_empty(), "{model}, {what}");
            server.wait_for_log(&[&format!("closed {peer}: end of file, 13 bytes echoed")]);
        }
        let look = server.status();
        assert_eq!(look["totals"]["bad_headers"], 0);
        assert!(look["workers"][0]["via"].is_null());
    });
}

#[test]
fn a_header_comes_whole_or_in_pieces_of_any_length() {
    in_each(&ALL, |model| {
        let server = start(model, 4, &["-q", "--proxy-protocol"]);
        for (what, header, _) in headers() {
            let bytes = [&header[..], b"rest"].concat();
            // The tests of the parser cut at each place.
            for cut in [1, header.len() / 3, header.len() / 3 * 2, header.len() - 1, header.len()] {
                let mut client = server.connect();
                client.set_nodelay(true).unwrap();
                client.write_all(&bytes[..cut]).unwrap();
                wait_until("the piece is taken", || has_taken_all(&client));
                client.write_all(&bytes[cut..]).unwrap();
                let mut answer = [0; 4];
                client.read_exact(&mut answer).unwrap();
                assert_eq!(&answer, b"rest", "{model}, {what}, cut after {cut} bytes");
            }
        }
    });
}

/// Has the server read all that the client has sent? Elsewhere than on Linux it cannot be known,
/// and is taken for true: then pieces may come as one.
fn has_taken_all(client: &TcpStream) -> bool {
    let Ok(list) = std::fs::read_to_string("/proc/net/tcp") else { return true };
    // The server's line: its remote port is the client's. In state 01, established; the queues
    // to send and to read are empty.
    let line = format!(":{:04X} 01 00000000:00000000 ", local(client).port());
    list.contains(&line)
}

#[test]
fn what_is_no_header_is_closed_and_counted_apart_and_not_echoed() {
    in_each(&ALL, |model| {
        // The line without the carriage return goes on, for all that the server knows.
        let server = start(model, 1, &["--proxy-protocol", "--idle-timeout", "2s"]);
        for (number, (what, bytes)) in (1..).zip(wrong_headers()) {
            let mut client = server.connect();
            let balancer = local(&client);
            client.write_all(&bytes).unwrap();
            is_closed(&format!("{model}, {what}"), client);
            let line = server.wait_for_log(&[&format!("closed {balancer}: "), "PROXY header"]);
            assert!(line.contains("WARN"), "{line}");
            assert_eq!(server.status()["totals"]["bad_headers"], number, "{model}, {what}");
        }
        let [worker] = server.workers()[..] else { panic!("{:?}", server.workers()) };
        kill(worker, Signal::SIGKILL).unwrap();
        server.wait_for_status("the worker is replaced", |look| look["totals"]["restarts"] == 1);
        let number = wrong_headers().len();
        let totals = json!({"connections": number, "bytes": 0, "bad_headers": number, "restarts": 1});
        assert_eq!(server.status()["totals"], totals, "what the killed one has counted stays");
        let (_, metrics, _) = status(&["--openmetrics", &server.address.to_string()]);
        let metric = format!("\nprefork_echo_bad_headers_total{{address=\"{}\"}} {number}\n", server.address);
        assert!(metrics.contains(&metric), "{metrics}");
    });
}

#[test]
fn what_ends_within_the_header_is_a_fault_and_what_ends_before_it_a_probe() {
    in_each(&ALL, |model| {
        let server = start(model, 1, &["--proxy-protocol"]);
        let cut = (&b"PROXY TC"[..], "WARN", "the connection ended within the PROXY header");
        let cases =
            [((&b""[..], "INFO", "end of file before the PROXY header"), false), (cut, false), (cut, true)];
        // Elsewhere than on Linux a reset may come before the server has read the piece.
        let cases = &cases[..if cfg!(target_os = "linux") { 3 } else { 2 }];
        for ((bytes, level, reason), is_reset) in cases.iter().copied() {
            let mut client = server.connect();
            let balancer = local(&client);
            client.write_all(bytes).unwrap();
            if is_reset {
                wait_until("the piece is taken", || has_taken_all(&client));
                reset(client);
            } else {
                client.shutdown(Shutdown::Write).unwrap();
                is_closed(model, client);
            }
            let line = server.wait_for_log(&[&format!("closed {balancer}: {reason}")]);
            assert!(line.contains(level), "{line}");
        }
        reset(server.connect());
        server.wait_for_status("all are closed", |look| {
            look["totals"]["connections"] == cases.len() + 1 && look["workers"][0]["clients"] == 0
        });
        assert_eq!(server.status()["totals"]["bad_headers"], cases.len() - 1);
    });
}

#[test]
fn the_idle_timeout_of_the_client_counts_from_the_end_of_the_header() {
    in_each(&ALL, |model| {
        let server = start(model, 1, &["--proxy-protocol", "--idle-timeout", "2s"]);
        for (what, header, _) in [headers().swap_remove(0), headers().swap_remove(5)] {
            let mut client = server.connect();
            let balancer = local(&client);
            let accepted = Instant::now();
            let (last, pieces) = header.split_last().unwrap();
            client.write_all(pieces).unwrap();
            wait_until("half of the time-out is over", || accepted.elapsed() > Duration::from_secs(1));
            client.write_all(&[*last]).unwrap();
            let begun = Instant::now();
            is_closed(what, client);
            assert!(begun.elapsed() > Duration::from_millis(1950), "{model}, {what}: {:?}", begun.elapsed());
            server.wait_for_log(&[&format!(" via {balancer}: idle for too long")]);
        }
        assert_eq!(server.status()["totals"]["bad_headers"], 0);
    });
}

#[test]
fn a_header_that_never_comes_whole_ends_with_the_idle_timeout() {
    in_each(&ALL, |model| {
        let server = start(model, 1, &["--proxy-protocol", "--idle-timeout", "400ms"]);
        for pieces in [&b""[..], b"PROXY TCP4 192.0.2.7 127.0.0.1 40312 7777"] {
            let mut client = server.connect();
            let balancer = local(&client);
            client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            let start = Instant::now();
            // A piece now and then, each within the time-out. They would last for 2 s.
            for piece in pieces.chunks(1) {
                let sent = client.write_all(piece);
                if sent.is_err() || !matches!(client.read(&mut [0]), Err(error) if is_timeout(&error)) {
                    break;
                }
            }
            client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            is_closed(model, client);
            assert!(start.elapsed() >= Duration::from_millis(350), "{model}: after {:?}", start.elapsed());
            assert!(start.elapsed() < Duration::from_millis(1500), "{model}: after {:?}", start.elapsed());
            server.wait_for_log(&[&format!("closed {balancer}: no PROXY header within --idle-timeout")]);
        }
        assert_eq!(server.status()["totals"]["bad_headers"], 2);
    });
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

#[test]
fn a_header_of_which_the_rest_comes_during_shutdown_is_taken_off() {
    in_each(&ALL, |model| {
        let short = headers().into_iter().filter(|(_, header, _)| header.len() < 300);
        for (what, header, _) in short.step_by(rounds(4, 1)) {
            // On a busy machine this process may be slow: then the worker has left the client.
            wait_until("the rest is sent in time", || rest_comes_during_shutdown(model, what, &header));
        }
    });
}

/// Returns false if the rest was sent later than a worker that leaves waits for it.
fn rest_comes_during_shutdown(model: &str, what: &str, header: &[u8]) -> bool {
    let mut server = start(model, 1, &["--proxy-protocol"]);
    let mut client = server.connect();
    let (one, other) = header.split_at(header.len() / 2);
    client.write_all(one).unwrap();
    wait_until("the piece is taken", || has_taken_all(&client));
    let told = Instant::now();
    server.signal(Signal::SIGTERM);
    server.wait_for_status("the worker leaves", |look| look["workers"][0]["state"] == "draining");
    client.write_all(&[other, b"rest"].concat()).unwrap();
    let in_time = told.elapsed() < Duration::from_millis(250);
    let answer = read_to_end(&mut client);
    assert!(!in_time || answer == b"rest", "{model}, {what}: {answer:?}");
    drop(client);
    assert_eq!(server.wait_code(), 0, "{model}, {what}");
    in_time
}

#[test]
fn status_says_through_which_balancer_a_client_comes_and_what_came_without_a_header() {
    let server = Server::start(&["--workers", "2", "--proxy-protocol"]);
    is_closed("no header", {
        let mut client = server.connect();
        client.write_all(b"hello").unwrap();
        client
    });
    let mut client = server.connect();
    client.write_all(&version_2(0x21, 0x11, &ADDRESSES)).unwrap();
    let line = format!("client {CLIENT} via {} (slot ", local(&client));
    let table = || status(&[&server.address.to_string()]).1;
    wait_until("the balancer is shown", || table().contains(&line));
    assert!(table().contains("\nwithout a PROXY header, and closed: 1 connection\n"), "{}", table());
    assert!(table().lines().all(|line| line.chars().count() <= 80), "{}", table());
}

#[test]
fn without_the_option_a_header_is_echoed_as_any_bytes_are() {
    let server = Server::start(&["--workers", "1"]);
    server.echo(&version_2(0x21, 0x11, &ADDRESSES));
    server.echo(b"PROXY TCP4 192.0.2.7 127.0.0.1 40312 7777\r\n");
    assert!(server.status()["workers"][0]["via"].is_null());
}

/// Headers with bytes changed, removed, added, or cut, and some bytes after them.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let header = (0..headers().len()).prop_map(|index| headers().swap_remove(index).1);
    let change = (any::<prop::sample::Index>(), any::<u8>(), 0..5);
    let changes = prop::collection::vec(change, 0..4);
    (header, changes, prop::collection::vec(any::<u8>(), 0..20)).prop_map(|(mut bytes, changes, rest)| {
        for (at, byte, kind) in changes {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes[at] ^= 1 << (byte % 8),
                2 => bytes.insert(at, byte),
                3 if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => bytes.truncate(at.max(1)),
            }
        }
        [bytes, rest].concat()
    })
}

/// How long the header is with which the bytes begin, by the parser alone; None: there is none.
fn header_length(bytes: &[u8]) -> Option<usize> {
    let mut bytes = bytes.to_vec();
    // What stands in a LOCAL header and in a line of UNKNOWN has no meaning (proxy-protocol.txt).
    if bytes.len() >= 16 && bytes.starts_with(v2::PROTOCOL_PREFIX) && bytes[12] == 0x20 {
        bytes[13] = 0;
    }
    let line = &bytes[..bytes.windows(2).position(|pair| pair == b"\r\n").map_or(0, |end| end + 2)];
    if line.starts_with(b"PROXY UNKNOWN ") {
        return Some(line.len()).filter(|length| *length <= 107);
    }
    match HeaderResult::parse(&bytes) {
        HeaderResult::V1(Ok(v1::Header { header, .. })) if !header.contains('+') => Some(header.len()),
        HeaderResult::V2(Ok(header)) => Some(header.len()).filter(|length| *length <= 4096),
        _ => None,
    }
}

#[test]
fn mutated_headers_are_taken_off_or_refused_and_never_echoed() {
    in_each(&ALL, |model| {
        let server = start(model, 2, &["-q", "--proxy-protocol"]);
        let cases = rounds(1_000, 20_000);
        let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
        let strategy = (mutated(), any::<prop::sample::Index>());
        let property = |(bytes, cut): (Vec<u8>, prop::sample::Index)| {
            let mut client = server.connect();
            client.set_nodelay(true).unwrap();
            let (one, other) = bytes.split_at(cut.index(bytes.len()));
            let sent = client.write_all(one).and_then(|()| client.write_all(other));
            let sent = sent.and_then(|()| client.shutdown(Shutdown::Write));
            let mut answer = Vec::new();
            // A reset says that the server has closed with bytes unread.
            let end = client.read_to_end(&mut answer).map_err(|error| error.kind());
            prop_assert!(!matches!(end, Err(std::io::ErrorKind::WouldBlock)), "it hangs");
            let wanted = header_length(&bytes).map_or(&[][..], |length| &bytes[length..]);
            prop_assert_eq!(&answer[..], wanted, "{:?} {:?}", sent, end);
            Ok(())
        };
        runner.run(&strategy, property).unwrap();
        assert_eq!(server.status()["totals"]["restarts"], 0);
    });
}
