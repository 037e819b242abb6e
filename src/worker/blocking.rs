//! The plain loop of a pre-forked worker: accept, recv, send, close; one connection at a
//! time, and each call blocks. Read it first.
//!
//! All workers block in accept on the same listening socket, and the kernel wakes one for
//! each connection. [`echo`] is the inner loop of recv and send. The loop ends
//! when the worker is asked to stop, or has served `limit` connections.

use super::{Worker, close};
use crate::echo::{WorkerHooks, echo};
use crate::private_counter;
use crate::scoreboard::State;
use crate::worker::linger::DrainingConnection;

impl Worker {
    pub(super) fn serve_blocking(&mut self, limit: u64, buffer: &mut [u8]) {
        let mut unfinished = Vec::new();
        while !self.is_stopping() && private_counter::value() < limit {
            self.row.set_state(State::Idle);
            let Ok(mut connection) = self.accept() else { continue };
            match echo(&mut connection, buffer, self) {
                Err(reason) => {
                    close(connection, &reason);
                    self.row.clear_peer();
                }
                // The worker is stopping.
                Ok(unsent) => {
                    unfinished.push(DrainingConnection::new(connection, unsent, self.linger_timeouts()));
                }
            }
        }
        self.finish(unfinished, buffer);
    }
}
