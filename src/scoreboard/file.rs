//! The scoreboard's file, as a server makes it.
//!
//! It lies in a private directory of the user, and its name is the address where the server
//! listens. It begins with a [`Header`], a line of JSON that names the server; the numbers
//! follow (`layout`). The server holds a lock on it as long as it lives (see
//! [`lock_file`]): a file without that lock was left by a killed server.

use std::env;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use log::{debug, warn};
use nix::unistd::{Pid, geteuid};
use serde::{Deserialize, Serialize};

use super::layout::HEADER_SIZE;
use super::{Scoreboard, Writer};
use crate::config::{Config, Model};
use crate::error::{shortage, strerror};
use crate::log::narrate::server as narrate;
use crate::sys::lock_file::{self, LockError, LockFile};
use crate::sys::socket::{Match, address_match};

/// What the file says it is.
const WHAT: &str = "prefork-echo scoreboard";

/// Changes whenever the numbers change their places.
const LAYOUT: u32 = 6;

/// How its name ends.
const EXTENSION: &str = "scoreboard";

/// How long a start may take to remove what killed servers have left.
const SWEEP_LIMIT: Duration = Duration::from_millis(10);

/// The first line of the file: what the server is, from its start to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    what: String,
    layout: u32,
    size: usize,
    /// The program's version.
    pub version: String,
    /// The parent's pid.
    pub pid: i32,
    /// Where it listens.
    pub address: SocketAddr,
    /// The listening socket's inode, under which Linux lists it.
    pub inode: u64,
    /// Does that socket, of IPv6, take IPv4 as well?
    #[serde(default)]
    pub is_dual_stack: bool,
    /// How its workers serve.
    pub model: Model,
    /// How many clients one of them serves at once.
    pub clients: usize,
    /// Where the [private counter](crate::private_counter) lies in each process.
    pub private_counter: usize,
    /// When it started, in nanoseconds of the [shared clock](crate::sys::clock).
    pub started: u64,
}

impl Header {
    /// The header of this process, a server that listens at `address` on the socket `inode`,
    /// and whose workers serve one client at a time.
    pub fn new(pid: Pid, address: SocketAddr, inode: u64, is_dual_stack: bool) -> Header {
        Header {
            what: WHAT.into(),
            layout: LAYOUT,
            size: Scoreboard::SIZE,
            version: env!("CARGO_PKG_VERSION").into(),
            pid: pid.as_raw(),
            address,
            inode,
            is_dual_stack,
            model: Model::Process,
            clients: 1,
            private_counter: crate::private_counter::address(),
            started: crate::sys::clock::now().as_nanos() as u64,
        }
    }

    /// Does the server take a client of `wanted`, and how well do the addresses match?
    pub fn address_match(&self, wanted: SocketAddr) -> Option<Match> {
        address_match(self.address, self.is_dual_stack, wanted)
    }

    /// Reads the header of a file. An error says what is wrong with the file, to stand after
    /// its name.
    pub(super) fn read(file: &File) -> Result<Header, String> {
        let unreadable = |error: io::Error| format!("cannot be read: {}", strerror(&error));
        let mut start = [0; HEADER_SIZE];
        let data = file.metadata().map_err(unreadable)?;
        if !data.is_file() {
            return Err("is no scoreboard, not even a file".into());
        }
        let length = file.read_at(&mut start, 0).map_err(unreadable)?;
        let line = start[..length].split(|byte| *byte == b'\n').next().unwrap_or_default();
        // The layout first, on its own: of another one the rest may differ.
        let value: serde_json::Value = serde_json::from_slice(line).unwrap_or_default();
        if value["what"] != WHAT {
            return Err("is no scoreboard of prefork-echo".into());
        }
        if value["layout"] != LAYOUT {
            let version = value["version"].as_str().unwrap_or("unknown").escape_default();
            return Err(format!("was made by another version, {version}; look at it with the same one"));
        }
        // The version would be printed.
        let is_printable = |header: &Header| header.version.chars().all(|char| char.is_ascii_graphic());
        let header: Option<Header> = serde_json::from_value(value).ok();
        let header = header.filter(is_printable).ok_or("is damaged at its beginning")?;
        let (size, length) = (Scoreboard::SIZE, data.len());
        if header.size != size || length != size as u64 {
            return Err(format!("is cut short or damaged: {length} bytes instead of {size}"));
        }
        Ok(header)
    }
}

/// Maps the scoreboard of this process, a server: in a file, or without one if the user
/// wants none or it cannot be made. The latter is logged. `name` makes the file's first name of
/// the one that it is to have.
///
/// # Errors
/// As [`Writer::map`] without a file.
pub fn open(
    options: &Config,
    header: &Header,
    name: impl Fn(&Path) -> PathBuf,
) -> nix::Result<(Writer, Option<LockFile>)> {
    if !options.no_scoreboard {
        match create(options.scoreboard.as_deref(), header, name) {
            Ok((scoreboard, file)) => {
                narrate::scoreboard_mapped(&file.path);
                return Ok((scoreboard, Some(file)));
            }
            Err((why, remedy)) => {
                warn!("no file for the scoreboard: {why}; status and top can't see this server; {remedy}");
            }
        }
    }
    Ok((Writer::map(None)?, None))
}

/// Makes the file, at `path` or where a [`Reader`](super::Reader) finds it, and maps it.
///
/// # Errors
/// If a living server has it, if something else is there, or if it cannot be
/// written; in words that end a sentence on why there is no file, and the remedy.
fn create(
    path: Option<&Path>,
    header: &Header,
    name: impl Fn(&Path) -> PathBuf,
) -> Result<(Writer, LockFile), (String, &'static str)> {
    let another = |why| (why, "give --scoreboard another PATH");
    let path = match path {
        Some(path) => path.to_owned(),
        None => own_directory().map_err(another)?.join(format!("{}.{EXTENSION}", header.address)),
    };
    let path = name(&path);
    let shown = path.display();
    let failed = |error: io::Error| {
        let (why, remedy) = another(format!("cannot write {shown}: {}", strerror(&error)));
        (why, shortage(&error).unwrap_or(remedy))
    };
    let held = LockFile::acquire(&path, 0o600, is_scoreboard).map_err(|refusal| match refusal {
        LockError::Held(pid) => another(format!("{shown} is held by a running server (pid {pid})")),
        LockError::NotOurs => another(format!("{shown} exists and is no scoreboard of this user")),
        LockError::Error(error) => failed(error),
        other => another(format!("{shown} {other}")),
    })?;
    let file = &held.file;
    file.set_permissions(Permissions::from_mode(0o600)).map_err(failed)?;
    // The beginning first, so that a server that is killed meanwhile leaves what the next one
    // knows. Written in full, not only made as long: where there is no room for a page,
    // touching it would be SIGBUS.
    let beginning = beginning();
    let content = beginning.as_bytes().chain(io::repeat(0));
    io::copy(&mut content.take(Scoreboard::SIZE as u64), &mut &*file).map_err(failed)?;
    let scoreboard = Writer::map(Some(file)).map_err(|error| failed(error.into()))?;
    // Last, and in one piece: by this line it is recognised, so it is whole by then.
    let line = serde_json::to_string(header).unwrap_or_default() + "\n";
    file.write_all_at(line.as_bytes(), 0).map_err(failed)?;
    Ok((scoreboard, held))
}

/// Was it made by a server, of any version?
fn is_scoreboard(file: &File) -> bool {
    let beginning = beginning();
    let mut start = vec![0; beginning.len()];
    file.read_exact_at(&mut start, 0).is_ok() && start == beginning.as_bytes()
}

/// What the file begins with, in each version.
fn beginning() -> String {
    format!("{{\"what\":\"{WHAT}\"")
}

/// Removes what killed servers of this user have left where scoreboards lie by default.
/// What is not removed within a time limit is left to the next start.
///
/// Call it before this process locks a file: opening and closing the same file again would
/// release the lock.
pub fn remove_stale() {
    let start = Instant::now();
    for path in files().unwrap_or_default() {
        // Most of those that stay are living servers'.
        if lock_file::remove_stale(&path, is_scoreboard).unwrap_or(false) {
            debug!("removed {}, which a killed server has left", path.display());
        }
        if start.elapsed() > SWEEP_LIMIT {
            break;
        }
    }
}

/// The files that may be scoreboards of this user's servers, dead or alive.
///
/// # Errors
/// If the system lacks what it takes to look.
pub(super) fn files() -> io::Result<Vec<PathBuf>> {
    // A directory that others can write to may hold anything.
    let is_ours = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|data| is_private(&data));
    let mut paths = Vec::new();
    for directory in directories().filter(is_ours) {
        let entries = if_any(fs::read_dir(directory))?;
        paths.extend(entries.into_iter().flatten().flatten().map(|entry| entry.path()));
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == EXTENSION));
    Ok(paths)
}

/// None: it isn't there, or not for this user.
pub(super) fn if_any<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if shortage(&error).is_some() => Err(error),
        result => Ok(result.ok()),
    }
}

/// Where this user's scoreboards may be: in the directory that the session has for
/// such files (or that another session of the user has), or else in a directory of the
/// user among the temporary ones.
fn directories() -> impl Iterator<Item = PathBuf> {
    let uid = geteuid();
    // Not another user's: sudo may keep the variable.
    let is_own = |path: &PathBuf| fs::metadata(path).is_ok_and(|data| data.uid() == uid.as_raw());
    let of_session = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let usual = PathBuf::from(format!("/run/user/{uid}"));
    let mut directories: Vec<_> = of_session.into_iter().chain([usual]).filter(is_own).collect();
    directories.dedup();
    let temporary = Some(env::temp_dir()).filter(|path| path.is_absolute()).unwrap_or("/tmp".into());
    let temporary = temporary.join(format!("prefork-echo-{uid}"));
    directories.into_iter().map(|path| path.join("prefork-echo")).chain([temporary])
}

/// The first of them that this user alone can write to, made if need be.
fn own_directory() -> Result<PathBuf, String> {
    let mut why = String::new();
    for directory in directories() {
        // An error: it exists, or it can't be made; the metadata tell.
        let _ = DirBuilder::new().mode(0o700).create(&directory);
        match fs::symlink_metadata(&directory) {
            Ok(data) if is_private(&data) => return Ok(directory),
            Ok(_) => why = format!("{} is not this user's alone", directory.display()),
            Err(error) => why = format!("cannot make {}: {}", directory.display(), strerror(&error)),
        }
    }
    Err(why)
}

fn is_private(data: &fs::Metadata) -> bool {
    data.is_dir() && data.uid() == geteuid().as_raw() && data.mode() & 0o022 == 0
}
