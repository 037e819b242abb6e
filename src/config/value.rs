//! Values as users write them: numbers, durations, addresses.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use super::{BindAddress, Explain, TimeLimit};

pub(super) fn number<T: FromStr + PartialOrd + Display>(
    text: &str,
    range: RangeInclusive<T>,
) -> Result<T, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("write a number from {} to {}", range.start(), range.end()))
}

/// Reads `250ms`, `10s`, `5m` or a plain `0`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(31_557_600); // 365.25 days, as humantime has it.
    match humantime::parse_duration(text) {
        // Finer than the clocks that end a wait; 0 would mean "never" to them.
        Ok(duration) if !duration.is_zero() && duration < Duration::from_millis(1) => {
            Err("shorter than 1ms, the shortest there is".into())
        }
        Ok(duration) if duration > LONGEST => Err("longer than a year, the longest there is".into()),
        Ok(duration) => Ok(duration),
        Err(_) => Err("not a duration; write a number with its unit, as in 250ms, 10s or 5m".into()),
    }
}

/// As [`duration`], but not so short that the parent would do nothing else than to look.
pub(super) fn spare_time(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    match duration < Duration::from_millis(100) {
        true => Err("shorter than 100ms, the shortest there is".into()),
        false => Ok(duration),
    }
}

/// As [`duration`], where 0 stands for "never" or "for ever".
pub(super) fn time_limit(text: &str) -> Result<TimeLimit, String> {
    Ok(Some(duration(text)?).filter(|duration| !duration.is_zero()))
}

/// Reads the variable of `--explain`. Any value but these turns it on, as a flag's would.
pub(crate) fn explain_variable(text: &str) -> Result<Explain, String> {
    Ok(match text.to_lowercase().as_str() {
        "" | "0" | "n" | "no" | "f" | "false" | "off" => Explain::Off,
        "calls" => Explain::Calls,
        _ => Explain::All,
    })
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

    #[test]
    fn a_duration_has_a_unit_and_makes_sense() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for wrong in ["", "10", "-1s", "soon", "1ns", "2000y", "99999999999999999999s"] {
            assert!(duration(wrong).is_err(), "{wrong:?} was taken for a duration");
        }
    }
}
