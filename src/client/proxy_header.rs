//! The PROXY header that a balancer sends before the first byte of its client: it names the
//! addresses of the client's own connection. Here the client is its own balancer, so the
//! source is the address of this end, and the destination that of the server's.
//!
//! The header has a send of its own, as HAProxy sends it: it does not wait for the first
//! message, which may be typed much later. Its bytes count neither as sent nor as returned.

use std::io;
use std::net::SocketAddr;

use ppp::{v1, v2};

use super::error::ClientError;
use super::stream::Stream;
use crate::config::ProxyVersion;
use crate::log::narrate::client as narrate;

impl Stream {
    /// Sends the header, before anything else. Like [`Stream::send`], it leaves a reset to be
    /// told by receive.
    ///
    /// # Errors
    /// If the connection is broken in another way, or its send buffer, which is empty, has no
    /// room for some hundred bytes.
    pub(super) fn send_proxy_header(&mut self, version: ProxyVersion) -> Result<(), ClientError> {
        let header = bytes(version, self.local, self.peer).map_err(|error| self.transfer.broken(&error))?;
        let taken = self.send_uncounted(&header)?;
        if self.is_reset {
            return Ok(());
        }
        if taken < header.len() {
            return Err(self.transfer.header_cut(taken, header.len()));
        }
        self.transfer.has_header = true;
        narrate::proxy_header_sent(&self.socket, taken, version.name());
        Ok(())
    }
}

/// The header of a connection from `source` to `destination`.
fn bytes(version: ProxyVersion, source: SocketAddr, destination: SocketAddr) -> io::Result<Vec<u8>> {
    match version {
        ProxyVersion::V1 => Ok(v1::Addresses::from((source, destination)).to_string().into_bytes()),
        ProxyVersion::V2 => {
            let command = v2::Version::Two | v2::Command::Proxy;
            v2::Builder::with_addresses(command, v2::Protocol::Stream, (source, destination)).build()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::time::Duration;

    use nix::poll::PollFlags;
    use socket2::SockRef;

    use super::*;
    use crate::client::Kind;
    use crate::sys::readiness::wait_for;

    #[test]
    fn a_reset_before_the_header_is_left_to_be_told_by_receive() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut stream = Stream::open(&[listener.local_addr().unwrap()], None, None).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        SockRef::from(&accepted).set_linger(Some(Duration::ZERO)).unwrap();
        drop(accepted);
        assert!(wait_for(&stream, PollFlags::POLLIN, None).unwrap(), "the reset has come");
        stream.send_proxy_header(ProxyVersion::V2).unwrap();
        assert_eq!(stream.receive(&mut [0], None).unwrap(), Some(0));
        let error = stream.lost();
        let text = "the connection was reset, and nothing had been sent";
        assert_eq!((error.kind, error.to_string().as_str()), (Kind::Reset, text));
    }
}
