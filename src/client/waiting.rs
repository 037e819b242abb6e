//! Says to a person that the connection waits in the accept queue: connect has returned, send
//! returns as well, and there is no answer, as long as all workers are busy.
//!
//! A thread of its own watches, so that the other one may block. It ends when a worker has
//! accepted the connection. There are three sources, from the best to the last:
//! - the kernel's list of sockets (Linux), if the server is on this machine: a connection in
//!   the queue is no process's yet;
//! - the server's scoreboard, if it is this user's, and its workers serve one client at a time:
//!   then each shows the address of its client;
//! - a second without an answer to what was typed. It may mean something else, and is put so.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use super::Stream;
use crate::config::{BindAddress, Model, ServerSelector};
use crate::language::tr;
use crate::scoreboard::Reader;
use crate::sys::socket::{is_accepted, is_same};
use crate::text::eprint_line;

/// A worker that is idle accepts sooner.
const FIRST_LOOK: Duration = Duration::from_millis(100);

/// The time between two looks.
const INTERVAL: Duration = Duration::from_millis(250);

/// A wait for an answer that is worth a word.
const LONG: Duration = Duration::from_secs(1);

/// Watches a connection from a thread of its own.
pub(super) struct Watcher {
    events: Sender<()>,
}

impl Watcher {
    /// Begins to watch a connection that has just been made.
    pub(super) fn start(stream: &Stream) -> Watcher {
        let (events, receiver) = channel();
        let (server, client) = (stream.peer, stream.local);
        thread::spawn(move || watch(server, client, &receiver));
        Watcher { events }
    }

    /// A line was sent.
    pub(super) fn sent(&self) {
        // An error says that it has seen enough.
        let _ = self.events.send(());
    }

    /// The line has come back.
    pub(super) fn answered(&self) {
        let _ = self.events.send(());
    }
}

fn watch(server: SocketAddr, client: SocketAddr, events: &Receiver<()>) {
    let reader = reader_of(server);
    let look = || is_accepted(server, client).or_else(|| has_worker(reader.as_ref()?, client));
    thread::sleep(FIRST_LOOK);
    let mut accepted = look();
    if accepted == Some(false) {
        say(tr("connected; no worker has accepted this connection yet: it waits in the accept queue"));
        while accepted == Some(false) {
            thread::sleep(INTERVAL);
            accepted = look();
        }
        if accepted == Some(true) {
            say(tr("a worker has accepted this connection"));
        }
    } else if accepted.is_none()
        && events.recv().is_ok()
        && events.recv_timeout(LONG) == Err(RecvTimeoutError::Timeout)
    {
        say(tr("no answer for a second: perhaps no worker has accepted this connection yet"));
    }
}

fn say(text: &str) {
    eprint_line(&text);
}

/// The scoreboard of the server, if it can be seen from here.
fn reader_of(server: SocketAddr) -> Option<Reader> {
    let address = BindAddress { host: server.ip().to_string(), port: server.port() };
    Reader::of(&ServerSelector { address: Some(address), scoreboard: None }, "client").ok()
}

/// Is this the address of a worker's client? None: the scoreboard does not tell.
fn has_worker(reader: &Reader, client: SocketAddr) -> Option<bool> {
    let mut peers = reader.scoreboard.rows_ever().filter_map(|row| row.peer());
    (reader.header.model == Model::Process && reader.lives()).then(|| peers.any(|peer| is_same(peer, client)))
}
