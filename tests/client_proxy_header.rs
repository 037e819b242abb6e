//! `--proxy-header` of `client` and `bench`: each connection begins with the header that a
//! balancer would send, and goes on as it would without.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use crate::common::measure::{bench, errors};
use crate::common::servers::{FakeServer, echo_with, reset};
use crate::common::{Server, command};
use ppp::{v1, v2};
use serde_json::json;

const HOSTS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
const VERSIONS: [&str; 2] = ["v1", "v2"];

/// A connection as the server has it, and the header that came first.
struct Call {
    client: SocketAddr,
    server: SocketAddr,
    header: Vec<u8>,
}

/// A server that takes the header off each connection, and echoes what comes then.
struct Receiver {
    server: FakeServer,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Receiver {
    fn start(host: IpAddr) -> Receiver {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&calls);
        let server = FakeServer::start_at(host, move |mut stream| {
            let header = take_header(&mut stream);
            let (client, server) = (stream.peer_addr().unwrap(), stream.local_addr().unwrap());
            list.lock().unwrap().push(Call { client, server, header });
            echo_with(stream, |_| {});
        });
        Receiver { server, calls }
    }

    /// So many connections have come, each with the right header; nothing stays of them.
    #[track_caller]
    fn check(&self, version: &str, connections: usize) {
        let calls: Vec<Call> = self.calls.lock().unwrap().drain(..).collect();
        assert_eq!(calls.len(), connections);
        for Call { client, server, header } in calls {
            assert_eq!(header, expected(version, client, server), "{version} {client} {server}");
            // An independent parser reads the same addresses.
            match version {
                "v1" => {
                    let parsed = v1::Header::try_from(header.as_slice()).unwrap();
                    assert_eq!(parsed.addresses, (client, server).into());
                }
                _ => {
                    let parsed = v2::Header::try_from(header.as_slice()).unwrap();
                    assert_eq!((parsed.command, parsed.protocol), (v2::Command::Proxy, v2::Protocol::Stream));
                    assert_eq!(parsed.addresses, (client, server).into());
                }
            }
        }
    }
}

/// Receives a header of either version, and nothing after it. What is no header is returned as
/// far as it was received.
fn take_header(stream: &mut TcpStream) -> Vec<u8> {
    let mut header = vec![0; 16];
    if stream.read_exact(&mut header).is_err() {
        return header;
    }
    if header.starts_with(b"PROXY ") {
        let mut byte = [0];
        while !header.ends_with(b"\r\n") && header.len() < 107 && stream.read_exact(&mut byte).is_ok() {
            header.extend(byte);
        }
    } else if header.starts_with(v2::PROTOCOL_PREFIX) {
        let mut addresses = vec![0; u16::from_be_bytes([header[14], header[15]]).into()];
        let _ = stream.read_exact(&mut addresses);
        header.extend(addresses);
    }
    header
}

/// The header as the specification has it (proxy-protocol.txt, 2.1 and 2.2).
fn expected(version: &str, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let (from, to, ports) = (source.ip(), destination.ip(), [source.port(), destination.port()]);
    if version == "v1" {
        let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
        return format!("PROXY {family} {from} {to} {} {}\r\n", ports[0], ports[1]).into_bytes();
    }
    let octets = |address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let (family, length) = if source.is_ipv4() { (0x11, 12) } else { (0x21, 36) };
    let ports = ports.map(u16::to_be_bytes).concat();
    let fixed = [0x21, family, 0, length];
    [b"\r\n\r\n\0\r\nQUIT\n", fixed.as_slice(), &octets(from), &octets(to), &ports].concat()
}

#[test]
fn the_connection_of_client_begins_with_the_header() {
    let long = "x".repeat(120_000);
    for host in HOSTS {
        let receiver = Receiver::start(host);
        let address = receiver.server.address.to_string();
        for version in VERSIONS {
            for message in ["hello", &long] {
                let done = command(&["client", &address, "--proxy-header", version, message, "two"]);
                assert_eq!(done, (0, format!("{message}\ntwo\n"), String::new()), "{version}");
                receiver.check(version, 1);
            }
        }
    }
}

#[test]
fn a_client_without_a_message_sends_the_header_all_the_same() {
    let receiver = Receiver::start(HOSTS[0]);
    let address = receiver.server.address.to_string();
    assert_eq!(command(&["client", &address, "--proxy-header", "v2"]), (0, String::new(), String::new()));
    receiver.check("v2", 1);
}

/// Up to eight connections block in a thread each, and more of them share threads.
#[test]
fn each_connection_of_bench_begins_with_the_header() {
    for host in HOSTS {
        let receiver = Receiver::start(host);
        for version in VERSIONS {
            for number in [4, 40] {
                for (mode, size, connections) in [
                    ("keep", "64", number),
                    ("keep", "30000", number),
                    ("connect", "64", 120),
                    ("stream", "64", number),
                ] {
                    let connected = number.to_string();
                    let options = ["--proxy-header", version, "-c", &connected, "-n", "120"];
                    let (code, done, stderr) =
                        bench(receiver.server.address, &[&options[..], &["-m", mode, "-s", size]].concat());
                    assert_eq!((code, stderr.as_str()), (0, ""), "{version} {number} {mode} {size}");
                    assert_eq!((&done["messages"], &done["errors"]), (&json!(120), &errors(0, 0, 0, 0, 0)));
                    receiver.check(version, connections);
                }
            }
        }
    }
}

#[test]
fn the_header_is_narrated_and_counts_as_no_byte() {
    let receiver = Receiver::start(HOSTS[0]);
    let address = receiver.server.address.to_string();
    for (version, length) in [("v1", None), ("v2", Some(28))] {
        let (code, _, stderr) =
            command(&["client", &address, "hello", "--explain", "--proxy-header", version]);
        assert_eq!(code, 0);
        let length = length.unwrap_or_else(|| receiver.calls.lock().unwrap()[0].header.len());
        let sends: Vec<_> = stderr.lines().filter(|line| line.contains(" send(3)")).collect();
        let header = format!(
            "send(3) = {length}: sent {length} bytes, the PROXY header ({version}): it tells the server which client \
             connects to which address"
        );
        assert!(sends.len() == 2 && sends[0].ends_with(&header), "{stderr}");
        assert!(sends[1].contains("send(3) = 6: sent 6 bytes"), "{stderr}");
        receiver.check(version, 1);
    }
    let (_, _, stderr) = command(&["client", &address, "hello", "--explain=calls", "--proxy-header", "v2"]);
    assert!(
        stderr.lines().any(|line| line.ends_with("send(3) = 28: sent 28 bytes, the PROXY header")),
        "{stderr}"
    );
    assert!(stderr.lines().all(|line| line.chars().count() <= 80), "{stderr}");

    // A server that never answers owes the first byte of the message.
    let silent = FakeServer::start(|stream| echo_with(stream, |piece| piece.clear()));
    let arguments = ["client", &silent.address.to_string(), "hello", "--proxy-header", "v1", "-t", "300ms"];
    let (code, _, stderr) = command(&arguments);
    assert!(code == 1 && stderr.contains("byte 1 of 6 sent has not come back"), "{stderr}");
}

#[test]
fn a_reset_before_or_after_the_header_is_reported() {
    let server = FakeServer::start(reset);
    let address = server.address.to_string();
    for version in VERSIONS {
        let (code, stdout, stderr) = command(&["client", &address, "hello", "--proxy-header", version]);
        assert_eq!((code, stdout.as_str()), (1, ""));
        assert!(stderr.starts_with("prefork-echo: the connection was reset, and "), "{stderr}");
        for connections in ["1", "20"] {
            let (code, done, _) =
                bench(&address, &["-m", "connect", "-n", "40", "-c", connections, "--proxy-header", version]);
            assert_eq!((code, &done["errors"]), (1, &errors(0, 0, 0, 40, 0)), "{version} {connections}");
        }
    }
}

#[test]
fn a_server_without_proxy_protocol_is_named_as_what_may_be_wrong() {
    let server = Server::start(&["--workers", "1"]);
    let address = server.address.to_string();
    // What comes back of a binary header may be no text, and is printed.
    let (code, _, stderr) = command(&["client", &address, "hello", "--proxy-header", "v1"]);
    assert_eq!(code, 1);
    assert!(stderr.ends_with("; was the server started with --proxy-protocol?\n"), "{stderr}");
}

#[test]
fn a_version_that_does_not_exist_is_refused() {
    for program in ["client", "bench"] {
        for version in ["v3", "1", "V1", ""] {
            let (code, _, stderr) = command(&[program, "7777", "--proxy-header", version]);
            assert_eq!(code, 2, "{program} {version}");
            assert!(stderr.contains("[possible values: v1, v2]"), "{stderr}");
        }
    }
}
