//! Parse the command line; then start the log, listen, supervise, or look at a
//! server that does, or be its client; then the exit status.

use std::panic;

use nix::unistd::getpid;
use prefork_echo::cli::{Command, Options};
use prefork_echo::exit::{Exit, Failure};
use prefork_echo::listener::Listener;
use prefork_echo::logger::Speaker;
use prefork_echo::supervisor::Supervisor;
use prefork_echo::{bench, client, exit, logger, status, sys, top};

fn main() -> Exit {
    let done = match Command::read() {
        Command::Serve(options) => serve(&options),
        Command::Status(options) => status::run(&options).map(|()| Exit::Orderly),
        Command::Top(options) => top::run(&options).map(|()| Exit::Orderly),
        Command::Client(options) => client::run(&options).map(|()| Exit::Orderly),
        Command::Bench(options) => bench::run(&options),
    };
    done.unwrap_or_else(|failure| {
        exit::tell(&failure);
        Exit::Failed
    })
}

fn serve(options: &Options) -> Result<Exit, Failure> {
    sys::signal::start_afresh();
    logger::start(&options.log, Speaker::Parent { pid: getpid() })?;
    panic::set_hook(Box::new(|panic| log::error!("bug: {panic}")));
    let listener = Listener::open(&options.bind, options.backlog, options.idle_timeout)?;
    Supervisor::new(options, listener)?.run()
}
