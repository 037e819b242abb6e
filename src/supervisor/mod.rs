//! The parent: forks workers, reaps them, replaces them, answers signals.
//!
//! It serves nobody, so that nothing a client does can reach it, and it blocks
//! in one place only: until a signal comes, a worker says that it is ready, or
//! a deadline is due. Who fills which slot is kept in
//! [`children`](crate::supervisor::children), what follows a death is decided in
//! [`respawn`](crate::supervisor::respawn); here it is done.

pub mod children;
pub mod events;
pub mod pid_file;
pub mod respawn;
pub mod rolling_restart;
mod shutdown;
mod signals;

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use log::{Level, debug, info, log, warn};
use nix::errno::Errno;
use nix::unistd::{Pid, getpid};

use self::children::Children;
use self::shutdown::Stage;
use crate::cli::Options;
use crate::error::{Error, Exit, strerror};
use crate::explain;
use crate::listener::Listener;
use crate::log::{count, write_if_room};
use crate::private_counter;
use crate::scoreboard::{self, Header, Phase, Row, Writer};
use crate::supervisor::events::EventSource;
use crate::supervisor::respawn::{ExitKind, Respawn, RestartDecision, WorkerRun};
use crate::supervisor::rolling_restart::RollingRestart;
use crate::sys::credentials::Credentials;
use crate::sys::lock_file::LockFile;
use crate::sys::socket::queue_limit;
use crate::sys::{process, signal};
use crate::worker::{self, WorkerContext, WorkerRole};

/// Until the next attempt when fork fails.
const FORK_AGAIN: Duration = Duration::from_millis(250);

/// The parent.
#[derive(Debug)]
pub struct Supervisor<'a> {
    options: &'a Options,
    pid: Pid,
    rights: Option<Credentials>,
    /// None when it is closed, or the drainer alone has it.
    listener: Option<Listener>,
    events: EventSource,
    /// /dev/null, which takes the place of the workers' stdin and stdout.
    null: File,
    /// Removed at the end: the pid file, the scoreboard's.
    files: Vec<LockFile>,
    header: Header,
    scoreboard: Writer,
    children: Children,
    respawn: Respawn,
    /// When the listening socket was put right the last time.
    socket_repaired_at: Option<Instant>,
    /// When fork has failed: the next attempt, and not before.
    fork_again_at: Option<Instant>,
    rolling_restart: RollingRestart,
    stage: Stage,
}

impl<'a> Supervisor<'a> {
    /// Takes charge of the listening socket. Nobody is forked yet.
    ///
    /// # Errors
    /// If the user's wishes cannot be met: the workers' user, the pid file.
    pub fn new(options: &'a Options, listener: Listener) -> Result<Supervisor<'a>, Error> {
        let lacking = |error: io::Error| Error::new("start", &error, "try again");
        let pid = getpid();
        let rights = Credentials::find(options.user.as_deref(), options.group.as_deref())?;
        // Before the pid file and the forks: from here on a signal is not the
        // end of us, so that nothing is left behind.
        let events = EventSource::open().map_err(lacking)?;
        let null = File::options().read(true).write(true).open("/dev/null").map_err(|error| {
            Error::new("open /dev/null", &error, "start it where there is one that it may use")
        })?;
        let header = Header::new(pid, listener.address(), listener.inode(), listener.is_dual_stack());
        if !options.no_scoreboard {
            scoreboard::remove_stale();
        }
        // The pid file first: a server that doesn't get it ends, and must not have
        // taken the scoreboard from one that goes on.
        let pid_file = options.pid_file.as_deref().map(|path| pid_file::create(path, pid)).transpose()?;
        let (scoreboard, file) = scoreboard::open(options, &header).map_err(|error| lacking(error.into()))?;
        scoreboard.set_queue_limit(queue_limit(options.backlog));
        Ok(Supervisor {
            options,
            pid,
            rights,
            listener: Some(listener),
            events,
            null,
            // Given back in this order: the server that gets the pid file next finds
            // the scoreboard free.
            files: file.into_iter().chain(pid_file).collect(),
            header,
            scoreboard,
            children: Children::new(scoreboard, options.workers),
            respawn: Respawn::default(),
            socket_repaired_at: None,
            fork_again_at: None,
            rolling_restart: RollingRestart::default(),
            stage: Stage::Running,
        })
    }

    /// Forks the workers, says so on stdout, and looks after them until the end.
    ///
    /// # Errors
    /// If not one worker can be forked.
    pub fn run(mut self) -> Result<Exit, Error> {
        self.spawn_missing_workers();
        if self.children.pids().len() == 0 {
            return Err(Error::plain(
                "cannot fork any worker; raise the limit on processes (ulimit -u), or free some memory",
            ));
        }
        self.announce();
        loop {
            let listener = self.listener.as_ref().filter(|_| self.wants_drainer());
            let events = self.events.wait(self.next_deadline(), listener.map(Listener::source));
            self.reap_workers();
            for pid in events.ready {
                self.replacement_is_ready(pid);
            }
            for signal in events.signals {
                self.handle_signal(signal);
            }
            self.replace_the_next();
            self.spawn_missing_workers();
            self.scoreboard.set_parents_counter(private_counter::value());
            if let Some(exit) = self.step_shutdown() {
                self.scoreboard.set_phase(Phase::Ended(exit.code()));
                self.files.clear();
                let served = self.scoreboard.served();
                info!(
                    "the end, with exit status {}: served {}, {}",
                    exit.code(),
                    count(served.connections, "connection"),
                    count(served.bytes, "byte")
                );
                return Ok(exit);
            }
        }
    }

    /// The one line on stdout, for people and scripts that wait for it.
    fn announce(&self) {
        let Some(listener) = &self.listener else { return };
        let workers = count(self.children.pids().len() as u64, "worker");
        let line = format!("listening on {} (pid {}, {workers})\n", listener.address(), self.pid);
        if let Err(error) = signal::without_ttou(|| write_if_room(io::stdout(), line.as_bytes())) {
            warn!(
                "cannot write to stdout: {}; serving all the same: {}",
                strerror(&error.into()),
                line.trim()
            );
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Running => {
                let replacing = self.rolling_restart.next().and(self.fork_again_at);
                let forking = self.children.next_due();
                let forking = forking.map(|due| self.fork_again_at.map_or(due, |again| due.max(again)));
                [replacing, forking].into_iter().flatten().min()
            }
            Stage::Draining(drain) => {
                let look = drain.overflow.as_ref().map(|overflow| overflow.until);
                let forking = self.fork_again_at.filter(|again| *again > Instant::now());
                let due = [Some(drain.deadline), Some(drain.resend_at), look, forking];
                due.into_iter().flatten().min()
            }
            Stage::Ending(_) => None,
        }
    }

    // Forking.

    /// Fills the empty slots whose time has come.
    fn spawn_missing_workers(&mut self) {
        let mut new = 0;
        while let Some((slot, last)) = self.children.next_empty_slot(Instant::now()) {
            let Some(pid) = self.fork_worker(slot, WorkerRole::Serve) else { break };
            match last {
                None => {
                    new += 1;
                    info!("worker {slot} (pid {pid}) forked");
                }
                Some((last, died)) => {
                    let took = died.elapsed();
                    self.log_event(
                        Level::Info,
                        format!("worker {slot} (pid {pid}) replaces pid {last}, {took:.1?} after its death was seen"),
                    );
                }
            }
        }
        if new > 0 {
            self.scoreboard.record(&format!("{} forked", count(new, "worker")));
        }
    }

    /// Forks a child. None: it cannot be had now, and will be tried again.
    fn fork_worker(&mut self, slot: usize, role: WorkerRole) -> Option<Pid> {
        let now = Instant::now();
        if self.fork_again_at.is_some_and(|again| now < again) {
            return None;
        }
        let forked = match self.children.take_row(slot) {
            None => Err(Errno::EAGAIN), // Thousands of workers are still leaving.
            Some(row) => process::fork(|| self.run_child(slot, row, role))
                .inspect(|pid| self.children.add(*pid, slot, row, now))
                .inspect_err(|_| self.children.free_row(row, slot, None)),
        };
        match forked {
            Ok(pid) => {
                explain!(
                    "fork() = {pid}: worker {slot}, a copy of this process with the same listening socket"
                );
                if self.fork_again_at.take().is_some() {
                    info!("fork works again");
                }
                Some(pid)
            }
            Err(error) => {
                if self.fork_again_at.is_none() {
                    warn!(
                        "cannot fork worker {slot}: {}; trying again every {FORK_AGAIN:?}; raise the limit on \
                         processes (ulimit -u), free some memory, or run fewer --workers",
                        strerror(&error.into())
                    );
                }
                self.fork_again_at = Some(now + FORK_AGAIN);
                None
            }
        }
    }

    /// The child's first step: it takes what a worker needs.
    fn run_child(&mut self, slot: usize, row: Row, role: WorkerRole) -> u8 {
        let (Some(ready), Some(listener)) = (self.events.close_in_child(), self.listener.take()) else {
            return 1;
        };
        let code = worker::run(WorkerContext {
            slot,
            role,
            row: self.scoreboard.row_writer(row),
            scoreboard: *self.scoreboard,
            listener,
            options: self.options,
            rights: self.rights.as_ref(),
            parent: self.pid,
            null: &self.null,
            ready,
        });
        explain!("_exit({code}): the kernel closes what is still open, and sends SIGCHLD to the parent");
        code
    }

    // Reaping.

    /// Reaps all who have died: one SIGCHLD may stand for many deaths.
    fn reap_workers(&mut self) {
        while let Some((pid, death)) = process::reap() {
            self.reap(pid, death);
        }
    }

    /// Strikes a dead child off, explains its death, and decides what follows.
    fn reap(&mut self, pid: Pid, death: process::WaitStatus) {
        let died = Instant::now();
        let Some(dead) = self.children.reap(pid, death, died) else {
            // As process 1 of a container we inherit other people's orphans.
            return debug!("reaped a stranger, pid {pid}");
        };
        explain!("waitpid() = {pid}: this child has died; reaped, it is gone from the list of processes");
        let (slot, mut exit_kind, connections) = (dead.slot, ExitKind::of(death), dead.connections);
        let (lived, connected) = (died - dead.born, count(connections, "connection"));
        let cut = dead.client.map_or(String::new(), |client| format!(", its client {client} is cut off"));
        self.log_event(
            if exit_kind == ExitKind::Left { Level::Info } else { Level::Warn },
            format!("worker {slot} (pid {pid}) {death} after {lived:.1?} and {connected}{cut}"),
        );
        self.died_while_draining(pid, exit_kind, dead.client.is_some());
        if exit_kind == ExitKind::Crashed && self.has_socket_failed(dead.born) {
            exit_kind = ExitKind::Killed;
        }
        if let Some(old) = self.rolling_restart.settle(pid) {
            return self.replacement_has_died(old, exit_kind);
        }
        if !dead.was_in_place {
            return;
        }
        let others_well = self.children.is_any_well(died);
        match self.respawn.after(WorkerRun { exit_kind, born: dead.born, died, connections }, others_well) {
            RestartDecision::Now => {}
            RestartDecision::At(due) => {
                let wait = due - died;
                self.log_event(
                    Level::Info,
                    format!("worker {slot} is replaced in {wait:.1?}: it crashed at its start"),
                );
                self.children.wait_until(slot, due);
            }
            RestartDecision::GiveUp => {
                self.log_event(
                    Level::Error,
                    format!(
                        "giving up: workers keep crashing at their start; the last one {death}; look at what it \
                         has logged, with -v for more"
                    ),
                );
                self.drain(Exit::GaveUp);
            }
        }
    }

    /// Has a worker that was forked at `born` crashed because the listening socket was of no
    /// use? One process can spoil it for all that share it. The first crash puts it right;
    /// workers that are older than that may have met the same, and crash next.
    fn has_socket_failed(&mut self, born: Instant) -> bool {
        let (Stage::Running, Some(listener)) = (&self.stage, &self.listener) else { return false };
        match listener.repair() {
            Ok(None) => {}
            Ok(Some(found)) => {
                self.log_event(Level::Warn, format!("the listening socket {found}: put right"));
                self.socket_repaired_at = Some(Instant::now());
            }
            Err(error) => {
                let (address, port) = (listener.address(), listener.address().port());
                let what = format!(
                    "cannot listen on {address} again: {}; `lsof -i :{port}` shows which process has the port \
                     now, end that",
                    strerror(&error)
                );
                self.log_event(Level::Error, what);
            }
        }
        self.socket_repaired_at.is_some_and(|repaired| born <= repaired)
    }

    /// Logs what has happened, and adds it to the events on the scoreboard.
    fn log_event(&self, level: Level, what: String) {
        log!(level, "{what}");
        self.scoreboard.record(&what);
    }
}
