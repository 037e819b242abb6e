//! The service, as a client sees it.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{PATIENCE, Server, binary, echo, heavy, noise, read_to_end, wait_until};
use nix::sys::signal::{Signal, kill};
use socket2::SockRef;

#[test]
fn every_byte_value_comes_back() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for byte in 0..=255 {
        echo(&mut client, &[byte]);
    }
    for length in [2, 1000, 65_536, 200_000, 262_143, 262_144, 262_145, 600_000] {
        echo(&mut client, &noise(length));
    }
}

#[test]
fn a_half_closed_client_gets_everything() {
    let server = Server::start(&[]);
    let (mut client, message) = (server.connect(), noise(4_000_000));
    let (mut sender, sent) = (client.try_clone().unwrap(), message.clone());
    let sending = thread::spawn(move || {
        sender.write_all(&sent).unwrap();
        sender.shutdown(Shutdown::Write).unwrap();
    });
    assert!(read_to_end(&mut client) == message, "what came back differs");
    sending.join().unwrap();
}

#[test]
fn a_client_that_sends_before_reading_gets_everything() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let message = noise(100_000); // Small enough for the buffers on the way.
    client.write_all(&message).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    server.wait_for_log(&["closed", "end of file, 100000 bytes echoed"]);
    assert!(read_to_end(&mut client) == message, "what came back differs");
}

/// Sends `before`, a byte as urgent (send(2), MSG_OOB), and `after`; all must come back.
#[track_caller]
fn echo_with_urgent_bytes(client: &mut std::net::TcpStream, before: &[u8], after: &[u8]) {
    client.write_all(before).unwrap();
    SockRef::from(&*client).send_out_of_band(b"!").unwrap();
    client.write_all(after).unwrap();
    let mut answer = vec![0; before.len() + 1 + after.len()];
    client.read_exact(&mut answer).expect("every byte comes back");
    assert!(answer == [before, b"!", after].concat(), "what came back differs");
}

#[test]
fn urgent_bytes_come_back_in_their_place() {
    let mut server = Server::start(&["--workers", "1"]);
    let mut client = server.connect();
    echo_with_urgent_bytes(&mut client, b"", b"");
    echo_with_urgent_bytes(&mut client, b"before", b"after");
    for round in 0..20 {
        echo_with_urgent_bytes(&mut client, &noise(round * 1000), &noise(round * 500));
    }
    // The server leaves, and serves the client until it is quiet.
    server.signal(Signal::SIGTERM);
    server.wait_for_log(&["shutting down"]);
    for _ in 0..10 {
        echo_with_urgent_bytes(&mut client, b"before", b"after");
    }
    drop(client);
    assert_eq!(server.wait_code(), 0);
}

#[test]
fn each_of_many_clients_gets_its_own_bytes() {
    let server = Server::start(&["--workers", "8"]);
    let address = server.address;
    let clients: Vec<_> = (1..=8)
        .map(|number| {
            thread::spawn(move || {
                for round in 1..=20 {
                    let mut client = crate::common::connect(address);
                    echo(&mut client, &noise(number * round * 500));
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
}

#[test]
fn the_next_client_waits_connected_while_a_worker_is_busy() {
    let server = Server::start(&["--workers", "1"]);
    let mut first = server.connect();
    echo(&mut first, b"first");

    let mut second = server.connect();
    second.write_all(b"second").unwrap();
    second.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(second.read(&mut [0; 6]).is_err(), "the only worker is busy, yet the second client was served");

    drop(first);
    second.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = [0; 6];
    second.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"second");
}

#[test]
fn the_load_is_even() {
    let _alone = heavy();
    let server = Server::start(&[]);
    wait_until("all are in accept", || {
        server.status()["workers"].as_array().unwrap().iter().all(|worker| worker["state"] == "idle")
    });
    // So many that a worker which has to wait for a processor has its turn again.
    for _ in 0..1000 {
        server.echo(b"one of many");
    }
    let accepted = |slot: usize| {
        let name = format!("worker {slot} (pid");
        server.log().iter().filter(|line| line.contains(&name) && line.contains("accepted")).count()
    };
    wait_until("all have been accepted", || (0..4).map(accepted).sum::<usize>() == 1000);
    for slot in 0..4 {
        assert!(accepted(slot) >= 50, "worker {slot} served {} of 1000", accepted(slot));
    }
}

#[test]
fn an_idle_client_is_closed_and_the_next_one_served() {
    let _alone = heavy();
    let server = Server::start(&["--workers", "1", "--idle-timeout", "300ms"]);
    let mut idle = server.connect();
    // Before the bytes: the worker may begin to wait long before this process goes on.
    let start = Instant::now();
    echo(&mut idle, b"then silence");
    assert!(read_to_end(&mut idle).is_empty());
    assert!(start.elapsed() >= Duration::from_millis(290), "closed after {:?}", start.elapsed());
    server.wait_for_log(&["closed", "idle for too long, 12 bytes echoed"]);
    server.echo(b"next");
}

#[test]
fn a_client_that_keeps_sending_is_not_idle() {
    let _alone = heavy();
    let server = Server::start(&["--workers", "1", "--idle-timeout", "500ms"]);
    let (mut client, start) = (server.connect(), Instant::now());
    while start.elapsed() < Duration::from_millis(1500) {
        echo(&mut client, b"alive");
        thread::sleep(Duration::from_millis(50)); // The rhythm of the client, not a wait for the server.
    }
}

#[test]
fn a_client_that_never_reads_is_closed() {
    let server = Server::start(&["--workers", "1", "--idle-timeout", "300ms"]);
    let _greedy = server.connect_without_reading();
    server.wait_for_log(&["closed", "idle for too long"]);
    server.echo(b"next");
}

#[test]
fn signals_do_not_keep_an_idle_client() {
    let server = Server::start(&["--workers", "1", "--idle-timeout", "500ms"]);
    let worker = server.workers()[0];
    let mut idle = server.connect();
    echo(&mut idle, b"then silence");
    idle.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    // Each signal interrupts recv, and the system's time-out starts anew.
    wait_until("the idle client is closed", || {
        kill(worker, Signal::SIGCONT).unwrap();
        matches!(idle.read(&mut [0]), Ok(0))
    });
}

#[test]
fn a_client_that_takes_its_bytes_slowly_is_not_idle() {
    let _alone = heavy();
    let server = Server::start(&["--workers", "1", "--idle-timeout", "1s"]);
    let mut slow = server.connect();
    let mut sender = slow.try_clone().unwrap();
    // More than all the buffers on the way hold, so that the worker waits in send.
    let sending = thread::spawn(move || sender.write_all(&noise(12_000_000)).is_ok());
    let (start, mut taken) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(4) {
        slow.read_exact(&mut [0; 20_000]).expect("it takes 20 kB every 50 ms, and was closed");
        taken += 20_000;
        thread::sleep(Duration::from_millis(50)); // The client's rhythm.
    }
    let mut rest = vec![0; 12_000_000 - taken];
    slow.read_exact(&mut rest).unwrap();
    assert!(sending.join().unwrap());
}

#[test]
fn a_client_that_takes_earlier_bytes_is_not_idle() {
    let _alone = heavy();
    let server = Server::start(&["--workers", "1", "--idle-timeout", "1s"]);
    let mut slow = server.connect();
    // What the client has not read yet lies on the server's side, where the worker
    // can see it; nearly all the time the worker waits in recv.
    SockRef::from(&slow).set_recv_buffer_size(65_536).unwrap();
    let mut sender = slow.try_clone().unwrap();
    let sending = thread::spawn(move || sender.write_all(&noise(1_500_000)).unwrap());
    for _ in 0..15 {
        slow.read_exact(&mut [0; 100_000]).unwrap();
        thread::sleep(Duration::from_millis(200)); // The client's rhythm.
    }
    sending.join().unwrap();
    echo(&mut slow, b"more");
}

#[test]
fn an_idle_timeout_of_0_disables_it() {
    let server = Server::start(&["--idle-timeout", "0"]);
    let mut client = server.connect();
    client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let error = client.read(&mut [0]).expect_err("nothing was sent, so nothing comes");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    echo(&mut client, b"still here");
}

#[test]
fn resets_before_or_after_accept_harm_no_other_client() {
    let mut server = Server::start(&["--workers", "2"]);
    let resets =
        |client: &std::net::TcpStream| SockRef::from(client).set_linger(Some(Duration::ZERO)).unwrap();
    // Before: both workers are stopped, so these lie in the accept queue.
    let workers = server.wait_for_workers(2);
    workers.iter().for_each(|worker| kill(*worker, Signal::SIGSTOP).unwrap());
    for _ in 0..20 {
        resets(&server.connect());
    }
    workers.iter().for_each(|worker| kill(*worker, Signal::SIGCONT).unwrap());
    // After: with an answer on its way.
    for _ in 0..20 {
        let mut client = server.connect();
        client.write_all(&noise(10_000)).unwrap();
        client.read_exact(&mut [0; 10]).unwrap();
        resets(&client);
    }
    server.echo(b"all is well");
    assert_eq!(server.workers(), workers, "a worker died of it");
    assert_eq!(server.stop(), 0);
}

#[test]
fn the_server_listens_on_ipv6_and_on_names() {
    for bind in ["[::1]:0", "localhost:0"] {
        let mut command = binary();
        command.args(["--bind", bind]);
        Server::spawn(command).echo(b"hello");
    }
}
