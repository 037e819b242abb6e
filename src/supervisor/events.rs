//! All that the parent waits for, in one place: signals, by signal-hook's pipe,
//! and workers that say they are ready, by a pipe of their own.
//!
//! Left out on purpose: signals are not counted. Two of one kind that come
//! while the parent is at work are one, as they are to the kernel.

use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use crate::explain;
use crate::sys::socket::timeout_until;

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

/// "SIGTERM, SIGCHLD".
fn names(signals: &[Signal]) -> String {
    signals.iter().map(|signal| signal.as_str()).collect::<Vec<_>>().join(", ")
}

/// Where the parent's events come in.
#[derive(Debug)]
pub struct EventSource {
    signals: SignalDelivery<UnixStream, SignalOnly>,
    ready: PipeReader,
    /// None only in a worker that has taken it.
    ready_writer: Option<PipeWriter>,
}

/// What has happened.
#[derive(Debug)]
pub struct Events {
    /// Each signal that came, once.
    pub signals: Vec<Signal>,
    /// Workers that are about to accept. Whether they are ours is not checked.
    pub ready: Vec<Pid>,
}

impl EventSource {
    /// From now on the signals come in here, and are not the end of us.
    ///
    /// # Errors
    /// `EMFILE` or `ENFILE`: no descriptors are left.
    pub fn open() -> io::Result<EventSource> {
        let (signals, writer) = UnixStream::pair()?;
        let (ready, ready_writer) = io::pipe()?;
        let numbers = SIGNALS.map(|signal| signal as i32);
        let signals = SignalDelivery::with_pipe(signals, writer, SignalOnly, numbers)?;
        explain!(
            "sigaction({}): from now on these signals only write a byte into a pipe, at whose end we wait",
            names(&SIGNALS)
        );
        Ok(EventSource { signals, ready, ready_writer: Some(ready_writer) })
    }

    /// Blocks until there is events, or until `deadline`, or until `listener`, if it is
    /// given, has a connection waiting. May come back early.
    pub fn wait(&mut self, deadline: Option<Instant>, listener: Option<PollFd<'_>>) -> Events {
        let own = [
            PollFd::new(self.signals.get_read().as_fd(), PollFlags::POLLIN),
            PollFd::new(self.ready.as_fd(), PollFlags::POLLIN),
        ];
        let mut sources: Vec<_> = own.into_iter().chain(listener).collect();
        match deadline {
            None => explain!("poll(): asleep until a signal comes, or a worker is ready"),
            Some(due) => {
                let wait = due.saturating_duration_since(Instant::now());
                explain!("poll(): asleep until a signal comes, a worker is ready, or {wait:.1?} are over");
            }
        }
        match poll(&mut sources, timeout_until(deadline)) {
            // EINTR: a signal, and its byte is in the pipe.
            Ok(_) | Err(Errno::EINTR) => {}
            // EINVAL, when somebody has lowered RLIMIT_NOFILE below two: then only
            // signals can end the wait.
            Err(_) => {
                let _ = poll(&mut [], PollTimeout::from(100_u8));
            }
        }
        let somebody_is_ready = sources[1].any() == Some(true);
        let events = Events {
            signals: self.signals.pending().filter_map(|number| Signal::try_from(number).ok()).collect(),
            ready: if somebody_is_ready { self.read_ready() } else { Vec::new() },
        };
        if !events.signals.is_empty() {
            explain!("poll(): woken by {}", names(&events.signals));
        }
        events.ready.iter().for_each(|pid| explain!("poll(): woken by pid {pid}, which is ready to accept"));
        events
    }

    fn read_ready(&mut self) -> Vec<Pid> {
        const SIZE: usize = size_of::<i32>();
        let mut bytes = [0; 256 * SIZE];
        let length = self.ready.read(&mut bytes).unwrap_or(0);
        let (pids, _) = bytes[..length].as_chunks::<SIZE>();
        pids.iter().map(|pid| Pid::from_raw(i32::from_ne_bytes(*pid))).collect()
    }

    /// For a worker: the end of the pipe in which to say, by its pid, that it is
    /// ready. All else of the events is the parent's.
    pub fn close_in_child(&mut self) -> Option<PipeWriter> {
        self.ready_writer.take()
    }
}
