//! The fixture: a server as its users run it, a process of its own.
//!
//! Each server leads a process group, which is killed when the fixture is
//! dropped, so that a failing test leaves no process behind.

pub mod measure;
pub mod models;
pub mod servers;
pub mod terminal;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// How long a test waits for what must come: far longer than it takes.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The binary under test, apart from the servers of the user that runs the tests.
pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_prefork-echo"));
    command.env("XDG_RUNTIME_DIR", env!("CARGO_TARGET_TMPDIR")).env("TMPDIR", env!("CARGO_TARGET_TMPDIR"));
    // What the user of this machine prefers is not to change the outcome.
    command.env("LC_ALL", "C");
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("PREFORK_ECHO_") || name == "NO_COLOR" {
            command.env_remove(name);
        }
    }
    // With one client a worker, all models keep the same promises: most of the suite can be run
    // with each of them, all but what tests the states and descriptors of `process`.
    if let Some(model) = std::env::var_os("PREFORK_ECHO_TEST_MODEL") {
        command.env("PREFORK_ECHO_MODEL", model).env("PREFORK_ECHO_CLIENTS", "1");
    }
    command
}

/// How often a test repeats its blow: a few times, or in full for CI
/// (`PREFORK_ECHO_TEST_FULL=1 cargo test`).
pub fn rounds<N>(few: N, full: N) -> N {
    if std::env::var_os("PREFORK_ECHO_TEST_FULL").is_some() { full } else { few }
}

static HEAVY: Mutex<()> = Mutex::new(());

/// Held by a test that loads the machine or measures times on it: one at a time. The
/// lock of a test that has failed is taken over.
pub fn heavy() -> MutexGuard<'static, ()> {
    HEAVY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a condition; panics, naming it, when it doesn't come true.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "in vain waited until {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A signal that comes again within 200 ms is the same one, so a second one comes later.
pub const SECOND_SIGNAL: Duration = Duration::from_millis(250);

/// A running server, its address and its log.
pub struct Server {
    child: Child,
    pub pid: Pid,
    pub address: SocketAddr,
    /// Its line on stdout.
    pub line: String,
    log: Arc<Mutex<Vec<String>>>,
    log_reader: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts it on a port that the kernel chooses, and waits until it listens.
    #[track_caller]
    pub fn start(arguments: &[&str]) -> Server {
        let mut command = binary();
        command.args(["--bind", "127.0.0.1:0"]).args(arguments);
        Server::spawn(command)
    }

    /// Starts `command`, which is to become a server that listens.
    #[track_caller]
    pub fn spawn(mut command: Command) -> Server {
        command.stdin(Stdio::null());
        Server::spawn_with_stdin(command)
    }

    /// As [`spawn`](Server::spawn), with the stdin that the command has.
    #[track_caller]
    pub fn spawn_with_stdin(mut command: Command) -> Server {
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().expect("the binary starts");
        let (log, log_reader) = collect(child.stderr.take().expect("stderr is a pipe"));
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout is a pipe"))
            .read_line(&mut line)
            .expect("stdout is readable");
        let address = line.split(' ').nth(2).and_then(|address| address.parse().ok());
        let Some(address) = address else {
            let status = child.wait();
            panic!(
                "no address in {line:?}; {status:?}, log: {:#?}",
                log.lock().expect("no panic holds the log")
            );
        };
        Server {
            pid: Pid::from_raw(child.id() as i32),
            child,
            address,
            line,
            log,
            log_reader: Some(log_reader),
        }
    }

    /// Connects a client that doesn't wait for ever.
    #[track_caller]
    pub fn connect(&self) -> TcpStream {
        connect(self.address)
    }

    /// Connects a client that sends until all the buffers on the way are full,
    /// and never reads: then the worker blocks in send.
    #[track_caller]
    pub fn connect_without_reading(&self) -> TcpStream {
        let mut greedy = self.connect();
        // Longer than a busy machine may keep the worker from running.
        greedy.set_write_timeout(Some(Duration::from_millis(200))).expect("a time-out above zero");
        while greedy.write(&noise(65_536)).is_ok() {}
        greedy
    }

    /// One client's whole life: sends, reads it back, closes first.
    #[track_caller]
    pub fn echo(&self, message: &[u8]) {
        echo(&mut self.connect(), message);
    }

    /// What `status --json` says of it.
    #[track_caller]
    pub fn status(&self) -> serde_json::Value {
        let (code, stdout, stderr) = status(&[&self.address.to_string(), "--json"]);
        assert_eq!((code, stderr.as_str()), (0, ""));
        serde_json::from_str(&stdout).expect("status --json prints JSON")
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid, signal).expect("the server lives");
    }

    /// As a terminal does on Ctrl-C.
    pub fn signal_group(&self, signal: Signal) {
        killpg(self.pid, signal).expect("the group lives");
    }

    /// The same, to a group that may be gone by now.
    pub fn signal_group_if_any(&self, signal: Signal) {
        let _ = killpg(self.pid, signal);
    }

    /// The log so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().expect("no panic holds the log").clone()
    }

    /// Waits for a log line that contains all of `parts`.
    #[track_caller]
    pub fn wait_for_log(&self, parts: &[&str]) -> String {
        let mut found = None;
        let start = Instant::now();
        while found.is_none() {
            found = self.log().into_iter().find(|line| parts.iter().all(|part| line.contains(part)));
            assert!(
                found.is_some() || start.elapsed() < PATIENCE,
                "no {parts:?} in the log: {:#?}",
                self.log()
            );
            thread::sleep(Duration::from_millis(1));
        }
        found.expect("the loop ends when it is found")
    }

    /// The children that live, in the order of their pids.
    pub fn workers(&self) -> Vec<Pid> {
        let children =
            processes().into_iter().filter(|process| process.parent == self.pid && process.state != 'Z');
        children.map(|process| process.pid).collect()
    }

    /// Waits until so many workers live, and returns them.
    #[track_caller]
    pub fn wait_for_workers(&self, number: usize) -> Vec<Pid> {
        wait_until(&format!("there are {number} workers"), || self.workers().len() == number);
        self.workers()
    }

    /// Waits until so many workers wait in accept: each takes one of the next connections.
    #[track_caller]
    pub fn wait_for_idle_workers(&self, number: usize) {
        wait_until(&format!("{number} workers are idle"), || {
            let snapshot = self.status();
            let workers = snapshot["workers"].as_array().expect("it is a list");
            let idle = workers.len() == number && workers.iter().all(|worker| worker["state"] == "idle");
            // It says so just before the call.
            let children = || processes().into_iter().filter(|process| process.parent == self.pid);
            idle && children().all(|worker| worker.state != 'R')
        });
    }

    /// Waits for the end of the server.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the server ends", || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        status.expect("it has ended")
    }

    /// Waits for the end, and gives the exit status as the shell would. The log
    /// is complete then: all processes that could write to it are gone.
    #[track_caller]
    pub fn wait_code(&mut self) -> i32 {
        let status = self.wait();
        if let Some(reader) = self.log_reader.take() {
            reader.join().expect("the reader of the log doesn't panic");
        }
        status.code().or(status.signal().map(|signal| 128 + signal)).expect("one of both")
    }

    /// SIGTERM, and the exit status.
    #[track_caller]
    pub fn stop(&mut self) -> i32 {
        self.signal(Signal::SIGTERM);
        self.wait_code()
    }

    /// Does any process of the server's group live?
    pub fn has_processes_left(&self) -> bool {
        // Orphans that ended may wait for init to reap them: they are dead.
        processes().iter().any(|process| process.group == self.pid && process.state != 'Z')
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An error says that no process is left. The scoreboard stays: the next server
        // removes it, while a removal here could hit a server that got the port since.
        let _ = killpg(self.pid, Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// A child that is killed, should a test fail before it has ended.
pub struct KillOnDrop(pub Child);

impl KillOnDrop {
    /// SIGTERM; the exit status must be 0.
    #[track_caller]
    pub fn terminate(&mut self) {
        kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM).expect("it lives");
        assert_eq!(self.0.wait().expect("it is our child").code(), Some(0));
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads lines as they come, so that the writer never waits.
fn collect(stream: impl Read + Send + 'static) -> (Arc<Mutex<Vec<String>>>, JoinHandle<()>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let collected = Arc::clone(&lines);
    let reader = thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            collected.lock().expect("no panic holds the log").push(line);
        }
    });
    (lines, reader)
}

#[track_caller]
pub fn connect(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect_timeout(&address, PATIENCE).expect("a server listens");
    client.set_read_timeout(Some(PATIENCE)).expect("a time-out above zero");
    client.set_write_timeout(Some(PATIENCE)).expect("a time-out above zero");
    client
}

/// Sends a message on a connection and reads it back.
#[track_caller]
pub fn echo(client: &mut TcpStream, message: &[u8]) {
    client.write_all(message).expect("the server takes it");
    let mut answer = vec![0; message.len()];
    client.read_exact(&mut answer).expect("the server answers");
    assert!(answer == message, "the answer differs from what was sent");
}

/// Reads to the end of file, which must come without a reset.
#[track_caller]
pub fn read_to_end(client: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).expect("an end of file, not a reset");
    rest
}

/// Bytes without a pattern that a mix-up could keep.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(step).take(length).collect()
}

/// Numbers without a pattern, the same ones in each run of a seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// One of 0 to `limit` - 1. The steps are those of splitmix64.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// A line of ps.
pub struct Process {
    pub pid: Pid,
    pub parent: Pid,
    pub group: Pid,
    /// S asleep, R running, T stopped, Z dead and not yet reaped.
    pub state: char,
}

/// All processes, as ps of Linux and macOS shows them.
pub fn processes() -> Vec<Process> {
    let output =
        Command::new("ps").args(["-A", "-o", "pid=,ppid=,pgid=,stat="]).output().expect("ps is everywhere");
    let text = String::from_utf8(output.stdout).expect("ps speaks ASCII");
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        let mut number = || words.next()?.parse().ok().map(Pid::from_raw);
        Some(Process {
            pid: number()?,
            parent: number()?,
            group: number()?,
            state: words.next()?.chars().next()?,
        })
    };
    text.lines().filter_map(parse).collect()
}

/// The number after `before` in a line of the log.
#[track_caller]
pub fn number_following(line: &str, before: &str) -> i32 {
    let rest = line.split_once(before).unwrap_or_else(|| panic!("no {before:?} in {line:?}")).1;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("no number after {before:?} in {line:?}"))
}

/// Runs a server that is not to start, and returns its exit status and what it
/// wrote on stderr.
#[track_caller]
pub fn run(mut command: Command) -> (i32, String) {
    let output = command.stdin(Stdio::null()).output().expect("the binary starts");
    (output.status.code().unwrap_or(-1), String::from_utf8(output.stderr).expect("messages are UTF-8"))
}

/// Runs a command of the binary, with nothing on stdin; its exit status, stdout and
/// stderr.
#[track_caller]
pub fn command(arguments: &[&str]) -> (i32, String, String) {
    let mut command = binary();
    let output = command.args(arguments).stdin(Stdio::null()).output().expect("the binary starts");
    let text = |bytes| String::from_utf8(bytes).expect("it prints UTF-8");
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// Runs `status`.
#[track_caller]
pub fn status(arguments: &[&str]) -> (i32, String, String) {
    command(&[&["status"], arguments].concat())
}

/// Sets a flag when it goes: also when a test fails, so that threads that look at
/// the flag end, and the failure is seen.
pub struct SetOnDrop<'a>(pub &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The binary, to be run by a user that is not root, even if root runs the tests.
pub fn unprivileged_binary(directory: &Path) -> Command {
    use std::os::unix::fs::PermissionsExt;
    if !nix::unistd::geteuid().is_root() {
        return binary();
    }
    // Other users may not be allowed to read the project's directory.
    let copy: PathBuf = directory.join("prefork-echo");
    // By cp: while we had the copy open ourselves, another test's fork would
    // inherit that, and the copy could not be run (ETXTBSY).
    let source = env!("CARGO_BIN_EXE_prefork-echo");
    let copied = Command::new("cp").arg(source).arg(&copy).status().expect("cp is everywhere");
    assert!(copied.success(), "there is room for a copy");
    for path in [directory, &copy] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
    let mut command = Command::new(copy);
    command.uid(65534).gid(65534);
    command
}
