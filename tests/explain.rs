//! `--explain` narrates what is really called, and `--explain=calls` what a class looks for.

use std::io::{Read, Write};

use crate::common::{Server, binary, command, echo, number_following, run, wait_until};

/// Finds each of the steps, in this order, in lines of `speaker`; other lines may
/// stand between them. Returns the lines found.
#[track_caller]
fn narrated<'a>(log: &'a [String], speaker: &str, steps: &[&str]) -> Vec<&'a str> {
    let mut lines = log.iter().filter(|line| line.contains(&format!("] {speaker}")));
    let find = |step: &&str| lines.find(|line| line.contains(*step)).map(String::as_str);
    let found: Vec<_> = steps.iter().map_while(find).collect();
    assert_eq!(found.len(), steps.len(), "{speaker}: {:?} is missing in {log:#?}", steps.get(found.len()));
    found
}

#[test]
fn explain_narrates_each_step_with_real_values() {
    let mut server = Server::start(&["--explain", "--workers", "1", "--backlog", "5"]);
    let (address, worker) = (server.address, server.workers()[0]);
    let mut client = server.connect();
    let theirs = client.local_addr().unwrap();
    client.write_all(b"hello").unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
    drop(client);
    server.wait_for_log(&["closed "]);
    let _leaving = server.connect();
    let asleep = |line: &&String| line.contains("asleep until the client sends");
    wait_until("it waits for the second client", || server.log().iter().filter(asleep).count() == 3);
    assert_eq!(server.stop(), 0);

    let log = server.log();
    let opening = narrated(
        &log,
        "parent ",
        &[
            "socket() = ",
            ", SO_REUSEADDR) = 0",
            ", SO_OOBINLINE) = 0",
            "bind(",
            ") = 0: the socket has its address",
            &format!(") = {address}: the address of the socket"),
            ", 5) = 0, after ",
            "sigaction(",
            "MAP_SHARED",
            &format!("fork() = {worker}: worker 0"),
            "poll(): asleep",
            &format!("poll(): woken by pid {worker}, which is ready"),
            "poll(): woken by SIGTERM",
            &format!("kill({worker}, SIGTERM): "),
            "poll(): woken by SIGCHLD",
            &format!("waitpid() = {worker}: "),
        ],
    );
    let fd = number_following(opening[0], "socket() = ");
    assert!(
        opening[3].contains(&format!("bind({fd}, 127.0.0.1:0): the kernel gets the address as the bytes "))
    );
    assert!(opening[3].contains(" 00 00 7f 00 00 01 ") && opening[3].contains("the port in it is 00 00,"));
    assert!(opening[6].contains(&format!("listen({fd}, 5)")), "{}", opening[6]);

    let service = narrated(
        &log,
        &format!("worker 0 (pid {worker}): "),
        &[
            "fork() = 0: ",
            "close_range(): ",
            "sigaction(SIGTERM)",
            &format!("accept({fd}): asleep"),
            &format!("on the same port, {address}, for the client at {theirs} alone; {fd} goes on listening"),
            "): asleep until the client sends",
            ") = 5: received 5 bytes",
            ") = 5: sent 5 bytes",
            "): asleep until the client sends",
            ") = 0: end of file",
            "close(",
            &format!("accept({fd}): asleep"),
            &format!("accept({fd}) = "),
            ") = -1: a signal asks this worker to leave",
            &format!("poll({fd}) = 0: no connection waits"),
            &format!("close({fd}): "),
            "poll(): 1 connection to finish, each when it has been quiet for 300.0ms",
            ", SHUT_WR) = 0: the client is quiet",
            "poll() = 0: the client hasn't closed within 300.0ms",
            "close(",
            "leaving after 2 connections",
            "_exit(0)",
        ],
    );
    let new = number_following(service[4], &format!("accept({fd}) = "));
    // The lowest that is free: below the other where the server was started with a file open.
    assert_ne!(new, fd, "{}", service[4]);
    for (step, call) in [(6, "recv"), (7, "send"), (9, "recv"), (10, "close"), (13, "recv"), (17, "shutdown")]
    {
        assert!(service[step].contains(&format!(": {call}({new}")), "{}", service[step]);
    }
}

#[test]
fn explain_narrates_calls_that_fail_and_that_wait() {
    let server = Server::start(&["--explain", "--workers", "1", "--idle-timeout", "1s"]);
    let mut second = binary();
    second.args(["--explain", "--bind", &server.address.to_string()]);
    let (_, stderr) = run(second);
    let wire = server.address.port().to_be_bytes().map(|byte| format!("{byte:02x}")).join(" ");
    assert!(stderr.contains(&format!(" {wire} 7f 00 00 01 ")), "{stderr}");
    assert!(stderr.contains(&format!("the port in it is {wire}, its high byte first")), "{stderr}");
    let refused = format!(", {}) = -1: address already in use", server.address);
    assert!(stderr.lines().any(|line| line.contains("bind(") && line.contains(&refused)), "{stderr}");

    let _client = server.connect_without_reading();
    server.wait_for_log(&["send(", " bytes find no room, and ", " asleep until the client reads"]);
    server.wait_for_log(&["closed ", "idle for too long"]);
}

/// The lines of one process, without its name.
fn lines_of<'a>(log: &'a [String], process: &str) -> Vec<&'a str> {
    log.iter().filter_map(|line| line.strip_prefix(process)?.strip_prefix(": ")).collect()
}

/// Each line begins as it should, and there are no others.
#[track_caller]
fn assert_calls(lines: &[&str], calls: &[String]) {
    assert_eq!(lines.len(), calls.len(), "{lines:#?}");
    for (line, call) in lines.iter().zip(calls) {
        assert!(line.starts_with(call), "no {call:?} in {line:?}");
    }
}

#[test]
fn explain_calls_shows_the_calls_of_the_documents_in_short_lines() {
    let mut server = Server::start(&["--explain=calls", "--workers", "1", "--model", "process"]);
    let (address, worker) = (server.address, server.workers()[0]);
    let mut client = server.connect();
    let theirs = client.local_addr().unwrap();
    echo(&mut client, b"hello");
    drop(client);
    let waits = |line: &String| line.ends_with("): waits for a client");
    wait_until("it waits for the next", || server.log().iter().filter(|line| waits(line)).count() == 2);
    let until_now = server.log();
    assert_eq!(server.stop(), 0);
    let log = server.log();
    for line in &log {
        assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
        assert!(line.starts_with("parent: ") || line.starts_with("worker 0: "), "{line}");
    }

    let parent = lines_of(&until_now, "parent");
    let listening = number_following(parent[0], "socket() = ");
    assert_calls(
        &parent,
        &[
            "socket() = ".into(),
            format!("bind({listening}, 127.0.0.1:0) = 0: "),
            format!("listen({listening}, 1024) = 0: "),
            format!("fork() = {worker}: worker 0"),
        ],
    );
    assert_ne!(address.port(), 0);
    let service = lines_of(&until_now, "worker 0");
    let new = number_following(service[1], &format!("accept({listening}) = "));
    assert_calls(
        &service,
        &[
            format!("accept({listening}): waits for a client"),
            format!("accept({listening}) = {new}: {theirs} accepted; {new} is its new socket"),
            format!("recv({new}) = 5: received 5 bytes"),
            format!("send({new}) = 5: sent 5 bytes"),
            format!("recv({new}) = 0: end of file"),
            format!("close({new}): "),
            format!("accept({listening}): waits for a client"),
        ],
    );
    // At the end both close the listening socket.
    for process in ["parent", "worker 0"] {
        let close = format!("close({listening}): ");
        assert!(lines_of(&log, process).iter().any(|line| line.starts_with(&close)), "{log:#?}");
    }
    let named = ["socket(", "bind(", "listen(", "fork(", "accept(", "recv(", "send(", "close("];
    for line in lines_of(&log, "parent").iter().chain(&lines_of(&log, "worker 0")) {
        assert!(named.iter().any(|call| line.starts_with(call)), "{line}");
    }
}

#[test]
fn explain_calls_of_a_client_shows_socket_connect_send_recv_close() {
    let server = Server::start(&["--workers", "1"]);
    let address = server.address.to_string();
    let (code, stdout, stderr) = command(&["client", &address, "hello", "--explain=calls"]);
    assert_eq!((code, stdout.as_str()), (0, "hello\n"));
    let log: Vec<String> = stderr.lines().map(str::to_owned).collect();
    assert!(log.iter().all(|line| line.chars().count() <= 80), "{stderr}");
    let lines = lines_of(&log, "client");
    assert_eq!(lines.len(), log.len(), "{stderr}");
    let fd = number_following(lines[0], "socket() = ");
    assert_calls(
        &lines,
        &[
            "socket() = ".into(),
            format!("connect({fd}, {address}) = 0: "),
            format!("send({fd}) = 6: sent 6 bytes"),
            format!("recv({fd}) = 6: received 6 bytes"),
            format!("recv({fd}) = 0: end of file"),
            format!("close({fd}): "),
        ],
    );
}

#[test]
fn explain_calls_shows_calls_that_fail_and_warnings_but_no_other_log() {
    let server = Server::start(&["--explain=calls", "--workers", "1"]);
    let address = server.address.to_string();
    let (code, _, stderr) = command(&["--explain=calls", "--bind", &address]);
    assert_eq!(code, 1);
    assert!(stderr.contains(&format!(", {address}) = -1: address already in use\n")), "{stderr}");
    // An address of no machine (RFC 3849), written in full: the end of the line is cut.
    let long = "[2001:db8:1111:2222:3333:4444:5555:6666]:65535";
    let (code, _, stderr) = command(&["--explain=calls", "--bind", long]);
    assert_eq!(code, 1);
    for line in stderr.lines().filter(|line| line.starts_with("parent: ")) {
        assert!(line.chars().count() <= 80, "{line}");
    }
    let worker = server.workers()[0];
    nix::sys::signal::kill(worker, nix::sys::signal::Signal::SIGKILL).unwrap();
    let death = server.wait_for_log(&["killed by SIGKILL"]);
    assert!(death.starts_with(&format!("parent {}: ", server.pid)), "{death}");
    wait_until("it is replaced", || lines_of(&server.log(), "parent").len() == 5);
    assert!(lines_of(&server.log(), "parent")[4].starts_with("fork() = "), "{:?}", server.log());
}

#[test]
fn the_variable_of_explain_takes_what_its_option_takes() {
    for (value, narrates, is_short) in [
        ("1", true, false),
        ("yes", true, false),
        ("all", true, false),
        ("calls", true, true),
        ("0", false, false),
        ("off", false, false),
        ("", false, false),
    ] {
        let mut command = binary();
        command.args(["--bind", "127.0.0.1:0", "--workers", "1"]).env("PREFORK_ECHO_EXPLAIN", value);
        let mut server = Server::spawn(command);
        assert_eq!(server.stop(), 0);
        let log = server.log();
        let has = |text: &str| log.iter().any(|line| line.contains(text));
        assert_eq!(
            (has("listen("), has("sigaction(")),
            (narrates, narrates && !is_short),
            "{value}: {log:#?}"
        );
    }
    let (code, _, stderr) = command(&["--explain=loud"]);
    assert!(code == 2 && stderr.contains("possible values: all, calls"), "{stderr}");
}
