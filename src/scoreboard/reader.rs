//! A server's scoreboard, as `status`, `top` and `bench` see it from outside: found by the
//! server's address or the file's path, opened, and mapped read-only.

use std::env;
use std::fs::{File, OpenOptions};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc::O_NONBLOCK;
use nix::unistd::Pid;

use super::file::{Header, files, if_any};
use super::{Phase, Scoreboard};
use crate::config::{BindAddress, ServerSelector};
use crate::error::Error;
use crate::sys::lock_file::{is_still_at, lock_holder};
use crate::sys::memory;
use crate::sys::socket::listening_at;

/// The scoreboard of another process, mapped read-only.
#[derive(Debug)]
pub struct Reader {
    /// The server that it belongs to.
    pub header: Header,
    /// The numbers.
    pub scoreboard: Scoreboard,
    file: File,
    path: PathBuf,
}

impl Reader {
    /// Opens the scoreboard of the server that the user means. Where that isn't clear,
    /// the error says how to type `command`.
    ///
    /// # Errors
    /// If there is none, or there are several to choose from.
    pub fn of(which: &ServerSelector, command: &str) -> Result<Reader, Error> {
        // By hand: to clap, an address that is typed would contradict it.
        let inherited = || env::var_os("PREFORK_ECHO_SCOREBOARD").map(PathBuf::from);
        match (&which.address, which.scoreboard.clone().or_else(inherited)) {
            (None, Some(path)) => Reader::open(&path),
            (address, _) => Reader::find(address.as_ref(), command),
        }
    }

    /// The server that has replaced this one, which leaves or has left, after an upgrade. It was
    /// looked for as [`of`](Reader::of) says.
    pub fn successor(&self, which: &ServerSelector, command: &str) -> Option<Reader> {
        let is_over = self.scoreboard.phase() != Phase::Running || !self.lives();
        let found = is_over.then(|| Reader::of(which, command).ok()).flatten();
        found.filter(|reader| reader.header.pid != self.header.pid)
    }

    /// Opens the scoreboard at `path`, of a server that lives.
    fn open(path: &Path) -> Result<Reader, Error> {
        let shown = path.display();
        let failed = |error: &io::Error| {
            let remedy = "give the same --scoreboard as to the server";
            Error::new(format_args!("look at the scoreboard {shown}"), error, remedy)
        };
        let (file, lives) = open(path).map_err(|error| failed(&error))?;
        let header = Header::read(&file).map_err(|what| Error::plain(format!("{shown} {what}")))?;
        if !lives {
            let Header { address, pid, .. } = header;
            return Err(Error::plain(format!(
                "the server at {address} (pid {pid}) is dead, and could not remove {shown}; the next server \
                 at that address takes its place, or remove it yourself"
            )));
        }
        let numbers = memory::map_read_only(&file).map_err(|error| failed(&error.into()))?;
        Ok(Reader { header, scoreboard: Scoreboard { numbers }, file, path: path.into() })
    }

    /// Opens the scoreboard of this user's server at an address, or of the user's only
    /// server.
    ///
    /// # Errors
    /// If there is none, or there are several to choose from.
    fn find(wanted: Option<&BindAddress>, command: &str) -> Result<Reader, Error> {
        let (found, damaged) = scoreboards()
            .map_err(|error| Error::new("look for scoreboards", &error, "give the server's --scoreboard"))?;
        let living: Vec<&Found> = found.iter().filter(|found| found.lives).collect();
        let why = match wanted {
            Some(wanted) => match reached_at(&wanted.resolve("give its IP address")?, &found) {
                Ok(one) => return Reader::open(&one.path),
                Err(Some(address)) => {
                    format!("no server of this user listens at {address}, but something else does")
                }
                Err(None) => format!("no server of this user listens at {wanted}"),
            },
            None => match living.as_slice() {
                [one] => return Reader::open(&one.path),
                [] => "no server of this user is running; start one with prefork-echo".into(),
                several => {
                    let how_to = |server: &Header| {
                        format!("prefork-echo {command} {}   (pid {})", typed(server.address), server.pid)
                    };
                    let (number, list) = (several.len(), list(several, how_to));
                    return Err(Error::plain(format!(
                        "{number} servers are running; type one of these:{list}"
                    )));
                }
            },
        };
        Err(Error::plain(format!(
            "{why}; one that has --scoreboard PATH is found with the same option, another user's by that \
             user{}{}{damaged}",
            if living.is_empty() { "" } else { "; this user runs:" },
            list(&living, |server| format!("{} (pid {})", server.address, server.pid))
        )))
    }

    /// Is the file still what it was? An error says what has become of it.
    ///
    /// # Errors
    /// If the file was cut short or written over.
    pub fn check(&self) -> Result<(), Error> {
        let shown = self.path.display();
        match Header::read(&self.file) {
            Ok(header) if header == self.header => Ok(()),
            Ok(_) => Err(Error::plain(format!("{shown} is another server's by now"))),
            Err(what) => Err(Error::plain(format!("{shown} {what}"))),
        }
    }

    /// Does a client of this address reach the server?
    pub fn is_at(&self, address: SocketAddr) -> bool {
        let listening = listening_at(address);
        let is_listening = listening.is_empty() || listening.contains(&self.header.inode);
        is_listening && self.header.address_match(address).is_some()
    }

    /// Does the server live?
    pub fn lives(&self) -> bool {
        is_held(&self.file)
    }

    /// The server's pid, as the kernel tells it. None: it is dead, or in another container
    /// with other pids.
    pub fn holder(&self) -> Option<Pid> {
        let holder = lock_holder(&self.file).ok().flatten().filter(|pid| pid.as_raw() > 0);
        // The next server may have taken the same file.
        holder.filter(|_| self.check().is_ok())
    }
}

/// Opens a file without waiting for a writer, in case it is a fifo. Does a server hold it? If not,
/// another server may have given its own file this name since: then that one is opened.
fn open(path: &Path) -> io::Result<(File, bool)> {
    let open = || OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path);
    let mut file = open()?;
    if !is_held(&file) && !is_still_at(&file, path) {
        file = open()?;
    }
    let lives = is_held(&file);
    Ok((file, lives))
}

fn is_held(file: &File) -> bool {
    matches!(lock_holder(file), Ok(Some(_)))
}

struct Found {
    path: PathBuf,
    header: Header,
    lives: bool,
}

/// The scoreboards of this user, those of living servers first; and, as lines of text,
/// what once was one and is held by a server. What this user may not read is passed over.
///
/// # Errors
/// If the system lacks what it takes to look: then nothing is known.
fn scoreboards() -> io::Result<(Vec<Found>, String)> {
    let (mut found, mut damaged) = (Vec::new(), String::new());
    for path in files()? {
        let Some((file, lives)) = if_any(open(&path))? else { continue };
        match (Header::read(&file), lives) {
            (Ok(header), lives) => found.push(Found { path, header, lives }),
            (Err(what), true) => damaged += &format!("\n  {} {what}; its server lives", path.display()),
            (Err(_), false) => {}
        }
    }
    found.sort_by_key(|found| !found.lives);
    Ok((found, damaged))
}

/// The server that a client reaches that tries these addresses in turn, as all clients of a
/// name do; or that it would have reached, before that server died.
///
/// # Errors
/// The address where something else listens: another program, another user's server, or one
/// without a scoreboard. None: nothing does.
fn reached_at<'a>(addresses: &[SocketAddr], found: &'a [Found]) -> Result<&'a Found, Option<SocketAddr>> {
    let addresses: Vec<SocketAddr> = addresses.iter().copied().map(destination).collect();
    for address in &addresses {
        let listening = listening_at(*address);
        match found.iter().find(|found| listening.contains(&found.header.inode)) {
            Some(one) if one.header.address_match(*address).is_some() => return Ok(one),
            // It listens on IPv6 alone: the kernel's list doesn't say so.
            Some(_) => {}
            None if !listening.is_empty() => return Err(Some(*address)),
            None => {}
        }
    }
    // No socket can be seen: the server is in another network namespace, or listens no
    // more, or the system doesn't tell. Rather a living server, then the first address.
    let pairs = addresses.iter().enumerate().flat_map(|pair| found.iter().map(move |found| (pair, found)));
    let matching = pairs.filter_map(|((index, address), found)| {
        Some(((!found.lives, index, found.header.address_match(*address)?), found))
    });
    matching.min_by_key(|(rank, _)| *rank).map(|(_, found)| found).ok_or(None)
}

/// A client that connects to the unspecified address reaches the loopback (ip(7)).
fn destination(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// A line for each server, made of what it is.
fn list(found: &[&Found], line: impl Fn(&Header) -> String) -> String {
    let mut lines: Vec<_> = found.iter().map(|found| format!("\n  {}", line(&found.header))).collect();
    lines.sort();
    lines.concat()
}

/// An address as it is typed: the port alone if that will do; brackets are a pattern to some
/// shells.
fn typed(address: SocketAddr) -> String {
    match address.ip() {
        IpAddr::V4(Ipv4Addr::LOCALHOST) => address.port().to_string(),
        IpAddr::V4(_) => address.to_string(),
        IpAddr::V6(_) => format!("'{address}'"),
    }
}
