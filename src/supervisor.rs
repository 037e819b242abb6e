//! The parent: forks workers, reaps them, replaces them, answers signals.
//!
//! It serves nobody, so that nothing a client does can reach it, and it blocks
//! in one place only: in poll, until a signal comes, a worker says that it is
//! ready, or a deadline is due. What to do after a death is decided in
//! [`respawn`](crate::respawn), and done here.
//!
//! Left out on purpose: signals are not counted. Two of one kind that come
//! while the parent is at work are one, as they are to the kernel.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use log::{Level, debug, error, info, log, warn};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{self, Pid, getpid};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use crate::cli::{MAX_WORKERS, Options};
use crate::exit::{Exit, Failure, reason};
use crate::explain;
use crate::listener::Listener;
use crate::logger::count;
use crate::pid_file::PidFile;
use crate::respawn::{Cause, Death, Respawn, Verdict};
use crate::rights::Rights;
use crate::scoreboard::{Row, Scoreboard, State};
use crate::status;
use crate::sys::process;
use crate::worker::{self, Errand, Job};

/// The signals that the parent answers; SIGCHLD says that a worker has died.
const SIGNALS: [Signal; 8] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGHUP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGUSR1,
    Signal::SIGCHLD,
];

/// Until the next attempt when fork fails.
const FORK_AGAIN: Duration = Duration::from_millis(250);

/// While shutting down, workers are told to leave again and again: one may have
/// been stopped (SIGSTOP) after it was told.
const REMIND: Duration = Duration::from_millis(500);

/// The parent, with all that it knows of its children.
#[derive(Debug)]
pub struct Supervisor<'a> {
    options: &'a Options,
    pid: Pid,
    rights: Option<Rights>,
    /// None when the last sweep has it.
    listener: Option<Listener>,
    pid_file: Option<PidFile>,
    signals: SignalDelivery<UnixStream, SignalOnly>,
    ready: PipeReader,
    ready_writer: Option<PipeWriter>,
    /// What of all this a worker must close: the parent's own descriptors.
    parents_own: Vec<RawFd>,

    phase: Phase,
    /// The places to be filled; `--workers 4` makes 0 to 3. Empty once shutdown
    /// has begun: then no death can lead to a fork.
    slots: Vec<Slot>,
    /// All children not yet reaped. Signals go only to pids from here: nobody
    /// else can have such a pid. One that fills no slot is leaving.
    children: BTreeMap<Pid, Child>,
    respawn: Respawn,
    /// When fork has failed: the next attempt, and not before.
    fork_again_at: Option<Instant>,
    /// HUP: who is still to be replaced.
    to_replace: VecDeque<Pid>,
    /// HUP: who is being replaced, and waits for his successor to be ready.
    succession: Option<Succession>,

    scoreboard: Scoreboard,
    free_rows: Vec<Row>,
    /// What the dead have served.
    served: Served,
}

#[derive(Debug)]
enum Phase {
    Running,
    /// All have been told to leave; at the deadline they are killed.
    Draining {
        deadline: Instant,
        remind_at: Instant,
        /// Accepted before it began.
        connections_before: u64,
        exit: Exit,
    },
    /// All have been killed; they are only reaped.
    Ending {
        exit: Exit,
    },
}

#[derive(Debug)]
struct Slot {
    worker: Option<Pid>,
    /// Who filled it last, and when the death was seen.
    last: Option<(Pid, Instant)>,
    /// Not to be filled before.
    due: Instant,
    /// How many have filled it before the next one.
    restarts: u64,
}

#[derive(Debug)]
struct Child {
    slot: usize,
    row: Row,
    born: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Succession {
    old: Pid,
    new: Pid,
}

#[derive(Debug, Default)]
struct Served {
    connections: u64,
    bytes: u64,
}

impl Slot {
    fn empty() -> Slot {
        Slot { worker: None, last: None, due: Instant::now(), restarts: 0 }
    }
}

impl<'a> Supervisor<'a> {
    /// Takes charge of the listening socket. Nobody is forked yet.
    ///
    /// # Errors
    /// If the user's wishes cannot be met: the workers' user, the pid file.
    pub fn new(options: &'a Options, listener: Listener) -> Result<Supervisor<'a>, Failure> {
        let rights = Rights::find(options.user.as_deref(), options.group.as_deref())?;
        let lacking = |error: io::Error| Failure::new("start", &error, "look at ulimit -n and free memory");
        let (signals_reader, signals_writer) = UnixStream::pair().map_err(lacking)?;
        let (ready, ready_writer) = io::pipe().map_err(lacking)?;
        let scoreboard = Scoreboard::new().map_err(|error| lacking(error.into()))?;
        let mut parents_own = vec![signals_reader.as_raw_fd(), signals_writer.as_raw_fd(), ready.as_raw_fd()];

        // Before the pid file and the forks: from here on a signal is not the
        // end of us, so that nothing is left behind.
        let numbers = SIGNALS.map(|signal| signal as i32);
        let signals = SignalDelivery::with_pipe(signals_reader, signals_writer, SignalOnly, numbers)
            .map_err(lacking)?;
        let pid = getpid();
        let pid_file = options.pid_file.as_deref().map(|path| PidFile::create(path, pid)).transpose()?;
        parents_own.extend(pid_file.as_ref().map(PidFile::fd));

        Ok(Supervisor {
            options,
            pid,
            rights,
            listener: Some(listener),
            pid_file,
            signals,
            ready,
            ready_writer: Some(ready_writer),
            parents_own,
            phase: Phase::Running,
            slots: (0..options.workers).map(|_| Slot::empty()).collect(),
            children: BTreeMap::new(),
            respawn: Respawn::default(),
            fork_again_at: None,
            to_replace: VecDeque::new(),
            succession: None,
            scoreboard,
            // From the end, so that the first row is the first to go.
            free_rows: scoreboard.rows().rev().collect(),
            served: Served::default(),
        })
    }

    /// Forks the workers, says so on stdout, and looks after them until the end.
    ///
    /// # Errors
    /// If not one worker can be forked.
    pub fn run(mut self) -> Result<Exit, Failure> {
        self.spawn_missing_workers();
        if self.children.is_empty() {
            return Err(Failure::plain(
                "cannot fork any worker; raise the limit on processes (ulimit -u), or free some memory",
            ));
        }
        self.announce();
        loop {
            self.wait();
            self.reap_workers();
            for signal in self.signals.pending() {
                self.handle_signal(signal);
            }
            self.go_on_replacing();
            self.spawn_missing_workers();
            if let Some(exit) = self.go_on_stopping() {
                self.pid_file = None;
                info!(
                    "the end, with exit status {}: served {}, {}",
                    exit.code(),
                    count(self.served.connections, "connection"),
                    count(self.served.bytes, "byte")
                );
                return Ok(exit);
            }
        }
    }

    /// The one line on stdout, for people and scripts that wait for it.
    fn announce(&mut self) {
        let Some(listener) = &self.listener else { return };
        let workers = count(self.children.len() as u64, "worker");
        let line = format!("listening on {} (pid {}, {workers})\n", listener.address(), self.pid);
        if let Err(error) = io::stdout().write_all(line.as_bytes()) {
            warn!("cannot write to stdout: {}; serving all the same: {line:?}", reason(&error));
        }
    }

    /// Blocks until there is something to do.
    fn wait(&mut self) {
        let timeout = match self.next_deadline() {
            None => PollTimeout::NONE,
            Some(deadline) => {
                // Rounded up: a millisecond late instead of a busy millisecond.
                let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            }
        };
        let mut sources = [
            PollFd::new(self.signals.get_read().as_fd(), PollFlags::POLLIN),
            PollFd::new(self.ready.as_fd(), PollFlags::POLLIN),
        ];
        // An error is EINTR: a signal, whose byte is in the pipe.
        let _ = poll(&mut sources, timeout);
        if sources[1].any() == Some(true) {
            self.hear_who_is_ready();
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let forks = self.slots.iter().filter(|slot| slot.worker.is_none()).map(|slot| slot.due).min();
        let forks = forks.map(|due| self.fork_again_at.map_or(due, |again| due.max(again)));
        match self.phase {
            Phase::Running => forks,
            Phase::Draining { deadline, remind_at, .. } => Some(deadline.min(remind_at)),
            Phase::Ending { .. } => None,
        }
    }

    // ---- forking and reaping

    /// Fills the empty slots whose time has come.
    fn spawn_missing_workers(&mut self) {
        let now = Instant::now();
        if self.fork_again_at.is_some_and(|again| now < again) {
            return;
        }
        for number in 0..self.slots.len() {
            let slot = &self.slots[number];
            if slot.worker.is_some() || slot.due > now {
                continue;
            }
            let last = slot.last;
            let Some(pid) = self.fork_worker(number, Errand::Serve) else { break };
            self.slots[number].worker = Some(pid);
            match last {
                None => info!("worker {number} (pid {pid}) forked"),
                Some((last, died)) => {
                    info!(
                        "worker {number} (pid {pid}) replaces pid {last}, {:.1?} after its death was seen",
                        died.elapsed()
                    );
                }
            }
        }
    }

    /// Forks a child. None: it cannot be had now, and will be tried again.
    fn fork_worker(&mut self, slot: usize, errand: Errand) -> Option<Pid> {
        let restarts = self.slots.get(slot).map_or(0, |slot| slot.restarts);
        let row = self.free_rows.pop()?;
        row.prepare(slot, restarts);
        let born = Instant::now();
        match process::fork(|| self.be_worker(slot, row, errand)) {
            Ok(pid) => {
                explain!(
                    "fork() = {pid}: a copy of this process, with the same listening socket, will be worker {slot}"
                );
                row.belongs_to(Some(pid));
                self.children.insert(pid, Child { slot, row, born });
                if let Some(slot) = self.slots.get_mut(slot) {
                    slot.restarts += 1;
                }
                if self.fork_again_at.take().is_some() {
                    info!("fork works again");
                }
                Some(pid)
            }
            Err(error) => {
                row.belongs_to(None);
                self.free_rows.push(row);
                if self.fork_again_at.is_none() {
                    warn!(
                        "cannot fork worker {slot}: {}; trying again every {FORK_AGAIN:?}; raise the limit on processes \
                         (ulimit -u), free some memory, or run fewer --workers",
                        reason(&error.into())
                    );
                }
                self.fork_again_at = Some(Instant::now() + FORK_AGAIN);
                None
            }
        }
    }

    /// The child's first step: it keeps what a worker needs, and closes the rest.
    fn be_worker(&mut self, slot: usize, row: Row, errand: Errand) -> u8 {
        for fd in &self.parents_own {
            // Nobody uses them after this: the child leaves by _exit.
            let _ = unistd::close(*fd);
        }
        let (Some(listener), Some(ready)) = (self.listener.take(), self.ready_writer.take()) else {
            return 1;
        };
        worker::run(Job {
            slot,
            errand,
            row,
            scoreboard: self.scoreboard,
            listener,
            options: self.options,
            rights: self.rights.as_ref(),
            parent: self.pid,
            ready,
        })
    }

    /// Reaps all who have died: one SIGCHLD may stand for many deaths.
    fn reap_workers(&mut self) {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                Ok(status) => self.bury(status),
                Err(Errno::EINTR) => {}
                Err(error) => {
                    error!("waitpid: {error}");
                    return;
                }
            }
        }
    }

    /// Strikes a dead child off, explains its death, and decides what follows.
    fn bury(&mut self, status: WaitStatus) {
        let Some(pid) = status.pid() else { return };
        let Some(child) = self.children.remove(&pid) else {
            // As process 1 of a container we inherit other people's orphans.
            debug!("reaped a stranger, pid {pid}");
            return;
        };
        let died = Instant::now();
        let cause = Cause::of(status);
        let connections = child.row.connections();
        self.served.connections += connections;
        self.served.bytes += child.row.bytes();
        child.row.belongs_to(None);
        self.free_rows.push(child.row);

        let level = if cause == Cause::Left { Level::Info } else { Level::Warn };
        log!(
            level,
            "worker {} (pid {pid}) {} after {:.1?} and {}",
            child.slot,
            describe(status),
            died - child.born,
            count(connections, "connection")
        );

        if self.succession.is_some_and(|succession| succession.new == pid) {
            return self.succession_failed(cause);
        }
        let Some(slot) = self.slots.get_mut(child.slot).filter(|slot| slot.worker == Some(pid)) else {
            return;
        };
        slot.worker = None;
        slot.last = Some((pid, died));
        let others_well = self.workers().any(|(_, child)| Respawn::is_well(child.born, died));
        match self.respawn.after(Death { cause, born: child.born, died, connections }, others_well) {
            Verdict::Now => self.slots[child.slot].due = died,
            Verdict::At(due) => {
                info!("worker {} is replaced in {:.1?}: it crashed at its start", child.slot, due - died);
                self.slots[child.slot].due = due;
            }
            Verdict::GiveUp => {
                error!(
                    "giving up: workers keep crashing at their start; the last one {}. Its own last lines, above, may say why",
                    describe(status)
                );
                self.drain(Exit::GaveUp);
            }
        }
    }

    /// The children that fill slots.
    fn workers(&self) -> impl Iterator<Item = (Pid, &Child)> {
        self.slots
            .iter()
            .filter_map(|slot| slot.worker)
            .filter_map(|pid| Some((pid, self.children.get(&pid)?)))
    }

    // ---- signals

    fn handle_signal(&mut self, number: i32) {
        let Ok(signal) = Signal::try_from(number) else { return };
        match signal {
            Signal::SIGCHLD => {}
            Signal::SIGUSR1 => status::table(self.scoreboard).iter().for_each(|line| info!("{line}")),
            Signal::SIGQUIT => {
                warn!("SIGQUIT: ending at once");
                let cut = self.somebody_is_connected();
                self.end(if cut { Exit::Forced } else { Exit::Orderly });
            }
            Signal::SIGTERM | Signal::SIGINT => match self.phase {
                Phase::Running => {
                    let workers = count(self.children.len() as u64, "worker");
                    info!("{signal}: shutting down, {workers} to leave within {:?}", self.options.grace);
                    self.drain(Exit::Orderly);
                }
                _ => {
                    warn!("{signal} again: ending at once");
                    self.end(Exit::Forced);
                }
            },
            _ if !matches!(self.phase, Phase::Running) => info!("{signal}: too late, shutting down"),
            Signal::SIGHUP => {
                self.to_replace = self.workers().map(|(pid, _)| pid).collect();
                info!("SIGHUP: replacing {} one by one", count(self.to_replace.len() as u64, "worker"));
            }
            Signal::SIGTTIN if self.slots.len() == usize::from(MAX_WORKERS) => {
                warn!("SIGTTIN: {MAX_WORKERS} workers is the most");
            }
            Signal::SIGTTIN => {
                self.slots.push(Slot::empty());
                info!("SIGTTIN: {} from now on", count(self.slots.len() as u64, "worker"));
            }
            Signal::SIGTTOU if self.slots.len() == 1 => warn!("SIGTTOU: one worker is the least"),
            Signal::SIGTTOU => {
                let worker = self.slots.pop().and_then(|slot| slot.worker);
                info!("SIGTTOU: {} from now on", count(self.slots.len() as u64, "worker"));
                worker.into_iter().for_each(|pid| self.tell_to_leave(pid));
            }
            _ => {}
        }
    }

    /// Tells a worker to finish its client and leave. CONT follows TERM, since
    /// a stopped process notices nothing else.
    fn tell_to_leave(&self, pid: Pid) {
        self.send(pid, Signal::SIGTERM);
        self.send(pid, Signal::SIGCONT);
    }

    fn send(&self, pid: Pid, signal: Signal) {
        if self.children.contains_key(&pid)
            && let Err(error) = kill(pid, signal)
        {
            error!("cannot send {signal} to pid {pid}: {}", reason(&error.into()));
        }
    }

    // ---- HUP: the new one is ready before the old one leaves

    /// Forks the next successor, when no other one is awaited.
    fn go_on_replacing(&mut self) {
        while self.succession.is_none() && self.fork_again_at.is_none() {
            let Some(old) = self.to_replace.pop_front() else { return };
            // Who has died since the HUP was replaced already.
            let Some(number) = self.slots.iter().position(|slot| slot.worker == Some(old)) else { continue };
            match self.fork_worker(number, Errand::Serve) {
                Some(new) => {
                    info!("worker {number} (pid {new}) will replace pid {old} when it is ready");
                    self.slots[number].worker = Some(new);
                    self.succession = Some(Succession { old, new });
                }
                None => self.to_replace.push_front(old),
            }
        }
    }

    /// Workers say by their pid that they are ready.
    fn hear_who_is_ready(&mut self) {
        let mut pids = [0; 1024];
        let Ok(length) = self.ready.read(&mut pids) else { return };
        for pid in pids[..length].chunks_exact(size_of::<i32>()) {
            let pid = Pid::from_raw(i32::from_ne_bytes(pid.try_into().expect("a chunk has this size")));
            if let Some(Succession { old, .. }) = self.succession.take_if(|succession| succession.new == pid)
            {
                self.tell_to_leave(old);
            }
        }
    }

    /// The successor died before it was ready: the old one stays.
    fn succession_failed(&mut self, cause: Cause) {
        let Some(Succession { old, new }) = self.succession.take() else { return };
        match self.slots.iter_mut().find(|slot| slot.worker == Some(new)) {
            // TTOU has taken the slot in the meantime.
            None => self.tell_to_leave(old),
            // The old one may have died meanwhile; then its slot is empty.
            Some(slot) => slot.worker = Some(old).filter(|old| self.children.contains_key(old)),
        }
        if cause == Cause::Crashed {
            error!("SIGHUP: new workers crash, so the old ones stay");
            self.to_replace.clear();
        } else {
            self.to_replace.push_front(old);
        }
    }

    // ---- shutting down

    /// Begins to shut down in order, to end with `exit` if all goes well.
    fn drain(&mut self, exit: Exit) {
        self.slots.clear();
        self.scoreboard.start_draining();
        if let Some(listener) = &self.listener {
            listener.shrink();
        }
        let now = Instant::now();
        self.phase = Phase::Draining {
            deadline: now + self.options.grace,
            remind_at: now + REMIND,
            connections_before: self.served.connections
                + self.children.values().map(|child| child.row.connections()).sum::<u64>(),
            exit,
        };
        self.children.keys().for_each(|pid| self.tell_to_leave(*pid));
    }

    /// Ends all workers without asking.
    fn end(&mut self, exit: Exit) {
        self.slots.clear();
        self.listener = None;
        self.phase = Phase::Ending { exit };
        self.children.keys().for_each(|pid| self.send(*pid, Signal::SIGKILL));
    }

    /// What is due of the shutdown. Some: it is done, and this is how.
    fn go_on_stopping(&mut self) -> Option<Exit> {
        let now = Instant::now();
        match &mut self.phase {
            Phase::Running => None,
            Phase::Ending { exit } => self.children.is_empty().then_some(*exit),
            Phase::Draining { exit, connections_before, .. } if self.children.is_empty() => {
                let (exit, connections_before) = (*exit, *connections_before);
                if self.last_sweep(connections_before) { None } else { Some(exit) }
            }
            Phase::Draining { deadline, .. } if *deadline <= now => {
                let workers = count(self.children.len() as u64, "worker");
                warn!(
                    "{:?} are over: killing {workers}; give clients longer with --grace",
                    self.options.grace
                );
                self.end(Exit::Forced);
                None
            }
            Phase::Draining { remind_at, .. } => {
                if *remind_at <= now {
                    *remind_at = now + REMIND;
                    self.children.keys().for_each(|pid| self.tell_to_leave(*pid));
                }
                None
            }
        }
    }

    /// All have left. If clients have come during the shutdown, more may be in
    /// the accept queue, or about to: then one more worker takes them. Our own
    /// copy of the socket is closed before, so that it is gone in the instant
    /// when that worker closes the other.
    fn last_sweep(&mut self, connections_before: u64) -> bool {
        let Some(listener) = self.listener.as_ref() else { return false };
        if self.served.connections == connections_before && !listener.has_waiting() {
            self.listener = None;
            return false;
        }
        let sweeper = self.fork_worker(0, Errand::LastSweep);
        self.listener = None;
        match sweeper {
            Some(pid) => info!("worker 0 (pid {pid}) forked for the last sweep of the accept queue"),
            None => self.phase = Phase::Ending { exit: Exit::Forced },
        }
        true
    }

    /// Would somebody notice if all ended now?
    fn somebody_is_connected(&self) -> bool {
        let busy =
            |child: &Child| matches!(child.row.state(), State::Reading | State::Writing | State::Draining);
        self.listener.as_ref().is_some_and(Listener::has_waiting) || self.children.values().any(busy)
    }
}

/// How a child died, in the words of the log.
fn describe(status: WaitStatus) -> String {
    match status {
        WaitStatus::Exited(_, code) => format!("left with exit code {code}"),
        WaitStatus::Signaled(_, signal, true) => format!("killed by {signal} (core dumped)"),
        WaitStatus::Signaled(_, signal, false) => format!("killed by {signal}"),
        other => format!("{other:?}"),
    }
}
