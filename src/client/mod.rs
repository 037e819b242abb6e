//! The other end of a connection: `client` and `bench`, each a process of its own.
//!
//! `client` is one connection to an echo server. It sends messages, or what stdin has, prints
//! what comes back, and compares it with what it has sent. There are two ways: `blocking` for
//! messages and typed lines, in the order of calls that a person expects, and `select` where
//! the input may be of any length. `waiting` says to a person that no worker has accepted
//! the connection. `stream` is the connection, `proxy_header` what a balancer would send first,
//! `error` is what can go wrong with it, and `bench` opens many of them.

pub mod bench;
mod blocking;
mod error;
mod proxy_header;
mod select;
mod stream;
mod waiting;

use std::io::{IsTerminal, stdin, stdout};

use nix::errno::Errno;
use nix::libc::SIGPIPE;
use nix::poll::PollFlags;
use nix::unistd;
use signal_hook::low_level::emulate_default_handler;

pub use self::error::{ClientError, Kind};
use self::select::{Input, Session};
pub use self::stream::{Limit, Stream};
use crate::config::{ClientOptions, LogConfig};
use crate::error::Error;
use crate::language::{fill, tr};
use crate::log::ProcessLabel;
use crate::sys::readiness::wait_for;
use crate::text::{check_stdout, count, eprint_line};

/// Sends what the user has for the server, until every byte has come back.
///
/// # Errors
/// If a byte doesn't come back, or not as it was sent.
pub fn run(options: &ClientOptions) -> Result<(), Error> {
    check_stdout()?;
    crate::log::start(&LogConfig::for_client(options.explain), ProcessLabel::Client)?;
    let addresses = options.server.address.resolve("give its IP address")?;
    let is_typed = options.messages.is_empty() && stdin().is_terminal();
    let timeout = options.server.timeout.filter(|_| !is_typed || options.is_timeout_typed);
    let mut stream = Stream::open(&addresses, timeout, None)?;
    if let Some(version) = options.server.proxy_header {
        stream.send_proxy_header(version)?;
    }
    match options.messages.as_slice() {
        [] if is_typed => {
            let Stream { peer, local, .. } = stream;
            let text = tr("connected to {peer} from {local}; type lines, and Ctrl-D at the end");
            eprint_line(&fill(text, &[("peer", &peer), ("local", &local)]));
            blocking::send_typed_lines(stream)
        }
        [] => Session::new(stream, Input::Stdin)?.run(),
        messages if blocking::fit(messages) => blocking::send_messages(stream, messages),
        messages => Session::new(stream, Input::Messages(messages.iter()))?.run(),
    }
}

/// All has come back, so what is wrong with the server's end of file is no error.
fn report_missing_close(stream: &Stream, error: &ClientError) {
    if error.kind == Kind::Timeout {
        let bytes = count(stream.transfer.sent, "byte");
        eprint_line(&format_args!("all {bytes} came back, but the server doesn't close its side"));
    } else {
        eprint_line(error);
    }
}

/// Prints by the bare call: if another process has set stdout to O_NONBLOCK, what its
/// pipe has no room for must not be lost.
fn print(mut bytes: &[u8]) -> Result<(), Error> {
    let stdout = stdout();
    while !bytes.is_empty() {
        match unistd::write(&stdout, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                let _ = wait_for(&stdout, PollFlags::POLLOUT, None);
            }
            // A reader that closes the pipe ends this process, as it does cat.
            Err(Errno::EPIPE) => {
                let _ = emulate_default_handler(SIGPIPE);
                return Err(Error::plain("no process reads stdout any more"));
            }
            Err(error) => return Err(Error::new("write to stdout", &error.into(), "look where it leads")),
        }
    }
    Ok(())
}
