//! What clients do and what befalls the server, in any order, and what holds all the
//! same: every byte comes back in order or the connection ends, the workers are as
//! many as were ordered, no zombie and no orphan is left, the scoreboard's sums are right.
//!
//! The seed is printed, 64 hexadecimal digits; `INTERLEAVINGS_SEED` takes it for the
//! same interleavings again, and `PROPTEST_CASES` says how many.

use std::env;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Server, heavy, processes, rounds, wait_until};
use nix::sys::signal::{Signal, kill};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::Value;
use socket2::SockRef;

/// Clients at once, at the most.
const CLIENTS: usize = 5;

/// Workers in the beginning.
const WORKERS: usize = 2;

#[derive(Debug, Clone)]
enum Step {
    // Of a client; the first number says which one. A client that isn't connected connects.
    Send(usize, usize),
    StopReading(usize),
    ReadOn(usize),
    HalfClose(usize),
    Reset(usize),
    Vanish(usize),
    // Blows to one of the workers; the number says which one.
    Kill(usize),
    Stop(usize),
    Continue(usize),
    Term(usize),
    // Orders to the parent.
    Hup,
    Ttin,
    Ttou,
    Pause(Duration),
}

/// What comes last.
#[derive(Debug, Clone, Copy)]
enum End {
    /// The clients end, and then the server.
    InPeace,
    /// The server is told to end while there are clients.
    Term,
    /// The parent is killed.
    KillTheParent,
}

fn step() -> impl Strategy<Value = Step> {
    let (client, worker) = (0..CLIENTS, 0..WORKERS + 2);
    prop_oneof![
        6 => (client.clone(), 1..400_000_usize).prop_map(|(client, bytes)| Step::Send(client, bytes)),
        4 => (client.clone(), 1..100_usize).prop_map(|(client, bytes)| Step::Send(client, bytes)),
        // More than the buffers on the way hold: the worker blocks in send.
        2 => (client.clone(), 4_000_000..12_000_000_usize).prop_map(|(client, bytes)| Step::Send(client, bytes)),
        2 => client.clone().prop_map(Step::StopReading),
        1 => client.clone().prop_map(Step::ReadOn),
        2 => client.clone().prop_map(Step::HalfClose),
        1 => client.clone().prop_map(Step::Reset),
        2 => client.prop_map(Step::Vanish),
        2 => worker.clone().prop_map(Step::Kill),
        1 => worker.clone().prop_map(Step::Stop),
        1 => worker.clone().prop_map(Step::Continue),
        2 => worker.prop_map(Step::Term),
        1 => Just(Step::Hup),
        1 => Just(Step::Ttin),
        1 => Just(Step::Ttou),
        4 => (0..4_000_u64).prop_map(|micros| Step::Pause(Duration::from_micros(micros))),
    ]
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![2 => Just(End::InPeace), 2 => Just(End::Term), 1 => Just(End::KillTheParent)]
}

/// A client that never blocks, and checks each byte that comes back.
struct Client {
    stream: TcpStream,
    number: usize,
    sent: usize,
    received: usize,
    reads: bool,
    half_closed: bool,
    /// The server has ended the connection.
    ended: bool,
}

impl Client {
    fn connect(server: &Server, number: usize) -> Client {
        let stream = server.connect();
        stream.set_nonblocking(true).unwrap();
        Client { stream, number, sent: 0, received: 0, reads: true, half_closed: false, ended: false }
    }

    /// The bytes that this client sends, from `start` on: others than any other's.
    fn bytes(&self, start: usize, length: usize) -> Vec<u8> {
        (start..start + length).map(|place| (place ^ (place >> 8) ^ (self.number * 59)) as u8).collect()
    }

    /// As many as there is room for.
    fn send(&mut self, length: usize) {
        let bytes = self.bytes(self.sent, length);
        let mut left = bytes.as_slice();
        while !left.is_empty() && !self.half_closed && !self.ended {
            match self.stream.write(left) {
                Ok(taken) => {
                    self.sent += taken;
                    left = &left[taken..];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.ended = true,
            }
        }
    }

    /// As many as there are. Says whether there were any.
    fn receive(&mut self) -> bool {
        let before = self.received;
        let mut buffer = vec![0; 65_536];
        while !self.ended {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.ended = true,
                Ok(length) => {
                    assert!(self.received + length <= self.sent, "more came back than was sent");
                    assert!(
                        buffer[..length] == self.bytes(self.received, length),
                        "what came back after byte {} differs",
                        self.received
                    );
                    self.received += length;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => self.ended = true,
            }
        }
        self.received > before
    }

    fn half_close(&mut self) {
        self.half_closed = true;
        // An error is for a connection that the server has ended.
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

/// A server with its clients, and what is known of both.
struct Model {
    server: Server,
    clients: [Option<Client>; CLIENTS],
    /// How many workers there are to be.
    workers: usize,
    /// Clients that were ever connected, and bytes of those that are gone.
    connects: usize,
    gone: (usize, usize),
    kills: usize,
    /// Has anything befallen workers that may end connections? Then bytes are only
    /// checked as far as they came.
    blows: bool,
    slots_removed: bool,
}

impl Model {
    fn new() -> Model {
        Model {
            server: Server::start(&["--workers", &WORKERS.to_string()]),
            clients: Default::default(),
            workers: WORKERS,
            connects: 0,
            gone: (0, 0),
            kills: 0,
            blows: false,
            slots_removed: false,
        }
    }

    fn client(&mut self, number: usize) -> &mut Client {
        if self.clients[number].is_none() {
            self.connects += 1;
            self.clients[number] = Some(Client::connect(&self.server, number));
        }
        self.clients[number].as_mut().expect("it is there by now")
    }

    fn take(&mut self, number: usize) -> Option<Client> {
        let client = self.clients[number].take()?;
        self.gone = (self.gone.0 + client.sent, self.gone.1 + client.received);
        Some(client)
    }

    fn signal_worker(&mut self, number: usize, signal: Signal) {
        let workers = self.server.workers();
        if let Some(worker) = workers.get(number % workers.len().max(1)) {
            // The server may have reaped it since, and then this fails.
            let _ = kill(*worker, signal);
        }
    }

    /// Two orders of one kind that come together are one, so each is waited for.
    fn order(&mut self, signal: Signal, answer: &str) {
        let answers = |server: &Server| {
            let log = server.log();
            log.iter().filter(|line| line.contains(&format!("{signal}: ")) && line.contains(answer)).count()
        };
        let before = answers(&self.server);
        self.server.signal(signal);
        wait_until("the parent has taken the order", || answers(&self.server) > before);
    }

    fn take_step(&mut self, step: &Step) {
        match *step {
            Step::Send(client, bytes) => self.client(client).send(bytes),
            Step::StopReading(client) => self.client(client).reads = false,
            Step::ReadOn(client) => self.client(client).reads = true,
            Step::HalfClose(client) => self.client(client).half_close(),
            Step::Reset(client) => {
                if let Some(client) = self.take(client) {
                    SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
                }
            }
            Step::Vanish(client) => drop(self.take(client)),
            Step::Kill(worker) => {
                (self.kills, self.blows) = (self.kills + 1, true);
                self.signal_worker(worker, Signal::SIGKILL);
            }
            Step::Stop(worker) => self.signal_worker(worker, Signal::SIGSTOP),
            Step::Continue(worker) => self.signal_worker(worker, Signal::SIGCONT),
            Step::Term(worker) => {
                self.blows = true;
                self.signal_worker(worker, Signal::SIGTERM);
            }
            Step::Hup => {
                self.blows = true;
                self.order(Signal::SIGHUP, "replacing");
            }
            Step::Ttin => {
                self.order(Signal::SIGTTIN, "from now on");
                self.workers += 1;
            }
            Step::Ttou if self.workers == 1 => self.order(Signal::SIGTTOU, "the least"),
            Step::Ttou => {
                (self.blows, self.slots_removed) = (true, true);
                self.order(Signal::SIGTTOU, "from now on");
                self.workers -= 1;
            }
            Step::Pause(pause) => thread::sleep(pause), // The clients' rhythm.
        }
        for client in self.clients.iter_mut().flatten().filter(|client| client.reads) {
            client.receive();
        }
    }

    /// All clients send no more, and read to the end of their connections.
    fn let_clients_end(&mut self) {
        self.clients.iter_mut().flatten().for_each(Client::half_close);
        wait_until("all connections have ended", || {
            for worker in self.server.workers() {
                let _ = kill(worker, Signal::SIGCONT); // It may be gone by now.
            }
            for client in self.clients.iter_mut().flatten() {
                while client.receive() {}
            }
            self.clients.iter().flatten().all(|client| client.ended)
        });
        for number in 0..CLIENTS {
            let Some(client) = self.take(number) else { continue };
            assert!(
                self.blows || client.received == client.sent,
                "{} of {} bytes came back, and nothing had befallen the workers",
                client.received,
                client.sent
            );
        }
    }

    fn zombies(&self) -> usize {
        processes().iter().filter(|process| process.parent == self.server.pid && process.state == 'Z').count()
    }

    /// What holds when all clients are gone.
    fn check(&self) {
        let look = || self.server.status();
        let workers = |look: &Value| look["workers"].as_array().expect("it is a list").clone();
        let mut last = Value::Null;
        let start = Instant::now();
        let settled = |last: &mut Value| {
            *last = look();
            let workers = workers(last);
            workers.len() == self.workers && workers.iter().all(|worker| worker["state"] == "idle")
        };
        while !settled(&mut last) {
            assert!(start.elapsed() < crate::common::PATIENCE, "not {} idle workers: {last}", self.workers);
            thread::sleep(Duration::from_millis(2));
        }
        wait_until("no zombie is left", || self.zombies() == 0);
        assert_eq!(self.server.workers().len(), self.workers);

        let number = |value: &Value| value.as_u64().expect("it is a number") as usize;
        let sum = |of: &str| workers(&last).iter().map(|worker| number(&worker[of])).sum::<usize>();
        let total = |of: &str| number(&last["totals"][of]);
        for of in ["connections", "bytes", "restarts"] {
            assert!(sum(of) == total(of) || self.slots_removed && sum(of) < total(of), "{of}: {last}");
        }
        // A worker that was killed between accept and the count has counted one less.
        let connections = total("connections");
        assert!(
            (self.connects - self.kills.min(self.connects)..=self.connects).contains(&connections),
            "{} connects: {last}",
            self.connects
        );
        let (sent, received) = self.gone;
        assert!(
            (received..=sent).contains(&total("bytes")),
            "{sent} bytes sent, {received} received: {last}"
        );
    }

    fn end(mut self, end: End) {
        match end {
            End::InPeace => {
                self.let_clients_end();
                self.check();
                assert_eq!(self.server.stop(), 0);
            }
            End::Term => {
                self.blows = true;
                self.server.signal(Signal::SIGTERM);
                self.let_clients_end();
                assert_eq!(self.server.wait_code(), 0);
            }
            End::KillTheParent => {
                self.server.signal(Signal::SIGKILL);
                self.server.wait();
                wait_until("no orphan is left", || !self.server.has_processes_left());
            }
        }
        assert!(!self.server.has_processes_left());
        TcpListener::bind(self.server.address).expect("the port is free");
    }
}

/// 32 bytes: those asked for, or any.
fn seed() -> [u8; 32] {
    let given = env::var("INTERLEAVINGS_SEED").ok();
    let word = |place: usize| match &given {
        None => RandomState::new().hash_one(place),
        Some(given) => {
            u64::from_str_radix(&given[16 * place..16 * (place + 1)], 16).expect("64 hexadecimal digits")
        }
    };
    let mut seed = [0; 32];
    (0..4).for_each(|place| seed[8 * place..8 * (place + 1)].copy_from_slice(&word(place).to_be_bytes()));
    seed
}

#[test]
fn the_invariants_hold_after_any_sequence_of_events() {
    let _alone = heavy();
    let seed = seed();
    let digits: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
    println!("INTERLEAVINGS_SEED={digits}");
    let cases =
        if env::var_os("PROPTEST_CASES").is_some() { Config::default().cases } else { rounds(6, 100) };
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 100, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let interleavings = (prop::collection::vec(step(), 1..40), end());
    let result = runner.run(&interleavings, |(steps, end)| {
        let mut world = Model::new();
        steps.iter().for_each(|step| world.take_step(step));
        world.end(end);
        Ok(())
    });
    if let Err(error) = result {
        panic!("INTERLEAVINGS_SEED={digits}\n{error}");
    }
}
