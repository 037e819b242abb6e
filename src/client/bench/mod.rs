//! `bench`: many clients of an echo server at once. It measures how soon every byte comes
//! back, and whether it is the right one.
//!
//! In the order of events: `payloads` makes the messages, each `bench_client` is a thread
//! that sends them and takes them back, `stats` is where all of them record, `report`
//! prints the result, with a `histogram` of the latencies.
//!
//! A client blocks in recv, as simple and as fast as the plainest client in C: what is
//! measured is the server. The stats are shared, so that what has been measured so far
//! can be reported at any moment.

mod bench_client;
mod histogram;
mod payloads;
mod report;
mod stats;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use self::bench_client::BenchClient;
use self::payloads::Payloads;
use self::report::Report;
use self::stats::Stats;
use crate::client::Limit;
use crate::config::{BenchOptions, ServerSelector};
use crate::error::{Error, Exit};
use crate::scoreboard::Reader;
use crate::scoreboard::snapshot::Snapshot;
use crate::sys::process::allow_descriptors;
use crate::text::{self, eprint_line};

/// How often the progress is shown, and the user's signal looked for.
const TICK: Duration = Duration::from_millis(100);

/// How long what is in flight at the end is waited for, with `--timeout 0`.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// Descriptors that the program has besides its connections, and some to spare.
const OTHER_DESCRIPTORS: u64 = 32;

/// The stack of a client's thread. Its calls are not deep, and its buffers lie elsewhere.
const STACK: usize = 128 * 1024;

/// What all clients share.
struct Shared {
    options: BenchOptions,
    addresses: Vec<SocketAddr>,
    payloads: Payloads,
    /// Where clients that have connected wait for the others.
    barrier: Barrier,
    /// When the first client passed the barrier.
    start: OnceLock<Instant>,
    stats: Mutex<Stats>,
}

impl Shared {
    fn start(&self) -> Instant {
        *self.start.get().expect("the clock has started")
    }

    /// When the clients must have ended, if there is a duration. As long as they connect,
    /// the clock has not started.
    fn limit(&self) -> Option<Limit> {
        let duration = self.options.duration?;
        let start = self.start.get().copied().unwrap_or_else(Instant::now);
        Some(Limit { end: start + duration, grace: self.options.server.timeout.unwrap_or(LAST_WAIT) })
    }

    fn stats(&self) -> MutexGuard<'_, Stats> {
        self.stats.lock().expect("no thread panics while it counts")
    }
}

/// Measures the server that the user means, and prints the result.
///
/// What goes wrong with the server is a result like any other, and the exit status says
/// so: [`Exit::Success`] means that all bytes came back as they were sent, and some at
/// least.
///
/// # Errors
/// If the host is unknown, or this machine hasn't the means to measure.
pub fn run(options: &BenchOptions) -> Result<Exit, Error> {
    text::check_stdout()?;
    let shared = Arc::new(Shared {
        addresses: options.server.address.resolve("give its IP address")?,
        payloads: Payloads::new(options.size),
        barrier: Barrier::new(options.connections.into()),
        start: OnceLock::new(),
        stats: Mutex::new(Stats::new()),
        options: options.clone(),
    });
    // Each connection is a descriptor, and the usual limit is 1,024, or 256 on macOS.
    // Where it can't be raised, connecting fails and says so.
    allow_descriptors(u64::from(options.connections) + OTHER_DESCRIPTORS);
    let scoreboard = scoreboard(options)?;
    let before = scoreboard.as_ref().map(Snapshot::of);
    let interrupted = watch_signals().map_err(|error| Error::new("handle signals", &error, "try again"))?;
    let clients = start_clients(&shared)?;
    wait(&shared, &clients, &interrupted);

    let stats = shared.stats();
    let elapsed = stats.elapsed(shared.start.get().copied());
    let by_worker = match (&scoreboard, &before, stats.server) {
        (Some(reader), Some(before), Some(server)) if reader.is_at(server) && reader.lives() => {
            report::by_worker(before, &Snapshot::of(reader), options.size)
        }
        _ => None,
    };
    let clients_per_worker = before.as_ref().map_or(1, |before| before.clients_per_worker);
    Report { options, stats: &stats, elapsed, by_worker, clients_per_worker }.print()?;
    for error in stats.error_lines() {
        eprint_line(&error);
    }
    match (stats.failures(), stats.messages()) {
        (0, 0) => {
            let server = &options.server.address;
            eprint_line(&format_args!("nothing has come back from {server} by the end; measure for longer"));
            Ok(Exit::Failed)
        }
        (0, _) => Ok(Exit::Success),
        _ => Ok(Exit::Failed),
    }
}

/// The scoreboard of the server, if it is a prefork-echo of this machine.
///
/// # Errors
/// If the user has named a scoreboard that isn't one.
fn scoreboard(options: &BenchOptions) -> Result<Option<Reader>, Error> {
    let (address, scoreboard) = (options.server.address.clone(), options.scoreboard.clone());
    let is_named = scoreboard.is_some();
    let server = ServerSelector { address: (!is_named).then_some(address), scoreboard };
    match Reader::of(&server, "status") {
        Err(error) if is_named => Err(error),
        reader => Ok(reader.ok()),
    }
}

/// The first SIGINT or SIGTERM sets the flag; a second one ends the program where it is.
fn watch_signals() -> io::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_default(signal, Arc::clone(&interrupted))?;
        flag::register(signal, Arc::clone(&interrupted))?;
    }
    Ok(interrupted)
}

/// Starts a thread for each connection, and gives each its share of all messages. The
/// channel is closed when the last of them ends: nothing is ever sent.
fn start_clients(shared: &Arc<Shared>) -> Result<Receiver<()>, Error> {
    let clients = u64::from(shared.options.connections);
    let (sender, all) = mpsc::channel();
    for index in 0..clients {
        let share = shared.options.messages.map(|all| all / clients + u64::from(index < all % clients));
        let (shared, sender) = (Arc::clone(shared), sender.clone());
        let thread = thread::Builder::new().stack_size(STACK).spawn(move || {
            BenchClient::new(&shared, index, share).run();
            drop::<Sender<()>>(sender);
        });
        thread
            .map_err(|error| Error::new("start a thread for each connection", &error, "use fewer with -c"))?;
    }
    Ok(all)
}

/// Waits until all clients have ended, or the user ends the measurement by a signal.
fn wait(shared: &Shared, clients: &Receiver<()>, interrupted: &AtomicBool) {
    let bar = progress_bar(&shared.options);
    while clients.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
        if interrupted.load(Ordering::Relaxed) {
            shared.stats().interrupted = Some(Instant::now());
            break;
        }
        let messages = shared.stats().messages();
        let elapsed = shared.start.get().map_or(Duration::ZERO, Instant::elapsed);
        let position = shared.options.messages.map_or(elapsed.as_millis() as u64, |_| messages);
        bar.set_position(position);
        bar.set_message(format!("{messages} messages"));
    }
    bar.finish_and_clear();
}

/// The progress on stderr; the library hides it where that is no terminal.
fn progress_bar(options: &BenchOptions) -> ProgressBar {
    let milliseconds = options.duration.map(|duration| duration.as_millis() as u64);
    let Some(length) = options.messages.or(milliseconds) else {
        return ProgressBar::new_spinner();
    };
    let style = ProgressStyle::with_template("{wide_bar} {percent:>3} %  {msg}");
    ProgressBar::new(length).with_style(style.expect("the template is well-formed"))
}
