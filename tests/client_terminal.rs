//! `client` with a person at a terminal: it waits as long as it takes, and says what for.

use std::fmt::Display;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener};

use crate::common::servers::FakeServer;
use crate::common::terminal::Terminal;
use crate::common::{Server, wait_until};

/// A part of the line that fits into 80 columns.
const WAITS: &str = "connected; no worker has accepted this connection yet: it waits in";

/// Runs `client` in a terminal.
fn client(arguments: impl Display) -> Terminal {
    let binary = env!("CARGO_BIN_EXE_prefork-echo");
    Terminal::run(&format!("LC_ALL=C '{binary}' client {arguments}; echo left with $?"))
}

/// A listening socket that no process accepts from.
fn no_server() -> (TcpListener, String) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

#[test]
fn in_a_terminal_lines_are_typed() {
    let server = Server::start(&[]);
    let terminal = client(server.address);
    terminal.wait_for("type lines, and Ctrl-D at the end");
    terminal.press("one\n");
    terminal.wait_for("one\none");
    terminal.press("two\n");
    terminal.wait_for("two\ntwo");
    terminal.press("\x04");
    terminal.wait_for("left with 0");
    assert!(!terminal.screen().contains("accepted"), "{}", terminal.screen());
}

#[test]
fn a_person_learns_that_the_connection_waits_and_is_served_then() {
    let cases = [
        (&["--workers", "1"][..], 1),
        (&["--workers", "1", "--model", "thread", "--clients", "2"], 2),
        (&["--workers", "1", "--model", "multiplex", "--clients", "2"], 2),
    ];
    // Of a worker with several clients only Linux tells which they are.
    for (options, clients) in if cfg!(target_os = "linux") { &cases[..] } else { &cases[..1] } {
        let server = Server::start(options);
        let served = server.connect_served(*clients);
        let terminal = client(server.address);
        // Before anything is typed.
        terminal.wait_for(WAITS);
        terminal.press("hello\n");
        drop(served);
        terminal.wait_for("a worker has accepted this connection");
        wait_until("the line comes back", || terminal.screen().matches("hello").count() == 2);
        terminal.press("\x04");
        terminal.wait_for("left with 0");
        assert_eq!(terminal.screen().matches(WAITS).count(), 1, "{}", terminal.screen());
    }
}

#[test]
#[cfg(target_os = "linux")]
fn without_the_list_of_sockets_the_scoreboard_or_a_second_tells() {
    // Only some users may hide /proc, which has the list, from one process.
    let hidden = "mount -t tmpfs none /proc";
    let may = std::process::Command::new("unshare").args(["-m", "sh", "-c", hidden]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        return;
    }
    let binary = env!("CARGO_BIN_EXE_prefork-echo");
    let client = |address: &dyn Display| {
        let script = format!("{hidden} && LC_ALL=C exec \"$0\" client {address}");
        Terminal::run(&format!("unshare -m sh -c '{script}' '{binary}'; echo left with $?"))
    };
    let server = Server::start(&["--workers", "1", "--model", "process"]);
    let served = server.connect_served(1);
    let terminal = client(&server.address);
    terminal.wait_for(WAITS);
    drop(served);
    terminal.wait_for("a worker has accepted this connection");

    let (_listener, address) = no_server();
    let terminal = client(&address);
    terminal.wait_for("type lines");
    terminal.press("hello\n");
    terminal.wait_for("no answer for a second: perhaps no worker has accepted");
}

#[test]
fn where_lines_are_typed_there_is_no_time_out_unless_asked_for() {
    let (_listener, address) = no_server();
    let terminal = client(format_args!("{address} --explain"));
    terminal.wait_for("type lines");
    assert!(!terminal.screen().contains("SO_RCVTIMEO"), "{}", terminal.screen());

    let terminal = client(format_args!("{address} --timeout 300ms"));
    terminal.wait_for("type lines");
    terminal.press("hello\n");
    terminal.wait_for("no answer within 300ms (--timeout)");
    terminal.wait_for("left with 1");
}

#[test]
fn at_a_terminal_each_call_blocks_and_none_selects() {
    let server = Server::start(&[]);
    let terminal = client(format_args!("{} --explain 2>&1 | cut -c 1-80", server.address));
    terminal.wait_for("type lines");
    terminal.press("hello\n");
    terminal.press("\x04");
    terminal.wait_for("left with 0");
    let screen = terminal.screen();
    for call in ["read(0): asleep", "send(3) = 6: sent 6 bytes", "recv(3): asleep until the message"] {
        assert!(screen.contains(call), "no {call} in {screen}");
    }
    assert!(!screen.contains("select(") && !screen.contains("O_NONBLOCK"), "{screen}");
}

#[test]
fn an_end_of_file_from_the_server_is_told_at_the_next_line() {
    let server = FakeServer::start(|mut client| {
        let mut line = [0; 4];
        client.read_exact(&mut line).unwrap();
        client.write_all(&line).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        // Closing with bytes unread would be a reset.
        let _ = client.read_to_end(&mut Vec::new());
    });
    let terminal = client(server.address);
    terminal.wait_for("type lines");
    terminal.press("one\n");
    terminal.wait_for("one\none");
    terminal.press("two\n");
    terminal.wait_for("the server closed the connection, and byte 5 of");
    terminal.wait_for("left with 1");
}
