//! Addresses as users write them.

use std::str::FromStr;

use crate::config::BindAddress;

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
