//! What the user wants, as plain data. Each option is said once: the comment on its field is its
//! help, the attribute how it is written and what it is without being given.
//! [`cli`](crate::cli) reads them from the command line and the environment. The other rooms
//! use the values only; of clap's types they see none.

mod client;
mod model;
mod monitor;
mod value;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, io};

use clap::{Args, ValueEnum};
use log::LevelFilter;

pub use self::client::{BenchOptions, ClientOptions, Mode, ProxyVersion};
pub use self::model::Model;
pub use self::monitor::{ServerSelector, StatusOptions, TopOptions};
pub(crate) use self::value::explain_variable;
use self::value::{duration, number, spare_time, time_limit};
use crate::error::Error;

/// The most workers that one server runs.
pub const MAX_WORKERS: u16 = 4096;

/// How long something may last; None: for ever.
pub type TimeLimit = Option<Duration>;

/// What the server is to do.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Supervision")]
pub struct Config {
    /// Address to listen on: a name, IPv4, or IPv6 in brackets; port 0 lets the kernel choose
    #[arg(
        short,
        long,
        value_name = "[HOST:]PORT",
        default_value = "127.0.0.1:7777",
        help_heading = "Serving"
    )]
    pub bind: BindAddress,

    /// Worker processes, 1 to 4096
    #[arg(short, long, value_name = "N", allow_negative_numbers = true, default_value_t = 4)]
    #[arg(help_heading = "Serving", value_parser = |text: &str| number(text, 1..=MAX_WORKERS))]
    pub workers: u16,

    /// More workers, up to so many, while all are busy and clients wait [default: as --workers]
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = "Serving")]
    #[arg(value_parser = |text: &str| number(text, 1..=MAX_WORKERS))]
    pub max_workers: Option<u16>,

    /// A worker above --workers leaves when it has been idle for this long
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, default_value = "10s")]
    #[arg(help_heading = "Serving", value_parser = spare_time)]
    pub spare_for: Duration,

    /// How a worker serves
    #[arg(long, value_enum, value_name = "MODEL", default_value_t = Model::Process)]
    #[arg(help_heading = "Serving")]
    pub model: Model,

    /// Clients that one worker serves at once: process 1, thread 1 to 512, multiplex 1 to 65536
    /// [default: 1, 16 or 1024]
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = "Serving")]
    #[arg(value_parser = |text: &str| number(text, 1..=Model::Multiplex.most_clients()))]
    pub clients: Option<usize>,

    /// Each answer waits this long before it is sent, as if it were computed: for teaching
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, default_value = "0")]
    #[arg(help_heading = "Serving", value_parser = duration)]
    pub work: Duration,

    /// Length of the accept queue asked of the kernel
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 1024)]
    #[arg(help_heading = "Serving", value_parser = |text: &str| number(text, 1..=i32::MAX))]
    pub backlog: i32,

    /// Each connection begins with a PROXY header, v1 or v2, as balancers send it
    #[arg(long, help_heading = "Serving")]
    pub proxy_protocol: bool,

    /// Close a connection on which no byte moves for this long; 0: never
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, default_value = "5m")]
    #[arg(help_heading = "Serving", value_parser = time_limit)]
    pub idle_timeout: TimeLimit,

    /// Time from the first SIGTERM until workers that still run are killed
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, default_value = "10s")]
    #[arg(value_parser = duration)]
    pub grace: Duration,

    /// A worker leaves after this many, plus up to 10 %, and is replaced; 0: never
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 0)]
    #[arg(value_parser = |text: &str| number(text, 0..=u64::MAX))]
    pub max_connections: u64,

    /// Workers change to this user; the parent binds first, so port 7 works
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,

    /// Workers change to this group [default: the user's own]
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,

    /// Let workers keep the rights that serving doesn't need (Linux)
    #[arg(long)]
    pub no_sandbox: bool,

    /// File for the parent's pid, while the server runs
    #[arg(long, value_name = "PATH")]
    pub pid_file: Option<PathBuf>,

    /// File of the scoreboard, for status and top [default: in the user's runtime directory]
    #[arg(long, value_name = "PATH", overrides_with = "no_scoreboard")]
    pub scoreboard: Option<PathBuf>,

    /// Keep the scoreboard in memory only: status and top can't find it
    #[arg(long, overrides_with = "scoreboard")]
    pub no_scoreboard: bool,

    /// What is logged, in which form, and where to.
    #[command(flatten)]
    pub log: LogConfig,
}

impl Config {
    /// Clients that one worker serves at once.
    pub fn clients_at_once(&self) -> usize {
        self.clients.unwrap_or(self.model.default_clients())
    }

    /// The most workers; above [`workers`](Config::workers) only while clients wait.
    pub fn most_workers(&self) -> u16 {
        self.max_workers.unwrap_or(self.workers)
    }

    /// May there be more than [`workers`](Config::workers)?
    pub fn pool_may_grow(&self) -> bool {
        self.most_workers() > self.workers
    }

    /// What is wrong with the number of workers, and the remedy.
    pub fn workers_error(&self) -> Option<String> {
        let (least, most) = (self.workers, self.most_workers());
        (most < least).then(|| {
            format!("--max-workers {most} is fewer than --workers {least}; raise the one, or lower the other")
        })
    }

    /// What is wrong with the number of clients, and the remedy.
    pub fn clients_error(&self) -> Option<String> {
        let (model, most) = (self.model.name(), self.model.most_clients());
        (self.clients_at_once() > most).then(|| match self.model {
            Model::Process => {
                "--model process serves one client at a time in each worker; for more clients raise \
                 --workers, or choose --model thread or --model multiplex"
                    .into()
            }
            _ => format!("--model {model} serves at most {most} clients in each worker; lower --clients"),
        })
    }
}

/// What is logged, in which form, and where to.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Log")]
pub struct LogConfig {
    /// Explain each step and system call; =calls: one short line for each socket call
    #[arg(long, value_name = "WHAT", num_args = 0..=1, require_equals = true, hide_default_value = true)]
    #[arg(default_value = "off", default_missing_value = "all")]
    pub explain: Explain,

    /// Log more: each echo
    #[arg(short, long)]
    pub verbose: bool,

    /// Log warnings and errors only
    #[arg(short, long)]
    pub quiet: bool,

    /// Append the log to this file instead of stderr, each line with its date
    #[arg(long, value_name = "PATH")]
    pub log_file: Option<PathBuf>,

    /// Form of the log's lines
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub log_format: LogFormat,

    /// Colour the log; auto is on a terminal, unless NO_COLOR is set
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
}

/// What `--explain` narrates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Explain {
    /// Nothing
    #[value(hide = true)]
    Off,
    /// Each step with its system calls; with -q, nothing else
    All,
    /// A short line for each socket call, and no log but warnings
    Calls,
}

/// The form of the log's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// For programs: an object a line
    Json,
}

/// When the log is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// Where it goes to a terminal and NO_COLOR isn't set
    Auto,
    /// Also into files and pipes
    Always,
    /// Nowhere
    Never,
}

/// The address of a server, as the user wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindAddress {
    /// A name or an address, IPv6 without its brackets.
    pub host: String,
    /// 0 lets the kernel choose.
    pub port: u16,
}

impl LogConfig {
    /// A client's log: warnings on stderr, and the narration if it is wanted.
    pub fn for_client(explain: Explain) -> LogConfig {
        let (log_format, color) = (LogFormat::Text, Color::Auto);
        LogConfig { explain, verbose: false, quiet: true, log_file: None, log_format, color }
    }

    /// The least important lines that are logged.
    pub fn level(&self) -> LevelFilter {
        match (self.verbose, self.quiet || self.explain == Explain::Calls) {
            (true, _) => LevelFilter::Debug,
            (false, true) => LevelFilter::Warn,
            (false, false) => LevelFilter::Info,
        }
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
