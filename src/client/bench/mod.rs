//! `bench`: many clients of an echo server at once. It measures how soon every byte comes
//! back, and whether it is the right one.
//!
//! In the order of events: `payloads` makes the messages, each `driver` is a thread with
//! its clients, each `bench_client` connects (`connecting`, if it has no thread of its own),
//! sends its `messages` and takes them back, `stats` is where all of them record, `report`
//! prints the result, with a `histogram` of the latencies.
//!
//! A few clients have a thread each, and block in recv like the plainest client in C. Many
//! share as many threads as there are processors: what is measured is the server, and not
//! how this machine switches between threads. The stats are shared, so that what has been
//! measured so far can be reported at any moment.

mod bench_client;
mod connecting;
mod driver;
mod histogram;
mod messages;
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
use self::driver::Driver;
use self::payloads::Payloads;
use self::report::Report;
use self::stats::Stats;
use crate::client::Limit;
use crate::config::{BenchOptions, ServerSelector};
use crate::error::{Error, Exit};
use crate::scoreboard::Reader;
use crate::scoreboard::snapshot::Snapshot;
use crate::sys::descriptors::allow_descriptors;
use crate::sys::poller::Poller;
use crate::text::{self, eprint_line};

/// How often the progress is shown, and the user's signal looked for.
const TICK: Duration = Duration::from_millis(100);

/// How long what is in flight at the end is waited for, with `--timeout 0`.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// Descriptors that the program has besides its connections, and some to spare.
const OTHER_DESCRIPTORS: u64 = 32;

/// So many clients have a thread each.
const FEW: u64 = 8;

/// What all clients share.
struct Shared {
    options: BenchOptions,
    addresses: Vec<SocketAddr>,
    payloads: Payloads,
    /// Where threads whose clients have connected wait for the others.
    barrier: Barrier,
    /// When the first thread passed the barrier.
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
        barrier: Barrier::new(threads(options.connections.into()) as usize),
        start: OnceLock::new(),
        stats: Mutex::new(Stats::new()),
        options: options.clone(),
    });
    // Each connection is a descriptor, and the usual limit is 1,024, or 256 on macOS.
    // Where it can't be raised, connecting fails and says so.
    allow_descriptors(
        u64::from(options.connections) + threads(options.connections.into()) + OTHER_DESCRIPTORS,
    );
    let scoreboard = scoreboard(options)?;
    let before = scoreboard.as_ref().map(Snapshot::of);
    let interrupted = watch_signals().map_err(|error| Error::new("handle signals", &error, "try again"))?;
    let threads = start_threads(&shared)?;
    wait(&shared, &threads, &interrupted);

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

/// How many threads drive so many clients.
fn threads(clients: u64) -> u64 {
    let processors = thread::available_parallelism().map_or(1, |number| number.get() as u64);
    if clients <= FEW { clients } else { processors.min(clients) }
}

/// Starts the threads, and gives each client its share of all messages. The channel is
/// closed when the last of the threads ends: nothing is ever sent.
fn start_threads(shared: &Arc<Shared>) -> Result<Receiver<()>, Error> {
    let clients = u64::from(shared.options.connections);
    let threads = threads(clients);
    let messages = shared.options.messages;
    let share = move |index| messages.map(|all| all / clients + u64::from(index < all % clients));
    let (sender, all) = mpsc::channel();
    // All before the first connection, which might take the last descriptor.
    let pollers: Result<Vec<_>, _> = (0..threads).map(|_| Poller::new()).collect();
    let pollers =
        pollers.map_err(|error| Error::new("wait for many connections", &error.into(), "try again"))?;
    for (first, poller) in (0..).zip(pollers) {
        let (shared, sender) = (Arc::clone(shared), sender.clone());
        let thread = thread::Builder::new().spawn(move || {
            let own = (first..clients).step_by(threads as usize);
            let client = |index| BenchClient::new(&shared, index, share(index), threads == clients);
            Driver::new(&shared, poller, own.map(client).collect()).run();
            drop::<Sender<()>>(sender);
        });
        thread.map_err(|error| Error::new("start a thread", &error, "use fewer connections with -c"))?;
    }
    Ok(all)
}

/// Waits until all threads have ended, or the user ends the measurement by a signal.
fn wait(shared: &Shared, threads: &Receiver<()>, interrupted: &AtomicBool) {
    let bar = progress_bar(&shared.options);
    while threads.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
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
