//! `bench`: many clients of an echo server at once; how soon, and how surely, every
//! byte comes back.
//!
//! Each client is a thread that blocks in recv, as simple and as fast as the
//! plainest client in C: what is measured is the server. They share a stats,
//! so that what has been measured so far can be told at any moment.

mod bench_client;
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
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use self::bench_client::BenchClient;
use self::payloads::Payloads;
use self::report::Report;
use self::stats::Stats;
use crate::client::stream::Limit;
use crate::config::{BenchOptions, ServerSelector};
use crate::error::{Error, Exit};
use crate::scoreboard::Reader;
use crate::scoreboard::snapshot::Snapshot;
use crate::text::{self, eprint_line};

/// From one look at the callers, and whether the user has seen enough, to the next.
const TICK: Duration = Duration::from_millis(100);

/// Descriptors that the program has besides its connections, and some to spare.
const OTHER_DESCRIPTORS: u64 = 32;

/// ColumnKind a thread that calls nothing deep; its buffers lie elsewhere.
const STACK: usize = 128 * 1024;

/// What all callers share.
struct Shared {
    options: BenchOptions,
    addresses: Vec<SocketAddr>,
    messages: Payloads,
    /// Where those who have connected wait for the others.
    barrier: Barrier,
    /// When the first went through it.
    start: OnceLock<Instant>,
    stats: Mutex<Stats>,
}

impl Shared {
    /// When the callers must have ended, if there is a duration. As long as they connect, the
    /// clock has not started.
    fn limit(&self) -> Option<Limit> {
        let duration = self.options.duration?;
        let start = self.start.get().copied().unwrap_or_else(Instant::now);
        Some(Limit { end: start + duration, grace: self.options.grace })
    }

    fn stats(&self) -> MutexGuard<'_, Stats> {
        self.stats.lock().expect("no thread panics while it counts")
    }
}

/// Measures the server that the user means, and prints the result.
///
/// What went wrong with the server is a result like any other, and the exit status
/// says so: [`Exit::Success`] is for all bytes back as they were sent, and some at least.
///
/// # Errors
/// If the host is unknown, or this machine hasn't the means to measure.
pub fn run(options: &BenchOptions) -> Result<Exit, Error> {
    text::check_stdout()?;
    let shared = Arc::new(Shared {
        addresses: options.server.resolve("give its IP address")?,
        messages: Payloads::new(options.size),
        barrier: Barrier::new(options.connections.into()),
        start: OnceLock::new(),
        stats: Mutex::new(Stats::new()),
        options: options.clone(),
    });
    allow_descriptors(options.connections);
    let view = view(options)?;
    let before = view.as_ref().map(Snapshot::of);
    let interrupted = watch_signals().map_err(|error| Error::new("handle signals", &error, "try again"))?;
    let callers = start_callers(&shared)?;
    wait(&shared, &callers, &interrupted);

    let stats = shared.stats();
    let elapsed = stats.elapsed(shared.start.get().copied());
    let by_worker = match (&view, &before, stats.server) {
        (Some(view), Some(before), Some(server)) if view.is_at(server) && view.lives() => {
            report::by_worker(before, &Snapshot::of(view), options.size)
        }
        _ => None,
    };
    let report = Report { options, stats: &stats, elapsed, by_worker };
    match options.json {
        true => text::print(&report.json())?,
        // Where nothing came back, the error says all.
        false if stats.messages() == 0 => {}
        false => text::print(&report.text())?,
    }
    for error in stats.troubles() {
        eprint_line(&error);
    }
    if stats.messages() == 0 && stats.is_flawless() {
        let server = &options.server;
        eprint_line(&format_args!("nothing has come back from {server} by the end; measure for longer"));
    }
    Ok(if stats.is_flawless() && stats.messages() > 0 { Exit::Success } else { Exit::Failed })
}

/// The scoreboard of the server, if it is ours.
///
/// # Errors
/// If the user has named one that isn't.
fn view(options: &BenchOptions) -> Result<Option<Reader>, Error> {
    let (address, scoreboard) = (options.server.clone(), options.scoreboard.clone());
    let is_named = scoreboard.is_some();
    let which = ServerSelector { address: (!is_named).then_some(address), scoreboard };
    match Reader::of(&which, "status") {
        Err(failure) if is_named => Err(failure),
        view => Ok(view.ok()),
    }
}

/// Each connection is a descriptor, and the usual limit is 1,024, or 256 on macOS.
/// Where it can't be raised, connecting fails and says so.
fn allow_descriptors(connections: u16) {
    let wanted = u64::from(connections) + OTHER_DESCRIPTORS;
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < wanted
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard);
    }
}

/// The first SIGINT or SIGTERM is noted; a second one ends the program where it is.
fn watch_signals() -> io::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_default(signal, Arc::clone(&interrupted))?;
        flag::register(signal, Arc::clone(&interrupted))?;
    }
    Ok(interrupted)
}

/// A thread for each connection; of all messages each has its share. The channel is
/// closed when the last of them ends: nothing is ever sent.
fn start_callers(shared: &Arc<Shared>) -> Result<Receiver<()>, Error> {
    let callers = u64::from(shared.options.connections);
    let (sender, all) = mpsc::channel();
    for index in 0..callers {
        let share = shared.options.messages.map(|all| all / callers + u64::from(index < all % callers));
        let (shared, sender) = (Arc::clone(shared), sender.clone());
        let thread = thread::Builder::new().stack_size(STACK).spawn(move || {
            BenchClient::new(&shared, index, share).call();
            drop::<Sender<()>>(sender);
        });
        thread
            .map_err(|error| Error::new("start a thread for each connection", &error, "use fewer with -c"))?;
    }
    Ok(all)
}

/// Waits until all callers have ended, or the user has seen enough.
fn wait(shared: &Shared, callers: &Receiver<()>, interrupted: &AtomicBool) {
    let bar = progress_bar(&shared.options);
    while callers.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
        if interrupted.load(Ordering::Relaxed) {
            shared.stats().interrupted = Some(Instant::now());
            break;
        }
        let messages = shared.stats().messages();
        let passed = shared.start.get().map_or(Duration::ZERO, Instant::elapsed);
        bar.set_position(if shared.options.messages.is_some() {
            messages
        } else {
            passed.as_millis() as u64
        });
        bar.set_message(format!("{messages} messages"));
    }
    bar.finish_and_clear();
}

/// On stderr; the library hides it where that is no terminal.
fn progress_bar(options: &BenchOptions) -> ProgressBar {
    let milliseconds = options.duration.map(|duration| duration.as_millis() as u64);
    let Some(length) = options.messages.or(milliseconds) else {
        return ProgressBar::new_spinner();
    };
    let style = ProgressStyle::with_template("{wide_bar} {percent:>3} %  {msg}");
    ProgressBar::new(length).with_style(style.expect("the template is well-formed"))
}
