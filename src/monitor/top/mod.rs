//! `top`: a running server, live. It runs in a process of its own, outside the server.
//!
//! It reads the scoreboard several times a second, which costs the server nothing, and
//! draws it: `view` makes lines of text of a snapshot, `terminal` shows them and reads the
//! keys. A signal is sent only when a key asks for it, and only to a process that, by the
//! kernel's word, belongs to this server.

pub mod terminal;
pub mod view;

use std::collections::VecDeque;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use self::terminal::{Input, Screen};
use self::view::{Rate, TopView};
use crate::config::TopOptions;
use crate::error::{Error, strerror};
use crate::scoreboard::snapshot::Snapshot;
use crate::scoreboard::{Phase, Reader, Served};
use crate::sys::process;

/// The time from one view to the next.
const TICK: Duration = Duration::from_millis(250);

/// How long the last line says what a key has done.
const NOTE: Duration = Duration::from_secs(4);

const GONE: &str = "the server is no more, or in another container";

/// Rates are of what was served in so long before.
const LATELY: Duration = Duration::from_secs(2);

/// Shows the server that the user means until the user leaves.
///
/// # Errors
/// If there is no such server, or no terminal.
pub fn run(options: &TopOptions) -> Result<(), Error> {
    let reader = Reader::of(&options.which, "top")?;
    if options.once {
        return print(&Top::new(reader));
    }
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(Error::plain("top needs a terminal; into a file or a pipe goes top --once, or status"));
    }
    let mut top = Top::new(reader);
    let mut screen = Screen::enter().map_err(|error| lost(&error))?;
    let ended_by = top.show_on(&mut screen).map_err(|error| lost(&error));
    // The terminal first: what is said from here on is to be seen.
    drop(screen);
    if let Some(signal) = ended_by? {
        let _ = signal_hook::low_level::emulate_default_handler(signal as i32);
    }
    if let Some(end) = top.view.end {
        crate::text::print(&end)?;
    }
    Ok(())
}

fn lost(error: &io::Error) -> Error {
    Error::new("use the terminal", error, "top --once prints one picture, and status a table")
}

/// One view as text: as wide as the terminal, or 80 columns.
fn print(top: &Top) -> Result<(), Error> {
    let size = io::stdout().is_terminal().then(|| ratatui::crossterm::terminal::size().ok()).flatten();
    let width = size.map_or(80, |(width, _)| width.into());
    let lines = top.view.lines(width, None).into_iter();
    let lines: Vec<_> = lines.map(|line| line.to_string().trim_end().to_owned()).collect();
    crate::text::print(&lines.join("\n"))
}

struct Top {
    reader: Reader,
    view: TopView,
    /// What had been served at some moments before.
    history: VecDeque<(Instant, Served)>,
}

impl Top {
    fn new(reader: Reader) -> Top {
        let view = TopView {
            snapshot: Snapshot::of(&reader),
            rate: None,
            selected: 0,
            paused: false,
            help: false,
            note: None,
            end: None,
        };
        Top { reader, view, history: VecDeque::new() }
    }

    /// Shows views until the user leaves. Some: by this signal.
    fn show_on(&mut self, screen: &mut Screen) -> io::Result<Option<Signal>> {
        let mut refresh_at = Instant::now();
        loop {
            if refresh_at <= Instant::now() {
                refresh_at = Instant::now() + TICK;
                if !self.view.paused && self.view.end.is_none() {
                    self.refresh();
                }
                self.view.note.take_if(|(noted, _)| noted.elapsed() >= NOTE);
            }
            screen.show(|width, height| self.view.lines(width, Some(height)))?;
            for input in screen.wait(refresh_at)? {
                match input {
                    Input::End(signal) => return Ok(Some(signal)),
                    // Nothing is done to what can't be seen.
                    _ if self.view.help => self.view.help = false,
                    Input::Escape | Input::Key('q') => return Ok(None),
                    Input::Move(by) => self.select(by),
                    Input::Key(key) => self.answer(key),
                }
            }
        }
    }

    /// Takes a snapshot, and notes if the server has ended.
    fn refresh(&mut self) {
        let lives = self.reader.lives();
        let snapshot = Snapshot::of(&self.reader);
        if let Err(failure) = self.reader.check() {
            self.view.end = Some(failure.to_string());
            return;
        }
        if !lives {
            let pid = snapshot.pid;
            self.view.end = Some(match snapshot.phase {
                Phase::Ended(status) => {
                    format!("the server (pid {pid}) has ended, with exit status {status}")
                }
                _ => format!("the server (pid {pid}) is dead: it was killed"),
            });
        }
        self.measure(snapshot.totals.served);
        self.view.snapshot = snapshot;
        self.select(0); // There may be fewer workers.
    }

    fn measure(&mut self, served: Served) {
        let now = Instant::now();
        self.history.push_back((now, served));
        while self.history.len() > 2 && now - self.history[0].0 > LATELY {
            self.history.pop_front();
        }
        let (then, before) = self.history[0];
        self.view.rate = (then < now).then(|| Rate::between(before, served, now - then));
    }

    fn select(&mut self, by: isize) {
        let last = self.view.snapshot.workers.len().saturating_sub(1);
        self.view.selected = self.view.selected.saturating_add_signed(by).min(last);
    }

    fn answer(&mut self, key: char) {
        let TopView { paused, help, .. } = &mut self.view;
        match key {
            'p' => *paused = !*paused,
            '?' => *help = true,
            'k' => self.signal_worker(Signal::SIGKILL),
            't' => self.signal_worker(Signal::SIGTERM),
            's' => self.signal_worker(Signal::SIGSTOP),
            'c' => self.signal_worker(Signal::SIGCONT),
            '+' => self.signal_parent(Signal::SIGTTIN),
            '-' => self.signal_parent(Signal::SIGTTOU),
            _ => {}
        }
    }

    /// The kernel must confirm the pid of the scoreboard: a worker may have written it, and
    /// the process may have died since.
    fn signal_worker(&mut self, signal: Signal) {
        let Some(worker) = self.view.snapshot.workers.get(self.view.selected) else { return };
        let (slot, pid) = (worker.slot, worker.pid.map(Pid::from_raw));
        let note = match (self.reader.holder(), pid) {
            (None, _) => GONE.into(),
            (Some(server), Some(pid)) if process::inspect(pid).is_some_and(|look| look.parent == server) => {
                send(signal, pid, &format!("worker {slot}"))
            }
            _ => format!("worker {slot} has no process at this moment"),
        };
        self.view.note = Some((Instant::now(), note));
    }

    fn signal_parent(&mut self, signal: Signal) {
        let note = self.reader.holder().map_or(GONE.into(), |pid| send(signal, pid, "the parent"));
        self.view.note = Some((Instant::now(), note));
    }
}

fn send(signal: Signal, pid: Pid, target: &str) -> String {
    match kill(pid, signal) {
        Ok(()) => format!("{signal} sent to {target} (pid {pid})"),
        Err(error) => format!("cannot send {signal} to {target} (pid {pid}): {}", strerror(&error.into())),
    }
}
