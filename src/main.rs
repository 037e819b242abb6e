//! Reads the command line, then runs the server, or one of the programs that look at it, are
//! its clients or print its manual, and returns the exit status.

use std::panic;
use std::process::ExitCode;

use prefork_echo::cli::{Command, completions, manual};
use prefork_echo::client::{self, bench};
use prefork_echo::config::Config;
use prefork_echo::error::{Error, Exit};
use prefork_echo::listener::Listener;
use prefork_echo::log::ProcessLabel;
use prefork_echo::monitor::{status, top};
use prefork_echo::supervisor::{Supervisor, Takeover};
use prefork_echo::{log, sys, text};

fn main() -> ExitCode {
    let done = match Command::read() {
        Command::Serve(config) => serve(&config),
        Command::Status(options) => status::run(&options).map(|()| Exit::Success),
        Command::Top(options) => top::run(&options).map(|()| Exit::Success),
        Command::Client(options) => client::run(&options).map(|()| Exit::Success),
        Command::Bench(options) => bench::run(&options),
        Command::Completions(options) => completions::run(&options).map(|()| Exit::Success),
        Command::Man(options) => manual::run(&options).map(|()| Exit::Success),
    };
    let exit = done.unwrap_or_else(|error| {
        text::eprint_line(&error);
        Exit::Failed
    });
    exit.code().into()
}

fn serve(config: &Config) -> Result<Exit, Error> {
    sys::signal::reset_signals();
    log::start(&config.log, ProcessLabel::Parent)?;
    panic::set_hook(Box::new(|panic| ::log::error!("bug: {panic}")));
    let takeover = Takeover::inherited()?;
    let stays_open = takeover.as_ref().is_none_or(|takeover| takeover.socket_stays_open);
    let overflows_before = takeover.as_ref().and_then(|takeover| takeover.overflows_before);
    let inherited = Listener::inherited(config.backlog, config.idle_timeout, stays_open, overflows_before)?;
    let listener = match inherited {
        Some(listener) => listener,
        None => {
            let addresses = config.bind.resolve("give --bind an IP address")?;
            Listener::open(&addresses, config.backlog, config.idle_timeout)?
        }
    };
    Supervisor::new(config, listener, takeover)?.run()
}
