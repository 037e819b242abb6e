//! Orderly shutdown: no connected client loses a byte, and the server ends.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::common::{
    PATIENCE, SECOND_SIGNAL, Server, connect, echo, heavy, noise, number_following, read_to_end, rounds,
    wait_until,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::SockRef;

#[test]
fn term_ends_an_idle_server_and_frees_the_port() {
    let mut server = Server::start(&[]);
    server.echo(b"a client was here");
    assert_eq!(server.stop(), 0);
    assert!(!server.has_processes_left());
    TcpListener::bind(server.address).expect("the port is free at once");
    server.wait_for_log(&["the end, with exit status 0: served 1 connection, 17 bytes"]);
}

#[test]
fn term_at_any_time_is_not_lost() {
    for round in 0..rounds(20, 100) {
        let mut server = Server::start(&["-q", "--workers", "3"]);
        // In some rounds workers are busy, in some just done, in some not yet in accept.
        let clients: Vec<_> = (0..round % 4).map(|_| server.connect()).collect();
        for _ in 0..round % 3 {
            thread::yield_now();
        }
        drop(clients);
        assert_eq!(server.stop(), 0, "in round {round}");
        assert!(!server.has_processes_left());
    }
}

#[test]
fn an_idle_client_reads_end_of_file_not_a_reset() {
    let mut server = Server::start(&["--workers", "2"]);
    let mut client = server.connect();
    echo(&mut client, b"and then I sat there");
    let start = Instant::now();
    server.signal(Signal::SIGTERM);
    assert!(read_to_end(&mut client).is_empty());
    drop(client);
    assert_eq!(server.wait_code(), 0);
    assert!(start.elapsed() < Duration::from_secs(5), "it took {:?}", start.elapsed());
}

#[test]
fn a_busy_client_is_served_until_it_is_idle() {
    let mut server = Server::start(&["--workers", "1"]);
    let mut client = server.connect();
    echo(&mut client, b"hello");
    server.signal(Signal::SIGTERM);
    server.wait_for_log(&["shutting down"]);
    for _ in 0..20 {
        echo(&mut client, b"one more");
        thread::sleep(Duration::from_millis(20)); // The client's rhythm.
    }
    assert!(read_to_end(&mut client).is_empty());
    drop(client);
    assert_eq!(server.wait_code(), 0);
}

#[test]
fn connections_in_the_accept_queue_are_served() {
    let mut server = Server::start(&["--workers", "1"]);
    let mut busy = server.connect();
    echo(&mut busy, b"the only worker is mine");
    let mut waiting: Vec<_> = (0..10).map(|_| server.connect()).collect();
    for client in &mut waiting {
        client.write_all(b"connected before the end").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
    }
    server.signal(Signal::SIGTERM);
    for client in &mut waiting {
        assert_eq!(read_to_end(client), b"connected before the end");
    }
    assert!(read_to_end(&mut busy).is_empty());
    drop(busy);
    assert_eq!(server.wait_code(), 0);
}

#[test]
fn a_queue_of_idle_clients_drains_at_once() {
    let _alone = heavy();
    let mut server = Server::start(&["--workers", "1", "--grace", "8s"]);
    let mut busy = server.connect();
    echo(&mut busy, b"the only worker is mine");
    let mut waiting: Vec<_> = (0..40).map(|_| server.connect()).collect();
    // Half of them have asked something, and wait; no client ever closes.
    waiting.iter_mut().step_by(2).for_each(|client| client.write_all(b"hello").unwrap());
    server.signal(Signal::SIGTERM);
    for (number, client) in waiting.iter_mut().enumerate() {
        let wanted: &[u8] = if number % 2 == 0 { b"hello" } else { b"" };
        assert_eq!(read_to_end(client), wanted);
    }
    assert_eq!(server.wait_code(), 0, "one after the other they would take 24 s");
}

#[test]
fn busy_or_blocked_clients_delay_no_other_client() {
    let mut server = Server::start(&["--workers", "1", "--grace", "3s"]);
    let mut busy = server.connect();
    echo(&mut busy, b"the only worker is mine");
    let mut talker = server.connect();
    let _greedy = server.connect_without_reading();
    let mut waiting: Vec<_> = (0..10).map(|_| server.connect()).collect();
    waiting.iter_mut().for_each(|client| client.write_all(b"hello").unwrap());
    server.signal(Signal::SIGTERM);
    server.wait_for_log(&["shutting down"]);
    drop(busy);
    let talking = thread::spawn(move || {
        let mut answer = [0; 1];
        while talker.write_all(b"x").and_then(|()| talker.read_exact(&mut answer)).is_ok() {}
    });
    for client in &mut waiting {
        assert_eq!(read_to_end(client), b"hello");
    }
    drop(waiting);
    assert_eq!(server.wait_code(), 3, "two of them were cut");
    talking.join().unwrap();
}

#[test]
fn two_signals_at_once_are_harmless_without_clients() {
    // timeout(1) signals its child, and then the whole group.
    for _ in 0..20 {
        let mut server = Server::start(&["--workers", "4"]);
        server.signal(Signal::SIGTERM);
        server.signal_group(Signal::SIGTERM);
        assert_eq!(server.wait_code(), 0);
    }
}

#[test]
fn a_signal_repeated_at_once_is_one_signal() {
    for second in [Signal::SIGTERM, Signal::SIGINT] {
        let mut server = Server::start(&["--workers", "2"]);
        let mut client = server.connect();
        echo(&mut client, b"hello");
        server.signal(Signal::SIGTERM);
        server.wait_for_log(&["shutting down"]);
        server.signal_group(second);
        server.wait_for_log(&["within 200ms: the same one"]);
        echo(&mut client, b"still served");
        assert!(read_to_end(&mut client).is_empty());
        drop(client);
        assert_eq!(server.wait_code(), 0);
    }
}

/// The worker that drains the accept queue, stopped before it closes the socket.
fn stop_the_drainer(server: &Server) -> Pid {
    server.signal(Signal::SIGTERM);
    let line = server.wait_for_log(&["forked to drain the accept queue"]);
    let drainer = Pid::from_raw(number_following(&line, "worker 0 (pid "));
    kill(drainer, Signal::SIGSTOP).unwrap();
    drainer
}

#[test]
fn a_forced_end_while_a_connection_waits_is_status_3() {
    for second in [Signal::SIGQUIT, Signal::SIGTERM] {
        let mut server = Server::start(&["--workers", "1"]);
        let mut busy = server.connect();
        echo(&mut busy, b"the only worker is mine");
        let mut waiting = server.connect();
        stop_the_drainer(&server);
        // It connects while the parent has closed its own copy of the socket.
        let mut late = server.connect();
        late.write_all(b"never answered").unwrap();
        waiting.write_all(b"nor this").unwrap();
        drop(busy);
        thread::sleep(SECOND_SIGNAL);
        server.signal(second);
        assert_eq!(server.wait_code(), 3, "after {second}: {:#?}", server.log());
        assert!(!server.has_processes_left());
    }
}

#[test]
fn a_drainer_that_is_killed_is_status_3() {
    let mut server = Server::start(&["--workers", "1"]);
    let mut busy = server.connect();
    echo(&mut busy, b"the only worker is mine");
    let _waiting = server.connect();
    let drainer = stop_the_drainer(&server);
    kill(drainer, Signal::SIGKILL).unwrap();
    drop(busy);
    assert_eq!(server.wait_code(), 3);
}

#[test]
fn a_short_grace_applies_to_shutdown_only() {
    // On HUP and on TERM to one worker a client has its 0.3 s, whatever the grace.
    for grace in ["0", "200ms"] {
        let server = Server::start(&["--workers", "1", "--grace", grace]);
        for of_the_parent in [true, false] {
            let mut client = server.connect();
            echo(&mut client, b"hello");
            let worker = server.workers()[0];
            let told = Instant::now();
            match of_the_parent {
                true => server.signal(Signal::SIGHUP),
                false => kill(worker, Signal::SIGTERM).unwrap(),
            }
            assert!(read_to_end(&mut client).is_empty());
            let after = told.elapsed();
            assert!(after >= Duration::from_millis(300), "grace {grace}: closed after {after:?}");
            wait_until("the worker has left", || !server.workers().contains(&worker));
        }
    }
}

#[test]
fn the_accept_queue_does_not_wait_for_the_last_client() {
    let mut server = Server::start(&["--workers", "2"]);
    let (mut talker, mut other) = (server.connect(), server.connect());
    echo(&mut talker, b"hello");
    echo(&mut other, b"hello");
    let mut waiting = server.connect();
    waiting.write_all(b"next").unwrap();
    server.signal(Signal::SIGTERM);
    server.wait_for_log(&["shutting down"]);
    drop(other);
    // One client talks on, without falling quiet; the other one's worker is free.
    waiting.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let start = Instant::now();
    while waiting.read(&mut [0; 4]).is_err() {
        echo(&mut talker, b"still talking");
        assert!(start.elapsed() < PATIENCE, "no worker serves the accept queue");
    }
    drop((talker, waiting));
    assert_eq!(server.wait_code(), 0);
}

/// A client that sends `length` bytes as fast as they go, with a small receive buffer,
/// so that much lies on the server's side; they are sent by a thread.
fn sends(server: &Server, length: usize) -> (TcpStream, Vec<u8>, JoinHandle<()>) {
    let (client, message) = (server.connect(), noise(length));
    SockRef::from(&client).set_recv_buffer_size(16_384).unwrap();
    let (mut sender, sent) = (client.try_clone().unwrap(), message.clone());
    (client, message, thread::spawn(move || sender.write_all(&sent).unwrap()))
}

/// Reads so much, in a rhythm of the client's own, and then the rest.
fn read_slowly(client: &mut TcpStream, message: &[u8], slowly: usize) {
    let mut answer = vec![0; message.len()];
    for part in answer[..slowly].chunks_mut(8192) {
        client.read_exact(part).expect("a client that reads on is not cut");
        thread::sleep(Duration::from_millis(30)); // The client's rhythm.
    }
    client.read_exact(&mut answer[slowly..]).expect("a client that reads on is not cut");
    assert!(answer == message, "what came back differs");
}

#[test]
fn a_slow_reader_gets_the_time_it_needs() {
    // Far longer than the time-out without room for more in the buffers.
    let mut server = Server::start(&["--workers", "1", "--idle-timeout", "1s", "--grace", "1m"]);
    let (mut client, message, sending) = sends(&server, 12_000_000);
    server.wait_for_log(&["accepted"]);
    server.signal(Signal::SIGTERM);
    server.wait_for_log(&["shutting down"]);
    read_slowly(&mut client, &message, 800_000);
    sending.join().unwrap();
    assert!(read_to_end(&mut client).is_empty());
    drop(client);
    assert_eq!(server.wait_code(), 0);
}

#[test]
fn a_late_byte_does_not_destroy_bytes_in_flight() {
    let mut server = Server::start(&["--workers", "1", "--grace", "1m"]);
    let (mut client, message, sending) = sends(&server, 1_500_000);
    sending.join().unwrap();
    server.signal(Signal::SIGTERM);
    server.wait_for_log(&["shutting down"]);
    let mut late = client.try_clone().unwrap();
    let sending = thread::spawn(move || {
        thread::sleep(Duration::from_millis(1500)); // The client's rhythm.
        let _ = late.write_all(b"!");
    });
    read_slowly(&mut client, &message, 800_000);
    sending.join().unwrap();
    drop(client);
    assert_eq!(server.wait_code(), 0);
}

#[test]
fn the_accept_queue_does_not_wait_for_busy_clients() {
    let _alone = heavy();
    let mut server = Server::start(&["--workers", "2", "--grace", "8s"]);
    let mut talker = server.connect();
    echo(&mut talker, b"one worker is mine");
    let _greedy = server.connect_without_reading();
    let mut waiting: Vec<_> = (0..10).map(|_| server.connect()).collect();
    for client in &mut waiting {
        client.write_all(b"connected before the end").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
    }
    let start = Instant::now();
    server.signal(Signal::SIGTERM);
    let talking = thread::spawn(move || {
        let mut answer = [0; 1];
        while talker.write_all(b"x").and_then(|()| talker.read_exact(&mut answer)).is_ok() {}
    });
    for client in &mut waiting {
        assert_eq!(read_to_end(client), b"connected before the end");
    }
    assert!(start.elapsed() < Duration::from_secs(4), "they have waited for {:?}", start.elapsed());
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_code(), 3, "two were cut");
    talking.join().unwrap();
}

#[test]
fn the_accept_queue_does_not_wait_for_draining_workers() {
    let _alone = heavy();
    let mut server = Server::start(&["--workers", "1", "--grace", "8s"]);
    let mut talker = server.connect();
    echo(&mut talker, b"the only worker is mine");
    let talking = thread::spawn(move || {
        let mut answer = [0; 1];
        while talker.write_all(b"x").and_then(|()| talker.read_exact(&mut answer)).is_ok() {}
    });
    kill(server.workers()[0], Signal::SIGTERM).unwrap();
    wait_until("the worker is leaving", || server.status()["workers"][0]["state"] == "draining");
    let mut waiting = server.connect();
    waiting.write_all(b"connected before the end").unwrap();
    waiting.shutdown(Shutdown::Write).unwrap();
    let start = Instant::now();
    server.signal(Signal::SIGTERM);
    assert_eq!(read_to_end(&mut waiting), b"connected before the end");
    assert!(start.elapsed() < Duration::from_secs(4), "it has waited for {:?}", start.elapsed());
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_code(), 3, "the talker was cut");
    talking.join().unwrap();
}

#[test]
fn bytes_sent_while_a_draining_worker_is_stopped_are_echoed() {
    let mut server = Server::start(&["--workers", "1"]);
    let mut client = server.connect();
    echo(&mut client, b"hello");
    let worker = server.workers()[0];
    server.signal(Signal::SIGTERM);
    server.wait_for_log(&["shutting down"]);
    kill(worker, Signal::SIGSTOP).unwrap();
    client.write_all(b"the line isn't quiet").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    // The parent continues it, half a second after it was told: then it seems quiet.
    assert_eq!(read_to_end(&mut client), b"the line isn't quiet");
    drop(client);
    assert_eq!(server.wait_code(), 0);
}

#[test]
fn workers_left_after_the_grace_are_killed_with_status_3() {
    let mut server = Server::start(&["--workers", "2", "--grace", "400ms"]);
    let _greedy = server.connect_without_reading();
    let start = Instant::now();
    assert_eq!(server.stop(), 3);
    assert!(start.elapsed() >= Duration::from_millis(400), "killed after {:?}", start.elapsed());
    assert!(!server.has_processes_left());
    server.wait_for_log(&["400ms are over", "killing 1 worker", "--grace"]);
}

#[test]
fn a_second_signal_ends_the_server_at_once() {
    for (first, second) in [(Signal::SIGTERM, Signal::SIGTERM), (Signal::SIGINT, Signal::SIGINT)] {
        let mut server = Server::start(&["--workers", "2", "--grace", "1h"]);
        let _greedy = server.connect_without_reading();
        server.signal(first);
        server.wait_for_log(&["shutting down"]);
        thread::sleep(SECOND_SIGNAL);
        server.signal(second);
        assert_eq!(server.wait_code(), 3);
        assert!(!server.has_processes_left());
    }
}

#[test]
fn quit_ends_at_once_and_the_status_reports_cuts() {
    let mut idle = Server::start(&[]);
    idle.signal(Signal::SIGQUIT);
    assert_eq!(idle.wait_code(), 0);

    let mut busy = Server::start(&[]);
    let mut client = busy.connect();
    echo(&mut client, b"hello");
    busy.signal(Signal::SIGQUIT);
    assert_eq!(busy.wait_code(), 3);
    assert!(!busy.has_processes_left());
}

#[test]
fn ctrl_c_to_the_group_is_handled_by_the_parent() {
    let mut server = Server::start(&["--workers", "2"]);
    let mut client = server.connect();
    echo(&mut client, b"hello");
    server.signal_group(Signal::SIGINT);
    echo(&mut client, b"I am still served");
    assert!(read_to_end(&mut client).is_empty());
    drop(client);
    assert_eq!(server.wait_code(), 0);
}

#[test]
fn stopped_workers_do_not_delay_shutdown() {
    let mut server = Server::start(&["--workers", "3", "--grace", "1h"]);
    let workers = server.wait_for_workers(3);
    workers.iter().for_each(|worker| kill(*worker, Signal::SIGSTOP).unwrap());
    assert_eq!(server.stop(), 0);
    assert!(!server.has_processes_left());
}

#[test]
fn a_worker_stopped_after_term_does_not_delay_shutdown() {
    let mut server = Server::start(&["--workers", "1", "--grace", "1h"]);
    let mut client = server.connect();
    echo(&mut client, b"so that it doesn't leave at once");
    let worker = server.workers()[0];
    server.signal(Signal::SIGTERM);
    server.wait_for_log(&["shutting down"]);
    kill(worker, Signal::SIGSTOP).unwrap();
    assert!(read_to_end(&mut client).is_empty());
    drop(client);
    assert_eq!(server.wait_code(), 0);
}

#[test]
fn during_shutdown_dead_workers_are_not_replaced() {
    for _ in 0..rounds(5, 20) {
        let mut server = Server::start(&["--workers", "4"]);
        let workers = server.wait_for_workers(4);
        let (first, second) = workers.split_at(2);
        first.iter().for_each(|worker| kill(*worker, Signal::SIGKILL).unwrap());
        server.signal(Signal::SIGTERM);
        // Some are gone already.
        for worker in second {
            let _ = kill(*worker, Signal::SIGKILL);
        }
        assert_eq!(server.wait_code(), 0);
        assert!(!server.has_processes_left());
        let log = server.log();
        let stopping = log.iter().position(|line| line.contains("shutting down")).expect("it was told to");
        assert!(!log[stopping..].iter().any(|line| line.contains("replaces pid")), "{log:#?}");
    }
}

/// What happened to clients that connected, sent and read without a pause.
#[derive(Default)]
struct Counts {
    served: AtomicU32,
    /// After the connection stood: what must not happen.
    cut: AtomicU32,
}

fn hammer(address: std::net::SocketAddr, tally: &Counts, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        // Refused, or no answer to the SYN: nothing was promised.
        let Ok(mut client) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100))
        else {
            continue;
        };
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = [0; 8];
        let result = client.write_all(b"12345678").and_then(|()| client.read_exact(&mut answer));
        match result {
            Ok(()) => tally.served.fetch_add(1, Ordering::Relaxed),
            Err(_) => tally.cut.fetch_add(1, Ordering::Relaxed),
        };
    }
}

#[test]
fn clients_that_connect_without_pause_are_not_reset() {
    let _alone = heavy();
    let (mut served, mut cut) = (0, 0);
    for _ in 0..rounds(3, 40) {
        let mut server = Server::start(&["-q"]);
        let (tally, done) = (Arc::new(Counts::default()), Arc::new(AtomicBool::new(false)));
        let clients: Vec<_> = (0..24)
            .map(|_| {
                let (tally, done, address) = (Arc::clone(&tally), Arc::clone(&done), server.address);
                thread::spawn(move || hammer(address, &tally, &done))
            })
            .collect();
        wait_until("the load is on", || tally.served.load(Ordering::Relaxed) > 200);
        assert_eq!(server.stop(), 0);
        done.store(true, Ordering::Relaxed);
        clients.into_iter().for_each(|client| client.join().unwrap());
        served += tally.served.load(Ordering::Relaxed);
        cut += tally.cut.load(Ordering::Relaxed);
    }
    println!("{cut} connections of {served} were cut");
    // Without the sweeps they are hundreds. One may be cut all the same: one whose
    // handshake ends in the instant in which the socket is closed.
    assert!(cut <= 6, "{cut} connections of {served} were cut");
}

#[test]
fn term_during_the_start_is_not_lost() {
    let _alone = heavy();
    for _ in 0..rounds(5, 20) {
        let mut server = Server::start(&["-q", "--workers", "50"]);
        assert_eq!(server.stop(), 0);
        assert!(!server.has_processes_left());
    }
}

#[test]
fn late_clients_are_served_or_refused() {
    // Whatever happens to a connection, it is served or refused, never reset.
    let mut server = Server::start(&["--workers", "1"]);
    let mut busy = server.connect();
    echo(&mut busy, b"hello");
    server.signal(Signal::SIGTERM);
    server.wait_for_log(&["shutting down"]);
    let late = std::net::TcpStream::connect_timeout(&server.address, Duration::from_secs(1));
    drop(busy);
    if let Ok(mut late) = late {
        late.set_read_timeout(Some(PATIENCE)).unwrap();
        match late.write_all(b"late").and_then(|()| late.read_exact(&mut [0; 4])) {
            Ok(()) => {}
            Err(error) => assert_ne!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
    assert_eq!(server.wait_code(), 0);
    assert!(connect_refused(&server));
}

fn connect_refused(server: &Server) -> bool {
    std::net::TcpStream::connect(server.address)
        .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

#[test]
fn the_server_exits_after_its_last_client() {
    let mut server = Server::start(&["--workers", "1"]);
    let mut client = connect(server.address);
    echo(&mut client, b"hello");
    server.signal(Signal::SIGTERM);
    drop(client);
    let start = Instant::now();
    assert_eq!(server.wait_code(), 0);
    assert!(start.elapsed() < Duration::from_secs(5), "it took {:?}", start.elapsed());
}
