//! `bench`: many clients of an echo server at once; how soon, and how surely, every
//! byte comes back.
//!
//! Each client is a thread that blocks in recv, as simple and as fast as the
//! plainest client in C: what is measured is the server. They share a [`Tally`],
//! so that what has been measured so far can be told at any moment.

mod caller;
mod messages;
mod report;
mod tally;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use self::caller::Caller;
use self::messages::Messages;
use self::report::Report;
use self::tally::Tally;
use crate::cli::{BenchOptions, Mode, Which};
use crate::exit::{self, Exit, Failure, complain};
use crate::scoreboard::View;
use crate::snapshot::Snapshot;

/// From one look of the progress bar to the next.
const TICK: Duration = Duration::from_millis(100);

/// Descriptors that the program has besides its connections, and some to spare.
const OTHER_DESCRIPTORS: u64 = 32;

/// Of a thread that calls nothing deep; its buffers lie elsewhere.
const STACK: usize = 128 * 1024;

/// What all callers share.
struct Shared {
    mode: Mode,
    connections: u16,
    duration: Option<Duration>,
    rate: Option<u32>,
    timeout: Option<Duration>,
    addresses: Vec<SocketAddr>,
    messages: Messages,
    /// Where those who have connected wait for the others.
    gate: Barrier,
    /// When the first went through it.
    start: OnceLock<Instant>,
    tally: Mutex<Tally>,
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().expect("no thread panics while it counts")
    }
}

/// What ends the wait for the callers.
enum News {
    Finished,
    Interrupted,
}

/// Measures the server that the user means, and prints the result.
///
/// What went wrong with the server is a result like any other, and the exit status
/// says so: [`Exit::Orderly`] is for all bytes back as they were sent.
///
/// # Errors
/// If the host is unknown, or this machine hasn't the means to measure.
pub fn run(options: &BenchOptions) -> Result<Exit, Failure> {
    let run = Arc::new(Shared {
        mode: options.mode,
        connections: options.connections,
        duration: options.duration(),
        rate: options.rate,
        timeout: options.server.timeout(),
        addresses: options.server.address.look_up("give its IP address")?,
        messages: Messages::new(options.size()),
        gate: Barrier::new(options.connections.into()),
        start: OnceLock::new(),
        tally: Mutex::new(Tally::new()),
    });
    allow_descriptors(options.connections);
    let view = view(options)?;
    let before = view.as_ref().map(Snapshot::of);
    let (sender, news) = mpsc::channel();
    watch_signals(&sender).map_err(|error| Failure::new("handle signals", &error, "try again"))?;
    start_callers(&run, options.messages, &sender)?;
    wait(&run, options.messages, &news);

    let elapsed = run.tally().elapsed(run.start.get().copied());
    let tally = run.tally();
    let by_worker = match (&view, &before) {
        (Some(view), Some(before)) if tally.is_on_this_machine => {
            Some(report::by_worker(before, &Snapshot::of(view), options.size()))
        }
        _ => None,
    };
    let report = Report { options, tally: &tally, elapsed, by_worker };
    match options.json {
        true => exit::print(&report.json())?,
        // Where nothing came back, the trouble says all.
        false if tally.messages() == 0 && !tally.is_flawless() => {}
        false => exit::print(&report.text())?,
    }
    for trouble in tally.troubles() {
        complain(&trouble);
    }
    Ok(if tally.is_flawless() { Exit::Orderly } else { Exit::Failed })
}

/// The scoreboard of the server, if it is ours.
///
/// # Errors
/// If the user has named one that isn't.
fn view(options: &BenchOptions) -> Result<Option<View>, Failure> {
    match &options.scoreboard {
        Some(path) => View::of(&Which { address: None, scoreboard: Some(path.clone()) }).map(Some),
        None => Ok(View::of(&Which { address: Some(options.server.address.clone()), scoreboard: None }).ok()),
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

/// The first SIGINT or SIGTERM is news; a second one ends the program where it is.
fn watch_signals(sender: &Sender<News>) -> io::Result<()> {
    let ending = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_default(signal, Arc::clone(&ending))?;
        flag::register(signal, Arc::clone(&ending))?;
    }
    let (mut signals, sender) = (Signals::new([SIGINT, SIGTERM])?, sender.clone());
    thread::Builder::new().spawn(move || {
        for _ in signals.forever() {
            let _ = sender.send(News::Interrupted);
        }
    })?;
    Ok(())
}

/// A thread for each connection; of `messages` each has its share.
fn start_callers(run: &Arc<Shared>, messages: Option<u64>, sender: &Sender<News>) -> Result<(), Failure> {
    let callers = u64::from(run.connections);
    for number in 0..callers {
        let share = messages.map(|all| all / callers + u64::from(number < all % callers));
        let (run, sender) = (Arc::clone(run), sender.clone());
        let thread = thread::Builder::new().stack_size(STACK).spawn(move || {
            Caller::new(&run, number, share).call();
            let _ = sender.send(News::Finished);
        });
        thread.map_err(|error| {
            Failure::new("start a thread for each connection", &error, "use fewer with -c")
        })?;
    }
    Ok(())
}

/// Waits until all callers have finished, or the user has seen enough.
fn wait(run: &Shared, messages: Option<u64>, news: &Receiver<News>) {
    let bar = progress_bar(messages, run.duration);
    let mut left = run.connections;
    while left > 0 {
        let tick = if bar.is_hidden() { None } else { Some(TICK) };
        let next = match tick {
            None => news.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(tick) => news.recv_timeout(tick),
        };
        match next {
            Ok(News::Finished) => left -= 1,
            Ok(News::Interrupted) | Err(RecvTimeoutError::Disconnected) => {
                run.tally().interrupted = Some(Instant::now());
                break;
            }
            Err(RecvTimeoutError::Timeout) => {
                let position = match (messages, run.start.get()) {
                    (Some(_), _) => run.tally().messages(),
                    (None, Some(start)) => start.elapsed().as_millis() as u64,
                    (None, None) => 0,
                };
                bar.set_position(position);
                bar.set_message(format!("{} messages", run.tally().messages()));
            }
        }
    }
    bar.finish_and_clear();
}

/// On stderr; the library hides it where that is no terminal.
fn progress_bar(messages: Option<u64>, duration: Option<Duration>) -> ProgressBar {
    let Some(length) = messages.or(duration.map(|duration| duration.as_millis() as u64)) else {
        return ProgressBar::new_spinner();
    };
    let style = ProgressStyle::with_template("{wide_bar} {percent:>3} %  {msg}");
    ProgressBar::new(length).with_style(style.expect("the template is well-formed"))
}
