//! The clients that a worker has at the moment. Its threads share the list, and what it
//! shows of them on the scoreboard changes with the list, under the same lock.

use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::wakeup;
use crate::config::Model;
use crate::echo::{Connection, Peer};
use crate::private_counter::{self, careless};
use crate::scoreboard::{RowWriter, State};

#[derive(Debug)]
pub(super) struct ClientList {
    row: RowWriter,
    model: Model,
    /// By the descriptor of the connection.
    peers: Mutex<BTreeMap<RawFd, Peer>>,
}

impl ClientList {
    pub fn new(row: RowWriter, model: Model) -> ClientList {
        ClientList { row, model, peers: Mutex::default() }
    }

    /// Adds a connection that has just been accepted, or shows that its peer is known by now.
    pub fn add(&self, connection: &Connection) {
        let mut peers = self.lock();
        peers.insert(connection.fd(), connection.peer);
        self.show(&peers);
    }

    /// Removes a connection. Call it before the descriptor is closed, because the next
    /// connection may get the same number.
    pub fn remove(&self, connection: &Connection) {
        let mut peers = self.lock();
        peers.remove(&connection.fd());
        self.show(&peers);
    }

    /// Shows the list as it is.
    pub fn show_now(&self) {
        self.show(&self.lock());
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Shows the careless counter, which has just been written.
    pub fn show_careless_counter(&self) {
        let _peers = self.lock();
        self.row.set_careless_counter(careless::read());
    }

    fn show(&self, peers: &BTreeMap<RawFd, Peer>) {
        let mut all = peers.values();
        let only = all.next().filter(|_| peers.len() == 1);
        let (client, via) = only.map_or((None, None), |peer| (peer.address, peer.via));
        self.row.set_clients(peers.len(), client, via);
        self.row.set_private_counter(private_counter::value());
        // With the model process the loop shows each call that it is in.
        if self.model != Model::Process {
            self.row.set_state(match peers.len() {
                _ if wakeup::stop_requested() => State::Draining,
                0 => State::Idle,
                _ => State::Serving,
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<RawFd, Peer>> {
        // Every change is one call: a thread that panicked has left no half of one.
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
