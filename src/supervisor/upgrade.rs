//! SIGUSR2: the program's file is executed anew, and the new server takes over without a gap.
//!
//! The old server goes on while the new one starts, with the same listening socket. Both hold
//! an end of a channel:
//!
//! 1. The old server forks, and the child executes the file. ([`Upgrade`])
//! 2. When its first worker is ready, the new server writes [`READY`]. ([`Takeover`])
//! 3. The old server shuts its direction of the channel down, and begins to leave in order. It
//!    neither shrinks nor drains the accept queue: the new server accepts from it.
//! 4. At that end of file the new server gives its files the names of the old one's, and closes
//!    its end. At each moment a name is that of a living server.
//! 5. The old server ends when its clients are finished, and the names are passed on.
//!
//! If the new server ends before step 2, or is not ready in time, the old one goes on as before.
//! If either dies later, the other one gets an end of file, and goes on with its next step.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs};

use log::{Level, error};
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};

use super::Supervisor;
use super::events::SIGNALS;
use super::shutdown::Stage;
use super::takeover::{Takeover, is_end_of_file};
use crate::error::{Exit, strerror};
use crate::listener::Listener;
use crate::sys::descriptors::pass_descriptors;
use crate::sys::lock_file;
use crate::sys::process::{self, WaitStatus};
use crate::sys::signal::{set_default, unblock_all};

/// In the environment of a new server: the descriptor of its end of the channel; and, after a comma
/// each, what it could not know of the listening socket.
pub(super) const VARIABLE: &str = "PREFORK_ECHO_UPGRADE";

/// The socket stays open when no server has it.
pub(super) const STAYS_OPEN: &str = "stays-open";

/// A number follows: how often accept queues had overflowed before there was this one.
pub(super) const OVERFLOWS: &str = "overflows=";

/// What the new server writes when it is ready.
pub(super) const READY: &[u8] = b"ready";

/// How long it may take until then.
const LIMIT: Duration = Duration::from_secs(30);

/// The descriptors of the new server: sd_listen_fds(3) demands the first one.
const LISTENER_FD: i32 = 3;
const CHANNEL_FD: i32 = 4;

/// An upgrade under way, as the old server sees it.
#[derive(Debug)]
pub(super) struct Upgrade {
    /// The new server.
    pid: Pid,
    channel: UnixStream,
    /// When it must be ready, and have the names of the files.
    deadline: Instant,
    stage: UpgradeStage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UpgradeStage {
    /// The new server is not ready yet.
    Starting,
    /// It is ready, and has not yet the names of the files.
    Passing,
    /// It has them, or has died.
    Over,
}

/// For poll: the channel of an upgrade under way. It is readable when the other end has written,
/// or is closed.
pub(super) fn channel<'fd>(
    upgrade: Option<&'fd Upgrade>,
    takeover: Option<&'fd Takeover>,
) -> Option<PollFd<'fd>> {
    let old = upgrade.filter(|upgrade| upgrade.stage != UpgradeStage::Over).map(|upgrade| &upgrade.channel);
    let channel = old.or(takeover.map(|takeover| &takeover.channel))?;
    Some(PollFd::new(channel.as_fd(), PollFlags::POLLIN))
}

impl Supervisor<'_> {
    /// When an upgrade has lasted for too long.
    pub(super) fn upgrade_deadline(&self) -> Option<Instant> {
        let upgrade = self.upgrade.as_ref().filter(|upgrade| upgrade.stage != UpgradeStage::Over);
        upgrade.map(|upgrade| upgrade.deadline)
    }

    /// Starts a new server, which is to replace this one.
    pub(super) fn begin_upgrade(&mut self) {
        let refusal = match self.pid.as_raw() {
            _ if self.upgrade.is_some() || self.takeover.is_some() => "an upgrade is under way",
            1 => "process 1 cannot be replaced: a container ends with it; start a new container",
            _ => "",
        };
        if !refusal.is_empty() {
            return self.log_event(Level::Warn, format!("SIGUSR2: ignored; {refusal}"));
        }
        match self.fork_new_server() {
            Ok(upgrade) => {
                let what = format!("SIGUSR2: the new server (pid {}) starts", upgrade.pid);
                self.log_event(Level::Info, what);
                self.upgrade = Some(upgrade);
            }
            Err(error) => {
                let reason = strerror(&error);
                let what = format!("SIGUSR2: cannot start a new server: {reason}; this one goes on");
                self.log_event(Level::Error, what);
            }
        }
    }

    fn fork_new_server(&self) -> io::Result<Upgrade> {
        let (channel, theirs) = UnixStream::pair()?;
        channel.set_nonblocking(true)?;
        let listener = self.listener.as_ref().ok_or(ErrorKind::NotConnected)?;
        let pid = process::fork(|| {
            let error = self.execute(listener, &theirs);
            // The log may have lost its descriptor.
            let what = format!("cannot execute {}: {}", self.program.display(), strerror(&error));
            let _ = (&theirs).write(what.as_bytes());
            1
        })?;
        let deadline = Instant::now() + LIMIT;
        Ok(Upgrade { pid, channel, deadline, stage: UpgradeStage::Starting })
    }

    /// In the child: becomes the new server. Returns why it cannot.
    fn execute(&self, listener: &Listener, channel: &UnixStream) -> io::Error {
        // The fork has left all signals blocked; and its parent's handlers would write into its parent's
        // pipe.
        let reset = SIGNALS.into_iter().try_for_each(set_default).and_then(|()| unblock_all());
        if let Err(error) = reset {
            return error.into();
        }
        let own = [(listener.fd(), LISTENER_FD), (channel.as_raw_fd(), CHANNEL_FD)];
        if let Err(error) = pass_descriptors(own) {
            return error;
        }
        let mut arguments = env::args_os();
        let mut command = Command::new(&self.program);
        if let Some(name) = arguments.next() {
            command.arg0(name);
        }
        let pid = getpid().to_string();
        let mut told = CHANNEL_FD.to_string();
        if listener.stays_open() {
            told += &format!(",{STAYS_OPEN}");
        }
        if let Some(overflows) = listener.overflows_before() {
            told += &format!(",{OVERFLOWS}{overflows}");
        }
        command.args(arguments).env("LISTEN_FDS", "1").env("LISTEN_PID", &pid).env(VARIABLE, told);
        command.env_remove("LISTEN_FDNAMES");
        if env::var_os("WATCHDOG_PID").is_some() {
            command.env("WATCHDOG_PID", &pid);
        }
        command.exec()
    }

    /// Reads the channel of an upgrade under way, and takes the next step.
    pub(super) fn step_upgrade(&mut self) {
        let Some(upgrade) = &mut self.upgrade else { return };
        let (pid, is_late) = (upgrade.pid, upgrade.deadline <= Instant::now());
        match upgrade.stage {
            UpgradeStage::Starting => {
                let mut said = [0; 512];
                match upgrade.channel.read(&mut said) {
                    Ok(_) if said.starts_with(READY) => self.hand_over(pid),
                    // It is dead, mostly, and not yet reaped: then the signal changes nothing.
                    Ok(0) => self.end_upgrade(Signal::SIGKILL),
                    Ok(length) => error!("{}", String::from_utf8_lossy(&said[..length])),
                    Err(_) if is_late => {
                        self.end_upgrade(Signal::SIGKILL);
                        let limit = humantime::format_duration(LIMIT);
                        let what = format!("the new server (pid {pid}) is not ready within {limit}: killed");
                        self.log_event(Level::Error, what);
                    }
                    Err(_) => {}
                }
            }
            UpgradeStage::Passing if is_late || is_end_of_file(&upgrade.channel) => {
                upgrade.stage = UpgradeStage::Over;
            }
            UpgradeStage::Passing | UpgradeStage::Over => {}
        }
    }

    /// The new server is ready: this one leaves.
    fn hand_over(&mut self, pid: Pid) {
        let Some(upgrade) = &mut self.upgrade else { return };
        upgrade.stage = UpgradeStage::Passing;
        self.service_manager.replaced_by(pid);
        let what = format!("the new server (pid {pid}) is ready: this one leaves");
        self.log_event(Level::Info, what);
        self.pass_queue_on();
        self.begin_shutdown(Exit::Success, None);
        if let Some(upgrade) = &self.upgrade {
            // It fails if the new server has died meanwhile.
            let _ = upgrade.channel.shutdown(Shutdown::Write);
        }
    }

    /// Are the names of the files on their way to the new server?
    pub(super) fn names_are_passing(&self) -> bool {
        self.upgrade.as_ref().is_some_and(|upgrade| upgrade.stage == UpgradeStage::Passing)
    }

    /// A child has died that is no worker. Returns whether it was the new server.
    pub(super) fn new_server_has_died(&mut self, pid: Pid, status: WaitStatus) -> bool {
        let Some(upgrade) = self.upgrade.take_if(|upgrade| upgrade.pid == pid) else { return false };
        let mut said = Vec::new();
        let _ = (&upgrade.channel).read_to_end(&mut said);
        if !said.is_empty() && !said.starts_with(READY) {
            error!("{}", String::from_utf8_lossy(&said));
        }
        let what = format!("the new server (pid {pid}) {status}");
        match self.stage {
            Stage::Running => {
                for file in &self.files {
                    // An error: it had none yet.
                    let _ = lock_file::remove_stale(&Takeover::first_name(&file.path), |_| true);
                }
                self.log_event(Level::Error, format!("{what}: this one goes on"));
            }
            _ => self.log_event(Level::Warn, what),
        }
        true
    }

    /// If a new server is not ready yet, it is to end: by this signal.
    pub(super) fn end_upgrade(&mut self, signal: Signal) {
        if let Some(upgrade) = &mut self.upgrade
            && upgrade.stage == UpgradeStage::Starting
        {
            upgrade.stage = UpgradeStage::Over;
            let _ = kill(upgrade.pid, signal);
        }
    }
}

/// The file that this program was started from, by the name by which it was started: another
/// file may have that name when it is executed again.
pub(super) fn program() -> PathBuf {
    let name = PathBuf::from(env::args_os().next().unwrap_or_default());
    let found = if name.components().count() > 1 {
        std::path::absolute(&name).ok()
    } else {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path).map(|directory| directory.join(&name)).find(|file| is_executable(file))
    };
    found.or_else(|| env::current_exe().ok()).unwrap_or(name)
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(file).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}
