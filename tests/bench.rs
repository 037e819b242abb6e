//! `bench` counts what comes back, what doesn't, and how long it takes.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::measure::{bench, bench_with_short_timeout, errors, number, sum};
use crate::common::servers::{FakeServer, echo_with, start_correct};
use crate::common::terminal::Terminal;
use crate::common::{KillOnDrop, Server, binary, command, heavy, wait_until};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

#[test]
fn the_json_is_what_programs_rely_on() {
    let _alone = heavy();
    let server = Server::start(&["--workers", "4"]);
    server.wait_for_idle_workers(4);
    let (code, done, stderr) = bench(server.address, &["-c", "4", "-n", "8000"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let (elapsed, rate, latency) =
        (number(&done["elapsed_s"]), number(&done["per_second"]), &done["latency_us"]);
    let wait = &done["accept"];
    let expected = json!({
        "mode": "keep", "connections": 4, "size": 64, "messages": 8000, "elapsed_s": elapsed,
        "per_second": rate, "mb_per_second": number(&done["mb_per_second"]),
        "latency_us": {"p50": number(&latency["p50"]), "p90": number(&latency["p90"]),
                       "p99": number(&latency["p99"]), "p999": number(&latency["p999"]),
                       "max": number(&latency["max"])},
        "errors": errors(0, 0, 0, 0, 0),
        "accept": {"never": 0, "wait_p50_us": number(&wait["wait_p50_us"]),
                   "wait_p99_us": number(&wait["wait_p99_us"]), "wait_max_us": number(&wait["wait_max_us"])},
        "by_worker": [2000, 2000, 2000, 2000]});
    assert_eq!(done, expected);
    // The figures agree with each other: 8,000 in that time, and 64 bytes each.
    assert!((rate * elapsed - 8000.0).abs() <= 1.0, "{done}");
    assert!((number(&done["mb_per_second"]) - rate * 64e-6).abs() < 0.001, "{done}");
    let quantiles = ["p50", "p90", "p99", "p999", "max"].map(|name| number(&latency[name]));
    assert!(quantiles.is_sorted() && quantiles[0] > 1.0, "{latency}");
    // What the workers had answered before is not this run's.
    server.wait_for_idle_workers(4);
    let (_, again, _) = bench(server.address, &["-c", "4", "-n", "400"]);
    // Such short connections are not always spread evenly: a worker that is done with one may
    // take the next from the accept queue before the one that was woken for it.
    let by_worker = again["by_worker"].as_array().unwrap().iter().map(|number| number.as_u64().unwrap());
    assert_eq!(by_worker.sum::<u64>(), 400, "{again}");
}

#[test]
fn each_mode_sends_what_it_promises() {
    for (mode, connections, size) in [("keep", 3, "100"), ("connect", 50, "100"), ("stream", 3, "70000")] {
        let server = Server::start(&["--workers", "3"]);
        let arguments = ["--mode", mode, "-c", "3", "-n", "50", "--size", size];
        let (code, done, stderr) = bench(server.address, &arguments);
        assert_eq!((code, stderr.as_str()), (0, ""), "{mode}");
        assert_eq!((&done["mode"], &done["messages"]), (&json!(mode), &json!(50)));
        assert_eq!(sum(&done["by_worker"]), 50, "{done}");
        // What the server counted: each connection, and every byte.
        let totals = &server.status()["totals"];
        let bytes = 50 * size.parse::<u64>().unwrap();
        let wanted = json!({"connections": connections, "bytes": bytes, "bad_headers": 0, "restarts": 0});
        assert_eq!(totals, &wanted, "{mode}");
    }
}

#[test]
fn messages_are_sent_until_the_duration_is_over() {
    let _alone = heavy();
    let server = Server::start(&["--workers", "2"]);
    for mode in ["keep", "connect", "stream"] {
        let start = Instant::now();
        let (code, done, _) = bench(server.address, &["-c", "2", "--mode", mode, "--duration", "300ms"]);
        assert_eq!((code, &done["errors"]), (0, &errors(0, 0, 0, 0, 0)));
        assert!(start.elapsed() >= Duration::from_millis(300));
        // On a busy machine the last message takes its time.
        assert!((0.29..2.0).contains(&number(&done["elapsed_s"])), "{done}");
        assert!(number(&done["messages"]) > 10.0, "{done}");
    }
}

#[test]
fn messages_larger_than_all_buffers_come_back() {
    let server = Server::start(&["--workers", "2"]);
    for mode in ["keep", "connect", "stream"] {
        let arguments = ["-c", "2", "-n", "4", "--size", "20000000", "--mode", mode];
        let (code, done, stderr) = bench(server.address, &arguments);
        assert_eq!((code, &done["messages"], stderr.as_str()), (0, &json!(4), ""), "{mode}");
    }
}

#[test]
fn any_echo_server_can_be_measured_also_line_based_ones() {
    let by_the_line = FakeServer::start(|client| {
        let (mut lines, mut client) = (BufReader::new(client.try_clone().unwrap()), client);
        let mut line = Vec::new();
        while let Ok(1..) = lines.read_until(b'\n', &mut line) {
            client.write_all(&line).unwrap();
            line.clear();
        }
    });
    for server in [start_correct(), by_the_line] {
        for size in ["1", "64", "30000"] {
            let (code, done, stderr) = bench(server.address, &["-c", "2", "-n", "50", "--size", size]);
            assert_eq!((code, stderr.as_str()), (0, ""));
            assert_eq!((&done["messages"], &done["by_worker"]), (&json!(50), &Value::Null));
        }
    }
}

#[test]
fn the_client_closes_first() {
    // A server that answers the next client only when the last has closed.
    let (opened, ended) = (AtomicU64::new(0), AtomicU64::new(0));
    let server = FakeServer::start(move |client| {
        let before = opened.fetch_add(1, Ordering::Relaxed);
        wait_until("the last client has closed", || ended.load(Ordering::Relaxed) == before);
        echo_with(client, |_| {});
        ended.fetch_add(1, Ordering::Relaxed);
    });
    let (code, done, _) = bench(server.address, &["-c", "1", "-n", "5", "--mode", "connect"]);
    assert_eq!((code, &done["messages"]), (0, &json!(5)));
}

#[test]
fn more_connections_than_workers_wait_for_their_turn() {
    let server = Server::start(&["--workers", "2"]);
    let (code, stdout, stderr) = command(&["bench", &server.address.to_string(), "-c", "6", "-n", "600"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.contains("6 connections kept open"), "{stdout}");
    assert!(stdout.contains("600 messages came back in "), "{stdout}");
    assert!(stdout.contains("errors: none; every byte was right"), "{stdout}");
    assert!(stdout.contains("each of the 2 workers serves one connection at a time"), "{stdout}");
}

#[test]
fn connections_that_are_never_accepted_are_told_apart() {
    let server = Server::start(&["--workers", "2"]);
    server.wait_for_idle_workers(2);
    // Four wait in the accept queue until their time-out, which comes before the end.
    let arguments = ["-c", "6", "--duration", "1s"];
    let (code, done, stderr) = bench_with_short_timeout(server.address, &arguments);
    assert_eq!((code, &done["errors"]["timeout"], &done["accept"]["never"]), (1, &json!(4), &json!(4)));
    assert!(stderr.contains("are all workers busy?"), "{stderr}");
    assert!(number(&done["accept"]["wait_max_us"]) < 500e3, "{done}");
    let address = server.address.to_string();
    let (_, stdout, _) =
        command(&[&["bench", &address, "--timeout", "500ms"], arguments.as_slice()].concat());
    let line = "4 of 6 connections were never accepted (no byte came back); the others waited p50 ";
    assert!(stdout.contains(line), "{stdout}");
    // A connection that the kernel does not take, because the queue is full, is one of them:
    // with a thread for each client, and with many in a thread.
    let server = Server::start(&["--workers", "1", "--backlog", "1"]);
    for connections in ["6", "12"] {
        server.wait_for_idle_workers(1);
        let arguments = ["-c", connections, "--duration", "1s"];
        let (_, done, _) = bench_with_short_timeout(server.address, &arguments);
        assert_eq!(done["accept"]["never"], json!(connections.parse::<u64>().unwrap() - 1), "{done}");
        assert_eq!(done["accept"]["never"], done["errors"]["timeout"], "{done}");
    }
}

#[test]
fn a_few_threads_drive_thousands_of_connections() {
    let _alone = heavy();
    let server = Server::start(&["--workers", "2", "--model", "multiplex", "--clients", "4000", "-q"]);
    let mut command = binary();
    let address = server.address.to_string();
    command.args(["bench", "--json", &address, "-c", "4000", "--duration", "0", "--timeout", "30s"]);
    let mut running = KillOnDrop(command.stdout(Stdio::piped()).spawn().unwrap());
    wait_until("all are served, and one message came back at least", || {
        let status = server.status();
        let clients = status["workers"].as_array().unwrap().iter().map(|worker| worker["clients"].as_u64());
        let bytes = status["totals"]["bytes"].as_u64().unwrap();
        // Each has one message of 64 bytes in flight at the most.
        clients.sum::<Option<u64>>() == Some(4000) && bytes > 4000 * 64
    });
    if cfg!(target_os = "linux") {
        let threads = std::fs::read_dir(format!("/proc/{}/task", running.0.id())).unwrap().count();
        // The main thread, one a processor, and a spare one of the library that draws the bar.
        let processors = thread::available_parallelism().unwrap().get();
        assert!(threads <= processors + 2, "{threads} threads");
    }
    kill(Pid::from_raw(running.0.id() as i32), Signal::SIGINT).unwrap();
    let mut stdout = String::new();
    running.0.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    let done: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((running.0.wait().unwrap().code(), &done["errors"]), (Some(0), &errors(0, 0, 0, 0, 0)));
}

/// Each mode, small and large messages, and a rate: what a client does that has a thread of
/// its own, many in a thread do as well.
#[test]
fn clients_that_share_a_thread_keep_all_promises() {
    let _alone = heavy();
    let server = Server::start(&["--workers", "2", "--model", "multiplex", "-q"]);
    let runs: [&[&str]; 5] = [
        &["-n", "2000"],
        &["-n", "200", "--size", "300000"],
        &["-n", "2000", "--mode", "connect"],
        &["-n", "1000", "--mode", "stream"],
        &["-n", "500", "--rate", "2000"],
    ];
    for run in runs {
        let (code, done, stderr) = bench(server.address, &[&["-c", "50"], run].concat());
        assert_eq!((code, stderr.as_str()), (0, ""), "{run:?}");
        assert_eq!((done["messages"].to_string().as_str(), &done["accept"]["never"]), (run[1], &json!(0)));
        assert_eq!(sum(&done["by_worker"]), done["messages"].as_u64().unwrap(), "{run:?}");
    }
}

#[test]
fn the_report_is_for_people() {
    let server = Server::start(&["--workers", "2"]);
    server.wait_for_idle_workers(2);
    let (code, stdout, _) = command(&["bench", &server.address.to_string(), "-c", "2", "-n", "1000"]);
    assert_eq!(code, 0);
    assert!(stdout.contains("all connections were accepted and waited p50 "), "{stdout}");
    for part in ["latency: p50 ", ", p90 ", ", p99 ", ", p99.9 ", ", max ", " a second, ", " MB/s each way"] {
        assert!(stdout.contains(part), "no {part:?} in {stdout}");
    }
    // The lines of the histogram are all of it, and each no wider than 80 columns.
    let shares = stdout.lines().filter(|line| line.starts_with("  from "));
    let shares: Vec<f64> = shares
        .map(|line| line.split_once(" %").unwrap().0.rsplit(' ').next().unwrap().parse().unwrap())
        .collect();
    assert!((shares.iter().sum::<f64>() - 100.0).abs() < 1.0 && shares.len() > 1, "{stdout}");
    assert!(stdout.lines().all(|line| line.chars().count() <= 80), "{stdout}");
    assert!(stdout.contains("messages answered by slot: max/mean 1.00"), "{stdout}");
    assert!(!stdout.contains("the others have waited"), "{stdout}");
}

#[test]
fn a_shortage_of_ports_is_reported() {
    let _alone = heavy();
    let server = start_correct();
    for (messages, is_told) in [("14001", true), ("100", false)] {
        let arguments = ["bench", &server.address.to_string(), "-m", "connect", "-n", messages];
        let (code, stdout, stderr) = command(&arguments);
        assert_eq!((code, stdout.contains("TIME_WAIT")), (0, is_told), "{stdout} {stderr}");
    }
}

#[test]
fn with_a_rate_messages_are_sent_when_due() {
    let _alone = heavy();
    let server = start_correct();
    let (code, done, _) = bench(server.address, &["-c", "3", "-n", "100", "--rate", "200"]);
    assert_eq!((code, &done["messages"]), (0, &json!(100)));
    // The last of them is due 99 / 200 s after the first.
    assert!((0.49..2.0).contains(&number(&done["elapsed_s"])), "{done}");
    let (_, done, _) = bench(server.address, &["-c", "3", "--duration", "500ms", "--rate", "200"]);
    assert_eq!(done["messages"], json!(100));
    // A connection without a message left waits for no turn: the tenth would be in 9 s.
    let start = Instant::now();
    let (_, done, _) = bench(server.address, &["-c", "10", "-n", "1", "--rate", "1"]);
    assert_eq!(done["messages"], json!(1));
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}

#[test]
fn with_a_rate_latency_includes_the_delay_before_sending() {
    let _alone = heavy();
    // It stalls once, for 400 ms: 200 messages are due meanwhile, which wait from
    // 400 ms to nothing. One after the other, only one message would be late.
    let stalled = Arc::new(AtomicBool::new(false));
    let stall = move |_: &mut Vec<u8>| {
        if !stalled.swap(true, Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(400));
        }
    };
    let server = FakeServer::start(move |client| {
        let stall = stall.clone();
        echo_with(client, stall);
    });
    let (code, done, _) = bench(server.address, &["-c", "1", "-n", "300", "--rate", "500"]);
    assert_eq!((code, &done["messages"]), (0, &json!(300)));
    let latency = &done["latency_us"];
    assert!(number(&latency["max"]) >= 400e3 && number(&latency["p99"]) >= 350e3, "{latency}");
    assert!(number(&latency["p50"]) >= 50e3, "{latency}");
}

#[test]
fn with_a_rate_overdue_messages_are_still_sent() {
    // It stalls at the end: from the fiftieth message on, of hundred.
    let server = FakeServer::start(|client| {
        let mut bytes = 0;
        echo_with(client, move |piece| {
            if (bytes..bytes + piece.len()).contains(&(50 * 64)) {
                thread::sleep(Duration::from_millis(600));
            }
            bytes += piece.len();
        });
    });
    let (code, done, _) = bench(server.address, &["-c", "1", "--rate", "200", "--duration", "500ms"]);
    assert_eq!((code, &done["messages"]), (0, &json!(100)));
    // All those of the second half had to wait for 350 ms at least.
    assert!(number(&done["latency_us"]["p90"]) >= 350e3, "{done}");
}

#[test]
#[cfg(target_os = "linux")] // Elsewhere a client that finds no room in the queue is refused.
fn connecting_is_part_of_the_latency() {
    let server = crate::common::servers::of_linux::FullQueue::start();
    let mut command = binary();
    command.args(["bench", "--json", &server.address.to_string(), "-c", "1", "-n", "1", "--mode", "connect"]);
    let mut running = KillOnDrop(command.stdout(Stdio::piped()).spawn().unwrap());
    server.wait_for_client();
    let echo = server.serve();
    let mut stdout = String::new();
    running.0.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    let done: Value = serde_json::from_str(&stdout).unwrap();
    assert!(number(&done["latency_us"]["p50"]) >= 500e3, "{done}");
    echo.join().unwrap();
}

#[test]
fn a_second_ctrl_c_ends_bench_at_once() {
    let server = start_correct();
    // A pipe that is full: the report can't be written.
    let (_reader, writer) = std::io::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    while nix::unistd::write(&writer, &[b'x'; 4096]).is_ok() {}
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    let mut command = binary();
    command.args(["bench", "--json", &server.address.to_string(), "--duration", "0"]);
    let mut running = KillOnDrop(command.stdout(writer).spawn().unwrap());
    let pid = Pid::from_raw(running.0.id() as i32);
    wait_until("its clients have come", || server.clients() == 4);
    let mut ended = None;
    wait_until("it ends", || {
        let _ = kill(pid, Signal::SIGINT);
        ended = running.0.try_wait().unwrap();
        ended.is_some()
    });
    assert_eq!(ended.unwrap().signal(), Some(nix::libc::SIGINT));
}

#[test]
fn answers_by_worker_are_read_from_any_scoreboard_path() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("scoreboard");
    let path = path.to_str().unwrap();
    let server = Server::start(&["--workers", "2", "--scoreboard", path]);
    let (_, done, _) = bench(server.address, &["-c", "2", "-n", "20"]);
    assert_eq!(done["by_worker"], Value::Null);
    let (_, done, _) = bench(server.address, &["-c", "2", "-n", "20", "--scoreboard", path]);
    assert_eq!(sum(&done["by_worker"]), 20);
    // That of another server says nothing.
    let other = start_correct();
    let (_, done, _) = bench(other.address, &["-c", "2", "-n", "20", "--scoreboard", path]);
    assert_eq!(done["by_worker"], Value::Null);
    let (code, _, stderr) =
        command(&["bench", &server.address.to_string(), "--scoreboard", "/no/such/scoreboard"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("cannot look at the scoreboard /no/such/scoreboard"), "{stderr}");
}

#[test]
fn the_latency_is_the_time_of_the_server() {
    let _alone = heavy();
    let server = FakeServer::start(|client| echo_with(client, |_| thread::sleep(Duration::from_millis(30))));
    for mode in ["keep", "connect", "stream"] {
        let arguments = ["-c", "1", "-n", "10", "--mode", mode, "--size", "1000"];
        let (code, done, _) = bench(server.address, &arguments);
        assert_eq!(code, 0);
        let p50 = number(&done["latency_us"]["p50"]);
        assert!((30e3..900e3).contains(&p50), "{mode}: {done}");
    }
}

#[test]
fn ctrl_c_prints_what_has_been_measured() {
    // From the sixth message on it is silent.
    let unanswered = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&unanswered);
    let silent = FakeServer::start(move |client| {
        let (mut messages, count) = (0, Arc::clone(&count));
        echo_with(client, move |piece| {
            messages += 1;
            if messages > 5 {
                piece.clear();
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
    });
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let before = unanswered.load(Ordering::Relaxed);
        let mut command = binary();
        command.args(["bench", "--json", &silent.address.to_string(), "-c", "2", "--timeout", "1h"]);
        let mut running = KillOnDrop(command.stdout(Stdio::piped()).spawn().unwrap());
        let waiting = || unanswered.load(Ordering::Relaxed) - before;
        wait_until("both clients wait for what never comes", || waiting() == 2);
        kill(Pid::from_raw(running.0.id() as i32), signal).unwrap();
        let mut stdout = String::new();
        running.0.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        assert_eq!(running.0.wait().unwrap().code(), Some(0), "no byte was wrong or lost");
        let done: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!((&done["messages"], &done["errors"]), (&json!(10), &errors(0, 0, 0, 0, 0)));
    }
}

#[test]
fn a_progress_bar_is_for_terminals() {
    let server = Server::start(&["--workers", "2"]);
    let binary = env!("CARGO_BIN_EXE_prefork-echo");
    let address = server.address;
    let script = format!("'{binary}' bench --json {address} -c 2 --duration 1s; echo left with $?");
    let terminal = Terminal::run(&script);
    terminal.wait_for(" messages");
    terminal.wait_for(" %  ");
    terminal.wait_for("left with 0");
    // The bar is gone.
    let screen = terminal.screen();
    assert!(screen.contains("by_worker") && !screen.contains(" %  "), "{screen}");

    let (code, _, stderr) = command(&["bench", &address.to_string(), "-c", "2", "--duration", "300ms"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
}

#[test]
fn a_thousand_connections_to_a_thousand_workers_succeed() {
    let _alone = heavy();
    let server = Server::start(&["--workers", "1000", "-q"]);
    // With no more descriptors than macOS allows at first.
    let script = "ulimit -S -n 256; exec \"$0\" bench --json \"$1\" -c 1000 -n 5000 --timeout 20s";
    let mut command = Command::new("sh");
    let output = command
        .args(["-c", script, env!("CARGO_BIN_EXE_prefork-echo"), &server.address.to_string()])
        .env("XDG_RUNTIME_DIR", env!("CARGO_TARGET_TMPDIR"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let done: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &done["messages"]), (Some(0), &json!(5000)));
    assert_eq!((done["by_worker"].as_array().unwrap().len(), sum(&done["by_worker"])), (1000, 5000));
}

#[test]
fn wrong_usage_is_explained() {
    for (arguments, wanted) in [
        (vec!["-n", "5", "--duration", "1s"], "cannot be used with"),
        (vec!["--rate", "5", "--mode", "stream"], "--rate makes no sense with --mode stream"),
        (vec!["--size", "0"], "write a number from 1 to 1073741824"),
        (vec!["-c", "0"], "write a number from 1 to 10000"),
        (vec!["-n", "0"], "write a number from 1 to"),
        (vec!["0"], "no server listens on port 0"),
        (vec!["hello"], "the server comes first"),
    ] {
        let (code, _, stderr) = command(&[&["bench"], arguments.as_slice()].concat());
        assert_eq!(code, 2, "{arguments:?}");
        assert!(stderr.contains(wanted), "{stderr}");
    }
}

#[test]
fn bench_ignores_errors_in_the_servers_environment() {
    let server = Server::start(&[]);
    let mut command = binary();
    command.env("PREFORK_ECHO_WORKERS", "many").args(["bench", &server.address.to_string(), "-n", "4"]);
    assert_eq!(command.output().unwrap().status.code(), Some(0));
}
