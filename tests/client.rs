//! `client` prints what comes back, and says which byte didn't.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::servers::{
    FakeServer, closed_port, echo_with, read_and_ignore, reset, start_never_closing,
};
use crate::common::{KillOnDrop, Server, binary, command, noise, number_following, wait_until};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use prefork_echo::client::{Kind, Stream};

/// Runs `client` with these messages against a server that listens there.
#[track_caller]
fn client(address: impl ToString, messages: &[&str]) -> (i32, String, String) {
    command(&[&["client", &address.to_string(), "--timeout", "20s"], messages].concat())
}

/// For a server that leaves something out.
fn client_that_times_out(address: impl ToString, messages: &[&str]) -> (i32, String, String) {
    command(&[&["client", &address.to_string(), "--timeout", "300ms"], messages].concat())
}

/// To a line of six bytes.
const NO_ANSWER_AT_ALL: &str = "no answer within 300ms (--timeout), and byte 1 of 6 sent has not come back; are \
    all workers busy? the kernel connects, but one of them has to accept";

/// The one line on stderr, without the program's name.
#[track_caller]
fn line(stderr: &str) -> &str {
    assert_eq!(stderr.lines().count(), 1, "{stderr:?}");
    stderr.trim_end().strip_prefix("prefork-echo: ").unwrap_or_else(|| panic!("{stderr:?}"))
}

/// Starts `client` with pipes.
fn piped(address: impl ToString) -> Child {
    let mut command = binary();
    command.args(["client", &address.to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

#[test]
fn each_message_is_a_line_that_comes_back() {
    let server = Server::start(&["--workers", "1"]);
    let done = client(server.address, &["hello", "", "two words", "--", "-x"]);
    assert_eq!(done, (0, "hello\n\ntwo words\n-x\n".into(), String::new()));
    // A client that half-closes and waits for the end has closed first.
    server.wait_for_log(&["closed", "end of file", "20 bytes"]);

    let strange = OsString::from_vec(vec![0xff, b'x']);
    let mut command = binary();
    let output = command.args(["client", &server.address.to_string()]).arg(strange).output().unwrap();
    assert_eq!(output.stdout, b"\xffx\n");
}

#[test]
fn a_message_of_any_size_comes_back() {
    let server = Server::start(&[]);
    let long = "x".repeat(120_000);
    assert_eq!(client(server.address, &[&long, &long]), (0, format!("{long}\n{long}\n"), String::new()));
}

#[test]
fn a_message_that_is_sent_by_a_blocking_call_fits_into_the_send_buffer() {
    // No process receives, and send returns.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let longest = "x".repeat(16 * 1024 - 1);
    for (message, is_blocking) in [(longest.clone(), true), (longest + "x", false)] {
        let (code, _, stderr) = client_that_times_out(address, &[&message, "--explain"]);
        assert_eq!(code, 1);
        assert_eq!(!stderr.contains("select(") && !stderr.contains("O_NONBLOCK"), is_blocking, "{stderr}");
        let all = message.len() + 1;
        assert!(stderr.contains(&format!("and byte 1 of {all} sent has not come back")), "{stderr}");
    }
}

#[test]
fn stdin_of_any_length_comes_back() {
    let server = Server::start(&[]);
    let sent = noise(30_000_000);
    let mut client = piped(server.address);
    let (mut input, copy) = (client.stdin.take().unwrap(), sent.clone());
    let writer = thread::spawn(move || input.write_all(&copy));
    let output = client.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()));
    assert!(output.stdout == sent, "what is printed differs from what was sent");
}

#[test]
fn without_input_the_client_connects_and_closes() {
    let server = Server::start(&[]);
    assert_eq!(client(server.address, &[]), (0, String::new(), String::new()));
    server.wait_for_log(&["closed", "0 bytes"]);
}

#[test]
fn a_reader_slower_than_the_timeout_gets_everything() {
    let server = Server::start(&[]);
    let sent = noise(3_000_000);
    let mut command = binary();
    command.args(["client", &server.address.to_string(), "--timeout", "200ms"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut client = KillOnDrop(command.spawn().unwrap());
    let (mut input, copy) = (client.0.stdin.take().unwrap(), sent.clone());
    let writer = thread::spawn(move || input.write_all(&copy));
    // For longer than its patience the client can't get rid of what has come back.
    thread::sleep(Duration::from_millis(600));
    let mut got = Vec::new();
    client.0.stdout.take().unwrap().read_to_end(&mut got).unwrap();
    writer.join().unwrap().unwrap();
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
    assert_eq!(client.0.wait().unwrap().code(), Some(0));
}

#[test]
fn a_nonblocking_pipe_gets_everything() {
    let server = Server::start(&[]);
    let (mut reader, writer) = std::io::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let sent = noise(1_000_000);
    let mut command = binary();
    command.args(["client", &server.address.to_string()]).stdin(Stdio::piped()).stdout(writer);
    let mut client = KillOnDrop(command.spawn().unwrap());
    drop(command); // It holds the pipe's other end.
    let (mut input, copy) = (client.0.stdin.take().unwrap(), sent.clone());
    let feeder = thread::spawn(move || input.write_all(&copy));
    // There is no room for all of it, until it is read.
    thread::sleep(Duration::from_millis(300));
    let mut got = Vec::new();
    reader.read_to_end(&mut got).unwrap();
    feeder.join().unwrap().unwrap();
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
    assert_eq!(client.0.wait().unwrap().code(), Some(0));
}

#[test]
fn slow_typing_does_not_time_out() {
    let server = FakeServer::start(|client| echo_with(client, |_| thread::sleep(Duration::from_millis(50))));
    let mut command = binary();
    command.args(["client", &server.address.to_string(), "--timeout", "300ms"]);
    let mut client = KillOnDrop(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let (mut input, mut output) = (client.0.stdin.take().unwrap(), client.0.stdout.take().unwrap());
    for line in [b"one\n", b"two\n"] {
        input.write_all(line).unwrap();
        let mut back = [0; 4];
        output.read_exact(&mut back).unwrap();
        assert_eq!(&back, line);
        // Nothing is due meanwhile.
        thread::sleep(Duration::from_millis(500));
    }
    drop(input);
    assert_eq!(client.0.wait().unwrap().code(), Some(0));
}

#[test]
fn a_closed_stdout_ends_the_client_like_any_filter() {
    let server = Server::start(&[]);
    let mut client = piped(server.address);
    let mut input = client.stdin.take().unwrap();
    input.write_all(b"hello\n").unwrap();
    let mut output = client.stdout.take().unwrap();
    output.read_exact(&mut [0; 6]).unwrap();
    drop(output);
    // Again and again: a process that another test is about to start may still have the pipe.
    wait_until("the client ends", || {
        let _ = input.write_all(b"more\n");
        client.try_wait().unwrap().is_some()
    });
    let output = client.wait_with_output().unwrap();
    assert_eq!(output.status.signal(), Some(nix::libc::SIGPIPE));
    assert_eq!(output.stderr, b"");
}

#[test]
fn the_narration_tells_what_happened() {
    let server = Server::start(&["--workers", "1"]);
    let (code, stdout, stderr) = client(server.address, &["hello", "--explain"]);
    assert_eq!((code, stdout.as_str()), (0, "hello\n"));
    let steps = [
        "socket() = 3",
        "setsockopt(3, SO_RCVTIMEO, SO_SNDTIMEO) = 0",
        "setsockopt(3, TCP_NODELAY) = 0",
        &format!("connect(3, {}): asleep", server.address),
        &format!("connect(3, {}) = 0", server.address),
        "getsockname(3) = 127.0.0.1:",
        "send(3) = 6: sent 6 bytes",
        "recv(3): asleep until the message comes back",
        "recv(3) = 6: received 6 bytes",
        "shutdown(3, SHUT_WR) = 0",
        "recv(3): asleep until the server closes its side",
        "recv(3) = 0: end of file",
        "close(3)",
    ];
    let lines: Vec<_> = stderr.lines().collect();
    assert_eq!(lines.len(), steps.len(), "{stderr}");
    for (line, step) in lines.iter().zip(steps) {
        assert!(line.contains(": ") && line.contains(step), "no {step:?} in {line:?}");
    }
    // The port is the one that the server sees.
    let port = number_following(lines[5], "= 127.0.0.1:");
    server.wait_for_log(&["accepted", &format!("127.0.0.1:{port} ")]);
}

#[test]
fn a_port_without_a_listener_is_reported() {
    let (_held, address) = closed_port();
    let (code, stdout, stderr) = client(address, &["hello"]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(line(&stderr).starts_with(&format!("cannot connect to {address}: connection refused;")));
}

#[test]
fn all_addresses_of_a_name_are_tried() {
    let server = Server::start(&[]);
    let (_held, closed) = closed_port();
    let stream = Stream::open(&[closed, server.address], None, None).unwrap();
    assert_eq!(stream.peer, server.address);
    let done = client(format_args!("localhost:{}", server.address.port()), &["hello"]);
    assert_eq!(done, (0, "hello\n".into(), String::new()));
    let (code, _, stderr) = client("no-such-host.invalid:7777", &["hello"]);
    assert_eq!(code, 1);
    assert!(line(&stderr).starts_with("cannot find the host no-such-host.invalid: "), "{stderr}");
}

#[test]
fn an_early_close_is_reported() {
    let server = FakeServer::start(|mut client| {
        read_and_ignore(&mut client, 6);
        client.write_all(b"hel").unwrap();
    });
    let (code, stdout, stderr) = client(server.address, &["hello", "never sent"]);
    assert_eq!((code, stdout.as_str()), (1, "hel"));
    assert_eq!(line(&stderr), "the server closed the connection, and byte 4 of 6 sent has not come back");
}

#[test]
fn a_close_before_the_end_of_input_is_reported() {
    let server = FakeServer::start(|mut client| {
        read_and_ignore(&mut client, 6);
        client.write_all(b"hello\n").unwrap();
    });
    let mut client = piped(server.address);
    // stdin stays open: more could come.
    let mut input = client.stdin.take().unwrap();
    input.write_all(b"hello\n").unwrap();
    wait_until("the client ends", || client.try_wait().unwrap().is_some());
    let output = client.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(line(&stderr), "the server closed the connection, and all 6 bytes had come back");
}

#[test]
fn a_reset_is_reported() {
    let server = FakeServer::start(|mut client| {
        read_and_ignore(&mut client, 6);
        reset(client);
    });
    let (code, _, stderr) = client(server.address, &["hello"]);
    assert_eq!(code, 1);
    assert_eq!(line(&stderr), "the connection was reset, and byte 1 of 6 sent has not come back");
}

#[test]
fn wrong_bytes_are_reported() {
    let server = FakeServer::start(|client| echo_with(client, |piece| piece[8] = b'J'));
    let (code, stdout, stderr) = client(server.address, &["good morning"]);
    assert_eq!((code, stdout.as_str()), (1, "good morJing\n"));
    assert_eq!(line(&stderr), "the answer is wrong at byte 9: 'n' (0x6e) was sent, and 'J' (0x4a) came back");
    // Counted over all messages.
    let server = FakeServer::start(|client| {
        let mut pieces = 0;
        echo_with(client, move |piece| {
            pieces += 1;
            piece[0] = if pieces == 3 { 0 } else { piece[0] };
        });
    });
    let (_, _, stderr) = client(server.address, &["hello", "hello", "hello"]);
    assert_eq!(line(&stderr), "the answer is wrong at byte 13: 'h' (0x68) was sent, and 0x00 came back");
}

#[test]
fn missing_bytes_are_reported() {
    let fewer = FakeServer::start(|client| echo_with(client, |piece| piece.truncate(piece.len() - 1)));
    let (code, stdout, stderr) = client_that_times_out(fewer.address, &["hello"]);
    assert_eq!((code, stdout.as_str()), (1, "hello"));
    assert_eq!(line(&stderr), "no answer within 300ms (--timeout), and byte 6 of 6 sent has not come back");

    let none = FakeServer::start(|client| echo_with(client, |piece| piece.clear()));
    let (code, _, stderr) = client_that_times_out(none.address, &["hello"]);
    assert_eq!(code, 1);
    assert_eq!(line(&stderr), NO_ANSWER_AT_ALL);
}

#[test]
fn surplus_bytes_are_reported() {
    // At once, or when it seems to be over.
    let at_once = FakeServer::start(|client| echo_with(client, |piece| piece.push(b'!')));
    let late = FakeServer::start(|client| {
        let mut ours = client.try_clone().unwrap();
        echo_with(client, |_| {});
        ours.write_all(b"!").unwrap();
    });
    for server in [at_once, late] {
        let (code, stdout, stderr) = client(server.address, &["hello"]);
        assert_eq!((code, stdout.as_str()), (1, "hello\n!"));
        assert_eq!(line(&stderr), "more came back than the 6 bytes sent");
    }
}

#[test]
#[cfg(target_os = "linux")] // What the kernel keeps after a reset is its own affair.
fn a_reset_after_the_answer_is_reported() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    // The client hears of it when it sends, with the answers not yet received.
    let server =
        FakeServer::start(|client| crate::common::servers::of_linux::echo_and_leave(client, 300_000));
    let mut client = piped(server.address);
    let mut input = client.stdin.take().unwrap();
    let writer = thread::spawn(move || input.write_all(&noise(3_000_000)));
    let output = client.wait_with_output().unwrap();
    let _ = writer.join().unwrap(); // It may have no reader any more.
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 300_000));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(line(&stderr).starts_with("the connection was reset, and byte 300001 of"), "{stderr}");

    // Nor are those forgotten that it has not received when it hears of the reset: it
    // is held up by its own reader.
    let has_left = Arc::new(AtomicBool::new(false));
    let leaving = Arc::clone(&has_left);
    let server = FakeServer::start(move |client| {
        crate::common::servers::of_linux::echo_and_leave(client, 150_000);
        leaving.store(true, Ordering::Relaxed);
    });
    let mut client = piped(server.address);
    let mut input = client.stdin.take().unwrap();
    let writer = thread::spawn(move || input.write_all(&noise(3_000_000)));
    wait_until("the server has left", || has_left.load(Ordering::Relaxed));
    let output = client.wait_with_output().unwrap();
    let _ = writer.join().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 150_000));

    // At the end it does no harm.
    let server = FakeServer::start(|client| {
        let ours = client.try_clone().unwrap();
        echo_with(client, |_| {});
        reset(ours);
    });
    let (code, stdout, stderr) = self::client(server.address, &["hello"]);
    assert_eq!((code, stdout.as_str()), (0, "hello\n"));
    assert_eq!(line(&stderr), "the connection was reset, and all 6 bytes had come back");
}

#[test]
fn a_server_that_never_accepts_times_out() {
    // The kernel connects, and no answer comes. When the queue is full, it doesn't
    // connect either.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (code, _, stderr) = client_that_times_out(address, &["hello"]);
    assert_eq!(code, 1);
    assert_eq!(line(&stderr), NO_ANSWER_AT_ALL);
}

#[test]
#[cfg(target_os = "linux")] // Elsewhere a client that finds no room is refused.
fn a_full_accept_queue_times_out() {
    let server = crate::common::servers::of_linux::FullQueue::start();
    let address = server.address;
    let (code, _, stderr) = client_that_times_out(address, &["hello"]);
    assert_eq!(code, 1);
    let wanted = format!("cannot connect to {address}: no answer within 300ms; is its accept queue full");
    assert!(line(&stderr).starts_with(&wanted), "{stderr}");
}

#[test]
fn a_server_that_only_reads_times_out() {
    let server = FakeServer::start(|client| echo_with(client, |piece| piece.clear()));
    // In two seconds far more is sent than there is memory for; where a limit on that
    // can be set.
    let script = "ulimit -v 400000 2>/dev/null; exec \"$0\" client \"$1\" --timeout 2s";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_prefork-echo"), &server.address.to_string()]);
    let mut yes = KillOnDrop(Command::new("yes").stdout(Stdio::piped()).spawn().unwrap());
    let start = Instant::now();
    let output = command.stdin(yes.0.stdout.take().unwrap()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(line(&String::from_utf8(output.stderr).unwrap()).contains("byte 1 of"));
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[test]
fn a_server_that_does_not_close_has_still_answered() {
    let server = start_never_closing();
    let (code, stdout, stderr) = client_that_times_out(server.address, &["hello"]);
    assert_eq!((code, stdout.as_str()), (0, "hello\n"));
    assert_eq!(line(&stderr), "all 6 bytes came back, but the server doesn't close its side");
}

#[test]
fn a_slow_server_does_not_time_out() {
    // Each byte comes within the time-out, all of them don't.
    let server = FakeServer::start(|mut client| {
        let mut message = [0; 6];
        client.read_exact(&mut message).unwrap();
        for byte in message {
            thread::sleep(Duration::from_millis(300));
            client.write_all(&[byte]).unwrap();
        }
    });
    let done = command(&["client", &server.address.to_string(), "--timeout", "1500ms", "hello"]);
    assert_eq!(done, (0, "hello\n".into(), String::new()));
}

#[test]
fn a_stopped_client_goes_on_when_continued() {
    // In whichever call a client sleeps, the kernel may end it then.
    let server = FakeServer::start(|client| echo_with(client, |_| thread::sleep(Duration::from_millis(400))));
    let address = server.address.to_string();
    for arguments in [
        &["client", &address, "hello"] as &[&str],
        &["bench", &address, "-c", "1", "-n", "2"],
        &["bench", &address, "-c", "1", "-n", "2", "--size", "20000"],
    ] {
        let (mut command, before) = (binary(), server.clients());
        command.args(arguments).args(["--timeout", "600ms"]).stdin(Stdio::null()).stdout(Stdio::null());
        let mut client = KillOnDrop(command.spawn().unwrap());
        let pid = Pid::from_raw(client.0.id() as i32);
        wait_until("it has connected", || server.clients() > before);
        // The answer comes while it is stopped; which is for longer than it is patient.
        thread::sleep(Duration::from_millis(100));
        kill(pid, Signal::SIGSTOP).unwrap();
        thread::sleep(Duration::from_millis(700));
        kill(pid, Signal::SIGCONT).unwrap();
        assert_eq!(client.0.wait().unwrap().code(), Some(0), "{arguments:?}");
    }
}

#[test]
#[cfg(target_os = "linux")] // Elsewhere a client that finds no room is refused.
fn a_client_stopped_while_connecting_goes_on() {
    let server = crate::common::servers::of_linux::FullQueue::start();
    let mut command = binary();
    command.args(["client", &server.address.to_string(), "--timeout", "10s", "hello"]);
    let mut client = KillOnDrop(command.stdout(Stdio::piped()).spawn().unwrap());
    let pid = Pid::from_raw(client.0.id() as i32);
    server.wait_for_client();
    for (signal, is_stopped) in [(Signal::SIGSTOP, true), (Signal::SIGCONT, false)] {
        kill(pid, signal).unwrap();
        let state =
            || crate::common::processes().into_iter().find(|process| process.pid == pid).unwrap().state;
        wait_until("it has taken the signal", || (state() == 'T') == is_stopped);
    }
    let echo = server.serve();
    assert_eq!(client.0.wait().unwrap().code(), Some(0));
    echo.join().unwrap();
}

#[test]
fn a_connection_to_itself_is_refused() {
    // Without a listener, sooner or later the kernel chooses as our port the one
    // that we call; and TCP has such a connection succeed. Linux takes every second
    // port for bind and the others for connect, so no other test listens at this one.
    let (_held, beside) = closed_port();
    let address = (Ipv4Addr::LOCALHOST, beside.port() ^ 1).into();
    for _ in 0..30_000 {
        match Stream::open(&[address], Some(Duration::from_secs(5)), None) {
            Err(error) => assert_eq!(error.kind, Kind::Refused, "{error}"),
            Ok(stream) => panic!("{stream:?}"),
        }
    }
}

#[test]
fn wrong_usage_is_explained() {
    for (arguments, wanted) in [
        (["client", "hello"], "the server comes first"),
        (["client", "0"], "no server listens on port 0"),
        (["client", "--timeout=soon"], "not a duration"),
    ] {
        let (code, _, stderr) = command(&arguments);
        assert_eq!(code, 2);
        assert!(stderr.contains(wanted), "{stderr}");
    }
}
