//! The parent dies without a word: no process and no socket stays behind.

use std::io::Write;
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Server, echo, heavy, noise, read_to_end, rounds, wait_until};
use nix::sys::signal::{Signal, kill};

/// Kills the parent, and waits until no worker and no listening socket is left: how
/// long that takes, a second at the most.
#[track_caller]
pub fn kill_the_parent(server: &mut Server) -> Duration {
    let start = Instant::now();
    server.signal(Signal::SIGKILL);
    server.wait();
    wait_until("all workers have left", || !server.has_processes_left());
    let took = start.elapsed();
    TcpListener::bind(server.address).expect("the port is free");
    assert!(took < Duration::from_secs(1), "it took {took:?}");
    took
}

#[test]
fn idle_workers_leave() {
    let _alone = heavy();
    let most = (0..rounds(2, 20)).map(|_| kill_the_parent(&mut Server::start(&["-q"]))).max();
    println!("from the parent's death to the last of 4 idle workers': most {:?}", most.unwrap());
    for workers in ["1", "100"] {
        kill_the_parent(&mut Server::start(&["-q", "--workers", workers]));
    }
}

#[test]
fn busy_workers_leave() {
    let _alone = heavy();
    let most = (0..rounds(2, 20)).map(|_| {
        let mut server = Server::start(&["-q"]);
        let mut clients: Vec<_> = (0..3).map(|_| server.connect()).collect();
        clients.iter_mut().for_each(|client| echo(client, b"hello"));
        let _greedy = server.connect_without_reading();
        kill_the_parent(&mut server)
    });
    println!("from the parent's death to the last of 4 busy workers': most {:?}", most.max().unwrap());
}

#[test]
fn clients_of_orphaned_workers_read_an_end_of_file() {
    let _alone = heavy();
    let mut server = Server::start(&["--workers", "2"]);
    let mut client = server.connect();
    echo(&mut client, b"hello");
    kill_the_parent(&mut server);
    assert!(read_to_end(&mut client).is_empty());
    server.wait_for_log(&["leaving: the parent is gone"]);
}

#[test]
fn the_listening_socket_goes_before_the_client() {
    let mut server = Server::start(&["--workers", "1"]);
    let mut client = server.connect();
    echo(&mut client, b"hello");
    server.signal(Signal::SIGKILL);
    server.wait();
    wait_until("the listening socket is closed", || TcpListener::bind(server.address).is_ok());
    // Within its last moments the client is still served, unless they are over.
    assert!(client.write_all(b"to the end").is_ok() || !server.has_processes_left());
}

#[test]
fn a_worker_blocked_in_send_leaves() {
    let _alone = heavy();
    let mut server = Server::start(&["--workers", "1"]);
    let _greedy = server.connect_without_reading();
    kill_the_parent(&mut server);
}

#[test]
fn a_worker_with_a_busy_client_leaves() {
    let _alone = heavy();
    let mut server = Server::start(&["-q", "--workers", "1"]);
    let mut client = server.connect();
    let mut sender = client.try_clone().unwrap();
    let sending = thread::spawn(move || while sender.write_all(&noise(1_000_000)).is_ok() {});
    let reading = thread::spawn(move || std::io::copy(&mut client, &mut std::io::sink()));
    kill_the_parent(&mut server);
    sending.join().unwrap();
    // However that connection ends.
    let _ = reading.join().unwrap();
}

#[test]
fn a_draining_worker_leaves() {
    let _alone = heavy();
    let mut server = Server::start(&["--workers", "1", "--grace", "1h"]);
    let _greedy = server.connect_without_reading();
    server.signal(Signal::SIGTERM);
    server.wait_for_log(&["shutting down"]);
    kill_the_parent(&mut server);
}

#[test]
fn a_parent_killed_while_forking_leaves_no_processes() {
    let _alone = heavy();
    let most = (0..rounds(3, 20)).map(|round| {
        let mut server = Server::start(&["-q", "--workers", "200"]);
        // All are killed, so that the parent forks; then the parent is.
        let workers = server.workers();
        workers.iter().for_each(|worker| kill(*worker, Signal::SIGKILL).unwrap());
        thread::sleep(Duration::from_millis(round)); // Another instant each round.
        kill_the_parent(&mut server)
    });
    println!("and when it was forking up to 200: most {:?}", most.max().unwrap());
}

// A stopped process hears of its parent's death only where the kernel tells it.
#[cfg(target_os = "linux")]
#[test]
fn stopped_workers_leave() {
    let _alone = heavy();
    let mut server = Server::start(&["--workers", "3"]);
    server.wait_for_workers(3).iter().for_each(|worker| kill(*worker, Signal::SIGSTOP).unwrap());
    kill_the_parent(&mut server);
}
