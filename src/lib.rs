//! A pre-fork TCP echo server, made to be read.
//!
//! # Layout
//! A room for each part of the system, in the order of events:
//!
//! - [`config`]: what the user wants, each option said once; [`cli`]: the commands and
//!   `--help`, which reads the options from the command line and the environment, and makes
//!   manual pages and completion scripts of them
//! - [`listener`]: socket, bind, listen: once, in the parent
//! - [`supervisor`]: the parent, which forks workers, reaps and replaces them, and answers
//!   signals
//! - [`worker`]: the child, which accepts connections, serves them in one of three ways
//!   ([`config::Model`]), and leaves in order
//! - [`echo`]: the service: the bytes of one connection, back to its peer
//! - [`scoreboard`]: what all processes can see; [`private_counter`]: what none can see of
//!   another
//! - [`monitor`]: `status` and `top`, which look at a server from outside
//! - [`client`]: the other end of the connection; `client::bench` measures a server
//! - [`language`]: what `top` and `client` show, in Korean
//! - [`log`]: the log of all processes, and the texts of `--explain`; [`error`] and [`text`]:
//!   exit statuses, messages, plurals
//! - [`sys`]: what the operating system offers, with all code that the compiler cannot check
//!
//! # Which room calls which
//! - main calls cli, log, listener, supervisor, monitor and client.
//! - supervisor calls listener, worker and scoreboard; worker calls listener, echo and
//!   scoreboard; listener and echo call none of these, but the listener takes its send
//!   time-out from echo; monitor calls scoreboard.
//! - All may call config, error, text, language, log, private_counter and sys. sys calls no other room,
//!   and config only error.
//!
//! So calls go down, with two exceptions: on SIGUSR1 the supervisor prints monitor's table,
//! and the client looks at a server's scoreboard: bench prints it in monitor's form, and at a
//! terminal it tells that the connection waits. Only the
//! supervisor forks and reaps. The policies (`supervisor::respawn`, `supervisor::scaling`) and
//! echo know no process; so echo is the same with one client and with many.
//!
//! # Words
//! - *worker*: a child that serves; *slot*: a place for one worker
//! - *model*: how a worker serves. `process`: one client at a time; `thread`: a client in each
//!   of its threads; `multiplex`: many clients in one thread
//! - *first thread*: the one that the fork has made. It answers the worker's signals, and with
//!   `thread` serves no client
//! - *row*: the part of the scoreboard in which one process counts; its counts stay with the
//!   slot when the process dies
//! - *drain*: to finish with all connections before leaving
//! - *retire*: to accept no more, and serve the clients that stay: after `--max-connections`,
//!   when another worker fills the slot; or because the pool has more workers than it needs
//! - *drainer*: the worker that drains the accept queue when the whole server leaves
//! - *reap*: to take a child's exit status by waitpid, which ends the zombie
//! - *replacement*: on SIGHUP, the new worker that takes over an old worker's slot
//! - *upgrade*: on SIGUSR2, a new server takes over the socket, and the names of the files
//!
//! # The life of a connection
//! 1. A client connects. The kernel completes the handshake and puts the connection into the
//!    accept queue of the one listening socket.
//! 2. The kernel wakes one of those that wait there: of the workers or threads that sleep in
//!    `accept` the one that has waited longest, of the workers that sleep in `epoll_wait` the
//!    first in its list (Linux). That one accepts the connection.
//! 3. The worker receives bytes and sends them back, until `recv` returns 0. Meanwhile it
//!    accepts no other connection (`process`: one process, one client); this one of its threads
//!    accepts no other (`thread`); or it serves its other connections, and accepts more while it
//!    has room, each time `epoll_wait` says that it can do so without blocking (`multiplex`).
//! 4. It closes the connection, and goes back to wait for the next.
//!
//! # What always holds
//! - The parent accepts no connection and blocks only in `poll`. A worker may block in any call;
//!   with many connections in one thread, only where it waits for all of them.
//! - The parent has one thread. A worker has no more than its model needs, and all of them are
//!   in the sandbox before one of them accepts.
//! - A worker that dies is replaced, until shutdown begins.
//! - A worker notices a signal to leave within some 10 ms of running, in whichever call it is;
//!   so does each of its threads.
//! - Workers of all models finish their last connections by the same loop, that of `multiplex`.
//! - Every child is reaped, and no worker outlives the parent by a second.
//! - A worker opens nothing, and reaches no process but its clients (Linux).
//! - Bytes that a client has got are counted, also if its worker is killed.

pub mod cli;
pub mod client;
pub mod config;
pub mod echo;
pub mod error;
pub mod language;
pub mod listener;
pub mod log;
pub mod monitor;
pub mod private_counter;
pub mod scoreboard;
pub mod supervisor;
pub mod sys;
pub mod text;
pub mod worker;
