//! `top`: a running server, live. It runs in a process of its own, outside the server.
//!
//! It reads the scoreboard several times a second, which costs the server nothing, and
//! draws it: `history` keeps what the snapshots before have shown, `death` reads the deaths
//! of workers from the events, `view` makes pages of text of it, and `terminal` shows them
//! and reads the keys. A signal is sent only when a key asks for it, and only to a process that, by the
//! kernel's word, belongs to this server.

mod death;
pub mod history;
pub mod terminal;
pub mod view;

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use self::history::History;
use self::terminal::{Input, Screen};
use self::view::{Page, TopView};
use crate::config::{ServerSelector, TopOptions};
use crate::error::{Error, strerror};
use crate::language::{fill, tr};
use crate::scoreboard::snapshot::Snapshot;
use crate::scoreboard::{Phase, Reader};
use crate::sys::process;

/// The time from one view to the next.
const TICK: Duration = Duration::from_millis(250);

/// How long the last line says what a key has done.
const NOTE: Duration = Duration::from_secs(4);

/// Shows the server that the user means until the user leaves.
///
/// # Errors
/// If there is no such server, or no terminal.
pub fn run(options: &TopOptions) -> Result<(), Error> {
    let reader = Reader::of(&options.which, "top")?;
    if options.once {
        return print(&Top::new(reader, options));
    }
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(Error::plain("top needs a terminal; into a file or a pipe goes top --once, or status"));
    }
    let mut top = Top::new(reader, options);
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
    Error::new("use the terminal", error, "top --once prints the pages, and status a table")
}

/// All pages as text: as wide as the terminal, or 80 columns.
fn print(top: &Top<'_>) -> Result<(), Error> {
    let size = io::stdout().is_terminal().then(|| ratatui::crossterm::terminal::size().ok()).flatten();
    let width = size.map_or(80, |(width, _)| width.into());
    let lines = top.view.text(width).into_iter();
    let lines: Vec<_> = lines.map(|line| line.to_string().trim_end().to_owned()).collect();
    crate::text::print(&lines.join("\n"))
}

struct Top<'a> {
    which: &'a ServerSelector,
    reader: Reader,
    view: TopView,
}

impl Top<'_> {
    fn new(reader: Reader, options: &TopOptions) -> Top<'_> {
        let ascii = options.ascii;
        let snapshot = Snapshot::of(&reader);
        let mut history = History::default();
        history.add(&snapshot);
        let view = TopView {
            snapshot,
            history,
            page: Page::Flow,
            selected: 0,
            paused: false,
            help: false,
            ascii,
            note: None,
            end: None,
        };
        Top { which: &options.which, reader, view }
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
            screen.show(|width, height| self.view.lines(width, height))?;
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
        if let Some(successor) = self.reader.successor(self.which, "top") {
            self.reader = successor;
            self.view.history = History::default();
        }
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
                    let text = tr("the server (pid {pid}) has ended, with exit status {status}");
                    fill(text, &[("pid", &pid), ("status", &status)])
                }
                _ => fill(tr("the server (pid {pid}) is dead: it was killed"), &[("pid", &pid)]),
            });
        }
        self.view.history.add(&snapshot);
        self.view.snapshot = snapshot;
        self.select(0); // There may be fewer workers.
    }

    fn select(&mut self, by: isize) {
        let last = self.view.snapshot.workers.len().saturating_sub(1);
        self.view.selected = self.view.selected.saturating_add_signed(by).min(last);
    }

    fn answer(&mut self, key: char) {
        let TopView { page, paused, help, .. } = &mut self.view;
        if let Some(next) = page.of_key(key) {
            *page = next;
            return;
        }
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
        if self.view.page == Page::Rates {
            // Nothing is done to what can't be seen.
            self.view.note = Some((Instant::now(), tr("no worker is selected here: press 1 or 2").into()));
            return;
        }
        let Some(worker) = self.view.snapshot.workers.get(self.view.selected) else { return };
        let (slot, pid) = (worker.slot, worker.pid.map(Pid::from_raw));
        let note = match (self.reader.holder(), pid) {
            (None, _) => gone(),
            (Some(server), Some(pid)) if process::inspect(pid).is_some_and(|look| look.parent == server) => {
                send(signal, pid, &fill(tr("worker {n}"), &[("n", &slot)]))
            }
            _ => fill(tr("worker {n} has no process at this moment"), &[("n", &slot)]),
        };
        self.view.note = Some((Instant::now(), note));
    }

    fn signal_parent(&mut self, signal: Signal) {
        let note = self.reader.holder().map_or_else(gone, |pid| send(signal, pid, tr("the parent")));
        self.view.note = Some((Instant::now(), note));
    }
}

fn gone() -> String {
    tr("the server is no more, or in another container").into()
}

fn send(signal: Signal, pid: Pid, target: &str) -> String {
    let error = kill(pid, signal).err().map(|error| strerror(&error.into()));
    let text = match error {
        None => tr("{signal} sent to {target} (pid {pid})"),
        Some(_) => tr("cannot send {signal} to {target} (pid {pid}): {error}"),
    };
    let error = error.unwrap_or_default();
    fill(text, &[("signal", &signal), ("target", &target), ("pid", &pid), ("error", &error)])
}
