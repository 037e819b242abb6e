//! The log of all processes: each line names its process, and goes out by one write(2).
//!
//! The parent starts the log before it forks, and workers inherit it; each says by
//! [`set_label`] which process it is. `client` uses it too, for its narration. This file
//! decides what is logged and in which form; [`lines`] writes a line without ever
//! blocking; [`narrate`] has the texts of `--explain`.

mod lines;
pub mod narrate;

use std::fmt::{self, Display};
use std::io::{self, IsTerminal};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::unistd::Pid;
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};

use self::lines::Output;
use crate::config::LogConfig;
use crate::error::Error;
use crate::text::count;

pub use self::lines::{log_fd, write_if_room};
pub use self::narrate::EXPLAIN;

/// The target of the lines that [`answer`] logs.
const ANSWER: &str = "answer";

/// Lines that this process had to drop and has not reported yet.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// The name of this process in its lines.
static LABEL: Mutex<Option<ProcessLabel>> = Mutex::new(None);

/// The process that a line is from.
#[derive(Debug, Clone, Copy)]
pub enum ProcessLabel {
    /// The supervisor.
    Parent {
        /// Its pid.
        pid: Pid,
    },
    /// A worker.
    Worker {
        /// The slot that it fills.
        slot: usize,
        /// Its pid.
        pid: Pid,
    },
    /// The client of the command of that name.
    Client {
        /// Its pid.
        pid: Pid,
    },
}

impl Display for ProcessLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProcessLabel::Parent { pid } => write!(f, "parent {pid}"),
            ProcessLabel::Worker { slot, pid } => write!(f, "worker {slot} (pid {pid})"),
            ProcessLabel::Client { pid } => write!(f, "client {pid}"),
        }
    }
}

/// Names this process in its lines from now on. A forked child calls it first.
pub fn set_label(label: ProcessLabel) {
    *LABEL.lock().expect("no thread panics while it holds the name") = Some(label);
    // The lines that the parent dropped are for the parent to report.
    DROPPED.store(0, Ordering::Relaxed);
}

/// Logs a line that the user has just asked for, by a signal, at any level.
pub fn answer(line: &str) {
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
        let Some(label) = *LABEL.lock().expect("no thread panics while it holds the name") else {
            return true;
        };
        let line = match self.form {
            Form::Json => json(record, label),
            Form::Text { colored, dated, offset } => {
                let time = time_of_day(offset, dated);
                let (level, message) = (record.level(), record.args());
                if colored {
                    let (color, style) = (color(label), style(record));
                    format!("{time} [{level:<5}] \x1b[{color}m{label}:\x1b[0;{style}m {message}\x1b[0m\n")
                } else {
                    format!("{time} [{level:<5}] {label}: {message}\n")
                }
            }
        };
        self.output.write_line(line.as_bytes()).is_ok()
    }
}

/// "10:15:30.123", with the date before it if `dated`.
fn time_of_day(offset: UtcOffset, dated: bool) -> String {
    let now = OffsetDateTime::now_utc().to_offset(offset);
    let formatted = if dated {
        now.format(format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:3]"))
    } else {
        now.format(format_description!("[hour]:[minute]:[second].[subsecond digits:3]"))
    };
    formatted.unwrap_or_default()
}

fn json(record: &Record<'_>, label: ProcessLabel) -> String {
    let (process, slot, pid) = match label {
        ProcessLabel::Parent { pid } => ("parent", None, pid),
        ProcessLabel::Worker { slot, pid } => ("worker", Some(slot), pid),
        ProcessLabel::Client { pid } => ("client", None, pid),
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

/// The colour of the process's name (ECMA-48, Select Graphic Rendition): bold for the parent
/// and the client, one of six colours for a worker's slot.
fn color(label: ProcessLabel) -> usize {
    match label {
        ProcessLabel::Parent { .. } | ProcessLabel::Client { .. } => 1,
        ProcessLabel::Worker { slot, .. } => 31 + (slot + 1) % 6,
    }
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
