//! The parent process: it forks workers, reaps and replaces them, and answers signals.
//!
//! It serves no client, so nothing that a client does can reach it. It blocks in one place
//! only: in `poll`, until a signal comes, a worker is ready, or a deadline is due. In the
//! order of events: `credentials` and `pid_file` are needed at the start; `spawn` forks
//! the workers; the loop here waits at `events`; `signals` answers each signal;
//! `rolling_restart` is SIGHUP's; `reap` explains a worker's death, and `respawn` decides
//! what follows, without acting; `scaling` decides how many workers there are to be, and
//! `pool` acts on it; `upgrade` starts another server, which by its `takeover` gets this one's
//! place; `shutdown` ends the server, later after an `overflow` of the accept queue. `service_manager`
//! tells systemd of all that. `children` knows which worker fills which slot.

mod children;
mod credentials;
mod events;
mod overflow;
mod pid_file;
mod pool;
mod reap;
mod respawn;
mod rolling_restart;
mod scaling;
mod service_manager;
mod shutdown;
mod signals;
mod spawn;
mod takeover;
mod upgrade;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use log::{Level, info, log, warn};
use nix::unistd::{Pid, getpid};

use self::children::Children;
use self::events::EventSource;
use self::pool::Pool;
use self::respawn::Respawn;
use self::rolling_restart::RollingRestart;
use self::service_manager::ServiceManager;
use self::shutdown::Stage;
pub use self::takeover::Takeover;
use self::upgrade::Upgrade;
use crate::config::{Config, Model};
use crate::error::{Error, Exit, strerror};
use crate::listener::Listener;
use crate::log::narrate::server as narrate;
use crate::log::write_if_room;
use crate::private_counter;
use crate::scoreboard::{self, Header, Phase, Writer};
use crate::sys::credentials::Credentials;
use crate::sys::descriptors::allow_descriptors;
use crate::sys::lock_file::LockFile;
use crate::sys::signal;
use crate::text::count;
use crate::worker::Report;

/// Descriptors of a worker besides those of its clients, and some to spare.
const OTHER_DESCRIPTORS: u64 = 64;

/// The parent.
#[derive(Debug)]
pub struct Supervisor<'a> {
    config: &'a Config,
    pid: Pid,
    /// What the workers change to; None: they keep the parent's.
    credentials: Option<Credentials>,
    /// None: it is closed, or only the drainer has it.
    listener: Option<Listener>,
    /// None only in a child, which has dropped it.
    events: Option<EventSource>,
    /// /dev/null, which replaces the workers' stdin and stdout.
    null: File,
    /// The scoreboard's file and the pid file, which are removed at the end, in this order: the
    /// next server that gets the pid file finds the scoreboard free.
    files: Vec<LockFile>,
    header: Header,
    scoreboard: Writer,
    children: Children,
    respawn: Respawn,
    pool: Pool,
    rolling_restart: RollingRestart,
    service_manager: ServiceManager,
    /// What is executed for an upgrade.
    program: PathBuf,
    /// The new server that is to replace this one.
    upgrade: Option<Upgrade>,
    /// The old server that this one is to replace.
    takeover: Option<Takeover>,
    /// When the listening socket was last repaired.
    socket_repaired_at: Option<Instant>,
    /// After a failed fork: when to try again.
    fork_retry_at: Option<Instant>,
    stage: Stage,
}

impl<'a> Supervisor<'a> {
    /// Takes charge of the listening socket, and of the place of another server if there is a
    /// takeover. It forks no worker yet.
    ///
    /// # Errors
    /// If the workers' user, the pid file or a resource cannot be had.
    pub fn new(
        config: &'a Config,
        mut listener: Listener,
        takeover: Option<Takeover>,
    ) -> Result<Supervisor<'a>, Error> {
        let lacking = |error: io::Error| Error::new("start", &error, "try again");
        let pid = getpid();
        let credentials = credentials::find(config.user.as_deref(), config.group.as_deref())?;
        // Before the pid file and the forks: from here on signals no longer terminate the
        // process, so no file and no worker is left behind.
        let events = EventSource::open().map_err(lacking)?;
        let null = File::options().read(true).write(true).open("/dev/null").map_err(|error| {
            Error::new("open /dev/null", &error, "start it where there is one that it may use")
        })?;
        listener.set_blocking(config.model != Model::Multiplex).map_err(lacking)?;
        let mut header = Header::new(pid, listener.address(), listener.inode(), listener.is_dual_stack());
        (header.model, header.clients) = (config.model, config.clients_at_once());
        let (scoreboard, files) = open_files(config, &header, takeover.is_some())?;
        scoreboard.set_queue_limit(listener.queue_limit());
        scoreboard.set_pool_limits(config.workers.into(), config.most_workers().into());
        Ok(Supervisor {
            config,
            pid,
            credentials,
            listener: Some(listener),
            events: Some(events),
            null,
            files,
            header,
            scoreboard,
            children: Children::new(scoreboard, config.workers),
            respawn: Respawn::default(),
            pool: Pool::new(config),
            rolling_restart: RollingRestart::default(),
            service_manager: ServiceManager::new(),
            program: upgrade::program(),
            upgrade: None,
            takeover,
            socket_repaired_at: None,
            fork_retry_at: None,
            stage: Stage::Running,
        })
    }

    /// Allows each worker as many descriptors as its clients need, or as many as it may have.
    fn allow_clients(&self) {
        if self.config.clients_at_once() == 1 {
            return;
        }
        let wanted = self.config.clients_at_once() as u64 + OTHER_DESCRIPTORS;
        let allowed = allow_descriptors(wanted);
        if allowed < wanted {
            warn!(
                "a worker can have {allowed} descriptors, and {} need {wanted}: more wait in the accept queue \
                 until others leave; raise the hard limit (ulimit -Hn), or lower --clients",
                count(self.config.clients_at_once() as u64, "client")
            );
        }
    }

    /// Forks the workers, reports that on stdout, and supervises them until the end.
    ///
    /// # Errors
    /// If no worker can be forked.
    pub fn run(mut self) -> Result<Exit, Error> {
        self.allow_clients();
        self.spawn_missing_workers();
        if self.children.is_empty() {
            return Err(Error::plain(
                "cannot fork any worker; raise the limit on processes (ulimit -u), or free some memory",
            ));
        }
        self.announce();
        loop {
            self.scale();
            self.service_manager.ping();
            let deadline = self.next_deadline();
            let watches_queue = self.pool.watches_queue || self.may_fork_drainer();
            let listener = self.listener.as_ref().filter(|_| watches_queue);
            let channel = upgrade::channel(self.upgrade.as_ref(), self.takeover.as_ref());
            let source = self.events.as_mut().expect("only a child has dropped it");
            let events = source.wait(deadline, listener.map(Listener::poll_fd), channel);
            self.step_upgrade();
            self.step_takeover();
            self.reap_workers();
            for (pid, report) in events.reports {
                match report {
                    Report::Ready => self.worker_is_ready(pid),
                    Report::Retiring => self.worker_retires(pid),
                    // `scale` looks whether connections wait.
                    Report::Full => narrate::workers_are_full(pid),
                }
            }
            for signal in events.signals {
                self.handle_signal(signal);
            }
            self.fork_next_replacement();
            self.finish_reload();
            // Others fill the slots of those that retire.
            while self.may_add_process(0) && self.children.vacate_next().is_some() {}
            self.spawn_missing_workers();
            self.scoreboard.set_parents_counter(private_counter::value());
            if let Some(exit) = self.step_shutdown() {
                return Ok(self.end(exit));
            }
        }
    }

    /// The one line on stdout, for people and scripts that wait for it.
    fn announce(&self) {
        let Some(listener) = &self.listener else { return };
        let workers = count(self.children.len(), "worker");
        let line = format!("listening on {} (pid {}, {workers})", listener.address(), self.pid);
        let written = signal::without_ttou(|| write_if_room(io::stdout(), format!("{line}\n").as_bytes()));
        if let Err(error) = written {
            warn!("cannot write to stdout: {}; serving all the same: {line}", strerror(&error.into()));
        }
    }

    /// When the loop must wake up without an event.
    fn next_deadline(&self) -> Option<Instant> {
        let of_stage = match &self.stage {
            Stage::Running => {
                let replacing = self.rolling_restart.next().and(self.fork_retry_at);
                let forking = self.children.next_due().map(|due| self.fork_retry_at.unwrap_or(due).max(due));
                [replacing, forking, self.pool.decide_at].into_iter().flatten().min()
            }
            Stage::Draining(drain) => {
                let forking = self.fork_retry_at.filter(|retry_at| *retry_at > Instant::now());
                // Only the drainer is told when the overflow is over. Without one, waking up for it
                // again and again would be a busy loop.
                let overflow = drain.drainer.and(drain.overflow.as_ref()).map(|overflow| overflow.until);
                [Some(drain.deadline), Some(drain.resend_at), overflow, forking].into_iter().flatten().min()
            }
            Stage::Ending(_) => None,
        };
        [of_stage, self.service_manager.ping_at(), self.upgrade_deadline()].into_iter().flatten().min()
    }

    /// Removes the files and logs the totals, when all children are reaped.
    fn end(mut self, exit: Exit) -> Exit {
        self.scoreboard.set_phase(Phase::Ended(exit.code()));
        self.files.clear();
        let served = self.scoreboard.served();
        info!(
            "the end, with exit status {}: served {}, {}",
            exit.code(),
            count(served.connections, "connection"),
            count(served.bytes, "byte")
        );
        exit
    }

    /// Logs an event, and shows it on the scoreboard.
    fn log_event(&self, level: Level, what: String) {
        log!(level, "{what}");
        self.scoreboard.record(&what);
    }
}

/// Makes the pid file and the scoreboard, and returns the files in the order in which they are
/// removed. `is_takeover`: another server has files of these names until it lets go.
fn open_files(config: &Config, header: &Header, is_takeover: bool) -> Result<(Writer, Vec<LockFile>), Error> {
    if !config.no_scoreboard {
        scoreboard::remove_stale();
    }
    let name = |path: &Path| if is_takeover { Takeover::first_name(path) } else { path.to_owned() };
    // The pid file first: a server that does not get it ends, and must not have taken the
    // scoreboard from one that goes on.
    let pid_file = config.pid_file.as_deref();
    let pid_file = pid_file.map(|path| pid_file::create(&name(path), getpid())).transpose()?;
    let (scoreboard, file) = scoreboard::open(config, header, name)
        .map_err(|error| Error::new("start", &error.into(), "try again"))?;
    Ok((scoreboard, file.into_iter().chain(pid_file).collect()))
}
