//! The log of all processes: one line, one write(2), naming who speaks. The
//! narrating client uses it too.
//!
//! Parent and workers share the descriptor, so a line that goes out in pieces
//! would tear, and a reader that stops reading would stop whoever writes. So
//! `Lines` gathers a line, looks whether there is room for it, writes it at
//! once, and counts what it had to drop. The descriptor's O_NONBLOCK stays as
//! it is: it is shared with the user's terminal.
//!
//! simplelog writes time and level; what it lacks, the speaker's name, colour
//! and JSON, is put into the message before.

pub mod narrate;

use std::fmt::{self, Display};
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::thread;
use std::time::SystemTime;

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::errno::Errno;
use nix::libc::{O_NOCTTY, O_NONBLOCK, S_IFMT, S_IFREG, STDERR_FILENO};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::fstat;
use nix::unistd::{self, Pid};
use simplelog::{Config, ConfigBuilder, LevelPadding, WriteLogger};
use time::macros::format_description;

use crate::cli::{Color, LogFormat, LogOptions};
use crate::error::Error;
use crate::sys::signal;

pub use self::narrate::EXPLAIN;

/// The target of the lines that [`answer`] logs.
const ANSWER: &str = "answer";

/// Logs a line that the user has just asked for, by a signal: whatever the level is.
pub fn answer(line: &str) {
    // Not by a macro: those pass on nothing above the level.
    let mut record = Record::builder();
    record.level(Level::Info).target(ANSWER);
    log::logger().log(&record.args(format_args!("{line}")).build());
}

/// Lines that this process had to drop and has not reported yet.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// The descriptor that the lines are written to.
static DESCRIPTOR: AtomicI32 = AtomicI32::new(STDERR_FILENO);

/// Who speaks in this process's lines.
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
        /// The place that it fills.
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

/// From now on this process's lines are `speaker`'s. A child says so first.
pub fn set_label(speaker: ProcessLabel) {
    *LABEL.lock().expect("no thread panics while it holds the name") = Some(speaker);
    // What the parent dropped, the parent reports.
    DROPPED.store(0, Ordering::Relaxed);
}

/// The descriptor that the log is written to: stderr's, or one of its own.
pub fn log_fd() -> RawFd {
    DESCRIPTOR.load(Ordering::Relaxed)
}

/// "1 connection", "2 connections".
pub fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Starts the log as the options say, with `speaker` as its first. Call it once.
///
/// # Errors
/// If the log file cannot be opened.
pub fn start(options: &LogOptions, speaker: ProcessLabel) -> Result<(), Error> {
    let terminal = options.log_file.is_none() && io::stderr().is_terminal();
    let output = match &options.log_file {
        Some(path) => Output::File(open(path).map_err(|error| {
            let what = format_args!("open the log file {}", path.display());
            Error::new(what, &error, "choose another with --log-file")
        })?),
        None if terminal => reopen_terminal().map_or(Output::Stderr, Output::File),
        None => Output::Stderr,
    };
    if let Output::File(file) = &output {
        DESCRIPTOR.store(file.as_raw_fd(), Ordering::Relaxed);
    }
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colored = match options.color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => terminal && !no_color,
    };
    // A terminal is watched; what is kept in a file is read another day.
    let dated = options.log_file.is_some() || is_file(io::stderr());
    let lines = Lines { output, terminal, line: Vec::with_capacity(256) };
    let logger = Logger {
        level: options.log_level(),
        explain: options.explain,
        form: if options.log_format == LogFormat::Json { Form::Json } else { Form::Text { colored } },
        inner: WriteLogger::new(LevelFilter::Trace, config(options.log_format, dated), lines),
    };
    log::set_max_level(if options.explain { logger.level.max(LevelFilter::Info) } else { logger.level });
    log::set_boxed_logger(Box::new(logger)).expect("the log is started once");
    set_label(speaker);
    Ok(())
}

/// Opens for appending, without ever waiting: not for the reader of a fifo, nor
/// later for room.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).custom_flags(O_NONBLOCK | O_NOCTTY).open(path)
}

/// A terminal can be stopped (Ctrl-S) and takes a line in part; both would block
/// us. Opened once more it has flags of its own, which others don't share.
fn reopen_terminal() -> Option<File> {
    unistd::ttyname(io::stderr()).ok().and_then(|path| open(&path).ok())
}

/// A plain file: no terminal, pipe, or device.
fn is_file(output: impl AsFd) -> bool {
    fstat(output).is_ok_and(|data| data.st_mode & S_IFMT == S_IFREG)
}

/// Time and level in front of each line, where it is kept the date as well; none of
/// them where JSON has its own.
fn config(format: LogFormat, dated: bool) -> Config {
    let mut config = ConfigBuilder::new();
    config
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off);
    match format {
        LogFormat::Json => {
            config.set_time_level(LevelFilter::Off).set_max_level(LevelFilter::Off);
        }
        LogFormat::Text => {
            config.set_time_level(LevelFilter::Error).set_max_level(LevelFilter::Error);
            config.set_level_padding(LevelPadding::Right);
            config.set_time_format_custom(if dated {
                format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:3]")
            } else {
                format_description!("[hour]:[minute]:[second].[subsecond digits:3]")
            });
            // Where the local time can't be told, it is UTC.
            let _ = config.set_time_offset_to_local();
        }
    }
    config.build()
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
        let lost = DROPPED.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let lines = count(lost, "line");
            let note =
                format_args!("{lines} of this log lost: there was no room, or it could not be written");
            self.write(&Record::builder().level(Level::Warn).args(note).build());
            // Is the note lost as well? It has counted itself, and isn't meant.
            if DROPPED.load(Ordering::Relaxed) > 0 {
                DROPPED.store(lost, Ordering::Relaxed);
            }
        }
        self.write(record);
    }

    fn flush(&self) {}
}

impl Logger {
    /// Hands the line to simplelog, with what that can't add.
    fn write(&self, record: &Record<'_>) {
        let Some(speaker) = *LABEL.lock().expect("no thread panics while it holds the name") else {
            return;
        };
        let (mut named, message) = (Record::builder(), record.args());
        named.level(record.level());
        match self.form {
            Form::Json => self.inner.log(&named.args(format_args!("{}", json(record, speaker))).build()),
            Form::Text { colored: false } => {
                self.inner.log(&named.args(format_args!("{speaker}: {message}")).build());
            }
            Form::Text { colored: true } => {
                let (color, style) = (color(speaker), style(record));
                self.inner.log(
                    &named
                        .args(format_args!("\x1b[{color}m{speaker}:\x1b[0;{style}m {message}\x1b[0m"))
                        .build(),
                );
            }
        }
    }
}

fn json(record: &Record<'_>, speaker: ProcessLabel) -> serde_json::Value {
    let (process, slot, pid) = match speaker {
        ProcessLabel::Parent { pid } => ("parent", None, pid),
        ProcessLabel::Worker { slot, pid } => ("worker", Some(slot), pid),
        ProcessLabel::Client { pid } => ("client", None, pid),
    };
    serde_json::json!({
        "time": humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
        "level": record.level().as_str().to_lowercase(),
        "process": process,
        "slot": slot,
        "pid": pid.as_raw(),
        "message": record.args().to_string(),
    })
}

/// A colour of its own for each process (ECMA-48, Select Graphic Rendition):
/// bold for the parent and the client, one of six for a worker's slot.
fn color(speaker: ProcessLabel) -> usize {
    match speaker {
        ProcessLabel::Parent { .. } | ProcessLabel::Client { .. } => 1,
        ProcessLabel::Worker { slot, .. } => 31 + (slot + 1) % 6,
    }
}

/// The message: red and yellow for what is wrong, faint for the narration.
fn style(record: &Record<'_>) -> usize {
    match record.level() {
        Level::Error => 31,
        Level::Warn => 33,
        _ if record.target() == EXPLAIN => 2,
        _ => 0,
    }
}

enum Output {
    Stderr,
    File(File),
}

/// Gathers what simplelog writes in pieces, and lets it go a line at a time.
struct Lines {
    output: Output,
    terminal: bool,
    line: Vec<u8>,
}

impl Write for Lines {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(piece);
        if piece.ends_with(b"\n") {
            let write = || match &self.output {
                Output::Stderr => write_if_room(io::stderr(), &self.line),
                Output::File(file) => write_if_room(file, &self.line),
            };
            let sent = if self.terminal { signal::without_ttou(|| retry_eagain(write)) } else { write() };
            if sent.is_err() {
                DROPPED.fetch_add(1, Ordering::Relaxed);
            }
            self.line.clear();
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A terminal says EAGAIN also while another process is writing to it, which is
/// over in microseconds; and when it is stopped, which may last.
fn retry_eagain(write: impl Fn() -> nix::Result<()>) -> nix::Result<()> {
    for _ in 0..200 {
        match write() {
            Err(Errno::EAGAIN) => thread::yield_now(),
            result => return result,
        }
    }
    Err(Errno::EAGAIN)
}

/// One write(2), or none: a pipe that is ready takes PIPE_BUF bytes without
/// blocking and keeps them together (pipe(7)), and our lines are shorter.
///
/// # Errors
/// `EAGAIN` when there is no room, `ENOSPC` when there is for a part, and all
/// that write(2) lists.
pub fn write_if_room(output: impl AsFd, line: &[u8]) -> nix::Result<()> {
    if poll(&mut [PollFd::new(output.as_fd(), PollFlags::POLLOUT)], PollTimeout::ZERO)? == 0 {
        return Err(Errno::EAGAIN);
    }
    loop {
        match unistd::write(&output, line) {
            Ok(written) if written == line.len() => return Ok(()),
            Ok(_) => return Err(Errno::ENOSPC),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}
