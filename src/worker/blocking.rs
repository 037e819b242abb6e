//! The plain loop of a pre-forked worker: accept, recv, send, close; one connection at a
//! time, and each call blocks. Read it first.
//!
//! All workers block in accept on the same listening socket, and the kernel wakes one of
//! them for each connection. The inner loop of recv and send is [`echo`], which
//! knows nothing of processes.

use super::linger::DrainingConnection;
use super::{Worker, close};
use crate::echo::{WorkerHooks, echo};
use crate::private_counter;
use crate::scoreboard::State;

impl Worker {
    /// Serves until this worker is asked to stop, or has accepted `limit` connections. Then
    /// it finishes the connection that it has, if any.
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
                // This worker is stopping. Some bytes may not have been sent back.
                Ok(unsent) => {
                    unfinished.push(DrainingConnection::new(connection, unsent, self.linger_timeouts()));
                }
            }
        }
        self.finish(unfinished, buffer);
    }
}
