//! What a worker reports to its parent, by a pipe.

use nix::unistd::Pid;

/// What a worker reports to its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// It is about to accept.
    Ready,
    /// It accepts no more connections, and finishes those that it has.
    Retiring,
    /// It has taken the last place for a client: no worker has room for one more.
    Full,
}

impl Report {
    /// The size in bytes of a report in the pipe.
    pub const SIZE: usize = 8;

    /// So many bits are the report, and those above them the pid.
    const BITS: u32 = 2;

    /// The report as it is written into the pipe: the worker's pid, then what it reports.
    pub fn encode(self, pid: Pid) -> [u8; Report::SIZE] {
        let number = (pid.as_raw() as u64) << Report::BITS | self as u64;
        number.to_ne_bytes()
    }

    /// The pid, which is not checked, and what the worker reports.
    pub fn decode(bytes: [u8; Report::SIZE]) -> (Pid, Report) {
        let number = u64::from_ne_bytes(bytes);
        let report = match number & ((1 << Report::BITS) - 1) {
            0 => Report::Ready,
            1 => Report::Retiring,
            _ => Report::Full,
        };
        (Pid::from_raw((number >> Report::BITS) as i32), report)
    }
}
