//! A file that belongs to one living server: its pid file, its scoreboard.
//!
//! What stands in a file proves nothing: after a crash the same pid may be another
//! process. So the server holds a lock on the file for as long as it lives
//! (fcntl(2), F_SETLK), and the kernel gives it back however the server ends. Such
//! a lock is the parent's alone, forked workers don't have it; and anybody may ask
//! the kernel who holds it.
//!
//! What such locks are known for: closing any descriptor of the file gives the
//! lock back. So a server must not open its own file again.
//!
//! A server's lock is a write lock, which takes the right to write. A read lock
//! takes the right to read, which other users have, and says nothing.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{self, O_NOFOLLOW, O_NONBLOCK};
use nix::unistd::{Pid, geteuid};

use crate::error::strerror;

/// What is asked of the kernel: its type differs between systems.
const READ_LOCK: libc::c_short = libc::F_RDLCK as libc::c_short;
const WRITE_LOCK: libc::c_short = libc::F_WRLCK as libc::c_short;

/// Attempts at a file, far more than any race of servers takes.
const TRIES: u32 = 1_000;

/// Between two attempts while another server removes the file.
const PAUSE: Duration = Duration::from_millis(1);

/// A file that this process holds; removed when dropped.
#[derive(Debug)]
pub struct LockFile {
    file: File,
    path: PathBuf,
}

/// Why a file cannot be held.
#[derive(Debug)]
pub enum LockError {
    /// A living process holds it.
    Held(Pid),
    /// No server holds it. This process has a read lock on it, and the directory
    /// doesn't let us replace it.
    ReadLocked(Pid),
    /// It belongs to this other user, who could write to it at any time.
    OtherOwner(u32),
    /// It has a second name, under which it may be anything.
    HardLinked,
    /// It is something else: no plain file, or not one of ours.
    NotOurs,
    /// The system says no.
    Error(io::Error),
}

impl From<io::Error> for LockError {
    fn from(error: io::Error) -> Self {
        LockError::Error(error)
    }
}

impl From<Errno> for LockError {
    fn from(error: Errno) -> Self {
        LockError::Error(error.into())
    }
}

/// What is wrong with the file, and what mends it; to stand after the file's name.
impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::Held(pid) => write!(f, "is held by a running server (pid {pid}); stop that one"),
            LockError::ReadLocked(pid) => write!(
                f,
                "is left from a killed server and cannot be replaced, because pid {pid} holds a read lock on it; \
                 end that process"
            ),
            LockError::OtherOwner(uid) => write!(f, "is owned by another user (uid {uid}); remove it"),
            LockError::HardLinked => write!(f, "has a second name (a hard link); remove it"),
            LockError::NotOurs => write!(f, "is something else; move it away"),
            LockError::Error(error) => write!(f, "cannot be written: {}", strerror(error)),
        }
    }
}

impl LockFile {
    /// Takes the file at `path`, empty, if no server holds it and `is_ours` says so of
    /// what is in it by now. Where there is none, makes one, with the rights `mode`
    /// less the umask.
    ///
    /// # Errors
    /// See [`LockError`].
    pub fn acquire(path: &Path, mode: u32, is_ours: fn(&File) -> bool) -> Result<LockFile, LockError> {
        for _ in 0..TRIES {
            if let Some(file) = try_to_claim(path, mode, is_ours)? {
                file.set_len(0)?;
                (&file).rewind()?;
                return Ok(LockFile { file, path: path.into() });
            }
        }
        Err(LockError::NotOurs) // The file system must be odd.
    }

    /// The file, open for reading and writing.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        if is_still_at(&self.file, &self.path) {
            // Removed while held, so that no other server can have it by now. If
            // it can't be removed, the lock still tells that it is stale.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Opens the file, or makes it, and locks it. None: another server has changed what is
/// there in the meantime, or we have.
fn try_to_claim(path: &Path, mode: u32, is_ours: fn(&File) -> bool) -> Result<Option<File>, LockError> {
    let Some(file) = open(path, Some(mode))? else { return Ok(None) };
    if try_lock(&file, WRITE_LOCK)? {
        // If not: its server has just removed it, between our open and our lock.
        if !is_still_at(&file, path) {
            return Ok(None);
        }
        if !is_ours(&file) {
            return Err(LockError::NotOurs);
        }
        // What a dead server has left its last workers may still write to. They
        // keep it, and we make another, if the directory lets us.
        let is_empty = file.metadata()?.len() == 0;
        return Ok((is_empty || fs::remove_file(path).is_err()).then_some(file));
    }
    if let Some(pid) = lock_holder(&file)? {
        return Err(LockError::Held(pid));
    }
    let Some(reader) = holder(&file, WRITE_LOCK)? else { return Ok(None) };
    if !is_ours(&file) {
        return Err(LockError::NotOurs);
    }
    match remove(&file, path) {
        Ok(_) => {}
        Err(LockError::Held(_)) => thread::sleep(PAUSE),
        Err(_) => return Err(LockError::ReadLocked(reader)),
    }
    Ok(None)
}

/// Removes the file at `path` if no server holds it and `is_ours` says so of what is in
/// it; true: it has. A server that is about to take it is not disturbed: it makes a new one.
///
/// # Errors
/// See [`LockError`].
pub fn remove_stale(path: &Path, is_ours: fn(&File) -> bool) -> Result<bool, LockError> {
    let Some(file) = open(path, None)? else { return Ok(false) };
    match lock_holder(&file)? {
        Some(pid) => Err(LockError::Held(pid)),
        None if !is_ours(&file) => Err(LockError::NotOurs),
        None => remove(&file, path),
    }
}

/// Removes `file`, which other processes may have locked for reading, unless a server
/// has taken it, or another file is at `path` by now. [`LockError::Held`]: another
/// process is about to remove it, too.
fn remove(file: &File, path: &Path) -> Result<bool, LockError> {
    // One process at a time. Otherwise, between our last look and our removal, another
    // one could remove this file and make its own, and ours would remove that. Only
    // this user can open, and so lock, what guards against it.
    let mut guard = OsString::from(path);
    guard.push(".replacing");
    let _guard = LockFile::acquire(Path::new(&guard), 0o600, is_empty)?;
    // Beside this lock no server can take the file.
    let may_go = try_lock(file, READ_LOCK)? && is_still_at(file, path);
    if may_go {
        fs::remove_file(path)?;
    }
    Ok(may_go)
}

fn is_empty(file: &File) -> bool {
    file.metadata().is_ok_and(|data| data.len() == 0)
}

/// The server that holds the file. A process of another container has pid 0.
///
/// # Errors
/// Where the file system knows no locks.
pub fn lock_holder(file: impl AsFd) -> nix::Result<Option<Pid>> {
    // Whoever may read the file can lock it for reading, and is no server.
    holder(file, READ_LOCK)
}

/// Who stands in the way of a lock of this kind.
fn holder(file: impl AsFd, kind: libc::c_short) -> nix::Result<Option<Pid>> {
    let mut lock = whole_file(kind);
    fcntl(file, FcntlArg::F_GETLK(&mut lock))?;
    Ok((lock.l_type != libc::F_UNLCK as libc::c_short).then(|| Pid::from_raw(lock.l_pid)))
}

/// Locks the file until it is closed. False: another process's lock is in the way.
fn try_lock(file: &File, kind: libc::c_short) -> nix::Result<bool> {
    match fcntl(file, FcntlArg::F_SETLK(&whole_file(kind))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => Err(error),
    }
}

fn whole_file(kind: libc::c_short) -> libc::flock {
    libc::flock { l_type: kind, l_whence: libc::SEEK_SET as libc::c_short, l_start: 0, l_len: 0, l_pid: 0 }
}

/// Opens the file at `path`; with a `mode`, makes it where there is none. None: it has
/// come or gone meanwhile.
///
/// One that is there already must be a plain file of this user, with one name: any other
/// may have been laid there for us, and its owner could write to it while we hold it.
fn open(path: &Path, mode: Option<u32>) -> Result<Option<File>, LockError> {
    // Without following a link: as root, a link in /tmp would lead anywhere. And without
    // waiting, should it be a fifo.
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(O_NOFOLLOW | O_NONBLOCK);
    let file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let Some(mode) = mode else { return Ok(None) };
            return match options.create_new(true).mode(mode).open(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
                made => Ok(Some(made?)),
            };
        }
        opened => opened?,
    };
    let data = file.metadata()?;
    if !data.is_file() {
        return Err(LockError::NotOurs);
    }
    if data.uid() != geteuid().as_raw() {
        return Err(LockError::OtherOwner(data.uid()));
    }
    if data.nlink() > 1 {
        return Err(LockError::HardLinked);
    }
    Ok(Some(file))
}

fn is_still_at(file: &File, path: &Path) -> bool {
    let id = |data: fs::Metadata| (data.dev(), data.ino());
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(ours), Ok(there)) => id(ours) == id(there),
        _ => false,
    }
}
