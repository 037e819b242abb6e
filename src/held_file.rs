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

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{self, O_NOFOLLOW, O_NONBLOCK};
use nix::unistd::Pid;

/// A file that this process holds; removed when dropped.
#[derive(Debug)]
pub struct HeldFile {
    file: File,
    path: PathBuf,
}

/// Why a file cannot be held.
#[derive(Debug)]
pub enum Refusal {
    /// A living process holds it.
    Held(Pid),
    /// It is something else: no plain file, or not one of ours.
    Strange,
    /// The system says no.
    Error(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Refusal::Error(error)
    }
}

impl HeldFile {
    /// Takes the file at `path`, empty, if nobody holds it and `is_ours` says so of
    /// what is in it by now. Where there is none, makes one, with the rights `mode`
    /// less the umask.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn claim(path: &Path, mode: u32, is_ours: impl Fn(&File) -> bool) -> Result<HeldFile, Refusal> {
        let mut tries = 0..1_000;
        let file = loop {
            // More than any race of servers takes: the file system must be odd.
            tries.next().ok_or(Refusal::Strange)?;
            let file = open(path, mode)?;
            if !file.metadata()?.is_file() {
                return Err(Refusal::Strange);
            }
            match fcntl(&file, FcntlArg::F_SETLK(&whole_file(libc::F_WRLCK as libc::c_short))) {
                Ok(_) if is_still_at(&file, path) => {
                    if !is_ours(&file) {
                        return Err(Refusal::Strange);
                    }
                    // What a dead server has left its last workers may still write
                    // to. They keep it, and we make another, if the directory lets us.
                    if file.metadata()?.len() == 0 || fs::remove_file(path).is_err() {
                        break file;
                    }
                }
                // Its server has just removed it, between our open and our lock.
                Ok(_) => {}
                Err(Errno::EAGAIN | Errno::EACCES) => {
                    // None: it has let go in between.
                    if let Some(pid) = holder(&file, libc::F_WRLCK as _).map_err(io::Error::from)? {
                        return Err(Refusal::Held(pid));
                    }
                }
                Err(error) => return Err(Refusal::Error(error.into())),
            }
        };
        file.set_len(0)?;
        (&file).rewind()?;
        Ok(HeldFile { file, path: path.into() })
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

impl Drop for HeldFile {
    fn drop(&mut self) {
        if is_still_at(&self.file, &self.path) {
            // Removed while held, so that no other server can have it by now. If
            // it can't be removed, the lock still tells that it is stale.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The server that holds the file. A process of another container has pid 0.
///
/// # Errors
/// Where the file system knows no locks.
pub fn server_of(file: impl AsFd) -> nix::Result<Option<Pid>> {
    // Whoever may read the file can lock it for reading, and is no server.
    holder(file, libc::F_RDLCK as _)
}

/// Who stands in the way of a lock of this kind.
fn holder(file: impl AsFd, kind: libc::c_short) -> nix::Result<Option<Pid>> {
    let mut lock = whole_file(kind);
    fcntl(file, FcntlArg::F_GETLK(&mut lock))?;
    Ok((lock.l_type != libc::F_UNLCK as libc::c_short).then(|| Pid::from_raw(lock.l_pid)))
}

fn whole_file(kind: libc::c_short) -> libc::flock {
    libc::flock { l_type: kind, l_whence: libc::SEEK_SET as libc::c_short, l_start: 0, l_len: 0, l_pid: 0 }
}

/// Opens without following a link: as root, a link in /tmp would lead anywhere.
/// And without waiting, should it be a fifo.
fn open(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(mode)
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
