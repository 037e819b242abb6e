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
use crate::config::{Color, Explain, LogConfig, LogFormat};
use crate::error::{Error, strerror};
use crate::text::count;

pub(crate) use self::lines::{log_fd, write_if_room};
pub use self::narrate::{CALLS, EXPLAIN};

/// The target of the lines that [`answer`] logs.
const ANSWER: &str = "answer";

/// No line of `--explain=calls` is wider.
const COLUMNS: usize = 80;

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
    /// The kind of process, and the slot that it fills.
    fn parts(self) -> (&'static str, Option<usize>) {
        match self {
            ProcessLabel::Parent => ("parent", None),
            ProcessLabel::Worker(slot) => ("worker", Some(slot)),
            ProcessLabel::Client => ("client", None),
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

/// Opens the log file anew, if there is one. Where that fails, the log goes on in the file that is
/// open, and says so.
pub(crate) fn reopen(config: &LogConfig) {
    let Some(path) = &config.log_file else { return };
    if let Err(error) = lines::reopen(path) {
        let (path, reason) = (path.display(), strerror(&error));
        log::error!("cannot open the log file {path} anew: {reason}; the log stays in the old one");
    }
}

/// Starts the log, with `label` as the name of this process. Call it once, while the process
/// has one thread.
///
/// # Errors
/// If the log file cannot be opened.
pub fn start(config: &LogConfig, label: ProcessLabel) -> Result<(), Error> {
    let terminal = config.log_file.is_none() && io::stderr().is_terminal();
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let lines = Lines::open(config.log_file.as_deref(), terminal)?;
    let logger = Logger {
        config: config.clone(),
        colored: match config.color {
            Color::Auto => terminal && !no_color,
            when => when == Color::Always,
        },
        inner: WriteLogger::new(LevelFilter::Trace, simplelog_config(config), lines),
    };
    let narration = if config.explain == Explain::Off { LevelFilter::Off } else { LevelFilter::Info };
    log::set_max_level(config.level().max(narration));
    log::set_boxed_logger(Box::new(logger)).expect("the log is started once");
    set_label(label);
    Ok(())
}

struct Logger {
    config: LogConfig,
    colored: bool,
    inner: Box<WriteLogger<Lines>>,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        match metadata.target() {
            EXPLAIN => self.config.explain == Explain::All,
            CALLS => self.config.explain == Explain::Calls,
            ANSWER => true,
            _ => metadata.level() <= self.config.level(),
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
        let line = match self.config.log_format {
            LogFormat::Json => json(record, label, pid),
            LogFormat::Text => self.text(record, label, pid),
        };
        self.inner.log(&Record::builder().level(record.level()).args(format_args!("{line}")).build());
    }

    fn text(&self, record: &Record<'_>, label: ProcessLabel, pid: Pid) -> String {
        let (process, slot) = label.parts();
        let is_short = record.target() == CALLS;
        let name = match slot {
            Some(slot) if is_short => format!("{process} {slot}"),
            Some(slot) => format!("{process} {slot} (pid {pid})"),
            None if is_short => process.into(),
            None => format!("{process} {pid}"),
        };
        // Only an IPv6 address written in full can make one of these longer.
        let room = if is_short { COLUMNS - name.len() - ": ".len() } else { usize::MAX };
        let message: String = record.args().to_string().chars().take(room).collect();
        if !self.colored {
            return format!("{name}: {message}");
        }
        let (color, style) = styles(record, slot);
        format!("\x1b[{color}m{name}:\x1b[0;{style}m {message}\x1b[0m")
    }
}

/// Time and level at the beginning of each line; nothing where JSON has its own, and where lines
/// are to be short.
fn simplelog_config(log: &LogConfig) -> simplelog::Config {
    let without = log.log_format == LogFormat::Json || log.explain == Explain::Calls;
    let shown = if without { LevelFilter::Off } else { LevelFilter::Error };
    let mut config = ConfigBuilder::new();
    config.set_thread_level(LevelFilter::Off);
    config.set_target_level(LevelFilter::Off);
    config.set_location_level(LevelFilter::Off);
    config.set_time_level(shown).set_max_level(shown);
    config.set_level_padding(LevelPadding::Right);
    // A terminal is read now, a file on another day.
    config.set_time_format_custom(match log.log_file.is_some() || lines::is_plain_file(io::stderr()) {
        true => format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:3]"),
        false => format_description!("[hour]:[minute]:[second].[subsecond digits:3]"),
    });
    // If the local time cannot be told, it is UTC.
    let _ = config.set_time_offset_to_local();
    config.build()
}

fn json(record: &Record<'_>, label: ProcessLabel, pid: Pid) -> String {
    let (process, slot) = label.parts();
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

/// The styles (ECMA-48, Select Graphic Rendition) of the name, bold or one of six colours for
/// a worker's slot, and of the message: red for errors, yellow for warnings, faint for the
/// narration.
fn styles(record: &Record<'_>, slot: Option<usize>) -> (usize, usize) {
    let message = match record.level() {
        Level::Error => 31,
        Level::Warn => 33,
        _ if record.target() == EXPLAIN => 2,
        _ => 0,
    };
    (slot.map_or(1, |slot| 31 + (slot + 1) % 6), message)
}
