//! `bench` says what goes wrong, and counts it; whatever the server does, it ends.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::measure::{bench, bench_with_short_timeout, errors, number, sum};
use crate::common::servers::{
    FakeServer, closed_port, echo_bytes, echo_with, read_and_ignore, reset, start_correct,
    start_never_closing,
};
use crate::common::{KillOnDrop, Server, binary, command, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

#[test]
fn a_port_without_a_listener_is_reported() {
    let (_held, address) = closed_port();
    for mode in ["keep", "connect", "stream"] {
        let start = Instant::now();
        let (code, done, stderr) = bench(address, &["-c", "3", "--mode", mode]);
        assert_eq!((code, &done["errors"]), (1, &errors(0, 0, 3, 0, 0)), "{mode}");
        assert_eq!((&done["messages"], &done["latency_us"]["p50"]), (&json!(0), &Value::Null));
        let wanted =
            format!("prefork-echo: cannot connect to {address}: connection refused; nothing listens there");
        assert!(stderr.starts_with(&wanted) && stderr.lines().count() == 1, "{stderr}");
        assert!(stderr.contains("(the first of 3 messages that failed so)"), "{stderr}");
        assert!(start.elapsed() < Duration::from_secs(2), "there was nothing to wait for");
    }
    let (code, stdout, stderr) = command(&["bench", &address.to_string(), "-c", "1"]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.starts_with("prefork-echo: cannot connect to "), "{stderr}");
}

/// Each of six messages fails in the same way, in both modes with one on the way.
#[track_caller]
fn each_fails(server: &FakeServer, expected: Value, line: &str) {
    for mode in ["keep", "connect"] {
        let (code, done, stderr) = bench(server.address, &["-c", "2", "-n", "6", "--mode", mode]);
        assert_eq!((code, &done["errors"], &done["messages"]), (1, &expected, &json!(0)), "{mode}: {stderr}");
        let line = format!("prefork-echo: {line} (the first of 6 messages that failed so)\n");
        assert_eq!(stderr, line);
    }
}

#[test]
fn an_early_close_is_reported() {
    let server = FakeServer::start(|mut client| read_and_ignore(&mut client, 64));
    let line = "the server closed the connection, and byte 1 of 64 sent has not come back";
    each_fails(&server, errors(0, 6, 0, 0, 0), line);
}

#[test]
fn a_close_within_a_message_is_reported() {
    // Every second message of a connection goes unanswered.
    let server = FakeServer::start(|mut client| {
        echo_bytes(&mut client, 64);
        read_and_ignore(&mut client, 64);
    });
    let (code, done, _) = bench(server.address, &["-c", "1", "-n", "10"]);
    assert_eq!((code, &done["messages"], &done["errors"]), (1, &json!(5), &errors(0, 5, 0, 0, 0)));
    assert_eq!(server.clients(), 5);
}

#[test]
fn a_close_between_two_messages_is_reported() {
    // The second one is answered by a reset: by then the socket is closed.
    let server = FakeServer::start(|mut client| echo_bytes(&mut client, 64));
    let (code, done, stderr) = bench(server.address, &["-c", "1", "-n", "2", "--rate", "5"]);
    assert_eq!((code, &done["messages"]), (1, &json!(1)));
    assert_eq!(sum(&json!([done["errors"]["lost"], done["errors"]["reset"]])), 1, "{done} {stderr}");
    assert!(stderr.contains("and byte 65 of 128 sent has not come back"), "{stderr}");
}

#[test]
fn a_reset_is_reported() {
    let server = FakeServer::start(|mut client| {
        read_and_ignore(&mut client, 64);
        reset(client);
    });
    let line = "the connection was reset, and byte 1 of 64 sent has not come back";
    each_fails(&server, errors(0, 0, 0, 6, 0), line);
}

#[test]
fn wrong_bytes_are_reported() {
    let server = FakeServer::start(|client| echo_with(client, |piece| piece[63] ^= 1));
    each_fails(
        &server,
        errors(6, 0, 0, 0, 0),
        "the answer is wrong at byte 64: 0x0a was sent, and 0x0b came back",
    );
}

#[test]
fn swapped_messages_are_reported() {
    // It answers with what another connection has sent.
    let last = std::sync::Mutex::new(vec![b'?'; 64]);
    let server = FakeServer::start(move |mut client| {
        let mut message = vec![0; 64];
        while client.read_exact(&mut message).is_ok() {
            let mut last = last.lock().unwrap();
            std::mem::swap(&mut *last, &mut message);
            let _ = client.write_all(&message);
        }
    });
    let (code, done, _) = bench(server.address, &["-c", "2", "-n", "20"]);
    assert_eq!((code, &done["errors"], &done["messages"]), (1, &errors(20, 0, 0, 0, 0), &json!(0)));
}

#[test]
fn surplus_bytes_are_reported() {
    let server = FakeServer::start(|client| echo_with(client, |piece| piece.push(b'!')));
    each_fails(&server, errors(6, 0, 0, 0, 0), "more came back than the 64 bytes sent");
    // When all seems to be over.
    let server = FakeServer::start(|client| {
        let mut ours = client.try_clone().unwrap();
        echo_with(client, |_| {});
        ours.write_all(b"!").unwrap();
    });
    let (code, done, _) = bench(server.address, &["-c", "2", "-n", "6"]);
    assert_eq!((code, &done["errors"], &done["messages"]), (1, &errors(2, 0, 0, 0, 0), &json!(6)));
}

#[test]
fn missing_bytes_are_reported() {
    // A client that has waited in vain gives up: otherwise it would never end.
    let fewer = FakeServer::start(|client| echo_with(client, |piece| piece.truncate(63)));
    let none = FakeServer::start(|client| echo_with(client, |piece| piece.clear()));
    for (server, missing) in [(fewer, 64), (none, 1)] {
        for mode in ["keep", "connect"] {
            let (code, done, stderr) =
                bench_with_short_timeout(server.address, &["-c", "2", "-n", "1000", "--mode", mode]);
            assert_eq!((code, &done["errors"]), (1, &errors(0, 0, 0, 0, 2)), "{mode}");
            let line = format!("no answer within 500ms (--timeout), and byte {missing} of 64 sent");
            assert!(stderr.contains(&line), "{stderr}");
        }
    }
}

#[test]
fn streams_to_misbehaving_servers_are_reported() {
    let stream = |server: &FakeServer| {
        bench_with_short_timeout(server.address, &["--mode", "stream", "-c", "1", "-n", "2000"])
    };
    // One that only reads: all that was sent by then is lost, and memory is not.
    let (code, done, stderr) = stream(&FakeServer::start(|client| echo_with(client, |piece| piece.clear())));
    assert_eq!((code, &done["messages"]), (1, &json!(0)));
    assert!((1..=1025).contains(&done["errors"]["timeout"].as_u64().unwrap()), "{done}");
    assert!(stderr.contains("no answer within 500ms"), "{stderr}");
    // Also one that reads so slowly that there is always room for more.
    let slow = FakeServer::start(|client| {
        echo_with(client, |piece| {
            thread::sleep(Duration::from_millis(20));
            piece.clear();
        });
    });
    let start = Instant::now();
    let (code, _, stderr) = stream(&slow);
    assert!(code == 1 && stderr.contains("no answer within 500ms"), "{stderr}");
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    // None that goes on reading and writing: small messages leave always room for more.
    let server = Server::start(&["--workers", "1"]);
    let arguments = ["--mode", "stream", "-c", "1", "--size", "1", "--duration", "1s"];
    let (code, done, stderr) = bench_with_short_timeout(server.address, &arguments);
    assert_eq!((code, &done["errors"], stderr.as_str()), (0, &errors(0, 0, 0, 0, 0), ""));
    // Sent for a second and received then, half of them would be on the way for longer.
    assert!(number(&done["latency_us"]["p50"]) < 300e3, "{done}");
    // One that loses a byte of many.
    let (code, done, _) = stream(&FakeServer::start(|client| {
        let mut bytes = 0;
        echo_with(client, move |piece| {
            let at = 1_000_000_usize.wrapping_sub(bytes);
            bytes += piece.len();
            if at < piece.len() {
                piece.remove(at);
            }
        });
    }));
    assert_eq!(code, 1);
    assert!(done["errors"]["wrong"].as_u64().unwrap() > 0, "{done}");
    // Those that end at once, or in the midst: what isn't read makes it a reset, of
    // which some calls say ECONNRESET, and others EPIPE.
    for bytes in [0, 50_000] {
        let server = FakeServer::start(move |mut client| read_and_ignore(&mut client, bytes));
        let (code, done, _) = bench(server.address, &["--mode", "stream", "-c", "1", "-n", "2000"]);
        assert_eq!(code, 1);
        assert_eq!(sum(&json!([done["errors"]["lost"], done["errors"]["reset"]])), 2000, "{done}");
    }
}

#[test]
fn answers_count_without_a_close_or_with_a_late_reset() {
    let server = start_never_closing();
    let (code, done, stderr) = bench_with_short_timeout(server.address, &["-c", "2", "-n", "10"]);
    assert_eq!((code, &done["messages"], &done["errors"]), (0, &json!(10), &errors(0, 0, 0, 0, 0)));
    let line =
        "no answer within 500ms (--timeout), and all 320 bytes had come back; so it counts as no error";
    assert_eq!(stderr, format!("prefork-echo: {line}\n"));
    // It was waited for at the end, and isn't part of the rate.
    assert!(done["elapsed_s"].as_f64().unwrap() < 0.5, "{done}");
    let resets = FakeServer::start(|client| {
        let ours = client.try_clone().unwrap();
        echo_with(client, |_| {});
        reset(ours);
    });
    let (code, done, stderr) = bench(resets.address, &["-c", "2", "-n", "10"]);
    assert_eq!((code, &done["messages"], &done["errors"]), (0, &json!(10), &errors(0, 0, 0, 0, 0)));
    assert!(stderr.contains("reset, and all 320 bytes had come back; so it counts as no error"), "{stderr}");
    // A connection with one message doesn't wait.
    let (code, ..) = bench_with_short_timeout(server.address, &["-c", "2", "-n", "10", "--mode", "connect"]);
    assert_eq!(code, 0);
}

#[test]
fn a_surplus_byte_at_the_end_is_counted_once() {
    // Of four clients two have a turn in two seconds, and all part then.
    let server = FakeServer::start(|client| {
        let mut ours = client.try_clone().unwrap();
        echo_with(client, |_| {});
        ours.write_all(b"!").unwrap();
    });
    let (code, done, _) = bench(server.address, &["-c", "4", "--rate", "2", "--duration", "1s"]);
    assert_eq!((code, &done["messages"], &done["errors"]), (1, &json!(2), &errors(4, 0, 0, 0, 0)));
}

#[test]
#[cfg(target_os = "linux")] // What the kernel keeps after a reset is its own affair.
fn answers_before_a_reset_count() {
    // One of each connection is answered, and all that is on the way then is lost.
    let server = FakeServer::start(|client| crate::common::servers::of_linux::echo_and_leave(client, 19_999));
    let arguments = ["--mode", "stream", "-c", "1", "-n", "20", "--size", "19999"];
    let (code, done, _) = bench(server.address, &arguments);
    let (messages, reset) = (done["messages"].as_u64().unwrap(), done["errors"]["reset"].as_u64().unwrap());
    assert_eq!((code, messages + reset), (1, 20), "{done}");
    assert_eq!(messages, server.clients(), "{done}");
}

#[test]
fn a_killed_worker_costs_one_message() {
    let server = Server::start(&["--workers", "2"]);
    let mut command = binary();
    command.args(["bench", "--json", &server.address.to_string(), "-c", "2", "--duration", "0"]);
    let mut running = KillOnDrop(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let served = |server: &Server| server.status()["totals"]["bytes"].as_u64().unwrap();
    wait_until("it runs", || served(&server) > 10_000);
    for worker in server.wait_for_workers(2) {
        kill(worker, Signal::SIGKILL).unwrap();
    }
    let at_the_kill = served(&server);
    wait_until("it goes on with the new workers", || served(&server) > at_the_kill + 10_000);
    kill(Pid::from_raw(running.0.id() as i32), Signal::SIGINT).unwrap();
    let mut stdout = String::new();
    running.0.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    assert_eq!(running.0.wait().unwrap().code(), Some(1));
    let done: Value = serde_json::from_str(&stdout).unwrap();
    // A process that dies with a byte unread resets; otherwise the kernel closes.
    assert_eq!(sum(&json!([done["errors"]["lost"], done["errors"]["reset"]])), 2, "{done}");
    // The server has counted what came back, what it may have sent to those two, and
    // what was on its way at the end.
    let answered = sum(&done["by_worker"]) - done["messages"].as_u64().unwrap();
    assert!(answered <= 4, "{done}");
}

/// Starts a run that ends by SIGINT, or when its clients have given up.
fn start(server: &Server, arguments: &[&str]) -> KillOnDrop {
    let mut command = binary();
    command.args(["bench", &server.address.to_string(), "-c", "2"]).args(arguments);
    KillOnDrop(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap())
}

fn output(mut running: KillOnDrop) -> String {
    let mut stdout = String::new();
    running.0.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    stdout
}

#[test]
fn answers_by_worker_are_absent_where_unknown() {
    let arguments = ["--json", "--duration", "0", "--mode", "connect"];
    // A slot has gone, and with it what was served there.
    let server = Server::start(&["--workers", "2"]);
    let running = start(&server, &arguments);
    server.signal(Signal::SIGTTIN);
    wait_until("the third has served", || {
        server.status()["workers"][2]["connections"].as_u64().is_some_and(|number| number > 0)
    });
    server.signal(Signal::SIGTTOU);
    server.wait_for_workers(2);
    wait_until("its slot is gone", || server.status()["workers"].as_array().unwrap().len() == 2);
    kill(Pid::from_raw(running.0.id() as i32), Signal::SIGINT).unwrap();
    let done: Value = serde_json::from_str(&output(running)).unwrap();
    assert_eq!(done["by_worker"], Value::Null);

    // The server is no more.
    let running = start(&server, &arguments);
    let before = server.status()["totals"]["bytes"].as_u64().unwrap();
    wait_until("it runs", || server.status()["totals"]["bytes"].as_u64().unwrap() > before);
    server.signal(Signal::SIGKILL);
    let done: Value = serde_json::from_str(&output(running)).unwrap();
    assert_eq!((&done["by_worker"], &done["errors"]["refused"]), (&Value::Null, &json!(2)), "{done}");
}

#[test]
fn messages_left_by_an_interrupt_are_no_errors() {
    let server = Server::start(&["--workers", "2"]);
    let running = start(&server, &["-n", "1000000000"]);
    wait_until("it runs", || server.status()["totals"]["bytes"].as_u64().unwrap() > 0);
    kill(Pid::from_raw(running.0.id() as i32), Signal::SIGINT).unwrap();
    let text = output(running);
    assert!(text.contains("errors: none; every byte was right"), "{text}");
}

#[test]
fn a_messages_timeout_starts_when_it_is_sent() {
    let server = FakeServer::start(|client| echo_with(client, |_| thread::sleep(Duration::from_millis(50))));
    let arguments = ["-c", "1", "-n", "2", "--rate", "1", "--size", "20000"];
    let (code, done, stderr) = bench_with_short_timeout(server.address, &arguments);
    assert_eq!((code, &done["messages"], stderr.as_str()), (0, &json!(2), ""));
}

#[test]
fn bench_names_the_missing_descriptors() {
    let server = start_correct();
    let run = |json: &str| {
        let script = "ulimit -n 20; exec \"$0\" bench \"$1\" -c 30 -n 90 $2";
        let mut command = Command::new("sh");
        let arguments = ["-c", script, env!("CARGO_BIN_EXE_prefork-echo"), &server.address.to_string(), json];
        let output = command.args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(
            stderr.contains("too many open files; raise the limit on open files (ulimit -n)"),
            "{stderr}"
        );
        String::from_utf8(output.stdout).unwrap()
    };
    // A connection that gives up takes its share of three along.
    let done: Value = serde_json::from_str(&run("--json")).unwrap();
    let (messages, failed) = (done["messages"].as_u64().unwrap(), done["errors"]["other"].as_u64().unwrap());
    assert_eq!(messages / 3 + failed, 30, "{done}");
    let text = run("");
    assert!(text.contains(" failed here, ") && text.contains(" never sent"), "{text}");
}

/// Runs `bench` to its end, which must come by itself.
#[track_caller]
fn to_the_end(address: SocketAddr, arguments: &[&str]) -> (Option<i32>, Value, String) {
    let mut command = binary();
    command.args(["bench", "--json", "-c", "1", &address.to_string()]).args(arguments);
    let mut running = KillOnDrop(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut status = None;
    wait_until(&format!("bench {arguments:?} ends"), || {
        status = running.0.try_wait().unwrap();
        status.is_some()
    });
    let mut stderr = String::new();
    running.0.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    (status.unwrap().code(), serde_json::from_str(&output(running)).unwrap(), stderr)
}

#[test]
fn a_trickling_server_does_not_outlast_the_duration() {
    // The first byte at once, each other one before patience ends: for as long as a test
    // waits, and longer.
    let server = FakeServer::start(|mut client| {
        let mut bytes = [0; 64];
        while client.read_exact(&mut bytes).is_ok() {
            for byte in bytes {
                if client.write_all(&[byte]).is_err() {
                    return;
                }
                thread::sleep(Duration::from_millis(400));
            }
        }
    });
    for (mode, size) in [("keep", "64"), ("connect", "64"), ("stream", "64"), ("keep", "19200")] {
        let (size, duration) = (["--size", size], ["--duration", "200ms"]);
        let arguments = [["--mode", mode], size, duration, ["--timeout", "1s"]].concat();
        let (code, done, stderr) = to_the_end(server.address, &arguments);
        assert_eq!((code, &done["messages"]), (Some(1), &json!(0)), "{arguments:?}");
        assert!(done["errors"]["timeout"].as_u64().unwrap() > 0, "{done}");
        let line = "no whole answer within 1s (--timeout) of the end (--duration), and byte ";
        assert!(stderr.contains(line), "{stderr}");
    }
}

#[test]
fn a_silent_server_does_not_outlast_the_duration() {
    // The kernel connects; no process accepts.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    for mode in ["keep", "connect"] {
        let arguments = ["--mode", mode, "--duration", "200ms", "--timeout", "0"];
        let (code, done, stderr) = to_the_end(address, &arguments);
        assert_eq!((code, &done["errors"]), (Some(1), &errors(0, 0, 0, 0, 1)), "{stderr}");
        assert!(
            stderr.contains("no whole answer within 5s of the end (--duration), and byte 1 "),
            "{stderr}"
        );
    }
}

#[test]
#[cfg(target_os = "linux")] // Elsewhere a full queue refuses.
fn a_pending_connect_does_not_outlast_the_duration() {
    let server = crate::common::servers::of_linux::FullQueue::start();
    for mode in ["keep", "connect"] {
        let arguments = ["--mode", mode, "--duration", "200ms", "--timeout", "0"];
        let (code, done, stderr) = to_the_end(server.address, &arguments);
        assert_eq!((code, &done["errors"]), (Some(1), &errors(0, 0, 0, 0, 1)), "{stderr}");
        assert!(stderr.contains("cannot connect to ") && stderr.contains("no answer within 5s "), "{stderr}");
    }
}

#[test]
fn ctrl_c_before_the_first_answer_is_no_success() {
    let server = FakeServer::start(|client| echo_with(client, |piece| piece.clear()));
    for json in [vec![], vec!["--json"]] {
        let before = server.clients();
        let mut command = binary();
        command.args(["bench", &server.address.to_string(), "-c", "2", "--timeout", "0"]).args(&json);
        let mut running = KillOnDrop(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        wait_until("both clients have come", || server.clients() == before + 2);
        kill(Pid::from_raw(running.0.id() as i32), Signal::SIGINT).unwrap();
        let mut stderr = String::new();
        running.0.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!(running.0.wait().unwrap().code(), Some(1), "{stderr}");
        let line = format!("prefork-echo: nothing has come back from {} by the end", server.address);
        assert!(stderr.starts_with(&line) && stderr.lines().count() == 1, "{stderr}");
        assert_eq!(output(running).lines().count(), json.len());
    }
}
