//! What the service ([`echo`](crate::echo)) calls in its worker: signals are looked for and
//! answered here, and the scoreboard is told what happens.

use std::time::{Duration, Instant};

use log::info;
use nix::errno::Errno;

use super::{ListenerState, Worker, wakeup};
use crate::config::Model;
use crate::echo::{Connection, WorkerHooks};
use crate::log::narrate;
use crate::private_counter::careless;
use crate::scoreboard::State;
use crate::sys::splice::Pipe;
use crate::sys::{process, readiness};

/// The time that an orphan has to finish its connection: no worker outlives the parent by
/// a second.
const ORPHAN_LIMIT: Duration = Duration::from_millis(700);

impl WorkerHooks for Worker {
    fn is_stopping(&self) -> bool {
        wakeup::stop_requested()
    }

    fn handle_interrupt(&mut self) {
        // The first thread alone answers. The timer that ends an orphan must not be disarmed.
        if !self.is_first_thread || matches!(self.listener_state, ListenerState::Orphaned) {
            return;
        }
        wakeup::disarm();
        if process::is_orphan(self.parent) {
            self.listener_state = ListenerState::Orphaned;
            wakeup::request_stop();
            wakeup::exit_within(ORPHAN_LIMIT);
        }
    }

    fn before_recv(&mut self) {
        self.check_signals();
        self.show(State::Reading);
    }

    fn after_header(&mut self, connection: &Connection) {
        self.clients.add(connection);
        let (fd, peer) = (connection.fd(), connection.peer);
        match peer.via {
            Some(_) => info!("PROXY header on descriptor {fd}: {peer}"),
            None => info!("PROXY header on descriptor {fd}: {peer} names no client"),
        }
    }

    fn before_answer(&mut self, connection: &Connection) {
        let counts = connection.echoed == 0;
        let before = careless::read();
        let end = (!self.work.is_zero()).then(|| Instant::now() + self.work);
        while end.is_some_and(|end| Instant::now() < end) && !self.is_stopping() {
            if readiness::wait(&mut [], end) == Err(Errno::EINTR) {
                self.handle_interrupt();
            }
        }
        if counts {
            careless::write(before + 1);
            self.clients.show_careless_counter();
        }
    }

    fn before_send(&self, bytes: usize) {
        if self.model == Model::Process && !self.is_stopping() {
            self.row.set_writing();
        }
        self.row.before_send(bytes);
    }

    fn after_send(&self, unsent: usize) {
        self.row.after_send(unsent);
    }

    fn bulk_pipe(&self, bytes: usize) -> Option<Pipe> {
        // What is narrated is the loop that the introductions draw.
        let pipe = if narrate::is_on() { None } else { Pipe::new(bytes).ok() };
        pipe.filter(|pipe| pipe.highest_fd() < self.pipes_below)
    }
}
