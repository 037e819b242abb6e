//! Servers of each model, for tests of what is the same in all of them, and of what is not.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use super::{PATIENCE, Server, connect, read_to_end, wait_until};

pub const ALL: [&str; 3] = ["process", "thread", "multiplex"];

/// Those in which one worker has several clients.
pub const SHARED: [&str; 2] = ["thread", "multiplex"];

/// Runs a check with each of the models, with all at the same time: most of it is waiting. The
/// name of the thread tells which one has failed.
pub fn in_each(models: &[&'static str], check: impl Fn(&'static str) + Sync) {
    thread::scope(|scope| {
        for model in models {
            let check = || check(model);
            thread::Builder::new().name((*model).into()).spawn_scoped(scope, check).unwrap();
        }
    });
}

/// Starts a server that serves so many clients at once, with as few workers as the model needs.
#[track_caller]
pub fn start(model: &str, clients: usize, arguments: &[&str]) -> Server {
    match model {
        "process" => start_workers(model, clients, 1, arguments),
        _ => start_workers(model, 1, clients, arguments),
    }
}

/// Starts a server with so many workers, each of which serves `clients` clients at once.
#[track_caller]
pub fn start_workers(model: &str, workers: usize, clients: usize, arguments: &[&str]) -> Server {
    let (workers, clients) = (workers.to_string(), clients.to_string());
    let options = ["--model", model, "--workers", &workers, "--clients", &clients];
    Server::start(&[&options, arguments].concat())
}

/// Sends a message from a thread, half-closes, and reads to the end of file: the message, and
/// no more.
#[track_caller]
pub fn echo_in_bulk(mut client: TcpStream, message: &[u8]) {
    thread::scope(|scope| {
        let mut sender = client.try_clone().expect("there is a descriptor left");
        scope.spawn(move || {
            sender.write_all(message).expect("the server takes it");
            sender.shutdown(Shutdown::Write).expect("it is connected");
        });
        assert!(read_to_end(&mut client) == message, "what came back differs");
    });
}

impl Server {
    /// Waits until `status` shows what is to come.
    #[track_caller]
    pub fn wait_for_status(&self, what: &str, mut condition: impl FnMut(&Value) -> bool) -> Value {
        let mut look = Value::Null;
        wait_until(what, || {
            look = self.status();
            condition(&look)
        });
        look
    }

    /// Waits until no thread of the workers runs, where the system tells: a worker says that it
    /// is idle just before its threads are in accept.
    pub fn wait_for_sleeping_threads(&self) {
        let is_running = |task: &std::fs::DirEntry| {
            let stat = std::fs::read_to_string(task.path().join("stat"));
            stat.is_ok_and(|stat| stat.contains(") R "))
        };
        let tasks =
            |worker| std::fs::read_dir(format!("/proc/{worker}/task")).into_iter().flatten().flatten();
        let do_sleep = || !self.workers().into_iter().flat_map(tasks).any(|task| is_running(&task));
        wait_until("all threads sleep", do_sleep);
    }

    /// Connects a client with little room, to which the server sends small segments: then its
    /// send buffer is small, too, and takes only a part of what a send has.
    #[track_caller]
    pub fn connect_with_small_buffers(&self) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("there is a descriptor left");
        socket.set_tcp_mss(536).and_then(|()| socket.set_recv_buffer_size(4096)).expect("it is new");
        socket.connect(&self.address.into()).expect("a server listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time-out above zero");
        socket.set_write_timeout(Some(PATIENCE)).expect("a time-out above zero");
        socket.into()
    }

    /// Connects clients, one after the other, each with an echo.
    #[track_caller]
    pub fn connect_served(&self, number: usize) -> Vec<TcpStream> {
        let client = |_| {
            let mut client = connect(self.address);
            super::echo(&mut client, b"served");
            client
        };
        (0..number).map(client).collect()
    }
}

/// What `status` says of each worker.
#[track_caller]
pub fn workers(look: &Value) -> &[Value] {
    look["workers"].as_array().unwrap_or_else(|| panic!("{look} has no workers"))
}

#[track_caller]
pub fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// The sum over all workers.
#[track_caller]
pub fn sum(look: &Value, of: &str) -> u64 {
    workers(look).iter().map(|worker| number(&worker[of])).sum()
}

/// A client that stays, and exchanges something in its rhythm.
pub struct Client {
    pub stream: TcpStream,
    sent_at: Instant,
}

impl Client {
    /// A worker that leaves parts from a client that is quiet for 0.3 s, and this test may have
    /// been kept from running for so long. Returns whether the client is still connected.
    #[track_caller]
    fn exchange(&mut self) -> bool {
        let (sent, mut answer, mut length) = (self.stream.write_all(&[7; 20_000]), [0; 20_000], 0);
        let silence = self.sent_at.elapsed();
        self.sent_at = Instant::now();
        while length < answer.len() {
            match self.stream.read(&mut answer[length..]) {
                Ok(more @ 1..) => length += more,
                _ if length == 0 && silence > Duration::from_millis(250) => return false,
                end => panic!("cut after {length} bytes, quiet for {silence:?}; {sent:?}, {end:?}"),
            }
        }
        assert!(answer == [7; 20_000], "what came back differs");
        true
    }
}

/// Connects so many clients, each with an exchange.
pub fn connect_clients(server: &Server, number: usize) -> Vec<Client> {
    let client = |stream| Client { stream, sent_at: Instant::now() };
    server.connect_served(number).into_iter().map(client).collect()
}

/// Each of them exchanges something, so many times.
#[track_caller]
pub fn exchange(clients: &mut Vec<Client>, times: usize) {
    for _ in 0..times {
        clients.retain_mut(Client::exchange);
        thread::sleep(Duration::from_millis(20)); // The clients' rhythm.
    }
}
