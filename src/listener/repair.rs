//! Every process that has the listening socket can spoil it for all others: shut it down, so that
//! it does not listen, make accept block or not, change its time-outs. How that is noticed, and put
//! right.

use std::io;
use std::time::Duration;

use super::{Listener, set_timeouts};
use crate::sys::socket::{TIMEOUTS_ARE_INHERITED, is_listening};

impl Listener {
    /// Does accept block although it should not? Another process has changed the flag of the
    /// socket that they share.
    pub(crate) fn is_made_blocking(&self) -> bool {
        !self.is_blocking && self.socket.nonblocking().is_ok_and(|nonblocking| !nonblocking)
    }

    /// Has accept failed with `EAGAIN` although it should still block, after such a wait? Half
    /// the time-out counts: two clocks are compared, and the kernel counts in ticks of up to
    /// 10 ms.
    pub(crate) fn is_spurious_eagain(&self, waited: Duration) -> bool {
        let limit = self.idle_timeout.filter(|_| TIMEOUTS_ARE_INHERITED);
        self.is_blocking && limit.is_none_or(|limit| waited + Duration::from_millis(10) < limit / 2)
    }

    /// Undoes what any process that shares the socket can do to it: shut it down, so that it
    /// does not listen (shutdown(2)), make accept non-blocking, change its time-outs. Returns
    /// what was wrong; None: nothing.
    ///
    /// # Errors
    /// `EADDRINUSE`: the shutdown lost the port, and another process has it by now.
    pub(crate) fn repair(&self) -> io::Result<Option<String>> {
        let mut found = Vec::new();
        if !is_listening(&self.socket)? {
            match self.socket.bind(&self.address.into()) {
                // InvalidInput: it is still bound, because the user has chosen the port.
                Err(error) if error.kind() != io::ErrorKind::InvalidInput => return Err(error),
                _ => self.socket.listen(self.backlog)?,
            }
            found.push("did not listen");
        }
        if self.socket.nonblocking()? == self.is_blocking {
            self.socket.set_nonblocking(!self.is_blocking)?;
            found.push(if self.is_blocking { "did not block" } else { "did block" });
        }
        if TIMEOUTS_ARE_INHERITED {
            let before = (self.socket.read_timeout()?, self.socket.write_timeout()?);
            set_timeouts(&self.socket, self.idle_timeout)?;
            if before != (self.socket.read_timeout()?, self.socket.write_timeout()?) {
                found.push("had other time-outs");
            }
        }
        Ok((!found.is_empty()).then(|| found.join(", ")))
    }
}
