//! How much is logged, in what form, and where to.

use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, ValueEnum};
use log::LevelFilter;

/// The log of a server, or the narration of a client.
#[derive(Debug, Clone, Args)]
pub struct LogOptions {
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

    /// Append the log to this file instead of stderr, each line with its date
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

impl LogOptions {
    /// Warnings on stderr, and the narration where it is wanted.
    pub fn of_a_client(explain: bool) -> LogOptions {
        LogOptions {
            explain,
            verbose: false,
            quiet: true,
            log_file: None,
            log_format: LogFormat::Text,
            color: Color::Auto,
        }
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
