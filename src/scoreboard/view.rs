//! A server's scoreboard, as seen from outside: found, opened, and only read.

use std::env;
use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc::O_NONBLOCK;
use nix::unistd::Pid;

use super::file::{Identity, files};
use super::{LINES, Scoreboard};
use crate::cli::{BindAddress, Which};
use crate::exit::Failure;
use crate::held_file::server_of;
use crate::sys::memory;

/// A scoreboard that somebody looks at.
#[derive(Debug)]
pub struct View {
    /// Whose it is.
    pub identity: Identity,
    /// Only to be read: it is mapped so.
    pub(crate) scoreboard: Scoreboard,
    file: File,
    path: PathBuf,
}

impl View {
    /// Opens the scoreboard of the server that the user means.
    ///
    /// # Errors
    /// If there is none, or there are several to choose from.
    pub fn of(which: &Which) -> Result<View, Failure> {
        // By hand: to clap, an address that is typed would contradict it.
        let inherited = || env::var_os("PREFORK_ECHO_SCOREBOARD").map(PathBuf::from);
        match (&which.address, which.scoreboard.clone().or_else(inherited)) {
            (None, Some(path)) => View::open(&path),
            (address, _) => View::find(address.as_ref()),
        }
    }

    /// Opens the scoreboard at `path`, of a server that lives.
    fn open(path: &Path) -> Result<View, Failure> {
        let shown = path.display();
        let failed = |error: &std::io::Error| {
            let remedy = "give the same --scoreboard as to the server";
            Failure::new(format_args!("look at the scoreboard {shown}"), error, remedy)
        };
        let file = open(path).map_err(|error| failed(&error))?;
        let identity = Identity::read(&file).map_err(|what| Failure::plain(format!("{shown} {what}")))?;
        if !is_held(&file) {
            return Err(died(&identity, path));
        }
        let lines = memory::view_file(&file, LINES).map_err(|error| failed(&error.into()))?;
        Ok(View { identity, scoreboard: Scoreboard(lines), file, path: path.into() })
    }

    /// Opens the scoreboard of this user's server at an address, or that of his
    /// only one.
    ///
    /// # Errors
    /// If there is none, or there are several to choose from.
    fn find(wanted: Option<&BindAddress>) -> Result<View, Failure> {
        let (found, damaged) = scoreboards();
        let (living, dead): (Vec<&Found>, Vec<&Found>) = found.iter().partition(|found| found.lives);
        let Some(wanted) = wanted else {
            return match living.as_slice() {
                [one] => View::open(&one.path),
                [] => Err(Failure::plain(format!(
                    "no server of this user is running; start one with prefork-echo; one that has \
                     --scoreboard PATH is found with the same option, another user's by that user{damaged}",
                ))),
                several => Err(Failure::plain(format!(
                    "{} servers are running; say which one:{}",
                    several.len(),
                    list(several)
                ))),
            };
        };
        let addresses = wanted.look_up("give its IP address")?;
        let is_wanted =
            |found: &&&Found| addresses.iter().any(|wanted| is_at(found.identity.address, *wanted));
        match (living.iter().find(is_wanted), dead.iter().find(is_wanted)) {
            (Some(one), _) => View::open(&one.path),
            (None, Some(one)) => Err(died(&one.identity, &one.path)),
            (None, None) => Err(Failure::plain(format!(
                "no server of this user listens at {wanted}; one that has --scoreboard PATH is found with the \
                 same option, another user's by that user{}{}{damaged}",
                if living.is_empty() { "" } else { "; this user runs:" },
                list(&living)
            ))),
        }
    }

    /// Is the file still what it was? An error says what has become of it.
    ///
    /// # Errors
    /// If somebody has cut the file short or written over it.
    pub fn check(&self) -> Result<(), Failure> {
        let shown = self.path.display();
        match Identity::read(&self.file) {
            Ok(identity) if identity == self.identity => Ok(()),
            Ok(_) => Err(Failure::plain(format!("{shown} is another server's by now"))),
            Err(what) => Err(Failure::plain(format!("{shown} {what}"))),
        }
    }

    /// Does the server answer at this address?
    pub fn is_at(&self, address: SocketAddr) -> bool {
        is_at(self.identity.address, address)
    }

    /// Does the server live?
    pub fn lives(&self) -> bool {
        is_held(&self.file)
    }

    /// The server's pid, by the kernel's word. None: it is dead, or in another
    /// container, where pids are others.
    pub fn holder(&self) -> Option<Pid> {
        server_of(&self.file).ok().flatten().filter(|pid| pid.as_raw() > 0)
    }
}

/// Without waiting, should it be a fifo.
fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path)
}

fn is_held(file: &File) -> bool {
    matches!(server_of(file), Ok(Some(_)))
}

fn died(identity: &Identity, path: &Path) -> Failure {
    Failure::plain(format!(
        "the server at {} (pid {}) is dead, and could not remove {}; the next server at that address takes \
         its place, or remove it yourself",
        identity.address,
        identity.pid,
        path.display()
    ))
}

struct Found {
    path: PathBuf,
    identity: Identity,
    lives: bool,
}

/// The scoreboards of this user; and, as lines of text, what once was one and is held
/// by a server.
fn scoreboards() -> (Vec<Found>, String) {
    let (mut found, mut damaged) = (Vec::new(), String::new());
    for path in files() {
        let Ok(file) = open(&path) else { continue };
        match (Identity::read(&file), is_held(&file)) {
            (Ok(identity), lives) => found.push(Found { path, identity, lives }),
            (Err(what), true) => damaged += &format!("\n  {} {what}; its server lives", path.display()),
            (Err(_), false) => {}
        }
    }
    (found, damaged)
}

/// Does a server that listens at `address` answer at `wanted`?
fn is_at(address: SocketAddr, wanted: SocketAddr) -> bool {
    address.port() == wanted.port() && (address.ip() == wanted.ip() || address.ip().is_unspecified())
}

fn list(found: &[&Found]) -> String {
    let line = |found: &&Found| format!("\n  {} (pid {})", found.identity.address, found.identity.pid);
    let mut lines: Vec<_> = found.iter().map(line).collect();
    lines.sort();
    lines.concat()
}
