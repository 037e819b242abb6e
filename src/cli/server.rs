//! What the server can be asked for.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory};

use super::CommandLine;
use super::log::LogArgs;
use super::{duration, number, unless_zero};
use crate::config::{BindAddress, Config, MAX_WORKERS};

/// What the server is to do.
#[derive(Debug, Args)]
#[command(next_help_heading = "Supervision")]
pub(super) struct ServerArgs {
    /// Address to listen on: a name, IPv4, or IPv6 in brackets; port 0 lets the kernel choose
    #[arg(short, long, value_name = "[HOST:]PORT", default_value = "127.0.0.1:7777")]
    #[arg(help_heading = "Serving")]
    bind: BindAddress,

    /// Worker processes, 1 to 4096; each serves one client at a time
    #[arg(short, long, value_name = "N", allow_negative_numbers = true, default_value_t = 4)]
    #[arg(value_parser = |text: &str| number(text, 1..=MAX_WORKERS))]
    #[arg(help_heading = "Serving")]
    workers: u16,

    /// Length of the accept queue asked of the kernel
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 1024)]
    #[arg(value_parser = |text: &str| number(text, 1..=i32::MAX))]
    #[arg(help_heading = "Serving")]
    backlog: i32,

    /// Close a client that neither sends nor takes bytes for so long; 0 is never
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, default_value = "5m", value_parser = duration)]
    #[arg(help_heading = "Serving")]
    idle_timeout: Duration,

    /// From the first SIGTERM until workers that still run are killed
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, default_value = "10s", value_parser = duration)]
    grace: Duration,

    /// A worker leaves after so many, plus up to 10 %, and is replaced; 0 is never
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 0)]
    #[arg(value_parser = |text: &str| number(text, 0..=u64::MAX))]
    max_connections: u64,

    /// Workers change to this user; the parent binds first, so port 7 works
    #[arg(long, value_name = "USER")]
    user: Option<String>,

    /// Workers change to this group [default: the user's own]
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,

    /// Let workers keep the rights that serving doesn't need (Linux)
    #[arg(long)]
    no_sandbox: bool,

    /// Holds the parent's pid while the server runs
    #[arg(long, value_name = "PATH")]
    pid_file: Option<PathBuf>,

    /// File of the scoreboard, for status and top [default: in the user's runtime directory]
    #[arg(long, value_name = "PATH", overrides_with = "no_scoreboard")]
    scoreboard: Option<PathBuf>,

    /// Keep the scoreboard in memory without a name: status and top can't see it
    #[arg(long, overrides_with = "scoreboard")]
    no_scoreboard: bool,

    #[command(flatten)]
    log: LogArgs,
}

impl ServerArgs {
    /// Checks what clap can't, and converts. Wrong usage ends the process here.
    pub(super) fn checked(mut self, matches: &ArgMatches) -> Config {
        self.prefer_typed(matches);
        if let Some(file) = self.file_used_twice() {
            let message = format!("{file} can't be two of log, pid file and scoreboard");
            CommandLine::command().error(ErrorKind::ArgumentConflict, message).exit();
        }
        Config {
            bind: self.bind,
            backlog: self.backlog,
            workers: self.workers,
            idle_timeout: unless_zero(self.idle_timeout),
            grace: self.grace,
            max_connections: self.max_connections,
            user: self.user,
            group: self.group,
            no_sandbox: self.no_sandbox,
            pid_file: self.pid_file,
            scoreboard: self.scoreboard,
            no_scoreboard: self.no_scoreboard,
            log: self.log.config(),
        }
    }

    /// The command line wins over the environment.
    fn prefer_typed(&mut self, matches: &ArgMatches) {
        let typed = |name| matches.value_source(name) == Some(ValueSource::CommandLine);
        self.log.verbose &= typed("verbose") || !typed("quiet");
        self.log.quiet &= !typed("verbose");
        self.no_scoreboard &= typed("no_scoreboard") || !typed("scoreboard");
    }

    /// Names a file that is to be two of log, pid file and scoreboard: they would overwrite
    /// each other.
    fn file_used_twice(&self) -> Option<String> {
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

/// What two names of one file have in common: its device and inode. If the file is missing,
/// those of the directory in which it would be created, and its name there.
#[derive(PartialEq)]
struct FileId(Option<(u64, u64)>, PathBuf);

impl FileId {
    fn of(path: &Path) -> FileId {
        let inode = |path: &Path| fs::metadata(path).ok().map(|data| (data.dev(), data.ino()));
        if let Some(inode) = inode(path) {
            return FileId(Some(inode), PathBuf::new());
        }
        // With "." before a relative name it has a parent.
        let mut place = Path::new(".").join(path);
        // A link may lead to a missing file. Linux follows no more than 40.
        for _ in 0..40 {
            let Ok(target) = fs::read_link(&place) else { break };
            place.pop();
            place.push(target);
        }
        match (place.parent().and_then(inode), place.file_name()) {
            (Some(directory), Some(name)) => FileId(Some(directory), name.into()),
            _ => FileId(None, place),
        }
    }
}
