//! What the user may ask for: commands, options, their defaults, and `--help`.
//!
//! It runs first, in every process that is started, and turns the command line and the
//! environment into plain [`config`](crate::config), where the options stand: `server`
//! checks the server's; `hint` answers a common mistake. The same definitions are the manual
//! pages and the completion scripts of shells.

pub mod completions;
mod hint;
pub mod manual;
mod server;

use clap::builder::FalseyValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand};

use self::completions::CompletionsOptions;
use self::manual::ManualOptions;
use crate::config::{BenchOptions, ClientOptions, Config, Mode, StatusOptions, TopOptions, explain_variable};

const AFTER_HELP: &str = "\
Signals to the parent:
  TERM, INT     orderly shutdown: serve what is connected, then leave; a second
                one, 200 ms later or more, ends it at once
  QUIT          end at once
  HUP           open the log file anew, and replace the workers one by one
  USR2          start the program's file anew, with the same socket; when that
                server is ready, this one leaves in order
  TTIN, TTOU    one worker more, one fewer
  USR1          log a table of the workers, also with -q
A worker that gets TERM finishes its clients and leaves. Like each worker that
dies, it is replaced.

Exit status:
  0  orderly end
  1  could not run: port taken, host unknown, file not writable, ...
  2  wrong usage
  3  shutdown had to be forced: a connection may have been cut
  4  gave up: workers kept crashing at their start

Environment:
  PREFORK_ECHO_*  the server's options: --idle-timeout can also come from
                  PREFORK_ECHO_IDLE_TIMEOUT, and so on; status, top and bench
                  read PREFORK_ECHO_SCOREBOARD
  LISTEN_FDS      a socket that systemd passes, instead of --bind
  NOTIFY_SOCKET   where systemd is told that the server is ready, reloads, ends
  NO_COLOR        no colours, unless --color asks for them
  LANG            top and client show Korean if it begins with ko; LC_ALL and
                  LC_MESSAGES have precedence

Files:
  ADDRESS.scoreboard  for status and top, while the server runs; in
                      prefork-echo/ in $XDG_RUNTIME_DIR or /run/user/UID, else
                      in prefork-echo-UID/ among the temporary files

Examples:
  prefork-echo --workers 4                    serve on 127.0.0.1:7777
  prefork-echo --workers 1 --model multiplex  one process and one thread for all
  prefork-echo status                         look at the workers once
  prefork-echo top                            the same, live
  prefork-echo client 7777 hello              send a line, check what comes back
  prefork-echo bench                          load, every byte checked
  prefork-echo man | man -l -                 this, as a manual page
  prefork-echo --bind '[::]:7777' --explain   all addresses; explain each call
  sudo prefork-echo --bind 7 --user nobody    serve port 7 without root's rights";

const TOP_KEYS: &str = "\
Keys:
  1, 2, 3, Tab                      the page: flow, memory, rates; the next one
  up, down, PgUp, PgDn, Home, End   select a worker
  k, t, s, c                        send it KILL, TERM, STOP or CONT, at once
  +, -                              one worker more, one fewer
  p                                 hold the picture, and let it go on
  ?                                 what the pages show
  q                                 leave; the server goes on";

/// A pre-fork TCP echo server: one parent listens, N workers accept on the
/// same socket, and every byte comes back.
///
/// The parent forks the workers, serves no client itself, and replaces each worker that dies. One
/// line on stdout says where the server listens; everything else is log, on stderr.
#[derive(Debug, Parser)]
#[command(name = "prefork-echo", version, max_term_width = 100, after_help = AFTER_HELP)]
#[command(args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(flatten)]
    server: Config,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What the program is to be.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The server.
    #[command(skip)]
    Serve(Config),
    /// Look once at a running server: its workers, their clients and counts
    Status(StatusOptions),
    /// Watch a running server live; kill, stop and add workers by a key
    #[command(after_help = TOP_KEYS)]
    Top(TopOptions),
    /// Be one client: send messages or stdin, and check what comes back
    Client(ClientOptions),
    /// Be many clients: measure an echo server, and check every byte
    Bench(BenchOptions),
    /// Print a shell's completion script
    Completions(CompletionsOptions),
    /// Print the manual page, or write the pages of all commands into a directory
    Man(ManualOptions),
}

impl Command {
    /// Reads the command line and the environment. Wrong usage, `--help` and
    /// `--version` end the process here.
    pub fn read() -> Command {
        // The command line first: a mistake after that is the environment's.
        let typed =
            CommandLine::command().try_get_matches().unwrap_or_else(|error| hint::added(error).exit());
        let matches = match typed.subcommand_name() {
            // The environment holds the server's options: a mistake there must not stop the
            // other commands.
            Some(_) => typed,
            None => with_environment(CommandLine::command())
                .try_get_matches()
                .unwrap_or_else(|error| name_variable(error).exit()),
        };
        let line = CommandLine::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        match line.command {
            None => Command::Serve(server::checked(line.server, &matches)),
            Some(Command::Bench(bench)) if bench.mode == Mode::Stream && bench.rate.is_some() => {
                let message = "--rate makes no sense with --mode stream, which goes as fast as it can";
                let mut command = CommandLine::command();
                command.build();
                let bench = command.find_subcommand_mut("bench").expect("it is defined above");
                bench.error(ErrorKind::ArgumentConflict, message).exit();
            }
            Some(Command::Client(mut client)) => {
                let typed = matches.subcommand_matches("client").expect("it is the command");
                client.is_timeout_typed = typed.value_source("timeout") == Some(ValueSource::CommandLine);
                Command::Client(client)
            }
            Some(command) => command,
        }
    }
}

/// Adds to each option of the server its variable, `PREFORK_ECHO_` and its name. A flag is
/// set by any value but the empty one, 0, no, false and the like.
fn with_environment(command: clap::Command) -> clap::Command {
    command.mut_args(|option| {
        let name = format!("PREFORK_ECHO_{}", option.get_id().as_str().to_uppercase());
        // Leaked: clap wants a name that lives as long as the program.
        let option = option.env(&*name.leak()).hide_env(true);
        match option.get_action() {
            _ if option.get_id() == "explain" => option.value_parser(explain_variable),
            ArgAction::SetTrue => option.value_parser(FalseyValueParser::new()),
            _ => option,
        }
    })
}

/// Names the variable in an error of the environment: clap names the option, which was not
/// typed.
fn name_variable(mut error: clap::Error) -> clap::Error {
    let command = with_environment(CommandLine::command());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_of_the_options_is_sound() {
        CommandLine::command().debug_assert();
    }
}
