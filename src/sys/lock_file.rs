//! A file that belongs to one living server: its pid file, its scoreboard.
//!
//! The content of a file proves nothing: after a crash another process may have the
//! same pid. So the server holds a lock on the file for as long as it lives (fcntl(2),
//! F_SETLK). The kernel releases it however the server ends, and tells any process
//! which one holds it. Forked workers don't inherit such a lock.
//!
//! Closing any descriptor of the file releases the lock: a server must not open its
//! own file again. A server's lock is a write lock, which takes the right to write. A
//! read lock takes the right to read, which other users have: it does not show that a server
//! runs.

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
use nix::unistd::{Pid, geteuid, getpid};

// The type of these constants differs between systems.
const READ_LOCK: libc::c_short = libc::F_RDLCK as libc::c_short;
const WRITE_LOCK: libc::c_short = libc::F_WRLCK as libc::c_short;

/// Attempts at a file, far more than any race of servers takes.
const TRIES: u32 = 1_000;

/// Between two attempts while another server removes the file.
const PAUSE: Duration = Duration::from_millis(1);

/// A file that this process holds. Dropping it removes the file, but not in a forked child:
/// there it only closes the descriptor, which leaves the parent's lock alone.
#[derive(Debug)]
pub struct LockFile {
    /// The file, open for reading and writing.
    pub file: File,
    /// Its name.
    pub path: PathBuf,
    owner: Pid,
}

/// Why a file cannot be held.
#[derive(Debug)]
pub enum LockError {
    /// A living process holds it.
    Held(Pid),
    /// It is no plain file, or it was not made by this program.
    NotOurs,
    /// Another process could write to it, or keeps it from being replaced: how, and the remedy.
    Unsafe(String),
    /// The system refuses.
    Error(io::Error),
}

impl From<io::Error> for LockError {
    fn from(error: io::Error) -> Self {
        LockError::Error(error)
    }
}

/// What is wrong with the file, and the remedy, to follow the file's name.
impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::Held(pid) => write!(f, "is held by a running server (pid {pid}); stop that one"),
            LockError::NotOurs => write!(f, "is something else; move it away"),
            LockError::Unsafe(what) => write!(f, "{what}"),
            LockError::Error(error) => write!(f, "cannot be written: {error}"),
        }
    }
}

impl LockFile {
    /// Takes the file at `path`, and empties it, if no server holds it, and if it is empty or
    /// `is_ours` accepts its content. Creates it if it is missing, with the permissions `mode`
    /// less the umask.
    ///
    /// # Errors
    /// See [`LockError`].
    pub fn acquire(path: &Path, mode: u32, is_ours: fn(&File) -> bool) -> Result<LockFile, LockError> {
        for _ in 0..TRIES {
            if let Some(file) = try_acquire(path, mode, is_ours)? {
                file.set_len(0)?;
                (&file).rewind()?;
                return Ok(LockFile { file, path: path.into(), owner: getpid() });
            }
        }
        Err(LockError::NotOurs) // The file changes at each look.
    }

    /// Gives the file another name. A file that has that name loses it, also if a server holds it.
    ///
    /// # Errors
    /// Those of rename(2).
    pub fn rename(&mut self, path: PathBuf) -> io::Result<()> {
        fs::rename(&self.path, &path)?;
        self.path = path;
        Ok(())
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        if self.owner == getpid() && is_still_at(&self.file, &self.path) {
            // Removed while locked, so that it cannot be another server's. If the
            // removal fails, the missing lock still shows that the file is stale.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Opens or creates the file, and locks it. None: the file at `path` has changed
/// meanwhile, so the caller tries again.
fn try_acquire(path: &Path, mode: u32, is_ours: fn(&File) -> bool) -> Result<Option<File>, LockError> {
    let Some(file) = open(path, Some(mode))? else { return Ok(None) };
    let is_locked = try_lock(&file, WRITE_LOCK)?;
    // Its server may have removed it between this open and this lock.
    if is_locked && !is_still_at(&file, path) {
        return Ok(None);
    }
    if !is_locked && let Some(pid) = lock_holder(&file)? {
        return Err(LockError::Held(pid));
    }
    let is_empty = file.metadata()?.len() == 0;
    if !is_empty && !is_ours(&file) {
        return Err(LockError::NotOurs);
    }
    if is_locked {
        // The last workers of a dead server may still write to the file. So it is
        // replaced, if the directory permits that.
        return Ok((is_empty || fs::remove_file(path).is_err()).then_some(file));
    }
    let Some(reader) = conflicting_process(&file, WRITE_LOCK)? else { return Ok(None) };
    match remove(&file, path) {
        Ok(_) => {}
        Err(LockError::Held(_)) => thread::sleep(PAUSE),
        Err(_) => {
            return Err(LockError::Unsafe(format!(
                "is left from a killed server and cannot be replaced, because pid {reader} holds a read lock \
                 on it; end that process"
            )));
        }
    }
    Ok(None)
}

/// Removes the file at `path` if no server holds it and `is_ours` accepts its content.
/// Returns true if it was removed. A server that is about to take it creates a new one.
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
/// process is about to remove it.
fn remove(file: &File, path: &Path) -> Result<bool, LockError> {
    // One process at a time. Otherwise another process could replace this file between
    // the last look and the removal, and its new file would be removed. Only this user
    // can open, and so lock, the guard.
    let mut guard = OsString::from(path);
    guard.push(".replacing");
    let _guard = LockFile::acquire(Path::new(&guard), 0o600, |_| false)?;
    // This read lock keeps servers from taking the file.
    let may_go = try_lock(file, READ_LOCK)? && is_still_at(file, path);
    if may_go {
        fs::remove_file(path)?;
    }
    Ok(may_go)
}

/// The server that holds the file. A process of another container has pid 0.
///
/// # Errors
/// Where the file system knows no locks.
pub fn lock_holder(file: impl AsFd) -> io::Result<Option<Pid>> {
    // A process with a read lock is no server: the right to read suffices for that.
    conflicting_process(file, READ_LOCK)
}

/// The process whose lock excludes a lock of this kind.
fn conflicting_process(file: impl AsFd, kind: libc::c_short) -> io::Result<Option<Pid>> {
    let mut lock = whole_file(kind);
    fcntl(file, FcntlArg::F_GETLK(&mut lock))?;
    Ok((lock.l_type != libc::F_UNLCK as libc::c_short).then(|| Pid::from_raw(lock.l_pid)))
}

/// Locks the file until it is closed. False: another process's lock is in the way.
fn try_lock(file: &File, kind: libc::c_short) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_SETLK(&whole_file(kind))) {
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        result => Ok(result.map(|_| true)?),
    }
}

fn whole_file(kind: libc::c_short) -> libc::flock {
    libc::flock { l_type: kind, l_whence: libc::SEEK_SET as libc::c_short, l_start: 0, l_len: 0, l_pid: 0 }
}

/// Opens the file at `path`; with a `mode`, creates it if it is missing. None: it is
/// missing, or another process has created it meanwhile.
///
/// An existing one must be a plain file of this user, with one name. Any other may have been
/// put there on purpose, and its owner could write to it while this process holds it.
fn open(path: &Path, mode: Option<u32>) -> Result<Option<File>, LockError> {
    // No link is followed: for root, a link in /tmp could lead to any file. O_NONBLOCK,
    // because opening a fifo would wait for its other end.
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
        let what = format!("is owned by another user (uid {}); remove it", data.uid());
        return Err(LockError::Unsafe(what));
    }
    if data.nlink() > 1 {
        return Err(LockError::Unsafe("has a second name (a hard link); remove it".into()));
    }
    Ok(Some(file))
}

/// Is this file, and no other, at `path`? A link to it is another one.
pub fn is_still_at(file: &File, path: &Path) -> bool {
    let id = |data: fs::Metadata| (data.dev(), data.ino());
    let there = fs::symlink_metadata(path).map(id);
    file.metadata().map(id).is_ok_and(|open| there.is_ok_and(|there| there == open))
}
