//! What to do when accept fails: the errors of accept(2), sorted.

use nix::errno::Errno;

/// What to do when accept fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// A signal, or the idle time-out: look what there is to do.
    Look,
    /// That one client is gone; on with the next.
    Again,
    /// The system lacks something; try later.
    Pause,
    /// It will never work again.
    Leave,
}

impl Answer {
    /// Sorts the errors of accept(2), which hands on those of the network too.
    pub(super) fn to(error: Errno) -> Answer {
        match error {
            Errno::EINTR | Errno::EAGAIN => Answer::Look,
            Errno::ECONNABORTED
            | Errno::EPROTO
            | Errno::EPERM
            | Errno::ENETDOWN
            | Errno::ENOPROTOOPT
            | Errno::EHOSTDOWN
            | Errno::EHOSTUNREACH
            | Errno::EOPNOTSUPP
            | Errno::ENETUNREACH
            | Errno::ETIMEDOUT => Answer::Again,
            Errno::EBADF | Errno::EFAULT | Errno::EINVAL | Errno::ENOTSOCK => Answer::Leave,
            // EMFILE, ENFILE, ENOBUFS, ENOMEM, and whatever we don't know.
            _ => Answer::Pause,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_of_accept_has_its_answer() {
        for (error, answer) in [
            (Errno::EINTR, Answer::Look),
            (Errno::EAGAIN, Answer::Look),
            (Errno::ECONNABORTED, Answer::Again),
            (Errno::EPROTO, Answer::Again),
            (Errno::ENETUNREACH, Answer::Again),
            (Errno::EMFILE, Answer::Pause),
            (Errno::ENFILE, Answer::Pause),
            (Errno::ENOBUFS, Answer::Pause),
            (Errno::ENOMEM, Answer::Pause),
            (Errno::EBADF, Answer::Leave),
            (Errno::EINVAL, Answer::Leave),
        ] {
            assert_eq!(Answer::to(error), answer, "{error}");
        }
    }
}
