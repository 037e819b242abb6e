//! Parse the command line; then start the log, listen, supervise, or look at a
//! server that does, or be its client; then the exit status.

use std::panic;

use nix::unistd::getpid;
use prefork_echo::cli::{Command, Options};
use prefork_echo::client::bench;
use prefork_echo::error::{Error, Exit};
use prefork_echo::listener::Listener;
use prefork_echo::log::ProcessLabel;
use prefork_echo::monitor::{status, top};
use prefork_echo::supervisor::Supervisor;
use prefork_echo::{client, error, log, sys};

fn main() -> Exit {
    let done = match Command::read() {
        Command::Serve(options) => serve(&options),
        Command::Status(options) => status::run(&options).map(|()| Exit::Success),
        Command::Top(options) => top::run(&options).map(|()| Exit::Success),
        Command::Client(options) => client::run(&options).map(|()| Exit::Success),
        Command::Bench(options) => bench::run(&options),
    };
    done.unwrap_or_else(|failure| {
        error::eprint_line(&failure);
        Exit::Failed
    })
}

fn serve(options: &Options) -> Result<Exit, Error> {
    sys::signal::reset_signals();
    log::start(&options.log, ProcessLabel::Parent { pid: getpid() })?;
    panic::set_hook(Box::new(|panic| ::log::error!("bug: {panic}")));
    let listener = Listener::open(&options.bind, options.backlog, options.idle_timeout)?;
    Supervisor::new(options, listener)?.run()
}
