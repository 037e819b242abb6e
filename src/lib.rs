//! A pre-fork TCP echo server, made to be read.
//!
//! # Layout
//! A room for each part of the system, in the order of events:
//!
//! - [`cli`]: the commands and `--help`; it reads the options of [`config`] from the command
//!   line and the environment
//! - [`listener`]: socket, bind, listen: once, in the parent
//! - [`supervisor`]: the parent, which forks workers, reaps and replaces them, and answers
//!   signals
//! - [`worker`]: the child, which accepts connections one at a time, and leaves in order
//! - [`echo`]: the service: the bytes of one connection, back to its peer
//! - [`scoreboard`]: what all processes can see; [`private_counter`]: what none can see of
//!   another
//! - [`monitor`]: `status` and `top`, which look at a server from outside
//! - [`client`]: the other end of the connection; `client::bench` measures a server
//! - [`log`]: the log of all processes, and the texts of `--explain`; [`error`] and [`text`]:
//!   exit statuses, messages, plurals
//! - [`sys`]: what the operating system offers, with all code that the compiler cannot check
//!
//! # Which room calls which
//! - main calls cli, log, listener, supervisor, monitor and client.
//! - supervisor calls listener, worker and scoreboard; worker calls listener, echo and
//!   scoreboard; listener and echo call none of these, but the listener takes its send
//!   time-out from echo; monitor calls scoreboard.
//! - All may call config, error, text, log, private_counter and sys. sys calls no other room.
//!
//! So calls go down, with two exceptions: on SIGUSR1 the supervisor prints monitor's table,
//! and bench looks at a server's scoreboard, and prints it in monitor's form. Only the
//! supervisor forks and reaps. The policy of replacing workers (`supervisor::respawn`) and
//! echo know no process.
//!
//! # Words
//! - *worker*: a child that serves; *slot*: a place for one worker
//! - *row*: the part of the scoreboard in which one process counts; its counts stay with the
//!   slot when the process dies
//! - *drain*: to finish with all connections before leaving
//! - *drainer*: the worker that drains the accept queue when the whole server leaves
//! - *reap*: to take a child's exit status by waitpid, which ends the zombie
//! - *replacement*: on SIGHUP, the new worker that takes over an old worker's slot
//!
//! # The life of a connection
//! 1. A client connects. The kernel completes the handshake and puts the connection into the
//!    accept queue of the one listening socket.
//! 2. The kernel wakes one of the workers that sleep in `accept` there: on Linux the one that
//!    has waited longest.
//! 3. The worker receives bytes and sends them back, until `recv` returns 0. Meanwhile it
//!    accepts no other connection: one process, one client.
//! 4. It closes the connection, and goes back to `accept`.
//!
//! # What always holds
//! - The parent accepts no connection and blocks only in `poll`; workers may block in any call.
//! - A worker that dies is replaced, until shutdown begins.
//! - A worker notices a signal to leave within some 10 ms of running, in whichever call it is.
//! - Every child is reaped, and no child outlives the parent by a second.
//! - A worker opens nothing, and reaches no process but its clients (Linux).
//! - Bytes that a client has got are counted, also if its worker is killed.

pub mod cli;
pub mod client;
pub mod config;
pub mod echo;
pub mod error;
pub mod listener;
pub mod log;
pub mod monitor;
pub mod private_counter;
pub mod scoreboard;
pub mod supervisor;
pub mod sys;
pub mod text;
pub mod worker;
