//! The three ways of serving several clients.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How a worker serves several clients, or one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Model {
    /// One client at a time: so many workers, so many clients
    Process,
    /// A client in each of its threads
    Thread,
    /// All its clients in one thread
    Multiplex,
}

impl Model {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Model::Process => "process",
            Model::Thread => "thread",
            Model::Multiplex => "multiplex",
        }
    }

    /// Clients that one worker serves at once, if the user has not said how many.
    pub fn default_clients(self) -> usize {
        match self {
            Model::Process => 1,
            Model::Thread => 16,
            Model::Multiplex => 1024,
        }
    }

    /// The most clients that one worker can serve at once.
    pub const fn most_clients(self) -> usize {
        match self {
            Model::Process => 1,
            Model::Thread => 512,
            Model::Multiplex => 65536,
        }
    }

    /// The threads of a worker that serves so many clients at once. Where they serve a client
    /// each, the first one serves none.
    pub fn threads(self, clients: usize) -> usize {
        if self == Model::Thread { clients + 1 } else { 1 }
    }
}
