//! `--pid-file`: which files it takes, which it leaves as they are, and which server gets it.

use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{KillOnDrop, Server, binary, unprivileged_binary, wait_until};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::signal::Signal;
use nix::unistd::geteuid;

/// The user of `unprivileged_binary`.
const NOBODY: u32 = 65534;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn with_pid_file(mut command: Command, path: &Path) -> Command {
    command.args(["--bind", "127.0.0.1:0", "--workers", "1", "--pid-file", text(path)]);
    command
}

/// The server must end by itself, with status 1 and one line.
#[track_caller]
fn could_not_run(mut command: Command) -> String {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut server = KillOnDrop(command.spawn().unwrap());
    let mut status = None;
    wait_until("the server gives up", || {
        status = server.0.try_wait().unwrap();
        status.is_some()
    });
    let mut message = String::new();
    server.0.stderr.take().unwrap().read_to_string(&mut message).unwrap();
    assert_eq!((status.unwrap().code(), message.lines().count()), (Some(1), 1), "{message}");
    message
}

/// The server must not start, and say `why`; the file stays as it was.
#[track_caller]
fn is_refused(path: &Path, why: &str) {
    let before = (fs::read(path).unwrap(), fs::metadata(path).unwrap().ino());
    let message = could_not_run(with_pid_file(binary(), path));
    assert!(message.contains(why) && message.contains("--pid-file"), "{message}");
    assert!((fs::read(path).unwrap(), fs::metadata(path).unwrap().ino()) == before, "the file was touched");
}

/// Locks the whole file for reading, until it is closed.
fn lock(file: &File) {
    let lock = libc::flock {
        l_type: libc::F_RDLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_SETLK(&lock)).unwrap();
}

#[test]
fn a_file_with_other_content_is_left_unchanged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    let sums: String = (1..=100).map(|number| format!("{number}\n")).collect();
    let late = format!("{}and then words\n", "7".repeat(64));
    for content in [
        sums.as_str(),
        &late,
        &"1".repeat(5_000),
        "1 2\n",
        " 1\n",
        "1\n\n",
        "\n",
        " ",
        "1\r\n",
        "-1\n",
        "99999999999\n",
    ] {
        fs::write(&path, content).unwrap();
        is_refused(&path, "exists and is not a pid file; choose another with --pid-file");
    }
}

#[test]
fn a_stale_pid_or_an_empty_file_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pid");
    for content in ["1\n", "1", "4194304\n", "2147483647\n", ""] {
        fs::write(&path, content).unwrap();
        let mut server = Server::start(&["--pid-file", text(&path)]);
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", server.pid));
        assert_eq!(server.stop(), 0);
    }
}

#[test]
fn a_read_lock_on_a_stale_file_is_no_obstacle() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pid");
    let mut dead = Server::start(&["--pid-file", text(&path)]);
    dead.signal(Signal::SIGKILL);
    dead.wait();
    let left = File::open(&path).unwrap();
    lock(&left);

    let mut server = Server::start(&["--pid-file", text(&path)]);
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", server.pid));
    assert_ne!(fs::metadata(&path).unwrap().ino(), left.metadata().unwrap().ino());
    is_refused(&path, &format!("held by a running server (pid {}); stop that one", server.pid));
    assert_eq!(server.stop(), 0);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "something stays behind");
}

#[test]
fn a_read_lock_lets_no_other_file_be_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("diary");
    fs::write(&path, "my diary\n").unwrap();
    let file = File::open(&path).unwrap();
    lock(&file);
    is_refused(&path, "exists and is not a pid file");
}

#[test]
fn a_locked_file_that_cannot_be_replaced_is_reported() {
    let (directory, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = directory.path().join("pid");
    fs::write(&path, "1\n").unwrap();
    if geteuid().is_root() {
        chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    // The file may be written to, the directory may not.
    fs::set_permissions(directory.path(), Permissions::from_mode(0o555)).unwrap();
    let file = File::open(&path).unwrap();
    lock(&file);
    let message = could_not_run(with_pid_file(unprivileged_binary(copies.path()), &path));
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let pid = std::process::id();
    assert!(message.contains(&format!("pid {pid} holds a read lock on it; end that process")), "{message}");
    assert!(!message.contains("running server"), "{message}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
}

#[test]
fn one_of_several_starting_servers_gets_a_stale_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pid");
    for round in 0..crate::common::rounds(6, 20) {
        fs::write(&path, "1\n").unwrap();
        let left = File::open(&path).unwrap();
        // In every other round all of them find it locked.
        if round % 2 == 0 {
            lock(&left);
        }
        let start = |_| {
            let mut command = with_pid_file(binary(), &path);
            command.args(["-q", "--no-scoreboard"]).stdout(Stdio::null()).stderr(Stdio::null());
            KillOnDrop(command.spawn().unwrap())
        };
        let mut servers: Vec<_> = (0..5).map(start).collect();
        wait_until("all but one have ended", || {
            servers.retain_mut(|server| match server.0.try_wait().unwrap() {
                Some(status) => {
                    assert_eq!(status.code(), Some(1));
                    false
                }
                None => true,
            });
            servers.len() <= 1
        });
        let winner = servers.first_mut().expect("one goes on");
        let pid = format!("{}\n", winner.0.id());
        wait_until("its pid is in the file", || fs::read_to_string(&path).is_ok_and(|text| text == pid));
        winner.terminate();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "something stays behind");
    }
}

#[test]
fn another_users_file_is_not_adopted() {
    if !geteuid().is_root() {
        return; // Only root may write to another user's file.
    }
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o1777)).unwrap();
    let path = directory.path().join("pid");
    for content in ["", "1\n"] {
        // Linux may forbid to open such a file with O_CREAT (fs.protected_regular).
        let _ = fs::remove_file(&path);
        fs::write(&path, content).unwrap();
        chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        is_refused(&path, &format!("is owned by another user (uid {NOBODY}); remove it, or choose another"));
    }
}

#[test]
fn a_file_with_a_second_name_is_not_adopted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pid");
    fs::write(&path, "1\n").unwrap();
    fs::hard_link(&path, directory.path().join("account number")).unwrap();
    is_refused(&path, "has a second name (a hard link); remove it, or choose another");
}

#[test]
fn without_the_pid_file_the_scoreboard_stays_untouched() {
    let directory = tempfile::tempdir().unwrap();
    let (path, board) = (directory.path().join("pid"), directory.path().join("board"));
    let mut dead = Server::start(&["--scoreboard", text(&board)]);
    dead.signal(Signal::SIGKILL);
    dead.wait();
    let left = fs::metadata(&board).unwrap().ino();

    let _server = Server::start(&["--pid-file", text(&path)]);
    let mut command = with_pid_file(binary(), &path);
    command.args(["--scoreboard", text(&board)]);
    let message = could_not_run(command);
    assert!(message.contains("is held by a running server"), "{message}");
    assert_eq!(fs::metadata(&board).map(|data| data.ino()).ok(), Some(left), "it took the scoreboard first");
}
