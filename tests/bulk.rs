//! Bytes that come without a pause. On Linux a worker that blocks moves them through a pipe
//! (splice); nothing that is promised of serving may change by that.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use crate::common::models::{ALL, in_each, start};
use crate::common::{PATIENCE, echo, heavy, noise, number_following, read_to_end, rounds, wait_until};
use nix::sys::signal::{Signal, kill};
use socket2::SockRef;

/// Those whose workers block, and so can splice.
const BLOCKING: [&str; 2] = ["process", "thread"];

/// Sends so many bytes, and takes them and checks them at the same time. An urgent byte is
/// sent after each part of `urgent_after` bytes.
#[track_caller]
fn stream(client: &TcpStream, bytes: usize, urgent_after: usize) {
    // So that a part that is lost, or comes twice, is seen: its length divides nothing.
    let pattern = noise(1_000_003).repeat(2);
    let (mut sender, mut receiver) = (client.try_clone().unwrap(), client.try_clone().unwrap());
    let at = |place: usize| place % 1_000_003;
    thread::scope(|scope| {
        let pattern = &pattern;
        scope.spawn(move || {
            for from in (0..bytes).step_by(urgent_after) {
                for place in (from..bytes.min(from + urgent_after)).step_by(200_000) {
                    let length = 200_000.min(bytes - place).min(from + urgent_after - place);
                    sender.write_all(&pattern[at(place)..][..length - 1]).unwrap();
                    let last = &pattern[at(place + length - 1)..][..1];
                    match place + length == from + urgent_after {
                        true => SockRef::from(&sender).send_out_of_band(last).map(drop).unwrap(),
                        false => sender.write_all(last).unwrap(),
                    }
                }
            }
        });
        let (mut got, mut answer) = (0, vec![0; 1_000_000]);
        while got < bytes {
            let length = receiver.read(&mut answer).unwrap();
            assert!(length > 0 && answer[..length] == pattern[at(got)..][..length], "after {got} bytes");
            got += length;
        }
    });
}

#[test]
fn hundreds_of_megabytes_come_back_right_and_are_counted() {
    let _alone = heavy();
    in_each(&ALL, |model| {
        let server = start(model, 2, &["-q"]);
        let bytes = rounds(60, 300) * 1_000_000;
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let client = server.connect();
                    stream(&client, bytes, usize::MAX);
                    client.shutdown(Shutdown::Write).unwrap();
                    assert!(read_to_end(&mut { client }).is_empty());
                });
            }
        });
        server.wait_for_status("all is counted", |look| look["totals"]["bytes"] == 2 * bytes);
    });
}

#[test]
fn bulk_and_small_messages_and_urgent_bytes_follow_each_other() {
    in_each(&ALL, |model| {
        let server = start(model, 1, &["-q"]);
        let mut client = server.connect();
        for _ in 0..3 {
            stream(&client, 12_000_000, usize::MAX);
            for length in 1..100 {
                echo(&mut client, &noise(length));
            }
            stream(&client, 10_000_000, 1_234_567);
        }
    });
}

/// Sends without taking anything back until the buffers on the way are full, in the midst of
/// bulk. Returns how many bytes that were.
#[track_caller]
fn fill(mut client: &TcpStream, message: &[u8]) -> usize {
    client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut sent = 0;
    while let Ok(length) = client.write(&message[sent..]) {
        sent += length;
        assert!(sent < message.len(), "it all finds room");
    }
    client.set_write_timeout(Some(PATIENCE)).unwrap();
    sent
}

#[test]
fn term_in_the_midst_of_bulk_loses_no_byte() {
    let _alone = heavy();
    in_each(&ALL, |model| {
        for round in 0..rounds(3, 20) {
            let mut server = start(model, 1, &["-q"]);
            let (mut client, message) = (server.connect(), noise(60_000_000));
            // So the worker is in bulk before it finds no room for what it sends.
            stream(&client, 5_000_000, usize::MAX);
            let sent = fill(&client, &message);
            let mut part = vec![0; round * 100_000];
            client.read_exact(&mut part).unwrap();
            assert!(part == message[..part.len()], "what came back differs");
            server.signal(Signal::SIGTERM);
            wait_until("it is leaving", || server.status()["state"] == "draining");
            let rest = read_to_end(&mut client);
            assert!(
                rest == message[part.len()..sent],
                "{} bytes instead of {}",
                rest.len(),
                sent - part.len()
            );
            drop(client);
            assert_eq!(server.wait_code(), 0);
        }
    });
}

#[test]
fn in_bulk_a_client_that_takes_no_more_is_idle() {
    in_each(&ALL, |model| {
        let server = start(model, 1, &["--idle-timeout", "600ms"]);
        // Before the connection: while the noise is made, it would be idle.
        let (message, client) = (noise(60_000_000), server.connect());
        stream(&client, 5_000_000, usize::MAX);
        fill(&client, &message);
        let line = server.wait_for_log(&["closed", "idle for too long"]);
        assert!(number_following(&line, "too long, ") > 5_000_000, "{line}");
        server.echo(b"next");
    });
}

#[test]
fn in_bulk_a_silent_client_is_idle() {
    in_each(&BLOCKING, |model| {
        let server = start(model, 1, &["--idle-timeout", "600ms"]);
        let mut client = server.connect();
        stream(&client, 5_000_000, usize::MAX);
        assert!(read_to_end(&mut client).is_empty());
        server.wait_for_log(&["closed", "idle for too long, 5000000 bytes echoed"]);
    });
}

#[test]
fn a_reset_in_bulk_ends_one_connection_and_a_kill_leaves_the_counts_true() {
    in_each(&ALL, |model| {
        let server = start(model, 1, &[]);
        let worker = server.wait_for_workers(1)[0];
        let client = server.connect();
        stream(&client, 5_000_000, usize::MAX);
        fill(&client, &noise(60_000_000));
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        server.wait_for_log(&["closed", "lost, "]);
        server.echo(b"next");
        assert_eq!(server.workers(), [worker], "it survives");

        let before = server.status()["totals"]["bytes"].as_u64().unwrap();
        let mut client = server.connect();
        stream(&client, 5_000_000, usize::MAX);
        let sent = 5_000_000 + fill(&client, &noise(60_000_000));
        kill(worker, Signal::SIGKILL).unwrap();
        let (mut got, mut part) = (5_000_000, vec![0; 100_000]);
        while let Ok(length @ 1..) = client.read(&mut part) {
            got += length;
        }
        server.wait_for_log(&["killed by SIGKILL"]);
        server.echo(b"");
        let counted = server.status()["totals"]["bytes"].as_u64().unwrap() - before;
        assert!((got..=sent).contains(&(counted as usize)), "{counted} counted, {got} got, {sent} sent");
    });
}

/// Only Linux splices, and shows the descriptors of a process.
#[cfg(target_os = "linux")]
mod on_linux {
    use std::fs;
    use std::process::Command;

    use super::*;
    use crate::common::{Server, binary};

    /// How many ends of pipes the server's only worker has.
    fn pipes(server: &Server) -> usize {
        let list = fs::read_dir(format!("/proc/{}/fd", server.workers()[0])).unwrap();
        let links = list.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        links.filter(|link| link.to_string_lossy().starts_with("pipe:")).count()
    }

    #[test]
    fn a_worker_that_blocks_splices_in_bulk_and_closes_the_pipe_with_the_connection() {
        in_each(&ALL, |model| {
            let server = start(model, 1, &[]);
            let mut client = server.connect();
            echo(&mut client, b"little");
            let before = pipes(&server);
            stream(&client, 20_000_000, usize::MAX);
            let ends = if BLOCKING.contains(&model) { 2 } else { 0 };
            assert_eq!(pipes(&server), before + ends);
            drop(client);
            wait_until("the pipe is closed", || pipes(&server) == before);
        });
    }

    #[test]
    fn explain_shows_recv_and_send_in_bulk_too() {
        in_each(&BLOCKING, |model| {
            for explain in ["--explain", "--explain=calls"] {
                let server = start(model, 1, &[explain]);
                let mut client = server.connect();
                echo(&mut client, b"little");
                let before = pipes(&server);
                stream(&client, 10_000_000, usize::MAX);
                assert_eq!(pipes(&server), before);
                let log = server.log();
                let sent = log
                    .iter()
                    .filter(|line| line.contains(": send("))
                    .map(|line| number_following(line, " = "));
                assert_eq!(sent.map(i64::from).sum::<i64>(), 10_000_006);
            }
        });
    }

    #[test]
    fn without_descriptors_for_a_pipe_bulk_goes_through_the_buffer() {
        in_each(&BLOCKING, |model| {
            let server = start(model, 1, &["-q"]);
            let mut client = server.connect();
            echo(&mut client, b"served");
            let worker = server.workers()[0].to_string();
            let before = pipes(&server);
            let prlimit = |limit| Command::new("prlimit").args(["--pid", &worker, limit]).status().unwrap();
            assert!(prlimit("--nofile=1:").success());
            stream(&client, 10_000_000, usize::MAX);
            assert_eq!(pipes(&server), before);
            drop(client);
            assert!(prlimit("--nofile=1000:").success());
            let client = server.connect();
            stream(&client, 10_000_000, usize::MAX);
            assert_eq!(pipes(&server), before + 2);
        });
    }

    #[test]
    fn pipes_leave_each_client_its_descriptor() {
        let _alone = heavy();
        // With a limit just above that of the clients: three descriptors each would be too many.
        let mut command = Command::new("prlimit");
        command.args(["--nofile=75:75".as_ref(), binary().get_program()]);
        command.args(["--bind", "127.0.0.1:0", "--model", "thread", "--workers", "1", "--clients", "40"]);
        command.args(["--no-scoreboard"]);
        let server = Server::spawn(command);
        let clients: Vec<_> = (0..40)
            .map(|_| {
                let client = server.connect();
                stream(&client, 2_000_000, usize::MAX);
                client
            })
            .collect();
        assert!(!server.log().iter().any(|line| line.contains("cannot accept")), "{:#?}", server.log());
        drop(clients);
    }
}
