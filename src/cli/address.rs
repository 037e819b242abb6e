//! Addresses as users write them.

use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::{fmt, io};

use crate::error::Error;

/// Where a server listens, as the user wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindAddress {
    /// A name or an address, IPv6 without its brackets.
    pub host: String,
    /// 0 lets the kernel choose.
    pub port: u16,
}

impl FromStr for BindAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) = text.rsplit_once(':').unwrap_or(("127.0.0.1", text));
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(address) => address,
            None if host.contains(':') => {
                return Err("an IPv6 address wants brackets, as in [::1]:7777".into());
            }
            None => host,
        };
        if host.is_empty() {
            return Err("the host is missing; all addresses are 0.0.0.0 or [::]".into());
        }
        let port = port.parse().map_err(|_| match text.contains(':') {
            true => format!("'{port}' is not a port; write HOST:PORT, with a PORT from 0 to 65535"),
            false => {
                format!("'{text}' is not a port; write a PORT from 0 to 65535, or {text}:7777 for a host")
            }
        })?;
        Ok(BindAddress { host: host.into(), port })
    }
}

impl BindAddress {
    /// All that it stands for: one address at least. `or` is what else the user may
    /// do when there is none.
    ///
    /// # Errors
    /// If the host is unknown.
    pub fn resolve(&self, or: &str) -> Result<Vec<SocketAddr>, Error> {
        let found = (self.host.as_str(), self.port).to_socket_addrs().map(Vec::from_iter);
        let some = found.and_then(|found| match found.is_empty() {
            true => Err(io::ErrorKind::NotFound.into()),
            false => Ok(found),
        });
        some.map_err(|error| {
            let remedy = format_args!("check its spelling, or {or}");
            Error::new(format_args!("find the host {}", self.host), &error, remedy)
        })
    }
}

impl fmt::Display for BindAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_port_or_a_host_and_a_port() {
        let parse = |text: &str| text.parse::<BindAddress>().map(|address| (address.host, address.port));
        assert_eq!(parse("7"), Ok(("127.0.0.1".into(), 7)));
        assert_eq!(parse("localhost:0"), Ok(("localhost".into(), 0)));
        assert_eq!(parse("[::1]:7777"), Ok(("::1".into(), 7777)));
        for wrong in ["", ":7", "::1:7777", "localhost", "host:", "host:70000", "[::1]", "-1"] {
            assert!(parse(wrong).is_err(), "{wrong:?} was taken for an address");
        }
    }
}
