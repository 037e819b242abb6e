//! What `client` and `bench` can be asked for.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::ArgPredicate;
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::value::{number, time_limit};
use super::{BindAddress, Explain, TimeLimit};

/// The most connections that one `bench` opens.
const MOST_CONNECTIONS: u16 = 10_000;

/// The longest message, in bytes; two of them are in memory.
const LONGEST_MESSAGE: usize = 1 << 30;

const CLIENT_EXAMPLES: &str = "\
Where lines are typed, there is no time-out unless --timeout is given: the
client waits until a worker accepts its connection, and says so.

Exit status: 0 when every byte came back, else 1, and stderr says which one
didn't.

Examples:
  prefork-echo client 7777 hello              send a line, print what comes back
  prefork-echo client                         type lines; Ctrl-D at the end
  seq 100000 | prefork-echo client | tail -1  send and receive at once
  prefork-echo client 7777 hello --explain    explain each system call";

const BENCH_EXAMPLES: &str = "\
Modes:
  keep     each connection is kept open; the next message is sent when the last
           one has come back
  connect  a connection for each message, which the client closes first
  stream   messages are sent as fast as the server takes them, while they come
           back; the latency is mostly the time in the buffers on the way

With more connections than the server serves at once, some wait in its accept
queue, until others have closed or --timeout is over. The report says how many
were never accepted, and how long the others waited for their first byte: the
percentiles of the latency leave those out. A server that logs each connection
is measured with its log: prefork-echo -q doesn't.

With --timeout 0 a server is waited for until the end of --duration, and for 5s
more.

Exit status: 0 when every byte came back as it was sent, else 1; also 1 when
nothing came back. Ctrl-C ends it, and prints what has been measured so far.

Examples:
  prefork-echo bench                            four connections to port 7777
  prefork-echo bench 7778 -c 1 -n 10000         one connection, 10,000 messages
  prefork-echo bench --rate 5000 --duration 1m  5,000 a second; how late?
  prefork-echo bench --mode stream -c 2         how many bytes a second?";

/// What `client` is to do.
#[derive(Debug, Args)]
#[command(after_help = CLIENT_EXAMPLES)]
pub struct ClientOptions {
    /// The server, and how long to wait for it.
    #[command(flatten)]
    pub server: Server,

    /// Each is sent as a line, when the last one has come back [default: what stdin has]
    #[arg(value_name = "MESSAGE")]
    pub messages: Vec<OsString>,

    /// Explain each step and system call; =calls: one short line for each socket call
    #[arg(long, value_name = "WHAT", num_args = 0..=1, require_equals = true, hide_default_value = true)]
    #[arg(default_value = "off", default_missing_value = "all")]
    pub explain: Explain,

    /// Was --timeout typed? Without it, there is no time-out where lines are typed.
    #[arg(skip)]
    pub is_timeout_typed: bool,
}

/// What `bench` is to do.
#[derive(Debug, Clone, Args)]
#[command(after_help = BENCH_EXAMPLES)]
pub struct BenchOptions {
    /// What to measure
    #[arg(short, long, default_value = "keep")]
    pub mode: Mode,

    /// Connections at once, 1 to 10000
    #[arg(short, long, value_name = "N", allow_negative_numbers = true, default_value_t = 4)]
    #[arg(value_parser = |text: &str| number(text, 1..=MOST_CONNECTIONS))]
    pub connections: u16,

    /// Messages in all, shared out evenly [default: as many as there is time for]
    #[arg(short = 'n', long, value_name = "N", allow_negative_numbers = true, conflicts_with = "duration")]
    #[arg(value_parser = |text: &str| number(text, 1..=u64::MAX))]
    pub messages: Option<u64>,

    /// Send no message that is due later; what is in flight then has one --timeout more in all; 0: go on
    /// until Ctrl-C [default: 3s]
    #[arg(short, long, value_name = "DURATION", allow_hyphen_values = true, value_parser = time_limit)]
    #[arg(default_value = "3s", default_value_if("messages", ArgPredicate::IsPresent, "0"))]
    #[arg(hide_default_value = true)]
    pub duration: TimeLimit,

    /// Bytes of a message, 1 to 1073741824 [default: 64, or 65536 with --mode stream]
    #[arg(short, long, value_name = "BYTES", allow_negative_numbers = true)]
    #[arg(value_parser = |text: &str| number(text, 1..=LONGEST_MESSAGE))]
    #[arg(default_value = "64", default_value_if("mode", "stream", "65536"), hide_default_value = true)]
    pub size: usize,

    /// Messages a second in all, each due at a fixed time, from which its latency counts [default: as many as go]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true)]
    #[arg(value_parser = |text: &str| number(text, 1..=1_000_000_u32))]
    pub rate: Option<u32>,

    /// Print JSON, one object on one line
    #[arg(long)]
    pub json: bool,

    /// The file that the server was given with --scoreboard: it says which worker answered how many
    #[arg(long, value_name = "PATH")]
    pub scoreboard: Option<PathBuf>,

    /// The server, and how long to wait for it.
    #[command(flatten)]
    pub server: Server,
}

/// The server, and how long to wait for it.
#[derive(Debug, Clone, Args)]
pub struct Server {
    /// Where the server listens
    #[arg(value_name = "[HOST:]PORT", default_value = "127.0.0.1:7777", value_parser = server)]
    pub address: BindAddress,

    /// The longest wait for a connection, or for a byte that is due; 0: no limit
    #[arg(short, long, value_name = "DURATION", allow_hyphen_values = true, default_value = "5s")]
    #[arg(value_parser = time_limit)]
    pub timeout: TimeLimit,

    /// Each connection begins with a PROXY header, as a balancer sends it to a server with --proxy-protocol
    #[arg(long, value_name = "VERSION")]
    pub proxy_header: Option<ProxyVersion>,
}

/// The form of a PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProxyVersion {
    /// A line of text
    V1,
    /// Binary
    V2,
}

impl ProxyVersion {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            ProxyVersion::V1 => "v1",
            ProxyVersion::V2 => "v2",
        }
    }
}

/// What `bench` measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Messages one after another, on connections that stay open
    Keep,
    /// A connection for each message
    Connect,
    /// As many bytes as go, both ways at once
    Stream,
}

fn server(text: &str) -> Result<BindAddress, String> {
    match text.parse() {
        Ok(BindAddress { port: 0, .. }) => {
            Err("no server listens on port 0; write a PORT from 1 to 65535".into())
        }
        // A common mistake: the message is typed alone.
        Err(_) if !text.contains(':') => {
            Err("the server comes first: write its PORT, from 1 to 65535, or HOST:PORT".into())
        }
        result => result,
    }
}
