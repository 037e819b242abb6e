//! What the user may ask for: options, their defaults, and `--help`.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::parser::ValueSource;
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, ValueEnum};
use log::LevelFilter;

/// The most workers that one server runs.
pub const MAX_WORKERS: u16 = 4096;

const AFTER_HELP: &str = "\
Signals to the parent:
  TERM, INT     orderly shutdown: serve who is connected, then leave; a second one ends it at once
  QUIT          end at once
  HUP           replace the workers one by one
  TTIN, TTOU    one worker more, one fewer
  USR1          log a table of the workers
A TERM sent to one worker lets it finish its client; like any worker that dies, it is replaced.

Exit status:
  0  orderly end
  1  could not run: port taken, host unknown, file not writable, ...
  2  wrong usage
  3  shutdown had to be forced, and some client was cut
  4  gave up: workers kept crashing at their start

Each option can also come from the environment: --idle-timeout from PREFORK_ECHO_IDLE_TIMEOUT, and so on.

Examples:
  prefork-echo --workers 4                      serve on 127.0.0.1:7777
  prefork-echo --bind '[::]:7777' --explain     serve everybody, and narrate each system call
  sudo prefork-echo --bind 7 --user nobody      the echo port, served without root's rights";

/// A pre-fork TCP echo server: one parent listens, N workers accept on the
/// same socket, and every byte comes back.
#[derive(Debug, Clone, Parser)]
#[command(name = "prefork-echo", version, max_term_width = 100, after_help = AFTER_HELP)]
pub struct Options {
    /// Address to listen on: a name, IPv4, or IPv6 in brackets; port 0 lets the kernel choose
    #[arg(short, long, value_name = "[HOST:]PORT", default_value = "127.0.0.1:7777")]
    #[arg(env = "PREFORK_ECHO_BIND", hide_env = true, help_heading = "Serving")]
    pub bind: BindAddress,

    /// Worker processes, 1 to 4096; each serves one client at a time
    #[arg(short, long, value_name = "N", allow_negative_numbers = true, default_value_t = 4)]
    #[arg(value_parser = |text: &str| number(text, 1..=MAX_WORKERS))]
    #[arg(env = "PREFORK_ECHO_WORKERS", hide_env = true, help_heading = "Serving")]
    pub workers: u16,

    /// Length of the accept queue asked of the kernel
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 1024)]
    #[arg(value_parser = |text: &str| number(text, 1..=i32::MAX))]
    #[arg(env = "PREFORK_ECHO_BACKLOG", hide_env = true, help_heading = "Serving")]
    pub backlog: i32,

    /// Close a client that neither sends nor takes bytes for so long; 0 is never
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, default_value = "5m", value_parser = duration)]
    #[arg(env = "PREFORK_ECHO_IDLE_TIMEOUT", hide_env = true, help_heading = "Serving")]
    pub idle_timeout: Duration,

    /// From the first SIGTERM until workers that still run are killed
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, default_value = "10s", value_parser = duration)]
    #[arg(env = "PREFORK_ECHO_GRACE", hide_env = true, help_heading = "Supervision")]
    pub grace: Duration,

    /// A worker leaves after so many, plus up to 10 %, and is replaced; 0 is never
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 0)]
    #[arg(value_parser = |text: &str| number(text, 0..=u64::MAX))]
    #[arg(env = "PREFORK_ECHO_MAX_CONNECTIONS", hide_env = true, help_heading = "Supervision")]
    pub max_connections: u64,

    /// Workers change to this user; the parent binds first, so port 7 works
    #[arg(long, value_name = "USER")]
    #[arg(env = "PREFORK_ECHO_USER", hide_env = true, help_heading = "Supervision")]
    pub user: Option<String>,

    /// Workers change to this group [default: the user's own]
    #[arg(long, value_name = "GROUP")]
    #[arg(env = "PREFORK_ECHO_GROUP", hide_env = true, help_heading = "Supervision")]
    pub group: Option<String>,

    /// Holds the parent's pid while the server runs
    #[arg(long, value_name = "PATH")]
    #[arg(env = "PREFORK_ECHO_PID_FILE", hide_env = true, help_heading = "Supervision")]
    pub pid_file: Option<PathBuf>,

    /// Narrate each step with its system calls in plain words; with -q, nothing else
    #[arg(long, action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    #[arg(env = "PREFORK_ECHO_EXPLAIN", hide_env = true, help_heading = "Log")]
    pub explain: bool,

    /// Log more: every echo
    #[arg(short, long, action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    #[arg(env = "PREFORK_ECHO_VERBOSE", hide_env = true, help_heading = "Log")]
    pub verbose: bool,

    /// Log warnings and errors only
    #[arg(short, long, action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    #[arg(env = "PREFORK_ECHO_QUIET", hide_env = true, help_heading = "Log")]
    pub quiet: bool,

    /// Append the log to this file instead of stderr
    #[arg(long, value_name = "PATH")]
    #[arg(env = "PREFORK_ECHO_LOG_FILE", hide_env = true, help_heading = "Log")]
    pub log_file: Option<PathBuf>,

    /// Form of the log's lines
    #[arg(long, value_name = "FORM", value_enum, default_value_t = LogFormat::Text)]
    #[arg(env = "PREFORK_ECHO_LOG_FORMAT", hide_env = true, help_heading = "Log")]
    pub log_format: LogFormat,

    /// Colour the log; auto is on a terminal, unless NO_COLOR is set
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Color::Auto)]
    #[arg(env = "PREFORK_ECHO_COLOR", hide_env = true, help_heading = "Log")]
    pub color: Color,
}

impl Options {
    /// Reads the command line and the environment. Wrong usage, `--help` and
    /// `--version` end the process here.
    pub fn read() -> Options {
        let matches = Options::command().get_matches();
        let mut options = Options::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        // What is typed wins over what stands in the environment.
        let typed = |name| matches.value_source(name) == Some(ValueSource::CommandLine);
        options.verbose &= typed("verbose") || !typed("quiet");
        options.quiet &= !typed("verbose");
        options
    }

    /// The least important lines that are logged.
    pub fn log_level(&self) -> LevelFilter {
        match (self.verbose, self.quiet) {
            (true, _) => LevelFilter::Debug,
            (_, true) => LevelFilter::Warn,
            _ => LevelFilter::Info,
        }
    }
}

/// The form of the log's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: an object a line.
    Json,
}

/// When the log is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// Where it goes to a terminal and NO_COLOR isn't set.
    Auto,
    /// Also into files and pipes.
    Always,
    /// Nowhere.
    Never,
}

/// Where to listen, as the user wrote it; the name is looked up later.
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
            return Err("the host is missing; to listen on all addresses say 0.0.0.0 or [::]".into());
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

fn number<T: FromStr + PartialOrd + fmt::Display>(text: &str, range: RangeInclusive<T>) -> Result<T, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("write a number from {} to {}", range.start(), range.end()))
}

/// Reads `250ms`, `10s`, `5m` or a plain `0`.
fn duration(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    match humantime::parse_duration(text) {
        Ok(duration) if duration.is_zero() => Ok(duration),
        // Finer than the clocks that end a wait; 0 would mean "never" to them.
        Ok(duration) if duration < Duration::from_millis(1) => {
            Err("shorter than 1ms, the shortest there is".into())
        }
        Ok(duration) if duration > LONGEST => Err("longer than a year, the longest there is".into()),
        Ok(duration) => Ok(duration),
        Err(_) => Err("not a duration; write a number with its unit, as in 250ms, 10s or 5m".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_of_the_options_is_sound() {
        Options::command().debug_assert();
    }

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
