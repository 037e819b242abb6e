//! The parent's events: signals, by signal-hook's pipe, and what workers report, by a pipe
//! of their own.
//!
//! Signals are not counted, on purpose. Two signals of one kind that come while the parent
//! works are one, as for the kernel.

use std::io::{self, PipeReader, PipeWriter, Read};
use std::mem;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use crate::log::narrate::server as narrate;
use crate::sys::readiness;
use crate::worker::Report;

/// The signals that the parent answers; SIGCHLD says that a worker has died.
pub(super) const SIGNALS: [Signal; 9] = {
    use Signal::*;
    [SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2, SIGCHLD]
};

/// The pipes in which the events come.
#[derive(Debug)]
pub struct EventSource {
    signals: SignalDelivery<UnixStream, SignalOnly>,
    reports: PipeReader,
    /// For the workers, which inherit it.
    report_writer: PipeWriter,
}

/// The events that one wait has brought.
#[derive(Debug)]
pub struct Events {
    /// Each signal that came, once.
    pub signals: Vec<Signal>,
    /// What workers have reported. The pids are not checked.
    pub reports: Vec<(Pid, Report)>,
}

impl EventSource {
    /// Handles the signals from now on, so that they no longer terminate the process.
    ///
    /// # Errors
    /// `EMFILE` or `ENFILE`: no descriptors are left.
    pub fn open() -> io::Result<EventSource> {
        let (signals, writer) = UnixStream::pair()?;
        let (reports, report_writer) = io::pipe()?;
        let numbers = SIGNALS.map(|signal| signal as i32);
        let signals = SignalDelivery::with_pipe(signals, writer, SignalOnly, numbers)?;
        narrate::sigaction(&SIGNALS);
        Ok(EventSource { signals, reports, report_writer })
    }

    /// Blocks until there are events, or until `deadline`, or until there is a connection at
    /// `listener` or something to read from `channel`, if they are given. May return early.
    pub fn wait<'fd>(
        &mut self,
        deadline: Option<Instant>,
        listener: Option<PollFd<'fd>>,
        channel: Option<PollFd<'fd>>,
    ) -> Events {
        let watches_queue = listener.is_some();
        let own = [
            PollFd::new(self.signals.get_read().as_fd(), PollFlags::POLLIN),
            PollFd::new(self.reports.as_fd(), PollFlags::POLLIN),
        ];
        let mut sources: Vec<_> = own.into_iter().chain(listener).chain(channel).collect();
        narrate::poll(deadline, watches_queue);
        match readiness::wait(&mut sources, deadline) {
            // EINTR: a signal, and its byte is in the pipe.
            Ok(_) | Err(Errno::EINTR) => {}
            // EINVAL: RLIMIT_NOFILE was lowered below two from outside. Then only signals
            // can end the wait.
            Err(_) => {
                let _ = readiness::sleep(Duration::from_millis(100));
            }
        }
        let has_reports = sources[1].any() == Some(true);
        let events = Events {
            signals: self.signals.pending().filter_map(|number| Signal::try_from(number).ok()).collect(),
            reports: if has_reports { self.read_reports() } else { Vec::new() },
        };
        narrate::woken(&events.signals);
        events
    }

    fn read_reports(&mut self) -> Vec<(Pid, Report)> {
        let mut bytes = [0; 256 * Report::SIZE];
        let length = self.reports.read(&mut bytes).unwrap_or(0);
        let (reports, _) = bytes[..length].as_chunks();
        reports.iter().map(|report| Report::decode(*report)).collect()
    }

    /// In a child: the end of the pipe into which a worker reports. The rest is forgotten: the
    /// worker closes its descriptors, and to free its memory would copy pages of the parent's.
    pub fn into_report_writer(self) -> PipeWriter {
        mem::forget((self.signals, self.reports));
        self.report_writer
    }
}
