//! What a worker is forked for, and what it gets from its parent.

use std::fs::File;
use std::io::PipeWriter;

use nix::unistd::Pid;

use crate::config::Config;
use crate::listener::Listener;
use crate::scoreboard::{RowWriter, Scoreboard};
use crate::sys::credentials::Credentials;

/// What a worker is forked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerRole {
    /// It serves until it is asked to stop.
    Serve,
    /// It drains the accept queue when the whole server shuts down, and closes it.
    FinalDrain,
    /// It first serves connections that an accept queue that has overflowed still brings,
    /// until it is asked to stop. Then it does what [`WorkerRole::FinalDrain`] does.
    DrainOverflow,
}

/// What a worker gets from its parent.
#[derive(Debug)]
pub struct WorkerContext<'a> {
    /// The slot that the worker fills, from 0.
    pub slot: usize,
    /// What the worker is forked for.
    pub role: WorkerRole,
    /// The row of the scoreboard in which the worker counts.
    pub row: RowWriter,
    /// The scoreboard of all processes.
    pub scoreboard: Scoreboard,
    /// The listening socket, shared with all workers.
    pub listener: Listener,
    /// The options that the server was started with.
    pub options: &'a Config,
    /// The user and groups that the worker changes to, if any.
    pub credentials: Option<&'a Credentials>,
    /// The pid of the parent.
    pub parent: Pid,
    /// An open /dev/null, which takes the place of stdin and stdout.
    pub null: &'a File,
    /// The pipe in which the worker reports to the parent.
    pub reports: PipeWriter,
}
