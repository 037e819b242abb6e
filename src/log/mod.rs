//! The log of all processes: each line names its process, and goes out by one write(2).
//!
//! The parent starts the log before it forks, and workers inherit it; each says by
//! `set_label` which process it is. `client` uses it too, for its narration. This file
//! decides what is logged and in which form; `lines` writes a line without ever
//! blocking; [`narrate`] has the texts of `--explain`.

mod lines;
pub mod narrate;

use std::io::{self, IsTerminal};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::unistd::{Pid, getpid};
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};

use self::lines::Output;
use crate::config::LogConfig;
use crate::error::Error;
use crate::text::count;

pub(crate) use self::lines::{log_fd, write_if_room};
pub use self::narrate::EXPLAIN;

/// The target of the lines that [`answer`] logs.
const ANSWER: &str = "answer";

/// Lines that this process had to drop and has not reported yet.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// The process, as its lines name it.
static LABEL: Mutex<Option<(ProcessLabel, Pid)>> = Mutex::new(None);

/// The process that a line is from.
#[derive(Debug, Clone, Copy)]
pub enum ProcessLabel {
    /// The supervisor.
    Parent,
    /// The worker that fills this slot.
    Worker(usize),
    /// The client of the command of that name.
    Client,
}

impl ProcessLabel {
    fn name(self, pid: Pid) -> String {
        match self {
            ProcessLabel::Parent => format!("parent {pid}"),
            ProcessLabel::Worker(slot) => format!("worker {slot} (pid {pid})"),
            ProcessLabel::Client => format!("client {pid}"),
        }
    }

    /// The colour of the name (ECMA-48, Select Graphic Rendition): bold for the parent and the
    /// client, one of six colours for a worker's slot.
    fn color(self) -> usize {
        match self {
            ProcessLabel::Parent | ProcessLabel::Client => 1,
            ProcessLabel::Worker(slot) => 31 + (slot + 1) % 6,
        }
    }
}

/// Labels the lines of this process from now on. A forked child calls it first.
pub(crate) fn set_label(label: ProcessLabel) {
    *LABEL.lock().expect("no thread panics while it holds the label") = Some((label, getpid()));
    // The lines that the parent dropped are for the parent to report.
    DROPPED.store(0, Ordering::Relaxed);
}

/// Logs a line that the user has just asked for, by a signal, at any level.
pub(crate) fn answer(line: &str) {
    // Not by a macro: macros pass on no line above the level.
    let mut record = Record::builder();
    record.level(Level::Info).target(ANSWER);
    log::logger().log(&record.args(format_args!("{line}")).build());
}

/// Starts the log, with `label` as the name of this process. Call it once, while the process
/// has one thread.
///
/// # Errors
/// If the log file cannot be opened.
pub fn start(config: &LogConfig, label: ProcessLabel) -> Result<(), Error> {
    let terminal = config.file.is_none() && io::stderr().is_terminal();
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let logger = Logger {
        level: config.level,
        explain: config.explain,
        form: if config.json {
            Form::Json
        } else {
            Form::Text {
                colored: config.colored.unwrap_or(terminal && !no_color),
                // A terminal is read now, a file on another day.
                dated: config.file.is_some() || lines::is_plain_file(io::stderr()),
                // If the local time cannot be told, it is UTC.
                offset: UtcOffset::current_local_offset().unwrap_or(UtcOffset::UTC),
            }
        },
        output: Output::open(config.file.as_deref(), terminal)?,
    };
    log::set_max_level(if config.explain { config.level.max(LevelFilter::Info) } else { config.level });
    log::set_boxed_logger(Box::new(logger)).expect("the log is started once");
    set_label(label);
    Ok(())
}

struct Logger {
    level: LevelFilter,
    explain: bool,
    form: Form,
    output: Output,
}

enum Form {
    Text { colored: bool, dated: bool, offset: UtcOffset },
    Json,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        match metadata.target() {
            EXPLAIN => self.explain,
            ANSWER => true,
            _ => metadata.level() <= self.level,
        }
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let dropped = DROPPED.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let lines = count(dropped, "line");
            let note =
                format_args!("{lines} of this log lost: there was no room, or it could not be written");
            if !self.write(&Record::builder().level(Level::Warn).args(note).build()) {
                DROPPED.store(dropped, Ordering::Relaxed);
            }
        }
        if !self.write(record) {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

impl Logger {
    /// Writes one line. False: it could not be written.
    fn write(&self, record: &Record<'_>) -> bool {
        let Some((label, pid)) = *LABEL.lock().expect("no thread panics while it holds the label") else {
            return true;
        };
        let line = match self.form {
            Form::Json => json(record, label, pid),
            Form::Text { colored, dated, offset } => {
                let (time, level) = (time_of_day(offset, dated), record.level());
                let (name, message) = (label.name(pid), record.args());
                if colored {
                    let (color, style) = (label.color(), style(record));
                    format!("{time} [{level:<5}] \x1b[{color}m{name}:\x1b[0;{style}m {message}\x1b[0m\n")
                } else {
                    format!("{time} [{level:<5}] {name}: {message}\n")
                }
            }
        };
        self.output.write_line(line.as_bytes()).is_ok()
    }
}

/// "10:15:30.123", with the date before it if `dated`.
fn time_of_day(offset: UtcOffset, dated: bool) -> String {
    let date = format_description!("[year]-[month]-[day] ");
    let time = format_description!("[hour]:[minute]:[second].[subsecond digits:3]");
    let now = OffsetDateTime::now_utc().to_offset(offset);
    let date = if dated { now.format(date).unwrap_or_default() } else { String::new() };
    date + &now.format(time).unwrap_or_default()
}

fn json(record: &Record<'_>, label: ProcessLabel, pid: Pid) -> String {
    let (process, slot) = match label {
        ProcessLabel::Parent => ("parent", None),
        ProcessLabel::Worker(slot) => ("worker", Some(slot)),
        ProcessLabel::Client => ("client", None),
    };
    let line = serde_json::json!({
        "time": humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
        "level": record.level().as_str().to_lowercase(),
        "process": process,
        "slot": slot,
        "pid": pid.as_raw(),
        "message": record.args().to_string(),
    });
    format!("{line}\n")
}

/// The style of the message: red for errors, yellow for warnings, faint for the narration.
fn style(record: &Record<'_>) -> usize {
    match record.level() {
        Level::Error => 31,
        Level::Warn => 33,
        _ if record.target() == EXPLAIN => 2,
        _ => 0,
    }
}
