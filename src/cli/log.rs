//! How much is logged, in what form, and where to.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use log::LevelFilter;

use crate::config::LogConfig;

/// The options of the log.
#[derive(Debug, Args)]
#[command(next_help_heading = "Log")]
pub(super) struct LogArgs {
    /// Narrate each step with its system calls in plain words; with -q, nothing else
    #[arg(long)]
    explain: bool,

    /// Log more: every echo
    #[arg(short, long)]
    pub(super) verbose: bool,

    /// Log warnings and errors only
    #[arg(short, long)]
    pub(super) quiet: bool,

    /// Append the log to this file instead of stderr, each line with its date
    #[arg(long, value_name = "PATH")]
    pub(super) log_file: Option<PathBuf>,

    /// Form of the log's lines
    #[arg(long, value_name = "FORM", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,

    /// Colour the log; auto is on a terminal, unless NO_COLOR is set
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Color::Auto)]
    color: Color,
}

impl LogArgs {
    pub(super) fn config(self) -> LogConfig {
        LogConfig {
            level: match (self.verbose, self.quiet) {
                (true, _) => LevelFilter::Debug,
                (_, true) => LevelFilter::Warn,
                _ => LevelFilter::Info,
            },
            explain: self.explain,
            file: self.log_file,
            json: self.log_format == LogFormat::Json,
            colored: match self.color {
                Color::Auto => None,
                when => Some(when == Color::Always),
            },
        }
    }
}

/// The form of the log's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// For programs: an object a line.
    Json,
}

/// When the log is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Color {
    /// Where it goes to a terminal and NO_COLOR isn't set.
    Auto,
    /// Also into files and pipes.
    Always,
    /// Nowhere.
    Never,
}
