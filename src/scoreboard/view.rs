//! A server's scoreboard, as seen from outside: found, opened, and only read.

use std::fs::{self, File, OpenOptions};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc::O_NONBLOCK;
use nix::unistd::Pid;

use super::file::{EXTENSION, Identity, directories};
use super::{LINES, Scoreboard};
use crate::cli::BindAddress;
use crate::exit::Failure;
use crate::held_file::server_of;
use crate::sys::memory;

/// A scoreboard that somebody looks at.
#[derive(Debug)]
pub struct View {
    /// Whose it is.
    pub identity: Identity,
    /// What it shows.
    pub scoreboard: Scoreboard,
    file: File,
    path: PathBuf,
}

impl View {
    /// Opens the scoreboard at `path`, of a server that lives.
    ///
    /// # Errors
    /// If there is none, or the server is dead.
    pub fn open(path: &Path) -> Result<View, Failure> {
        let shown = path.display();
        let failed = |error: &std::io::Error| {
            let remedy = "give the same --scoreboard as to the server";
            Failure::new(format_args!("look at the scoreboard {shown}"), error, remedy)
        };
        let file = open(path).map_err(|error| failed(&error))?;
        let identity = Identity::read(&file).map_err(|what| Failure::plain(format!("{shown} {what}")))?;
        if !is_held(&file) {
            return Err(dead(&identity, path));
        }
        let lines = memory::view_file(&file, LINES).map_err(|error| failed(&error.into()))?;
        Ok(View { identity, scoreboard: Scoreboard(lines), file, path: path.into() })
    }

    /// Opens the scoreboard of this user's server at an address, or that of his
    /// only one.
    ///
    /// # Errors
    /// If there is none, or there are several to choose from.
    pub fn find(wanted: Option<&BindAddress>) -> Result<View, Failure> {
        let found: Vec<Found> = directories().flat_map(|directory| scoreboards_in(&directory)).collect();
        let wanted = wanted.map(|address| (address, resolve(address)));
        let matches = |found: &&Found| {
            wanted.as_ref().is_none_or(|(_, addresses)| {
                addresses.iter().any(|wanted| is_at(found.identity.address, *wanted))
            })
        };
        let (living, left): (Vec<&Found>, Vec<&Found>) =
            found.iter().filter(matches).partition(|found| found.lives);
        match (living.as_slice(), left.as_slice(), &wanted) {
            ([one], ..) => View::open(&one.path),
            ([], [one, ..], Some(_)) => Err(dead(&one.identity, &one.path)),
            ([], ..) => Err(Failure::plain(format!(
                "no server of this user is running{}{}; start one with prefork-echo, or say which file it has \
                 with --scoreboard PATH",
                wanted.map_or(String::new(), |(address, _)| format!(" at {}:{}", address.host, address.port)),
                list(found.iter().filter(|found| found.lives), "; others are"),
            ))),
            (several, ..) => Err(Failure::plain(format!(
                "{} servers are running; say which one{}",
                several.len(),
                list(several.iter().copied(), ":")
            ))),
        }
    }

    /// Is the file still what it was? An error says what has become of it.
    ///
    /// # Errors
    /// If somebody has cut the file short or written over it.
    pub fn check(&self) -> Result<(), Failure> {
        let shown = self.path.display();
        Identity::read(&self.file).map(drop).map_err(|what| Failure::plain(format!("{shown} {what}")))
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

fn dead(identity: &Identity, path: &Path) -> Failure {
    Failure::plain(format!(
        "the server at {} (pid {}) is dead, and could not remove {}; the next server there takes it over, or \
         remove it yourself",
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

fn scoreboards_in(directory: &Path) -> Vec<Found> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .filter(|path| path.extension().is_some_and(|extension| extension == EXTENSION))
        .filter_map(|path| {
            let file = open(&path).ok()?;
            let identity = Identity::read(&file).ok()?;
            Some(Found { lives: is_held(&file), identity, path })
        })
        .collect()
}

/// All that the user may mean; nothing where the name is unknown.
fn resolve(address: &BindAddress) -> Vec<SocketAddr> {
    (address.host.as_str(), address.port).to_socket_addrs().into_iter().flatten().collect()
}

/// Does a server that listens at `address` answer at `wanted`?
fn is_at(address: SocketAddr, wanted: SocketAddr) -> bool {
    address.port() == wanted.port() && (address.ip() == wanted.ip() || address.ip().is_unspecified())
}

fn list<'a>(found: impl Iterator<Item = &'a Found>, before: &str) -> String {
    let mut lines: Vec<_> =
        found.map(|found| format!("\n  {} (pid {})", found.identity.address, found.identity.pid)).collect();
    lines.sort();
    if lines.is_empty() { String::new() } else { format!("{before}{}", lines.concat()) }
}
