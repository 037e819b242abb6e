//! An upgrade, as the new server sees it: it replaces the server that has started it. The steps
//! are told in [`upgrade`](super::upgrade).

use std::env;
use std::ffi::OsStr;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use log::{info, warn};

use super::Supervisor;
use super::upgrade::{OVERFLOWS, READY, STAYS_OPEN, VARIABLE};
use crate::error::{Error, strerror};
use crate::sys::socket::inherited_socket;

/// How the files of a new server are called at first.
const SUFFIX: &str = ".upgrade";

/// An upgrade under way, as the new server sees it.
#[derive(Debug)]
pub struct Takeover {
    pub(super) channel: UnixStream,
    /// The old server was told that this one is ready.
    is_reported: bool,
    /// Another process than the old server holds the listening socket as well.
    pub socket_stays_open: bool,
    /// How often accept queues had overflowed before there was this socket. None: unknown.
    pub overflows_before: Option<u64>,
}

impl Takeover {
    /// The end of the channel that this process was started with. None: it replaces no server.
    ///
    /// # Errors
    /// If what the environment names is no such channel.
    pub fn inherited() -> Result<Option<Takeover>, Error> {
        let Ok(value) = env::var(VARIABLE) else { return Ok(None) };
        let failed = |error: io::Error| {
            Error::new(format_args!("use the channel of {VARIABLE}"), &error, "unset this variable")
        };
        let words: Vec<_> = value.split(',').collect();
        let socket_stays_open = words.contains(&STAYS_OPEN);
        let overflows_before = words.iter().find_map(|word| word.strip_prefix(OVERFLOWS)?.parse().ok());
        let fd = words[0].parse().map_err(|_| failed(ErrorKind::InvalidInput.into()))?;
        let channel: UnixStream = inherited_socket(fd).map_err(|error| failed(error.into()))?.into();
        channel.set_nonblocking(true).map_err(failed)?;
        Ok(Some(Takeover { channel, is_reported: false, socket_stays_open, overflows_before }))
    }

    /// The name that a file has until the old server lets go of its own.
    pub fn first_name(path: &Path) -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(SUFFIX);
        name.into()
    }
}

impl Supervisor<'_> {
    /// If this server replaces another one: takes the next step when the old server has.
    pub(super) fn step_takeover(&mut self) {
        if self.takeover.as_ref().is_some_and(|takeover| is_end_of_file(&takeover.channel)) {
            self.take_names();
        }
    }

    /// This server is ready to replace the old one.
    pub(super) fn report_to_old_server(&mut self) {
        if let Some(takeover) = &mut self.takeover
            && !takeover.is_reported
        {
            takeover.is_reported = true;
            // It fails if the old server has died, and then the end of file is seen.
            let _ = (&takeover.channel).write(READY);
        }
    }

    /// The old server has let go, or has died: this one's files get their names.
    fn take_names(&mut self) {
        for file in &mut self.files {
            let name = file.path.as_os_str().as_bytes().strip_suffix(SUFFIX.as_bytes());
            let Some(name) = name.map(OsStr::from_bytes) else { continue };
            if let Err(error) = file.rename(name.into()) {
                let (path, reason) = (file.path.display(), strerror(&error));
                warn!("cannot give {path} the old server's name: {reason}");
            }
        }
        info!("this server has replaced the old one");
        // After the names: the old server waits until its end of the channel says so.
        if self.takeover.take().is_some_and(|takeover| takeover.is_reported) {
            self.service_manager.ready(&self.serving());
        }
    }
}

/// Has the other end been closed, or its direction shut down?
pub(super) fn is_end_of_file(mut channel: &UnixStream) -> bool {
    match channel.read(&mut [0; 16]) {
        Ok(length) => length == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}
