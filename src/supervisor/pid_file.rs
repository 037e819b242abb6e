//! `--pid-file`: the parent writes it when it listens, and removes it at the end. It never
//! takes the file of a living server.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use nix::unistd::Pid;

use crate::error::Error;
use crate::sys::lock_file::{LockError, LockFile};

/// Takes the file and writes `pid` into it.
///
/// # Errors
/// If a living server holds the file, if it is no pid file, or if it cannot be written.
pub fn create(path: &Path, pid: Pid) -> Result<LockFile, Error> {
    let shown = path.display();
    let failed = |error: &io::Error| {
        Error::new(format_args!("write the pid file {shown}"), error, "choose another with --pid-file")
    };
    let file = LockFile::acquire(path, 0o644, is_pid).map_err(|error| match error {
        LockError::NotOurs => {
            Error::plain(format!("{shown} exists and is not a pid file; choose another with --pid-file"))
        }
        LockError::Error(error) => failed(&error),
        other => {
            Error::plain(format!("the pid file {shown} {other}, or choose another file with --pid-file"))
        }
    })?;
    writeln!(&file.file, "{pid}").map_err(|error| failed(&error))?;
    Ok(file)
}

/// Is there only a pid in the file?
fn is_pid(file: &File) -> bool {
    let mut content = String::new();
    // One byte more than the longest pid and its new line.
    if file.take(12).read_to_string(&mut content).is_err() {
        return false;
    }
    let digits = content.strip_suffix('\n').unwrap_or(&content);
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<i32>().is_ok();
    content.len() < 12 && is_number
}
