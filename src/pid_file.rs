//! `--pid-file`: written once listening, removed at the end, and never taken
//! from a server that lives.
//!
//! A pid in a file proves nothing: after a crash the same number may be another
//! process. So the server holds a lock on its file for as long as it lives
//! (flock(2)), and the kernel gives it back however the server ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use nix::unistd::Pid;

use crate::exit::Failure;

/// The file of this server; removed when dropped.
#[derive(Debug)]
pub struct PidFile {
    file: File,
    path: PathBuf,
}

impl PidFile {
    /// Takes the file and writes `pid` into it.
    ///
    /// # Errors
    /// If a living server holds the file, if it is something other than a pid
    /// file, or if it cannot be written.
    pub fn create(path: &Path, pid: Pid) -> Result<PidFile, Failure> {
        let shown = path.display();
        let failed = |error: &io::Error| {
            Failure::new(format_args!("write the pid file {shown}"), error, "choose another with --pid-file")
        };
        let mut file = loop {
            let file = open(path).map_err(|error| failed(&error))?;
            match file.try_lock() {
                Ok(()) if is_still_at(&file, path) => break file,
                // Its server has just removed it, between our open and our lock.
                Ok(()) => {}
                Err(TryLockError::Error(error)) => return Err(failed(&error)),
                Err(TryLockError::WouldBlock) => {
                    let owner = fs::read_to_string(path).unwrap_or_default();
                    return Err(Failure::plain(format!(
                        "the pid file {shown} is held by a running server (pid {}); stop that one, or choose another \
                         file with --pid-file",
                        owner.trim()
                    )));
                }
            }
        };

        let is_file = file.metadata().is_ok_and(|data| data.is_file());
        let mut content = Vec::new();
        if is_file {
            (&file).take(64).read_to_end(&mut content).map_err(|error| failed(&error))?;
        }
        let is_pid = |byte: &u8| byte.is_ascii_digit() || byte.is_ascii_whitespace();
        if !is_file || !content.iter().all(is_pid) {
            return Err(Failure::plain(format!(
                "{shown} exists and is not a pid file; choose another with --pid-file"
            )));
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{pid}"))
            .map_err(|error| failed(&error))?;
        Ok(PidFile { file, path: path.into() })
    }

    /// The number of its descriptor, for a worker to close: a lock lasts until
    /// the last copy of the descriptor is closed.
    pub fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if is_still_at(&self.file, &self.path) {
            // Removed while locked, so that no other server can hold it by now.
            // If it can't be removed, the lock still tells that it is stale.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Opens without following a link: as root, a link in /tmp would lead anywhere.
/// And without waiting, should it be a fifo.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .custom_flags(O_NOFOLLOW | O_NONBLOCK)
        .open(path)
}

fn is_still_at(file: &File, path: &Path) -> bool {
    let id = |data: fs::Metadata| (data.dev(), data.ino());
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(ours), Ok(there)) => id(ours) == id(there),
        _ => false,
    }
}
