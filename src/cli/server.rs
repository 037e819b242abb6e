//! What clap cannot check of the server's options.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory};

use super::CommandLine;
use crate::config::Config;

/// Of two options that exclude each other the typed one stays, and no two files are one.
/// Wrong usage ends the process here.
pub(super) fn checked(mut config: Config, matches: &ArgMatches) -> Config {
    // The command line wins over the environment.
    let typed = |name| matches.value_source(name) == Some(ValueSource::CommandLine);
    config.log.verbose &= typed("verbose") || !typed("quiet");
    config.log.quiet &= !typed("verbose");
    config.no_scoreboard &= typed("no_scoreboard") || !typed("scoreboard");
    let used_twice = file_used_twice(&config);
    let used_twice = used_twice.map(|file| format!("{file} can't be two of log, pid file and scoreboard"));
    if let Some(message) = used_twice.or_else(|| config.clients_error()).or_else(|| config.workers_error()) {
        CommandLine::command().error(ErrorKind::ArgumentConflict, message).exit();
    }
    config
}

/// Names a file that is to be two of log, pid file and scoreboard: they would overwrite
/// each other.
fn file_used_twice(config: &Config) -> Option<String> {
    let files = [&config.log.log_file, &config.pid_file, &config.scoreboard].map(Option::as_deref);
    [(0, 1), (0, 2), (1, 2)].into_iter().find_map(|(one, other)| {
        let (one, other) = (files[one]?, files[other]?);
        match FileId::of(one) == FileId::of(other) {
            true if one == other => Some(one.display().to_string()),
            true => Some(format!("{} and {} are one file, which", one.display(), other.display())),
            false => None,
        }
    })
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
