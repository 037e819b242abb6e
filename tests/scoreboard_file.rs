//! The scoreboard's file: whose it is, how it is found, and what becomes of it.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::ToSocketAddrs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use crate::common::{
    KillOnDrop, Server, binary, echo, heavy, noise, rounds, run, unprivileged_binary, wait_until,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::geteuid;
use serde_json::Value;

/// A server's scoreboard at `path`.
#[track_caller]
fn start_at(path: &Path) -> Server {
    Server::start(&["--workers", "2", "--scoreboard", path.to_str().unwrap()])
}

#[track_caller]
fn status_of(path: &Path) -> (i32, String, String) {
    crate::common::status(&["--scoreboard", path.to_str().unwrap()])
}

/// Status must say why it can show nothing.
#[track_caller]
fn no_status_of(path: &Path) -> String {
    let (code, stdout, stderr) = status_of(path);
    assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
    stderr
}

/// A directory of its own for the servers' files.
struct Runtime(tempfile::TempDir);

impl Runtime {
    fn new() -> Runtime {
        Runtime(tempfile::tempdir().unwrap())
    }

    fn command(&self) -> Command {
        let mut command = binary();
        // Both places where scoreboards may be.
        command.env("XDG_RUNTIME_DIR", self.0.path()).env("TMPDIR", self.0.path());
        command
    }

    #[track_caller]
    fn start(&self) -> Server {
        self.start_at("127.0.0.1:0", &[])
    }

    #[track_caller]
    fn start_at(&self, address: &str, options: &[&str]) -> Server {
        let mut command = self.command();
        command.args(["--bind", address, "--workers", "1"]).args(options);
        Server::spawn(command)
    }

    /// The pid of the server that `status` shows at an address; otherwise its message.
    #[track_caller]
    fn shown_at(&self, address: &str) -> Result<i64, String> {
        let output = self.command().args(["status", "--json", address]).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        match output.status.code() {
            Some(0) => Ok(serde_json::from_slice::<Value>(&output.stdout).unwrap()["pid"].as_i64().unwrap()),
            code => {
                assert_eq!((code, text(&output.stdout).as_str()), (Some(1), ""));
                Err(text(&output.stderr))
            }
        }
    }

    #[track_caller]
    fn status(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = self.command();
        command.arg("status").args(arguments);
        run(command)
    }

    fn file_of(&self, server: &Server) -> PathBuf {
        self.0.path().join(format!("prefork-echo/{}.scoreboard", server.address))
    }
}

#[test]
fn status_finds_a_single_server_and_lists_several() {
    let runtime = Runtime::new();
    let (code, message) = runtime.status(&[]);
    assert_eq!(code, 1);
    assert!(message.starts_with("prefork-echo: no server of this user is running; start one"), "{message}");

    let mut one = runtime.start();
    assert_eq!(runtime.status(&[]), (0, String::new()));

    let other = runtime.start();
    let (code, message) = runtime.status(&[]);
    assert_eq!(code, 1);
    assert!(message.starts_with("prefork-echo: 2 servers are running; type one of these:\n"), "{message}");
    for server in [&one, &other] {
        let line = format!("\n  prefork-echo status {}   (pid {})", server.address.port(), server.pid);
        assert!(message.contains(&line), "{message}");
        let (host, port) = (server.address.to_string(), server.address.port().to_string());
        assert_eq!(runtime.status(&[&host]), (0, String::new()));
        assert_eq!(runtime.status(&[&port]), (0, String::new()));
        assert_eq!(runtime.status(&[&format!("localhost:{port}")]).0, 0);
    }
    let mut top = runtime.command();
    top.args(["top", "--once"]);
    let message = run(top).1;
    assert!(message.contains(&format!("\n  prefork-echo top {}   (pid ", one.address.port())), "{message}");
    let (code, message) = runtime.status(&["127.0.0.1:1"]);
    assert_eq!(code, 1);
    assert!(message.contains("no server of this user listens at 127.0.0.1:1; "), "{message}");
    assert!(
        message.contains(&format!("; this user runs:\n  {}", one.address.min(other.address))),
        "{message}"
    );

    assert_eq!(one.stop(), 0);
    assert_eq!(runtime.status(&[]), (0, String::new()));
}

#[test]
fn a_server_on_all_addresses_is_found_by_any() {
    let runtime = Runtime::new();
    let mut command = runtime.command();
    command.args(["--bind", "0.0.0.0:0", "--workers", "1"]);
    let server = Server::spawn(command);
    assert_eq!(runtime.status(&[&server.address.port().to_string()]), (0, String::new()));
}

#[test]
fn status_shows_the_server_that_a_client_reaches() {
    // ServerSelector of two files is read first is not said: four times.
    for round in 0..4 {
        let runtime = Runtime::new();
        let v4 = runtime.start_at("0.0.0.0:0", &[]);
        let port = v4.address.port();
        let v6 = runtime.start_at(&format!("[::1]:{port}"), &[]);
        let pid = |server: &Server| Ok(i64::from(server.pid.as_raw()));
        for (address, server) in [("[::1]", &v6), ("127.0.0.1", &v4), ("0.0.0.0", &v4)] {
            assert_eq!(runtime.shown_at(&format!("{address}:{port}")), pid(server), "{round}: {address}");
        }
        // A name is the address that comes first.
        let first = ("localhost", port).to_socket_addrs().unwrap().next().unwrap();
        let server = if first.is_ipv6() { &v6 } else { &v4 };
        assert_eq!(runtime.shown_at(&format!("localhost:{port}")), pid(server));
        let picture = runtime.command().args(["top", "--once", &format!("[::1]:{port}")]).output().unwrap();
        let picture = String::from_utf8(picture.stdout).unwrap();
        assert!(picture.contains(&format!(" parent {} ", v6.pid)), "{picture}");
    }
}

#[test]
fn an_unspecified_address_belongs_to_its_family() {
    let runtime = Runtime::new();
    let v4 = runtime.start_at("0.0.0.0:0", &[]);
    let message = runtime.shown_at(&format!("[::1]:{}", v4.address.port())).unwrap_err();
    assert!(message.contains("no server of this user listens at [::1]:"), "{message}");
    // An IPv6 socket takes IPv4 as well, unless it was told otherwise.
    let v6 = runtime.start_at("[::]:0", &[]);
    let pid = i64::from(v6.pid.as_raw());
    for address in ["[::1]", "127.0.0.1", "0.0.0.0", "[::]", "localhost", "[::ffff:127.0.0.1]"] {
        assert_eq!(runtime.shown_at(&format!("{address}:{}", v6.address.port())), Ok(pid), "{address}");
    }
}

#[test]
fn another_program_at_the_address_is_not_shown() {
    let runtime = Runtime::new();
    let v4 = runtime.start_at("0.0.0.0:0", &[]);
    let address = format!("[::1]:{}", v4.address.port());
    let _other = runtime.start_at(&address, &["--no-scoreboard"]);
    let message = runtime.shown_at(&address).unwrap_err();
    assert!(message.contains(&address) && message.contains(&v4.address.to_string()), "{message}");
    let output = runtime.command().args(["bench", "--json", "-n", "8", &address]).output().unwrap();
    let done: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&done["messages"], &done["by_worker"]), (&8.into(), &Value::Null));
}

/// What a server of a container is to us, where its files are seen outside: the address
/// is the same, the socket another.
#[test]
#[cfg(target_os = "linux")]
fn another_socket_at_the_same_address_is_another_server() {
    let runtime = Runtime::new();
    let server = runtime.start();
    let address = server.address.to_string();
    let path = runtime.file_of(&server);
    let text = fs::read(&path).unwrap();
    let text = String::from_utf8_lossy(&text[..512]).into_owned();
    let at = text.find("\"inode\":").unwrap() + "\"inode\":".len();
    let other = if text.as_bytes()[at] == b'9' { b"8" } else { b"9" };
    File::options().write(true).open(&path).unwrap().write_all_at(other, at as u64).unwrap();
    let message = runtime.shown_at(&address).unwrap_err();
    assert!(
        message.contains(&format!("no server of this user listens at {address}, but something else does; ")),
        "{message}"
    );
    let scoreboard = path.to_str().unwrap();
    for which in [vec![], vec!["--scoreboard", scoreboard]] {
        let mut command = runtime.command();
        let output = command.args(["bench", "--json", "-n", "8", &address]).args(which).output().unwrap();
        let done: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&done["messages"], &done["by_worker"]), (&8.into(), &Value::Null));
    }
    // It is shown to those that ask for no address.
    assert_eq!(runtime.status(&[]), (0, String::new()));
}

/// Characters that turn what follows them, that can't be seen, or that hide others.
const TRICKS: &str =
    "\u{202e}\u{2066}\u{200b}\u{ad}\u{5d0}\u{627}\u{fe0f}\u{e0041}\u{301}\u{2028}\u{feff}\u{3164}\u{9b}\x1b";

/// As a version.
const TRICKS_IN_JSON: &str = "9.9\u{202e}\u{200b}\u{ad}\u{5d0}\u{fe0f}\u{e0041}\u{301}\\u001b";

#[test]
fn text_that_hides_or_reorders_reaches_no_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("board");
    let mut server = start_at(&path);
    kill(server.workers()[0], Signal::SIGKILL).unwrap();
    server.wait_for_log(&[" replaces pid "]);
    let mut board = fs::read(&path).unwrap();
    // The event and the slot's last exit; each has room for more.
    let text = b"killed by SIGKILL";
    let places: Vec<_> = (0..board.len()).filter(|at| board[*at..].starts_with(text)).collect();
    assert!(places.len() >= 2, "{places:?}");
    for at in places {
        board[at + text.len()..][..TRICKS.len()].copy_from_slice(TRICKS.as_bytes());
    }
    OpenOptions::new().write(true).open(&path).unwrap().write_all_at(&board[512..], 512).unwrap();
    let path = path.to_str().unwrap();
    for arguments in [vec!["status"], vec!["status", "--json"], vec!["top", "--once"]] {
        let (code, stdout, _) =
            crate::common::command(&[arguments.as_slice(), &["--scoreboard", path]].concat());
        assert_eq!(code, 0);
        assert!(stdout.contains("killed by SIGKILL"), "{stdout:?}");
        let shown: Vec<_> = TRICKS.chars().filter(|char| stdout.contains(*char)).collect();
        assert!(shown.is_empty(), "{arguments:?}: {shown:?}");
    }
    server.signal(Signal::SIGUSR1);
    server.wait_for_log(&["last exit: killed by SIGKILL"]);
    assert_eq!(server.stop(), 0);
    let log = server.log().concat();
    assert!(!log.contains(|char| TRICKS.contains(char)), "{log:?}");
}

#[test]
fn the_file_is_private_and_removed_at_the_end() {
    for ending in [Signal::SIGTERM, Signal::SIGQUIT] {
        let runtime = Runtime::new();
        let mut server = runtime.start();
        let path = runtime.file_of(&server);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        server.signal(ending);
        assert_eq!(server.wait_code(), 0);
        assert!(!path.exists());
    }
}

#[test]
fn another_users_scoreboards_are_not_trusted() {
    let runtime = Runtime::new();
    let server = runtime.start();
    let directory = runtime.0.path().join("prefork-echo");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
    let (code, message) = runtime.status(&[&server.address.to_string()]);
    assert_eq!(code, 1);
    assert!(message.contains("no server of this user listens at"), "{message}");
}

#[test]
fn a_damaged_file_of_a_living_server_is_reported() {
    let runtime = Runtime::new();
    let server = runtime.start();
    File::options().write(true).open(runtime.file_of(&server)).unwrap().set_len(600).unwrap();
    for arguments in [vec![], vec![server.address.to_string()]] {
        let (code, message) = runtime.status(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(code, 1);
        assert!(message.contains("is cut short or damaged: 600 bytes instead of"), "{message}");
    }
}

#[test]
fn a_dead_servers_file_is_reported_and_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("board");
    let mut dead = start_at(&path);
    dead.echo(b"hello");
    dead.signal(Signal::SIGKILL);
    dead.wait();
    let message = no_status_of(&path);
    let expected = format!("the server at {} (pid {}) is dead, and could not remove", dead.address, dead.pid);
    assert!(message.contains(&expected), "{message}");

    let mut server = start_at(&path);
    let (code, table, _) = status_of(&path);
    assert_eq!(code, 0);
    assert!(table.contains("served: 0 connections"), "{table}");
    assert_eq!(server.stop(), 0);
    assert!(!path.exists());
}

#[test]
fn orphaned_workers_do_not_write_the_next_servers_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("board");
    let mut dead = start_at(&path);
    let mut client = dead.connect();
    echo(&mut client, b"hello");
    // The client talks for as long as its worker, an orphan, serves it.
    let talks = thread::spawn(move || {
        while client.write_all(b"still here").is_ok()
            && client.read(&mut [0; 10]).is_ok_and(|length| length > 0)
        {}
    });
    dead.signal(Signal::SIGKILL);
    dead.wait();
    let mut server = start_at(&path);
    talks.join().unwrap();
    wait_until("the orphans are gone", || !dead.has_processes_left());
    let (_, table, _) = status_of(&path);
    assert!(table.contains("served: 0 connections, 0 bytes; 0 restarts"), "{table}");
    assert!(!table.contains("draining"), "{table}");
    server.signal(Signal::SIGQUIT);
    assert_eq!(server.wait_code(), 0);
}

#[test]
fn the_next_start_removes_a_dead_servers_file() {
    let runtime = Runtime::new();
    let living = runtime.start();
    let mut dead = runtime.start();
    dead.signal(Signal::SIGKILL);
    dead.wait();
    let left = fs::read(runtime.file_of(&dead)).unwrap();
    let beside = |name: &str| runtime.file_of(&dead).with_file_name(name);
    // Of another version; killed while it made the file.
    let other = String::from_utf8_lossy(&left[..512]).replace("\"layout\":4", "\"layout\":3");
    fs::write(beside("other.scoreboard"), other).unwrap();
    fs::write(beside("begun.scoreboard"), "{\"what\":\"prefork-echo scoreboard\"\0\0\0").unwrap();
    // What is no scoreboard, isn't called one, or is about to become one.
    let strange = [("thesis.scoreboard", "prefork-echo scoreboard"), ("empty.scoreboard", ""), ("notes", "")];
    for (name, content) in strange {
        fs::write(beside(name), content).unwrap();
    }
    fs::write(beside("copy"), &left).unwrap();
    std::os::unix::fs::symlink(beside("copy"), beside("link.scoreboard")).unwrap();

    // A start does not look for longer than it takes on a machine that isn't busy.
    let mut next = runtime.start();
    let stale = [runtime.file_of(&dead), beside("other.scoreboard"), beside("begun.scoreboard")];
    wait_until("this start, or another, removes all that is stale", || {
        let is_done = stale.iter().all(|file| !file.exists());
        if !is_done {
            assert_eq!(next.stop(), 0, "it leaves no file of its own");
            next = runtime.start();
        }
        is_done
    });
    for (name, content) in strange {
        assert_eq!(fs::read_to_string(beside(name)).unwrap(), content);
    }
    assert!(beside("link.scoreboard").exists());
    for server in [&living, &next] {
        assert_eq!(runtime.status(&[&server.address.to_string()]), (0, String::new()));
    }
    assert_eq!(fs::read_dir(beside("")).unwrap().count(), 7, "something stays behind");
}

#[test]
fn a_start_during_another_cleanup_gets_its_file() {
    let runtime = Runtime::new();
    let mut dead = runtime.start();
    dead.signal(Signal::SIGKILL);
    dead.wait();
    let left = fs::read(runtime.file_of(&dead)).unwrap();
    let path = runtime.file_of(&dead).with_file_name("shared.scoreboard");
    for _ in 0..rounds(5, 20) {
        // All of them find it; one of them wants its place.
        fs::write(&path, &left).unwrap();
        let others: Vec<_> = (0..3)
            .map(|_| {
                let mut command = runtime.command();
                command.args(["-q", "--bind", "127.0.0.1:0", "--workers", "1"]).stdout(Stdio::null());
                KillOnDrop(command.stderr(Stdio::null()).spawn().unwrap())
            })
            .collect();
        let mut command = runtime.command();
        command.args(["-q", "--bind", "127.0.0.1:0", "--workers", "1", "--scoreboard"]).arg(&path);
        let mut server = Server::spawn(command);
        let (code, message) = runtime.status(&["--scoreboard", path.to_str().unwrap()]);
        assert_eq!((code, message.as_str()), (0, ""), "{:?}", server.log());
        drop(others);
        assert_eq!(server.stop(), 0);
        assert!(!path.exists());
    }
}

#[test]
fn a_half_made_file_is_recognised() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("board");
    for _ in 0..rounds(5, 20) {
        let mut command = binary();
        command.args(["-q", "--bind", "127.0.0.1:0", "--scoreboard"]).arg(&path).stdout(Stdio::null());
        let server = KillOnDrop(command.spawn().unwrap());
        wait_until("the file grows", || fs::metadata(&path).is_ok_and(|data| data.len() > 0));
        drop(server);
        let left = fs::read(&path).unwrap();
        assert!(left.starts_with(b"{\"what\":\"prefork-echo scoreboard\""), "{:?}", &left[..40]);
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn many_stale_files_do_not_delay_the_start() {
    let _alone = heavy();
    let runtime = Runtime::new();
    let directory = runtime.0.path().join("prefork-echo");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
    let count = || fs::read_dir(&directory).unwrap().count();
    for number in 0..5_000 {
        let path = directory.join(format!("{number}.scoreboard"));
        fs::write(path, "{\"what\":\"prefork-echo scoreboard\"}\n").unwrap();
    }
    let start = Instant::now();
    let _first = runtime.start();
    let took = start.elapsed();
    let after = count();
    println!("with 5,000 files left, the start took {took:?} and removed {}", 5_001 - after);
    assert!(after > 1_000, "it removed all at once");
    assert!(after <= 5_000, "it removed none");
}

#[test]
fn without_disk_space_the_server_says_so_and_serves() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("board");
    // A limit on the size of files stands for a full disk.
    let mut command = Command::new("sh");
    let program = env!("CARGO_BIN_EXE_prefork-echo");
    command
        .args(["-c", "ulimit -f 100; exec \"$0\" --bind 127.0.0.1:0 --scoreboard \"$1\"", program])
        .arg(&path);
    goes_on_without_a_file(Server::spawn(command), "file too large");
    assert!(!path.exists());
}

#[test]
fn a_dead_servers_address_is_reported_dead() {
    let runtime = Runtime::new();
    let mut dead = runtime.start();
    dead.signal(Signal::SIGKILL);
    dead.wait();
    let (code, message) = runtime.status(&[&dead.address.to_string()]);
    assert_eq!(code, 1);
    assert!(message.contains(&format!("(pid {}) is dead", dead.pid)), "{message}");
    let (code, message) = runtime.status(&[]);
    assert_eq!(code, 1);
    assert!(message.contains("no server of this user is running"), "{message}");
}

#[test]
fn two_servers_never_write_one_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("board");
    let mut first = start_at(&path);
    first.echo(b"hello");
    let mut second = start_at(&path);
    second.wait_for_log(&[
        "no file for the scoreboard",
        &format!("held by a running server (pid {})", first.pid),
    ]);
    second.echo(b"hello");
    second.echo(b"hello");
    let (code, table, _) = status_of(&path);
    assert_eq!(code, 0);
    assert!(table.contains(&format!("(pid {}): running", first.pid)), "{table}");
    assert!(table.contains("served: 1 connection, 5 bytes"), "{table}");
    assert_eq!(second.stop(), 0);
    assert!(path.exists());
    assert_eq!(first.stop(), 0);
}

/// Serves, and logs one warning, which contains `why`.
#[track_caller]
fn goes_on_without_a_file(mut server: Server, why: &str) {
    server.echo(b"hello");
    server.signal(Signal::SIGUSR1);
    server.wait_for_log(&["served: 1 connection, 5 bytes"]);
    assert_eq!(server.stop(), 0);
    let warnings: Vec<_> =
        server.log().into_iter().filter(|line| line.contains("no file for the scoreboard")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains(why), "{warnings:?}");
}

#[test]
fn without_a_writable_directory_the_server_says_so_and_serves() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = unprivileged_binary(directory.path());
    command.env("XDG_RUNTIME_DIR", "/").env("TMPDIR", "/no/such/directory").args(["--bind", "127.0.0.1:0"]);
    goes_on_without_a_file(Server::spawn(command), "cannot make /no/such/directory/prefork-echo-");
    goes_on_without_a_file(start_at(Path::new("/no/such/directory/board")), "no such file or directory");
    goes_on_without_a_file(start_at(directory.path()), "is a directory");
}

#[test]
fn no_other_file_is_written_to() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    // What it says about scoreboards doesn't make it one.
    fs::write(path("thesis"), "On the prefork-echo scoreboard").unwrap();
    std::os::unix::fs::symlink(path("thesis"), path("link")).unwrap();
    std::os::unix::fs::symlink(path("nothing"), path("dangling")).unwrap();
    fs::write(path("empty"), "").unwrap();
    fs::hard_link(path("empty"), path("second name")).unwrap();
    nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (name, why) in [
        ("thesis", "exists and is no scoreboard of this user"),
        ("link", "symbolic link"),
        ("dangling", "symbolic link"),
        ("second name", "has a second name (a hard link); remove it"),
        ("fifo", "exists and is no scoreboard of this user"),
    ] {
        goes_on_without_a_file(start_at(&path(name)), why);
    }
    assert_eq!(fs::read_to_string(path("thesis")).unwrap(), "On the prefork-echo scoreboard");
    assert!(!path("nothing").exists());
    assert_eq!(fs::metadata(path("empty")).unwrap().len(), 0);
}

#[test]
fn an_empty_file_is_used_and_made_private() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o666)).unwrap();
    let server = start_at(file.path());
    assert_eq!(status_of(file.path()).0, 0);
    assert_eq!(file.as_file().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    drop(server);
}

#[test]
fn no_scoreboard_makes_no_file_and_no_warning() {
    let runtime = Runtime::new();
    let mut command = runtime.command();
    command.args(["--bind", "127.0.0.1:0", "--no-scoreboard"]);
    let mut server = Server::spawn(command);
    server.echo(b"hello");
    assert_eq!(runtime.status(&[]).0, 1);
    assert!(!runtime.0.path().join("prefork-echo").exists());
    assert_eq!(server.stop(), 0);
    assert!(!server.log().iter().any(|line| line.contains("scoreboard")), "{:?}", server.log());
}

#[test]
fn a_malformed_scoreboard_is_an_error_not_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let server = start_at(&path("board"));
    let whole = fs::read(path("board")).unwrap();
    drop(server);

    let with = |name: &str, content: &[u8], why: &str| {
        fs::write(path(name), content).unwrap();
        let message = no_status_of(&path(name));
        assert!(message.contains(why), "{name}: {message}");
    };
    with("empty", b"", "is no scoreboard of prefork-echo");
    with("text", b"{\"what\": \"something else\"}\n", "is no scoreboard of prefork-echo");
    with("noise", &noise(100_000), "is no scoreboard of prefork-echo");
    with("a byte", &whole[..1], "is no scoreboard of prefork-echo");
    with("the beginning", &whole[..600], "is cut short or damaged: 600 bytes");
    with("nearly all", &whole[..whole.len() - 1], "is cut short or damaged");
    with("more", &[whole.as_slice(), b"!"].concat(), "is cut short or damaged");
    let text = String::from_utf8_lossy(&whole[..512]).into_owned();
    let other = text.replace("\"layout\":", "\"layout\":1").replace(env!("CARGO_PKG_VERSION"), "9.9.9");
    with("other", &[other.as_bytes(), &whole[512..]].concat(), "was made by another version, 9.9.9");
    let turned =
        text.replace("\"layout\":", "\"layout\":1").replace(env!("CARGO_PKG_VERSION"), TRICKS_IN_JSON);
    let turned = [turned.as_bytes(), &whole[512..]].concat();
    fs::write(path("turned"), turned).unwrap();
    let message = no_status_of(&path("turned"));
    assert!(
        message.contains("was made by another version, 9.9") && message.trim_end().is_ascii(),
        "{message:?}"
    );
    let coloured = text.replace(env!("CARGO_PKG_VERSION"), "\\u001b[31m");
    with("coloured", &[coloured.as_bytes(), &whole[512..]].concat(), "is damaged at its beginning");
    let damaged = text.replace("\"pid\":", "\"pig\":");
    with("damaged", &[damaged.as_bytes(), &whole[512..]].concat(), "is damaged at its beginning");
    with("whole", &whole, "is dead");

    nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (path, why) in [
        (path("fifo"), "not even a file"),
        (directory.path().to_owned(), "not even a file"),
        (path("nothing"), "no such file or directory"),
        (PathBuf::from("/dev/zero"), "not even a file"),
    ] {
        let message = no_status_of(&path);
        assert!(message.contains(why), "{}: {message}", path.display());
    }
}

#[test]
fn truncating_the_file_of_a_running_server_is_harmless() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("board");
    for length in [0, 100, 5_000, 600_000] {
        let mut server = start_at(&path);
        server.echo(b"hello");
        File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
        let why = if length < 512 { "is no scoreboard" } else { "is cut short or damaged" };
        assert!(no_status_of(&path).contains(why));
        for _ in 0..5 {
            server.echo(b"hello again");
        }
        let before = server.workers();
        kill(before[0], Signal::SIGKILL).unwrap();
        wait_until("it is replaced", || {
            let now = server.workers();
            now.len() == 2 && !now.contains(&before[0])
        });
        server.echo(b"and again");
        server.signal(Signal::SIGUSR1);
        server.wait_for_log(&["connections by slot"]);
        assert_eq!(server.stop(), 0);
        assert!(!server.log().iter().any(|line| line.contains("SIGBUS")), "{:#?}", server.log());
    }
}

#[test]
fn noise_in_the_file_of_a_running_server_is_harmless() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("board");
    let random: fn(usize) -> Vec<u8> = noise;
    let extreme: fn(usize) -> Vec<u8> = |length| vec![0xFF; length];
    for (from, bytes) in [(0, random), (512, random), (512, extreme)] {
        let mut server = start_at(&path);
        server.echo(b"hello");
        let size = fs::metadata(&path).unwrap().len();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&bytes((size - from) as usize), from).unwrap();
        // The result is not defined, but it ends.
        let (code, _, _) = status_of(&path);
        assert_eq!(code, if from == 0 { 1 } else { 0 });
        server.echo(b"hello again");
        server.signal(Signal::SIGUSR1);
        server.wait_for_log(&["private counter: in each process at "]);
        // Not by the log: a table of so many workers leaves no room in it.
        let worker = server.workers()[0];
        kill(worker, Signal::SIGKILL).unwrap();
        wait_until("it is replaced", || {
            let now = server.workers();
            now.len() == 2 && !now.contains(&worker)
        });
        assert_eq!(server.stop(), 0);
    }
}

#[test]
fn only_status_misses_a_removed_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("board");
    let mut server = start_at(&path);
    fs::remove_file(&path).unwrap();
    assert!(no_status_of(&path).contains("no such file"));
    server.echo(b"hello");
    assert_eq!(server.stop(), 0);
}

#[test]
fn workers_of_another_user_count_without_file_access() {
    if !geteuid().is_root() {
        return; // Only root can change the workers' user.
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("board");
    let server = Server::start(&["--user", "nobody", "--scoreboard", path.to_str().unwrap()]);
    server.echo(b"hello");
    let (_, table, _) = status_of(&path);
    assert!(table.contains("served: 1 connection, 5 bytes"), "{table}");

    // Every user may pass through the directory, and only root may read the file.
    let copies = tempfile::tempdir().unwrap();
    let mut other = unprivileged_binary(copies.path());
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    other.args(["status", "--scoreboard", path.to_str().unwrap()]);
    let (code, message) = run(other);
    assert_eq!(code, 1);
    assert!(message.contains("permission denied"), "{message}");
}
