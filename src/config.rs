//! What the user wants, as plain data: the command line, checked and converted by
//! [`cli`](crate::cli). The other rooms know only this, so nothing here comes from clap.

use std::ffi::OsString;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, io};

use log::LevelFilter;
use serde::Serialize;

use crate::error::Error;

/// The most workers that one server runs.
pub const MAX_WORKERS: u16 = 4096;

/// What the server is to do.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens.
    pub bind: BindAddress,
    /// The length of the accept queue that is asked of the kernel.
    pub backlog: i32,
    /// Worker processes, 1 to [`MAX_WORKERS`].
    pub workers: u16,
    /// How long a client may neither send nor take bytes; None: for ever.
    pub idle_timeout: Option<Duration>,
    /// How long an orderly shutdown may take.
    pub grace: Duration,
    /// A worker leaves after so many connections; 0: never.
    pub max_connections: u64,
    /// The user that the workers change to, by name or number.
    pub user: Option<String>,
    /// The group that the workers change to, by name or number.
    pub group: Option<String>,
    /// Whether workers keep the rights that serving does not need.
    pub no_sandbox: bool,
    /// The file that holds the parent's pid.
    pub pid_file: Option<PathBuf>,
    /// The scoreboard's file; None: one in the user's runtime directory.
    pub scoreboard: Option<PathBuf>,
    /// Whether the scoreboard has no file.
    pub no_scoreboard: bool,
    /// What is logged, and where to.
    pub log: LogConfig,
}

/// What is logged, and where to.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// The least important lines that are logged.
    pub level: LevelFilter,
    /// Whether each step and system call is narrated.
    pub explain: bool,
    /// The file to append to; None: stderr.
    pub file: Option<PathBuf>,
    /// Whether a line is a JSON object.
    pub json: bool,
    /// Whether lines are coloured; None: on a terminal, unless NO_COLOR is set.
    pub colored: Option<bool>,
}

/// The address of a server, as the user wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindAddress {
    /// A name or an address, IPv6 without its brackets.
    pub host: String,
    /// 0 lets the kernel choose.
    pub port: u16,
}

/// What `status` is to do.
#[derive(Debug)]
pub struct StatusOptions {
    /// The server to look at.
    pub which: ServerSelector,
    /// Whether it prints JSON.
    pub json: bool,
}

/// What `top` is to do.
#[derive(Debug)]
pub struct TopOptions {
    /// The server to look at.
    pub which: ServerSelector,
    /// Whether it prints one picture as text, and ends.
    pub once: bool,
}

/// One of the running servers; without address and file, the only one of this user.
#[derive(Debug)]
pub struct ServerSelector {
    /// Where the server listens.
    pub address: Option<BindAddress>,
    /// Its scoreboard's file.
    pub scoreboard: Option<PathBuf>,
}

/// What `client` is to do.
#[derive(Debug)]
pub struct ClientOptions {
    /// The server.
    pub server: BindAddress,
    /// The longest wait for a connection, or for a byte that is due; None: for ever.
    pub timeout: Option<Duration>,
    /// Sent as a line each; if there are none, stdin is sent.
    pub messages: Vec<OsString>,
    /// Whether each step and system call is narrated.
    pub explain: bool,
}

/// What `bench` is to do.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// The server.
    pub server: BindAddress,
    /// The longest wait for a connection, or for a byte that is due; None: for ever.
    pub timeout: Option<Duration>,
    /// What it measures.
    pub mode: Mode,
    /// Connections at once, a thread each.
    pub connections: u16,
    /// Messages in all; None: as many as there is time for.
    pub messages: Option<u64>,
    /// A message that is due later is not sent; None: no limit.
    pub duration: Option<Duration>,
    /// How long after the duration it waits for what is in flight.
    pub grace: Duration,
    /// Bytes of a message.
    pub size: usize,
    /// Messages a second in all; None: as many as possible.
    pub rate: Option<u32>,
    /// Whether it prints JSON.
    pub json: bool,
    /// The file of the server's scoreboard, which tells the workers apart.
    pub scoreboard: Option<PathBuf>,
}

/// What `bench` measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Messages, one after the other, on connections that are kept open.
    Keep,
    /// A connection for each message.
    Connect,
    /// As many bytes as possible, both ways at once.
    Stream,
}

impl LogConfig {
    /// A client's log: warnings on stderr, and the narration if it is wanted.
    pub fn for_client(explain: bool) -> LogConfig {
        LogConfig { level: LevelFilter::Warn, explain, file: None, json: false, colored: None }
    }
}

impl BindAddress {
    /// All addresses that it stands for, at least one. `or` is an alternative for the user
    /// if there is none.
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
