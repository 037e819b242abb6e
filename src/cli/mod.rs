//! What the user may ask for: commands, options, their defaults, and `--help`.

mod address;
mod client;
mod log;
mod server;

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

pub use self::address::BindAddress;
pub use self::client::{BenchOptions, ClientOptions, Mode};
pub use self::log::{Color, LogFormat, LogOptions};
pub use self::server::Options;

/// The most workers that one server runs.
pub const MAX_WORKERS: u16 = 4096;

const AFTER_HELP: &str = "\
Signals to the parent:
  TERM, INT     orderly shutdown: serve what is connected, then leave; a second one, 200 ms later
                or more, ends it at once
  QUIT          end at once
  HUP           replace the workers one by one
  TTIN, TTOU    one worker more, one fewer
  USR1          log a table of the workers, also with -q
A TERM sent to one worker lets it finish its client; like any worker that dies, it is replaced.

Exit status:
  0  orderly end
  1  could not run: port taken, host unknown, file not writable, ...
  2  wrong usage
  3  shutdown had to be forced, and some client was cut
  4  gave up: workers kept crashing at their start

The server's options can also come from the environment: --idle-timeout from PREFORK_ECHO_IDLE_TIMEOUT, and so on.

Examples:
  prefork-echo --workers 4                      serve on 127.0.0.1:7777
  prefork-echo status                           one look at the workers, from another terminal
  prefork-echo top                              the same, live
  prefork-echo client 7777 hello                send a line, and check what comes back
  prefork-echo bench                            load, every byte checked
  prefork-echo --bind '[::]:7777' --explain     serve everybody, and narrate each system call
  sudo prefork-echo --bind 7 --user nobody      the echo port, served without root's rights";

const TOP_KEYS: &str = "\
Keys:
  up, down, PgUp, PgDn, Home, End   select a worker
  k, t, s, c                        send it KILL, TERM, STOP, CONT: for real, at once
  +, -                              one worker more, one fewer
  p                                 hold the picture, and let it go on
  ?                                 what there is to be seen
  q                                 leave; the server goes on";

/// A pre-fork TCP echo server: one parent listens, N workers accept on the
/// same socket, and every byte comes back.
#[derive(Debug, Parser)]
#[command(name = "prefork-echo", version, max_term_width = 100, after_help = AFTER_HELP)]
#[command(args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(flatten)]
    serve: Options,
    #[command(subcommand)]
    other: Option<Other>,
}

#[derive(Debug, Subcommand)]
enum Other {
    /// Look once at a running server: its workers, their clients and counts
    Status(StatusOptions),
    /// Watch a running server live; kill, stop and add workers by a key
    #[command(after_help = TOP_KEYS)]
    Top(TopOptions),
    /// Be a client: send messages, or what stdin has, and check what comes back
    #[command(after_help = client::CLIENT_EXAMPLES)]
    Client(ClientOptions),
    /// Be many clients: measure an echo server, and check every byte
    #[command(after_help = client::BENCH_EXAMPLES)]
    Bench(BenchOptions),
}

/// What the program is to be.
#[derive(Debug)]
pub enum Command {
    /// The server.
    Serve(Options),
    /// One look at a server.
    Status(StatusOptions),
    /// The live view of one.
    Top(TopOptions),
    /// One client.
    Client(ClientOptions),
    /// Many, who measure.
    Bench(BenchOptions),
}

impl Command {
    /// Reads the command line and the environment. Wrong usage, `--help` and
    /// `--version` end the process here.
    pub fn read() -> Command {
        let command = CommandLine::command();
        // What is typed alone first: what is wrong after that is the environment's.
        let typed = command.clone().mut_args(|option| option.env(None::<&str>)).get_matches();
        let matches = match typed.subcommand_name() {
            // What the environment says is the server's: what is wrong with it must
            // not stop the others.
            Some(_) => typed,
            None => command
                .clone()
                .try_get_matches()
                .unwrap_or_else(|error| name_variable(error, &command).exit()),
        };
        let line = CommandLine::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        match line.other {
            Some(Other::Status(options)) => Command::Status(options),
            Some(Other::Top(options)) => Command::Top(options),
            Some(Other::Client(options)) => Command::Client(options),
            Some(Other::Bench(options)) if options.mode == Mode::Stream && options.rate.is_some() => {
                let message = "--rate makes no sense with --mode stream, which goes as fast as it can";
                let mut command = CommandLine::command();
                command.build();
                let bench = command.find_subcommand_mut("bench").expect("it is defined above");
                bench.error(ErrorKind::ArgumentConflict, message).exit();
            }
            Some(Other::Bench(options)) => Command::Bench(options),
            None => {
                let mut options = line.serve;
                options.prefer_typed(&matches);
                if let Some(file) = options.file_used_twice() {
                    let message = format!("{file} can't be two of log, pid file and scoreboard");
                    CommandLine::command().error(ErrorKind::ArgumentConflict, message).exit();
                }
                Command::Serve(options)
            }
        }
    }
}

/// Names the variable in an error of the environment: clap names the option, which
/// was not typed.
fn name_variable(mut error: clap::Error, command: &clap::Command) -> clap::Error {
    let is_wrong = |option: &&Arg| {
        let alone =
            |other: Arg| if other.get_id() == option.get_id() { other } else { other.env(None::<&str>) };
        command.clone().mut_args(alone).try_get_matches().is_err()
    };
    let Some(variable) = command.get_arguments().find(is_wrong).and_then(Arg::get_env) else { return error };
    let name = variable.to_string_lossy().into_owned();
    if error.kind() == ErrorKind::InvalidUtf8 {
        return command.clone().error(ErrorKind::InvalidUtf8, format!("the value of '{name}' is not UTF-8"));
    }
    error.insert(ContextKind::InvalidArg, ContextValue::String(name));
    error
}

/// What `status` is to do.
#[derive(Debug, Args)]
pub struct StatusOptions {
    /// ServerSelector server.
    #[command(flatten)]
    pub which: ServerSelector,

    /// Print JSON, one object on one line
    #[arg(long)]
    pub json: bool,
}

/// What `top` is to do.
#[derive(Debug, Args)]
pub struct TopOptions {
    /// ServerSelector server.
    #[command(flatten)]
    pub which: ServerSelector,

    /// Print one picture as text, and end
    #[arg(long)]
    pub once: bool,
}

/// One of the running servers.
#[derive(Debug, Args)]
pub struct ServerSelector {
    /// Where the server listens [default: this user's only one]
    #[arg(value_name = "[HOST:]PORT")]
    pub address: Option<BindAddress>,

    /// The file that the server was given with --scoreboard
    #[arg(long, value_name = "PATH", conflicts_with = "address")]
    pub scoreboard: Option<PathBuf>,
}

fn number<T: FromStr + PartialOrd + fmt::Display>(text: &str, range: RangeInclusive<T>) -> Result<T, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("write a number from {} to {}", range.start(), range.end()))
}

/// Reads `250ms`, `10s`, `5m` or a plain `0`.
fn duration(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(31_557_600); // 365.25 days, as humantime has it.
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    match humantime::parse_duration(text) {
        Ok(duration) if duration.is_zero() => Ok(duration),
        // Finer than the clocks that end a wait; 0 would mean "never" to them.
        Ok(duration) if duration < Duration::from_millis(1) => {
            Err("shorter than 1ms, the shortest there is".into())
        }
        Ok(duration) if duration > LONGEST => Err("longer than a year, the longest there is".into()),
        Ok(duration) => Ok(duration),
        Err(_) => Err("not a duration; write a number with its unit, as in 250ms, 10s or 5m".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_of_the_options_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn a_duration_has_a_unit_and_makes_sense() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for wrong in ["", "10", "-1s", "soon", "1ns", "2000y", "99999999999999999999s"] {
            assert!(duration(wrong).is_err(), "{wrong:?} was taken for a duration");
        }
    }
}
