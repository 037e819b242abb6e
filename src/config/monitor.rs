//! What `status` and `top` can be asked for.

use std::path::PathBuf;

use clap::Args;

use super::BindAddress;

const STATUS_EXAMPLES: &str = "\
Examples:
  prefork-echo status                the only server of this user
  prefork-echo status 7777           the one at port 7777
  prefork-echo status --openmetrics  its numbers for Prometheus";

/// What `status` is to do.
#[derive(Debug, Args)]
#[command(after_help = STATUS_EXAMPLES)]
pub struct StatusOptions {
    /// The server to look at.
    #[command(flatten)]
    pub which: ServerSelector,

    /// Print JSON, one object on one line
    #[arg(long)]
    pub json: bool,

    /// Print the text format of OpenMetrics, for Prometheus
    #[arg(long, conflicts_with = "json")]
    pub openmetrics: bool,
}

/// What `top` is to do.
#[derive(Debug, Args)]
pub struct TopOptions {
    /// The server to look at.
    #[command(flatten)]
    pub which: ServerSelector,

    /// Print the pages once, as text, and end
    #[arg(long)]
    pub once: bool,

    /// Draw with ASCII alone: for a terminal where lines and arrows are two columns wide
    #[arg(long)]
    pub ascii: bool,
}

/// One of the running servers; without address and file, the only one of this user.
#[derive(Debug, Args)]
pub struct ServerSelector {
    /// Where the server listens [default: this user's only server]
    #[arg(value_name = "[HOST:]PORT")]
    pub address: Option<BindAddress>,

    /// The file that the server was given with --scoreboard
    #[arg(long, value_name = "PATH", conflicts_with = "address")]
    pub scoreboard: Option<PathBuf>,
}
