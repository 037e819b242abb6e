//! A pre-fork TCP echo server, made to be read.
//!
//! # Layout
//! In the order of events:
//!
//! - [`cli`]: what the user may ask for
//! - [`listener`]: socket, bind, listen: once, in the parent
//! - [`supervisor`]: the parent: forks workers, reaps them, answers signals;
//!   it waits at its [`inbox`], keeps the books of its [`children`], and
//!   replaces them one by one by [`succession`]
//! - [`respawn`]: what to do after a worker's death, decided without acting
//! - [`worker`]: the child: accepts clients one at a time, and leaves in order
//! - [`echo`]: the service: one client's bytes back to it
//! - [`farewell`]: parting from clients without a loss, when the worker leaves
//! - [`client`]: the other end: one connection to a server, each byte checked;
//!   [`mod@bench`]: many, that measure it; both through a [`connection`]
//! - [`scoreboard`], [`private_counter`]: what all processes can see of each
//!   other, and what none sees of another
//! - [`snapshot`]: the scoreboard at one moment, as plain data; [`status`] prints it
//!   as a [`table`] or JSON, [`top`] shows it live, both with [`short`] numbers
//!   and the [`distribution`] over the slots
//! - [`logger`], [`rights`], [`held_file`], [`pid_file`], [`exit`]: what a server
//!   needs besides
//! - [`sys`]: fork, signals, shared memory: what the compiler can't vouch for
//!
//! Calls go down that list, never up. Only the supervisor forks and reaps; echo
//! and respawn know no process.
//!
//! # Words
//! - *worker*: a child that serves; *slot*: a place that a worker fills
//! - *row*: the part of the scoreboard in which one process counts; what it has
//!   served stays with its slot when it dies
//! - *drain*: to finish with one's clients before leaving
//! - *drainer*: the worker that drains the accept queue when the whole server leaves
//! - *reap*: to take note of a child's death by waitpid, which ends the zombie
//! - *heir*: on SIGHUP, the new worker that takes over an old one's slot
//!
//! # The life of a connection
//! 1. A client connects. The kernel completes the handshake and puts the
//!    connection into the accept queue of the one listening socket.
//! 2. The kernel wakes one of the workers that sleep in `accept` there: on Linux
//!    the one that has waited longest.
//! 3. The worker receives bytes and sends them back, until `recv` returns 0.
//!    Meanwhile it accepts nobody else: one process, one client.
//! 4. It closes the connection, and goes back to `accept`.
//!
//! # What always holds
//! - The parent accepts nobody and blocks only in `poll`; the workers block
//!   wherever they like.
//! - A worker that dies is replaced, until shutdown begins; then nobody is.
//! - A signal to leave is noticed within some 10 ms of running, whichever call
//!   the worker is in.
//! - Every child is reaped, and no child outlives the parent by a second.
//! - A worker opens nothing, and reaches nobody but its clients (Linux).
//! - What a client has got is counted, also when its worker is killed.

pub mod cli;
pub mod client;
pub mod echo;
pub mod error;
pub mod listener;
pub mod log;
pub mod monitor;
pub mod private_counter;
pub mod scoreboard;
pub mod supervisor;
pub mod sys;
pub mod worker;
