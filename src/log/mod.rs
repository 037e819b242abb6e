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
use simplelog::{ConfigBuilder, LevelPadding, WriteLogger};
use time::macros::format_description;

use self::lines::Lines;
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
    let lines = Lines::open(config.file.as_deref(), terminal)?;
    // A terminal is read now, a file on another day.
    let dated = config.file.is_some() || lines::is_plain_file(io::stderr());
    let logger = Logger {
        level: config.level,
        explain: config.explain,
        form: match config.json {
            true => Form::Json,
            false => Form::Text { colored: config.colored.unwrap_or(terminal && !no_color) },
        },
        inner: WriteLogger::new(LevelFilter::Trace, simplelog_config(config.json, dated), lines),
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
    inner: Box<WriteLogger<Lines>>,
}

enum Form {
    Text { colored: bool },
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
            self.write(&Record::builder().level(Level::Warn).args(note).build());
            // If the note was dropped as well, it has counted itself, and is not meant.
            if DROPPED.load(Ordering::Relaxed) > 0 {
                DROPPED.store(dropped, Ordering::Relaxed);
            }
        }
        self.write(record);
    }

    fn flush(&self) {}
}

impl Logger {
    /// Hands the line to simplelog, which writes time and level before it.
    fn write(&self, record: &Record<'_>) {
        let Some((label, pid)) = *LABEL.lock().expect("no thread panics while it holds the label") else {
            return;
        };
        let (name, message, mut line) = (label.name(pid), record.args(), Record::builder());
        line.level(record.level());
        match self.form {
            Form::Json => self.inner.log(&line.args(format_args!("{}", json(record, label, pid))).build()),
            Form::Text { colored: false } => {
                self.inner.log(&line.args(format_args!("{name}: {message}")).build());
            }
            Form::Text { colored: true } => {
                let (color, style) = (label.color(), style(record));
                let text = format_args!("\x1b[{color}m{name}:\x1b[0;{style}m {message}\x1b[0m");
                self.inner.log(&line.args(text).build());
            }
        }
    }
}

/// Time and level at the beginning of each line, with the date if `dated`; nothing where JSON
/// has its own.
fn simplelog_config(json: bool, dated: bool) -> simplelog::Config {
    let mut config = ConfigBuilder::new();
    config.set_thread_level(LevelFilter::Off);
    config.set_target_level(LevelFilter::Off);
    config.set_location_level(LevelFilter::Off);
    if json {
        config.set_time_level(LevelFilter::Off).set_max_level(LevelFilter::Off);
        return config.build();
    }
    config.set_time_level(LevelFilter::Error).set_max_level(LevelFilter::Error);
    config.set_level_padding(LevelPadding::Right);
    config.set_time_format_custom(match dated {
        true => format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:3]"),
        false => format_description!("[hour]:[minute]:[second].[subsecond digits:3]"),
    });
    // If the local time cannot be told, it is UTC.
    let _ = config.set_time_offset_to_local();
    config.build()
}

fn json(record: &Record<'_>, label: ProcessLabel, pid: Pid) -> String {
    let (process, slot) = match label {
        ProcessLabel::Parent => ("parent", None),
        ProcessLabel::Worker(slot) => ("worker", Some(slot)),
        ProcessLabel::Client => ("client", None),
    };
    serde_json::json!({
        "time": humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
        "level": record.level().as_str().to_lowercase(),
        "process": process,
        "slot": slot,
        "pid": pid.as_raw(),
        "message": record.args().to_string(),
    })
    .to_string()
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
