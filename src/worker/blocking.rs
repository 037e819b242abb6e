//! The plain loop of a pre-forked worker: accept, recv, send, close; one connection at a
//! time, and each call blocks. Read it first.
//!
//! All workers block in accept on the same listening socket, and the kernel wakes one of
//! them for each connection. The inner loop of recv and send is [`echo`], which
//! knows nothing of processes.

use super::Worker;
use crate::echo::{Connection, echo};
use crate::scoreboard::State;

impl Worker {
    /// Serves until this worker is asked to stop, or has accepted as many connections as it
    /// may. Returns the connection that it has then, if any, with the bytes that were received
    /// and not yet sent back.
    pub(super) fn serve_blocking(&mut self, buffer: &mut [u8]) -> Option<(Connection, Vec<u8>)> {
        while self.may_accept() {
            self.show(State::Idle);
            let Ok(mut connection) = self.accept() else { continue };
            match echo(&mut connection, buffer, self) {
                Err(reason) => self.close(connection, reason),
                Ok(unsent) => return Some((connection, unsent.to_vec())),
            }
        }
        None
    }
}
