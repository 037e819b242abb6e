//! What the server can be asked for.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args};

use super::{BindAddress, LogOptions, MAX_WORKERS, duration, number};

/// What the server is to do.
#[derive(Debug, Clone, Args)]
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

    /// Let workers keep the rights that serving doesn't need (Linux)
    #[arg(long, action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    #[arg(env = "PREFORK_ECHO_NO_SANDBOX", hide_env = true, help_heading = "Supervision")]
    pub no_sandbox: bool,

    /// Holds the parent's pid while the server runs
    #[arg(long, value_name = "PATH")]
    #[arg(env = "PREFORK_ECHO_PID_FILE", hide_env = true, help_heading = "Supervision")]
    pub pid_file: Option<PathBuf>,

    /// File of the scoreboard, for status and top [default: in the user's runtime directory]
    #[arg(long, value_name = "PATH", overrides_with = "no_scoreboard")]
    #[arg(env = "PREFORK_ECHO_SCOREBOARD", hide_env = true, help_heading = "Supervision")]
    pub scoreboard: Option<PathBuf>,

    /// Keep the scoreboard in memory without a name: status and top can't see it
    #[arg(long, action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    #[arg(overrides_with = "scoreboard")]
    #[arg(env = "PREFORK_ECHO_NO_SCOREBOARD", hide_env = true, help_heading = "Supervision")]
    pub no_scoreboard: bool,

    /// What it says, and where to.
    #[command(flatten)]
    pub log: LogOptions,
}

impl Options {
    /// What is typed wins over what stands in the environment.
    pub(super) fn prefer_typed(&mut self, matches: &ArgMatches) {
        let typed = |name| matches.value_source(name) == Some(ValueSource::CommandLine);
        self.log.verbose &= typed("verbose") || !typed("quiet");
        self.log.quiet &= !typed("verbose");
        self.no_scoreboard &= typed("no_scoreboard") || !typed("scoreboard");
    }

    /// Names one file that is to be two of log, pid file and scoreboard: one would
    /// overwrite the other.
    pub(super) fn file_used_twice(&self) -> Option<String> {
        let files: Vec<_> =
            [&self.log.log_file, &self.pid_file, &self.scoreboard].into_iter().flatten().collect();
        let mut pairs =
            files.iter().enumerate().flat_map(|(n, one)| files[..n].iter().map(move |two| (two, one)));
        let (one, other) = pairs.find(|(one, other)| FileId::of(one) == FileId::of(other))?;
        if one == other {
            return Some(one.display().to_string());
        }
        Some(format!("{} and {} are one file, which", one.display(), other.display()))
    }
}

/// What two names of one file have in common: its device and inode. If it isn't there
/// yet, those of the directory in which it would be made, and its name there.
#[derive(PartialEq)]
struct FileId(Option<(u64, u64)>, PathBuf);

impl FileId {
    fn of(path: &Path) -> FileId {
        let inode = |path: &Path| fs::metadata(path).ok().map(|data| (data.dev(), data.ino()));
        let directory_of = |path: &Path| match path.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        if let Some(inode) = inode(path) {
            return FileId(Some(inode), PathBuf::new());
        }
        // A link may lead to a file that isn't there yet. Linux follows no more than 40.
        let mut place = path.to_owned();
        for _ in 0..40 {
            let Ok(target) = fs::read_link(&place) else { break };
            place = directory_of(&place).join(target);
        }
        match (inode(&directory_of(&place)), place.file_name()) {
            (Some(directory), Some(name)) => FileId(Some(directory), name.into()),
            _ => FileId(None, place),
        }
    }
}
