//! The fixed texts of `top`: the line of keys, and the explanation that `?` shows. Both fit
//! into 80 columns and 24 lines, the least that a terminal is expected to have.

/// The last line of the view.
pub(super) const KEYS: &str =
    " q quit  p pause  ↑↓ select  k KILL  t TERM  s STOP  c CONT  +- workers  ? help";

/// What is shown instead of the view.
pub(super) const HELP: [&str; 22] = [
    "What is to be seen",
    "  Clients connect to one listening socket; the kernel completes the handshakes",
    "  and queues them. The parent has opened that socket, and forked the workers,",
    "  which all inherited it. Each sleeps in accept() until the kernel wakes it for",
    "  one client, which it serves to the end: one process, one client.",
    "",
    "  idle      asleep in accept()             starting  forked, not yet there",
    "  reading   asleep in recv()               writing   in send(), asleep when full",
    "  draining  finishing its last client      stopped   by SIGSTOP",
    "",
    "  A slot is a place for a worker: when the process dies, a new one fills it.",
    "  SERVED and BYTES are the slot's, and outlive its processes. PRIVATE is a plain",
    "  variable: each process has its own, at the same address, and it dies with it.",
    "",
    "Keys",
    "  up, down, PgUp, PgDn, Home, End   select a worker",
    "  k KILL, t TERM, s STOP, c CONT    send it that signal, and see what happens",
    "  + -                               one worker more, one fewer (TTIN, TTOU)",
    "  p                                 hold the view, and let it go on",
    "  q, Esc, Ctrl-C                    leave; the server goes on",
    "",
    "Any key leads back.",
];
