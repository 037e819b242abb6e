//! Orderly shutdown while the accept queue overflows: a full queue drops the end of
//! handshakes, so clients believe that they are connected, and the server does not
//! know of them until their TCP sends again.
#![cfg(target_os = "linux")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::models::ALL;
use crate::common::{PATIENCE, Server, SetOnDrop, connect, heavy, read_to_end, rounds, wait_until};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use prefork_echo::sys::socket::{drops, is_accepted, queue_overflows};
use socket2::{Domain, Socket, Type};

/// What happened to the connections of one run.
#[derive(Default)]
struct Counts {
    served: AtomicU32,
    cut_before: AtomicU32,
    cut_after: AtomicU32,
}

/// Connects, echoes and closes without a pause. A connection that was established and
/// then got no answer was cut; the time says whether that was before SIGTERM.
fn hammer(address: SocketAddr, counts: &Counts, signalled: &AtomicBool, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        let mut client = match TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
            Ok(client) => client,
            // The listening socket is closed. Trying on would take the server's processor.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return,
            Err(_) => continue,
        };
        let before = !signalled.load(Ordering::SeqCst);
        let connected = Instant::now();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = [0; 8];
        // On a busy machine this thread may be slow: a client that is silent for so long
        // is one that a leaving server parts from.
        let silent = connected.elapsed() > Duration::from_millis(250);
        let counter = match client.write_all(b"12345678").and_then(|()| client.read_exact(&mut answer)) {
            Ok(()) => &counts.served,
            Err(_) if silent => continue,
            Err(_) if before => &counts.cut_before,
            Err(_) => &counts.cut_after,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// When SIGTERM comes: at another moment between the retransmissions of the clients that
/// the first burst has delayed. At 1.85 s their handshakes are complete, and their bytes
/// are not yet sent again.
fn moment(round: u32) -> Duration {
    Duration::from_millis(if round == 0 { 1850 } else { 1600 + 100 * u64::from(round) })
}

/// SIGTERM under the load of so many clients. Returns how many connections were cut
/// that had been established before and after the signal.
fn shut_down_under_load(arguments: &[&str], clients: usize, lasts: Duration) -> (u32, u32) {
    let mut server = Server::start(&[&["-q"], arguments].concat());
    let (counts, signalled, done) = (Counts::default(), AtomicBool::new(false), AtomicBool::new(false));
    let address = server.address;
    let took = thread::scope(|scope| {
        let _stop = SetOnDrop(&done);
        for _ in 0..clients {
            let client = || hammer(address, &counts, &signalled, &done);
            thread::Builder::new().stack_size(64 * 1024).spawn_scoped(scope, client).unwrap();
        }
        let start = Instant::now();
        wait_until("the load has lasted", || start.elapsed() >= lasts);
        signalled.store(true, Ordering::SeqCst);
        server.signal(Signal::SIGTERM);
        let start = Instant::now();
        let code = server.wait_code();
        assert_eq!(code, 0, "{:#?}", server.log());
        start.elapsed()
    });
    let count = |counter: &AtomicU32| counter.load(Ordering::Relaxed);
    let (before, after) = (count(&counts.cut_before), count(&counts.cut_after));
    println!(
        "{arguments:?}, {clients} clients: {} served, cut: {before} connected before SIGTERM, {after} after; \
         shutdown took {took:.1?}",
        count(&counts.served)
    );
    (before, after)
}

#[test]
fn no_connection_of_an_overflowing_queue_is_cut() {
    let _alone = heavy();
    for round in 0..rounds(1, 6) {
        let (before, _) = shut_down_under_load(&["--workers", "2", "--backlog", "4"], 100, moment(round));
        assert_eq!(before, 0, "connections established before SIGTERM were cut");
    }
}

#[test]
fn no_connection_of_1500_clients_is_cut() {
    let _alone = heavy();
    // Servers of other tests may inherit the higher limit; those that depend on one set it.
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(hard.min(4096)), hard).unwrap();
    for round in 0..rounds(1, 6) {
        let (before, _) = shut_down_under_load(&["--workers", "4"], 1500, moment(round));
        assert_eq!(before, 0, "connections established before SIGTERM were cut");
    }
}

/// Resets ten connections before their handshakes are complete, as HAProxy's health checks do: the
/// kernel counts each as a segment that the listening socket has dropped.
pub fn reset_handshakes(address: SocketAddr) {
    for _ in 0..10 {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_tcp_quickack(false).unwrap(); // The last segment of the handshake waits.
        socket.set_linger(Some(Duration::ZERO)).unwrap();
        socket.connect(&address.into()).unwrap();
    }
}

#[test]
fn the_kernel_counts_handshakes_that_are_reset() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(drops(&listener), Some(0));
    reset_handshakes(listener.local_addr().unwrap());
    wait_until("it has counted them", || drops(&listener) == Some(10));
}

/// Does a server end soon after handshakes were reset, though a worker has a client that says nothing?
/// After an overflow it would wait for two seconds. `start` starts it, and gives its address and what
/// ends it.
#[track_caller]
pub fn resets_do_not_delay_the_end<End: FnOnce()>(start: impl Fn() -> (SocketAddr, End)) {
    let _alone = heavy();
    // Where the machine's count rises, another test's accept queue has overflowed.
    wait_until("no other queue overflows meanwhile", || {
        let before = queue_overflows();
        let (address, end) = start();
        reset_handshakes(address);
        let mut silent = connect(address);
        let own = silent.local_addr().unwrap();
        wait_until("it is accepted", || is_accepted(address, own) == Some(true));
        let client = thread::spawn(move || assert_eq!(read_to_end(&mut silent), b""));
        let began = Instant::now();
        end();
        let took = began.elapsed();
        client.join().unwrap();
        let alone = queue_overflows() == before;
        assert!(!alone || took < Duration::from_millis(1500), "it took {took:?}");
        alone
    });
}

#[test]
fn handshakes_that_clients_reset_are_no_overflow() {
    for model in ALL {
        resets_do_not_delay_the_end(|| {
            let mut server = Server::start(&["-q", "--workers", "1", "--model", model]);
            (server.address, move || assert_eq!(server.stop(), 0, "{model}"))
        });
    }
}
