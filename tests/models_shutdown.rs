//! Three ways to serve (`--model`): in each of them a worker leaves, and the server ends,
//! without cutting a client.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::models::{
    ALL, Client, SHARED, connect_clients, exchange, in_each, number, start, start_workers, workers,
};
use crate::common::{
    PATIENCE, Server, SetOnDrop, echo, heavy, noise, number_following, read_to_end, rounds, wait_until,
};
use crate::orphans::kill_the_parent;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::SockRef;

/// Clients that one worker serves at once in these tests.
fn clients_of_one(model: &str) -> usize {
    if model == "process" { 1 } else { 3 }
}

/// The worker that has accepted a client: its slot and its pid.
#[track_caller]
fn worker_of(server: &Server, client: &Client) -> (i32, Pid) {
    let line = server.wait_for_log(&["accepted ", &client.stream.local_addr().unwrap().to_string()]);
    (number_following(&line, "worker "), Pid::from_raw(number_following(&line, "(pid ")))
}

#[track_caller]
fn assert_none_was_cut(server: &Server) {
    let is_cut = |line: &String| ["cut off", "lost, ", "panicked"].iter().any(|word| line.contains(word));
    assert!(!server.log().iter().any(is_cut), "{:#?}", server.log());
}

/// Now the clients are quiet.
#[track_caller]
fn assert_parted(clients: Vec<Client>) {
    for mut client in clients {
        assert!(read_to_end(&mut client.stream).is_empty());
    }
}

#[test]
fn hup_cuts_no_client_in_the_midst_of_an_exchange() {
    in_each(&ALL, |model| {
        let server = start_workers(model, 2, clients_of_one(model), &[]);
        let old = server.wait_for_workers(2);
        let mut clients = connect_clients(&server, 2 * clients_of_one(model));
        server.signal(Signal::SIGHUP);
        server.wait_for_status("the old ones are leaving", |look| {
            exchange(&mut clients, 1);
            let leaving = workers(look).iter().filter(|worker| worker["state"] == "draining").count();
            leaving == 2 || clients.is_empty()
        });
        exchange(&mut clients, 10);
        let (_, new) = worker_of(&server, &connect_clients(&server, 1)[0]);
        assert!(!old.contains(&new), "a worker that leaves accepts no more");
        assert_parted(clients);
        wait_until("the old ones have left", || !server.workers().iter().any(|worker| old.contains(worker)));
        assert_none_was_cut(&server);
    });
}

#[test]
fn ttin_and_ttou_add_and_remove_a_worker_with_all_its_clients() {
    in_each(&ALL, |model| {
        let server = start_workers(model, 1, clients_of_one(model), &[]);
        server.signal(Signal::SIGTTIN);
        server.wait_for_idle_workers(2);
        let mut clients = connect_clients(&server, 2 * clients_of_one(model));
        assert_eq!(server.status()["pool"]["min"], 2);
        server.signal(Signal::SIGTTOU);
        server.wait_for_log(&["SIGTTOU: 1 worker from now on"]);
        exchange(&mut clients, 10);
        let is_leaving = |client: &mut Client| worker_of(&server, client).0 == 1;
        assert_parted(clients.extract_if(.., is_leaving).collect());
        assert_eq!(clients.len(), clients_of_one(model));
        clients.iter_mut().for_each(|client| echo(&mut client.stream, b"still served"));
        server.wait_for_workers(1);
        drop(clients);
        server.connect_served(clients_of_one(model));
        assert_none_was_cut(&server);
    });
}

#[test]
fn term_to_one_worker_replaces_it_while_it_finishes_its_clients() {
    in_each(&ALL, |model| {
        let server = start_workers(model, 2, clients_of_one(model), &[]);
        let mut clients = connect_clients(&server, 2 * clients_of_one(model));
        let (_, leaving) = worker_of(&server, &clients[0]);
        kill(leaving, Signal::SIGTERM).unwrap();
        let replaced = format!("replaces pid {leaving}, ");
        if model != "process" {
            server.wait_for_log(&[&replaced, "which finishes its clients"]);
            exchange(&mut clients, 1);
            server.connect_served(1);
        }
        exchange(&mut clients, 10);
        let is_leaving = |client: &mut Client| worker_of(&server, client).1 == leaving;
        assert_parted(clients.extract_if(.., is_leaving).collect());
        assert_eq!(clients.len(), clients_of_one(model));
        clients.iter_mut().for_each(|client| echo(&mut client.stream, b"still served"));
        server.wait_for_log(&[&format!("(pid {leaving}) left with exit code 0")]);
        server.wait_for_log(&[&replaced]);
        server.wait_for_workers(2);
        assert_none_was_cut(&server);
    });
}

/// A worker that has accepted all that it may, with clients that stay.
fn start_limited(model: &str) -> (Server, Vec<Client>, Pid) {
    let server = start_workers(model, 1, clients_of_one(model), &["--max-connections", "3"]);
    (clients_of_one(model)..3).for_each(|_| server.echo(b"a short visit"));
    let clients = connect_clients(&server, clients_of_one(model));
    let (_, worker) = worker_of(&server, &clients[0]);
    (server, clients, worker)
}

#[test]
fn a_worker_at_its_limit_goes_on_serving_the_clients_that_stay() {
    in_each(&ALL, |model| {
        let (server, mut clients, first) = start_limited(model);
        if model != "process" {
            server.wait_for_log(&[&format!("(pid {first}) accepts no more, and finishes its clients")]);
            let new = connect_clients(&server, 1);
            assert_ne!(worker_of(&server, &new[0]).1, first, "another one accepts");
        }
        thread::sleep(Duration::from_millis(800)); // Far longer than a worker that leaves waits.
        // Not by `exchange`, which takes an end after such a silence for no cut.
        clients.iter_mut().for_each(|client| echo(&mut client.stream, b"still served"));
        drop(clients);
        server.wait_for_log(&[&format!("(pid {first}) left with exit code 0"), "and 3 connections"]);
        server.connect_served(1);
        assert_none_was_cut(&server);
    });
}

#[test]
fn when_one_worker_at_its_limit_has_left_the_next_one_is_replaced() {
    in_each(&SHARED, |model| {
        let (mut server, first_clients, _) = start_limited(model);
        let mut clients = connect_clients(&server, clients_of_one(model));
        let (_, second) = worker_of(&server, &clients[0]);
        // As many as there are slots are leaving already, and no more are forked for now.
        let mut waiting = server.connect();
        waiting.write_all(b"hello").unwrap();
        drop(first_clients);
        waiting.read_exact(&mut [0; 5]).unwrap();
        server.wait_for_log(&[&format!("replaces pid {second}, which finishes its clients")]);
        exchange(&mut clients, 1);
        server.signal(Signal::SIGTERM);
        assert_parted(clients);
        drop(waiting);
        assert_eq!(server.wait_code(), 0);
        assert_none_was_cut(&server);
    });
}

#[test]
fn shutdown_serves_clients_of_each_state_and_the_accept_queue() {
    in_each(&ALL, |model| {
        let mut server = start(model, 4, &["--grace", "1m"]);
        let mut quiet = server.connect_served(1).remove(0);
        let mut silent = server.connect();
        let (mut slow, message) = (server.connect(), noise(2_000_000));
        SockRef::from(&slow).set_recv_buffer_size(16_384).unwrap();
        let mut half_closed = server.connect();
        half_closed.write_all(&message[..100_000]).unwrap();
        half_closed.shutdown(Shutdown::Write).unwrap();
        let mut waiting: Vec<_> = (0..8).map(|_| server.connect()).collect();
        waiting.iter_mut().for_each(|client| client.write_all(b"hello").unwrap());
        thread::scope(|scope| {
            let (mut sender, sent) = (slow.try_clone().unwrap(), &message);
            scope.spawn(move || sender.write_all(sent).unwrap());
            server.signal(Signal::SIGTERM);
            let mut answer = vec![0; message.len()];
            for part in answer[..200_000].chunks_mut(10_000) {
                slow.read_exact(part).unwrap();
                thread::sleep(Duration::from_millis(20)); // The client's rhythm.
            }
            slow.read_exact(&mut answer[200_000..]).unwrap();
            assert!(answer == message, "what came back differs");
        });
        waiting.iter_mut().for_each(|client| assert_eq!(read_to_end(client), b"hello"));
        assert!(read_to_end(&mut half_closed) == message[..100_000]);
        for client in [&mut quiet, &mut silent, &mut slow] {
            assert!(read_to_end(client).is_empty());
        }
        drop((quiet, silent, slow));
        assert_eq!(server.wait_code(), 0);
        assert_none_was_cut(&server);
    });
}

/// Connects, echoes and closes without a pause. Counts connections that were served, and those
/// that were cut after they had been established.
fn hammer(address: SocketAddr, served: &AtomicU32, cut: &AtomicU32, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        let mut client = match TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
            Ok(client) => client,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return,
            Err(_) => continue,
        };
        let connected = Instant::now();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        // On a busy machine this thread may be slow: a client that is silent for so long
        // is one that a leaving server parts from.
        let silent = connected.elapsed() > Duration::from_millis(250);
        match client.write_all(b"12345678").and_then(|()| client.read_exact(&mut [0; 8])) {
            Ok(()) => served.fetch_add(1, Ordering::Relaxed),
            Err(_) if silent => continue,
            Err(_) => cut.fetch_add(1, Ordering::Relaxed),
        };
    }
}

#[test]
fn term_under_a_flood_of_connections_cuts_one_at_the_most() {
    let _alone = heavy();
    let (served, cut) = (AtomicU32::new(0), AtomicU32::new(0));
    for model in ALL {
        for round in 0..rounds(2, 40) {
            let clients = if model == "process" { 1 } else { 16 };
            let mut server = start_workers(model, 4, clients, &["-q"]);
            let (address, done, before) =
                (server.address, AtomicBool::new(false), served.load(Ordering::Relaxed));
            thread::scope(|scope| {
                let _stop = SetOnDrop(&done);
                for _ in 0..24 {
                    scope.spawn(|| hammer(address, &served, &cut, &done));
                }
                wait_until("the load is on", || served.load(Ordering::Relaxed) > before + 200);
                assert_eq!(server.stop(), 0, "{model}, round {round}: {:#?}", server.log());
            });
        }
        println!("{model}: {cut:?} connections of {served:?} were cut so far");
    }
    // Without the final drain they are hundreds. One may be cut all the same: one whose
    // handshake ends in the instant in which the socket is closed.
    assert!(cut.load(Ordering::Relaxed) <= 1, "{cut:?} connections of {served:?} were cut");
}

#[test]
fn workers_that_are_replaced_under_load_cut_no_client() {
    let _alone = heavy();
    in_each(&ALL, |model| {
        let server = start_workers(model, 2, clients_of_one(model), &["-q", "--max-connections", "20"]);
        let (address, done) = (server.address, AtomicBool::new(false));
        let (served, cut) = (AtomicU32::new(0), AtomicU32::new(0));
        thread::scope(|scope| {
            let _stop = SetOnDrop(&done);
            for _ in 0..6 {
                scope.spawn(|| hammer(address, &served, &cut, &done));
            }
            server.wait_for_status("many are replaced", |look| number(&look["totals"]["restarts"]) >= 20);
        });
        let totals = &server.status()["totals"];
        println!("{model}: {totals}, {cut:?} cut");
        assert_eq!(cut.into_inner(), 0, "of {served:?}");
        assert!(number(&totals["connections"]) >= u64::from(served.into_inner()), "{totals}");
    });
}

#[test]
fn no_worker_and_no_thread_outlives_the_parent_by_a_second() {
    let _alone = heavy();
    in_each(&ALL, |model| {
        let mut server = start_workers(model, 3, clients_of_one(model), &["-q"]);
        let mut quiet = server.connect_served(1).remove(0);
        let _greedy = server.connect_without_reading();
        let mut talker = server.connect_served(1).remove(0);
        let talking = thread::spawn(move || {
            let mut answer = [0; 1];
            while talker.write_all(b"x").and_then(|()| talker.read_exact(&mut answer)).is_ok() {}
        });
        let took = kill_the_parent(&mut server);
        println!("{model}: the last worker has left {took:?} after the parent's death");
        assert!(read_to_end(&mut quiet).is_empty());
        talking.join().unwrap();
    });
}
