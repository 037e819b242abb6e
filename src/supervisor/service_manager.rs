//! What the service manager is told, systemd mostly: that the server is ready, reloads, stops
//! or lives. See sd_notify(3). Without NOTIFY_SOCKET nothing is sent.

use std::time::{Duration, Instant};

use log::debug;
use nix::unistd::Pid;
use sd_notify::NotifyState;

use crate::error::strerror;

/// The service manager, and what it knows of this server.
#[derive(Debug)]
pub(super) struct ServiceManager {
    /// It wants to hear from a living server at least as often (WatchdogSec=).
    watchdog: Option<Duration>,
    /// When it is told again.
    ping_at: Option<Instant>,
    state: State,
}

/// What it was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Starting,
    Ready,
    Reloading,
    Stopping,
}

impl ServiceManager {
    pub fn new() -> ServiceManager {
        let watchdog = sd_notify::watchdog_enabled().filter(|interval| !interval.is_zero());
        ServiceManager { watchdog, ping_at: watchdog.map(|_| Instant::now()), state: State::Starting }
    }

    /// The server is ready: a worker accepts, or the workers are replaced. `status` says what it
    /// does, in words, here and below.
    pub fn ready(&mut self, status: &str) {
        if matches!(self.state, State::Starting | State::Reloading) {
            self.state = State::Ready;
            tell(&[NotifyState::Ready, NotifyState::Status(status)]);
        }
    }

    /// The server begins to replace its workers.
    pub fn reloading(&mut self, status: &str) {
        self.state = State::Reloading;
        let mut states = vec![NotifyState::Reloading, NotifyState::Status(status)];
        states.extend(NotifyState::monotonic_usec_now());
        tell(&states);
    }

    /// Is the server reloading, as far as was told?
    pub fn is_reloading(&self) -> bool {
        self.state == State::Reloading
    }

    /// The server begins to end.
    pub fn stopping(&mut self, status: &str) {
        if self.state != State::Stopping {
            self.state = State::Stopping;
            tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
        }
    }

    /// Another process takes this one's place, and tells the rest.
    pub fn replaced_by(&mut self, pid: Pid) {
        self.state = State::Stopping;
        self.ping_at = None;
        tell(&[NotifyState::MainPid(pid.as_raw().unsigned_abs())]);
    }

    /// When [`ping`](ServiceManager::ping) is to be called again.
    pub fn ping_at(&self) -> Option<Instant> {
        self.ping_at
    }

    /// The loop of the parent goes round. Twice as often as is wanted, that is told.
    pub fn ping(&mut self) {
        let now = Instant::now();
        if let Some(interval) = self.watchdog
            && self.ping_at.is_some_and(|ping_at| ping_at <= now)
        {
            self.ping_at = Some(now + interval / 2);
            tell(&[NotifyState::Watchdog]);
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!("cannot tell the service manager: {}", strerror(&error));
    }
}
