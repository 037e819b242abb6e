//! What cannot work ends with one clear line, the remedy, and the right status.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{KillOnDrop, Server, binary, run, unprivileged_binary};
use prefork_echo::listener::Listener;

/// Runs the server with `arguments`; it must end with status 1 and one line.
#[track_caller]
fn could_not_run(arguments: &[&str]) -> String {
    let mut command = binary();
    command.args(arguments);
    one_line(run(command))
}

#[track_caller]
fn one_line((status, message): (i32, String)) -> String {
    assert_eq!(status, 1, "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(message.starts_with("prefork-echo: "), "{message}");
    message
}

/// Runs the server with `arguments`; clap must refuse them with status 2.
#[track_caller]
fn wrong_usage_is_explained(arguments: &[&str]) -> String {
    let mut command = binary();
    command.args(arguments);
    let (status, message) = run(command);
    assert_eq!(status, 2, "{arguments:?}: {message}");
    assert!(message.contains("--help"), "{message}");
    message
}

#[test]
fn a_taken_port_is_refused() {
    let server = Server::start(&[]);
    let address = server.address.to_string();
    let message = could_not_run(&["--bind", &address]);
    assert!(message.contains(&format!("cannot bind {address}: address already in use; ")), "{message}");
    // Which program may hold it, how to look, what to do.
    let port = server.address.port();
    for lesson in
        ["an earlier prefork-echo", &format!("`lsof -i :{port}`"), "choose another port with --bind"]
    {
        assert!(message.contains(lesson), "no {lesson} in {message}");
    }
    let look = format!("prefork-echo status {address}");
    assert!(message.contains(&format!("`{look}`")), "{message}");
    let mut command = binary();
    command.args(look.split(' ').skip(1));
    let shown = command.output().unwrap();
    assert!(String::from_utf8_lossy(&shown.stdout).contains(&format!("(pid {})", server.pid)), "{shown:?}");
    server.echo(b"the first server keeps it");
}

#[test]
fn a_name_with_a_taken_address_is_refused() {
    let localhost =
        |port| [SocketAddr::from((Ipv6Addr::LOCALHOST, port)), SocketAddr::from((Ipv4Addr::LOCALHOST, port))];
    let open = |addresses: &[SocketAddr]| Listener::open(addresses, 1, None);
    // The one that would be used, and the one after it.
    for taken in [0, 1] {
        let mut command = binary();
        command.args(["--bind", &localhost(0)[taken].to_string()]);
        let server = Server::spawn(command);
        let (taken, port) = (server.address, server.address.port());
        let message = open(&localhost(port)).unwrap_err().to_string();
        assert!(message.starts_with(&format!("cannot bind {taken}: address already in use; ")), "{message}");
        // Servers may share a name where the kernel chooses the port.
        assert_eq!(open(&localhost(0)).unwrap().address().ip(), Ipv6Addr::LOCALHOST);

        let Some(mut second) = binary_with_localhost() else { continue };
        second.args(["--bind", &format!("localhost:{port}")]);
        let message = one_line(run(second));
        assert!(message.contains(&format!("cannot bind {taken}: address already in use; ")), "{message}");
        server.echo(b"the first server keeps it");
    }
}

#[test]
fn a_name_is_served_on_the_first_free_address() {
    // The first isn't this machine's (RFC 5737).
    let addresses = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::LOCALHOST].map(|host| (host, 0).into());
    let listener = Listener::open(&addresses, 1, None).unwrap();
    assert_eq!(listener.address().ip(), Ipv4Addr::LOCALHOST);
    let message = Listener::open(&addresses[..1], 1, None).unwrap_err().to_string();
    assert!(message.contains("give --bind an address of this machine"), "{message}");
}

/// The binary where localhost is ::1 and 127.0.0.1: on this machine, or else with a
/// file of hosts that it alone sees, which takes rights that few users have.
fn binary_with_localhost() -> Option<Command> {
    let addresses: Vec<_> = ("localhost", 0).to_socket_addrs().unwrap().collect();
    if addresses.iter().any(SocketAddr::is_ipv4) && addresses.iter().any(SocketAddr::is_ipv6) {
        return Some(binary());
    }
    let hosts = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hosts");
    fs::write(&hosts, "::1 localhost\n127.0.0.1 localhost\n").unwrap();
    let script = "mount --bind \"$1\" /etc/hosts && shift && exec \"$@\"";
    let within = |program: &str| {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script, "sh"]).arg(&hosts).arg(program);
        command
    };
    let may = within("true").stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    may.then(|| within(env!("CARGO_BIN_EXE_prefork-echo")))
}

#[test]
fn an_unknown_host_is_refused() {
    let message = could_not_run(&["--bind", "no-such-host.invalid:7777"]);
    assert!(message.contains("cannot find the host no-such-host.invalid: "), "{message}");
    assert!(message.contains("--bind"), "{message}");
}

#[test]
fn an_address_of_another_machine_is_refused() {
    // Set aside for documentation (RFC 5737): no host has it.
    let message = could_not_run(&["--bind", "192.0.2.1:7777"]);
    assert!(
        message.contains("cannot bind 192.0.2.1:7777: can't assign requested address; ")
            || message.contains("cannot bind 192.0.2.1:7777: cannot assign requested address; "),
        "{message}"
    );
    assert!(message.contains("give --bind an address of this machine"), "{message}");
}

#[test]
fn too_few_descriptors_are_reported_with_the_limit() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (log, pid, board) = (path("log"), path("pid"), path("board"));
    let files = ["--pid-file", &pid, "--log-file", &log, "--scoreboard", &board];
    let (mut started, mut failed) = (0, 0);
    for number in 3..=20 {
        for files in [&files[..0], &files[..2], &files[2..4], &files] {
            let mut shell = Command::new("sh");
            shell.env("XDG_RUNTIME_DIR", directory.path()).env("TMPDIR", directory.path());
            shell.args(["-c", &format!("exec <&-; ulimit -n {number}; exec \"$@\""), "sh"]);
            shell.arg(env!("CARGO_BIN_EXE_prefork-echo")).args(["-q", "--bind", "0", "--workers", "1"]);
            shell.args(files).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut server = KillOnDrop(shell.spawn().unwrap());
            let mut line = String::new();
            BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
            if line.is_empty() {
                assert_eq!(server.0.wait().unwrap().code(), Some(1), "ulimit -n {number}, {files:?}");
                failed += 1;
            } else {
                server.terminate();
                started += 1;
            }
            let mut said = String::new();
            server.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            said += &fs::read_to_string(&log).unwrap_or_default();
            let _ = fs::remove_file(&log);
            let reason = |line: &str| line.contains("too many open files") && line.contains("ulimit -n");
            for line in said.lines() {
                assert!(reason(line) && !line.contains("another"), "ulimit -n {number}, {files:?}: {line}");
            }
            assert!(!line.is_empty() || !said.is_empty(), "ulimit -n {number}, {files:?}: no reason");
        }
    }
    assert!(started > 0 && failed > 0, "{started} have started, {failed} have not");
}

#[test]
fn a_privileged_port_without_the_right_is_refused() {
    let first_free = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let first_free = first_free.map_or(1024, |text| text.trim().parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let mut command = unprivileged_binary(directory.path());
    if first_free > 7 {
        command.args(["--bind", "127.0.0.1:7"]);
        let message = one_line(run(command));
        assert!(message.contains("cannot bind 127.0.0.1:7: permission denied; "), "{message}");
        assert!(message.contains("the parent binds port 7 before the workers"), "{message}");
        assert!(message.contains("--user") && message.contains("--bind"), "{message}");
    } else {
        // Here every user may bind any port, and it must simply work.
        command.args(["--bind", "127.0.0.1:0"]);
        Server::spawn(command).echo(b"hello");
    }
}

#[test]
fn numbers_out_of_range_are_refused() {
    for workers in ["0", "4097", "5000", "-1", "many", ""] {
        let message = wrong_usage_is_explained(&["--workers", workers]);
        assert!(message.contains("--workers"), "{message}");
    }
    assert!(wrong_usage_is_explained(&["--workers", "5000"]).contains("write a number from 1 to 4096"));
    wrong_usage_is_explained(&["--backlog", "0"]);
    wrong_usage_is_explained(&["--max-connections", "-5"]);
    wrong_usage_is_explained(&["--log-format", "xml"]);
    wrong_usage_is_explained(&["--color", "purple"]);
    wrong_usage_is_explained(&["--no-such-option"]);
}

#[test]
fn a_port_in_the_wrong_place_gets_a_hint() {
    for (arguments, hint) in [
        (&["8080"][..], "tip: the option for the address is --bind: prefork-echo --bind 8080\n"),
        (&["0.0.0.0:8080"], "prefork-echo --bind 0.0.0.0:8080\n"),
        (&["--workers", "2", "8080"], "prefork-echo --bind 8080\n"),
        (&["--port", "8080"], "prefork-echo --bind 8080\n"),
        (&["--port=8080"], "prefork-echo --bind 8080\n"),
        (&["--port"], "prefork-echo --bind PORT\n"),
        (&["-p", "8080"], "prefork-echo --bind 8080\n"),
        (&["-p8080"], "prefork-echo --bind 8080\n"),
        (&["status", "--port", "8080"], "tip: the address has no option: prefork-echo status 8080\n"),
        (&["client", "-p", "8080", "hello"], "prefork-echo client 8080\n"),
    ] {
        let message = wrong_usage_is_explained(arguments);
        assert!(message.contains(hint), "{arguments:?}: {message}");
        assert_eq!(message.matches("tip:").count(), 1, "{arguments:?}: {message}");
    }
    assert!(!wrong_usage_is_explained(&["--no-such-option"]).contains("tip:"));
    assert!(!wrong_usage_is_explained(&["serve"]).contains("--bind"));
}

#[test]
fn senseless_durations_are_refused() {
    for (option, value) in
        [("--grace", "10"), ("--grace", "soon"), ("--idle-timeout", "-1s"), ("--idle-timeout", "2000y")]
    {
        let message = wrong_usage_is_explained(&[&format!("{option}={value}")]);
        assert!(message.contains(option), "{message}");
    }
    assert!(wrong_usage_is_explained(&["--grace", "10"]).contains("as in 250ms, 10s or 5m"));
}

#[test]
fn an_error_from_the_environment_names_its_variable() {
    // The reason is the one that is given for the option.
    for (variable, value, reason) in [
        ("BIND", "localhost", "'localhost' is not a port"),
        ("WORKERS", "0", "write a number from 1 to 4096"),
        ("BACKLOG", "many", "write a number from 1 to 2147483647"),
        ("IDLE_TIMEOUT", "10", "as in 250ms, 10s or 5m"),
        ("GRACE", "soon", "as in 250ms, 10s or 5m"),
        ("MAX_CONNECTIONS", "-5", "write a number from 0 to"),
        ("LOG_FORMAT", "xml", "possible values: text, json"),
        ("COLOR", "purple", "possible values: auto, always, never"),
    ] {
        let variable = format!("PREFORK_ECHO_{variable}");
        let mut command = binary();
        // What is typed, and what is right, is not blamed.
        command.args(["--pid-file", "/no/such/directory/pid"]).env("PREFORK_ECHO_USER", "root");
        command.env(&variable, value);
        let (status, message) = run(command);
        assert_eq!(status, 2, "{variable}: {message}");
        assert!(message.contains(&format!("error: invalid value '{value}' for '{variable}'")), "{message}");
        assert!(message.contains(reason) && message.contains("try '--help'"), "{message}");
        assert!(!message.contains("for '--"), "{message}");
    }
    let mut command = binary();
    command.env("PREFORK_ECHO_USER", OsStr::from_bytes(b"\xff"));
    let (status, message) = run(command);
    assert_eq!(status, 2, "{message}");
    assert!(message.contains("the value of 'PREFORK_ECHO_USER' is not UTF-8"), "{message}");
}

#[test]
fn an_error_from_the_command_line_names_its_option() {
    let mut command = binary();
    command.args(["--grace", "never", "--workers", "2"]);
    command.env("PREFORK_ECHO_WORKERS", "none").env("PREFORK_ECHO_BACKLOG", "0");
    let (status, message) = run(command);
    assert_eq!(status, 2);
    assert!(message.contains("error: invalid value 'never' for '--grace <DURATION>'"), "{message}");
    // What is typed wins over its variable, also over a wrong one.
    let mut command = binary();
    command.args(["--bind", "127.0.0.1:0", "--workers", "2"]).env("PREFORK_ECHO_WORKERS", "none");
    assert_eq!(Server::spawn(command).workers().len(), 2);
}

#[test]
fn malformed_addresses_are_refused() {
    for bind in ["", ":7777", "localhost", "localhost:seven", "127.0.0.1:99999", "::1:7777"] {
        assert!(wrong_usage_is_explained(&["--bind", bind]).contains("--bind"));
    }
}

#[test]
fn an_unknown_user_or_group_is_refused() {
    for kind in ["user", "group"] {
        let message = could_not_run(&["--bind", "0", &format!("--{kind}"), "no-such-name"]);
        assert!(
            message.contains(&format!("there is no {kind} no-such-name; give --{kind} one that")),
            "{message}"
        );
    }
}

#[test]
fn another_user_without_the_right_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = unprivileged_binary(directory.path());
    command.args(["--bind", "127.0.0.1:0", "--user", "root"]);
    let message = one_line(run(command));
    assert!(message.contains("operation not permitted; start as root"), "{message}");
}

#[test]
fn a_log_file_that_cannot_be_opened_is_reported() {
    let message = could_not_run(&["--bind", "0", "--log-file", "/no/such/directory/log"]);
    let wanted = "cannot open the log file /no/such/directory/log: no such file or directory; choose another with --log-file";
    assert!(message.contains(wanted), "{message}");
}

#[test]
fn one_path_for_two_files_is_refused() {
    for (one, other) in
        [("--log-file", "--pid-file"), ("--log-file", "--scoreboard"), ("--pid-file", "--scoreboard")]
    {
        let mut command = binary();
        command.args([one, "/no/such/directory/file", other, "/no/such/directory/file"]);
        let (code, message) = run(command);
        assert_eq!(code, 2);
        assert!(message.contains("can't be two of log, pid file and scoreboard"), "{message}");
    }
}

#[test]
fn one_file_under_two_names_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("old"), "1\n").unwrap();
    fs::create_dir(path("deeper")).unwrap();
    std::os::unix::fs::symlink(directory.path(), path("same")).unwrap();
    std::os::unix::fs::symlink("old", path("link")).unwrap();
    std::os::unix::fs::symlink("new", path("dangling")).unwrap();
    fs::hard_link(path("old"), path("hard")).unwrap();
    for (one, other) in [
        // Whatever is there, and what isn't yet.
        ("old", "./old"),
        ("old", "deeper/../old"),
        ("old", "same/old"),
        ("old", "link"),
        ("old", "hard"),
        ("new", "./new"),
        ("new", "same/new"),
        ("new", "dangling"),
        ("new", "new"),
    ] {
        for (first, second) in
            [("--log-file", "--pid-file"), ("--pid-file", "--log-file"), ("--scoreboard", "--log-file")]
        {
            for (one, other) in [(one.to_owned(), path(other)), (path(one), other.to_owned())] {
                let mut command = binary();
                // No host has this address: what goes too far ends there.
                command.current_dir(directory.path()).args(["--bind", "192.0.2.1:1"]);
                command.args([first, &one, second, &other]);
                let (code, message) = run(command);
                assert_eq!(code, 2, "{first} {one} {second} {other}: {message}");
                assert!(message.contains("can't be two of log, pid file and scoreboard"), "{message}");
                assert_eq!(fs::read_to_string(path("old")).unwrap(), "1\n", "the file was touched");
                assert!(!Path::new(&path("new")).exists(), "the file was made");
            }
        }
    }
}

#[test]
fn a_link_to_itself_does_not_hang() {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("link");
    std::os::unix::fs::symlink("link", &link).unwrap();
    let message = could_not_run(&["--bind", "0", "--log-file", link.to_str().unwrap(), "--pid-file", "pid"]);
    assert!(message.contains("cannot open the log file"), "{message}");
}

#[test]
fn equal_names_in_two_directories_are_two_files() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("logs")).unwrap();
    let mut command = binary();
    command.current_dir(directory.path());
    command.args(["--bind", "127.0.0.1:0", "--log-file", "logs/echo", "--pid-file", "echo"]);
    let mut server = Server::spawn(command);
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_pid_file_of_a_living_server_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pid");
    let path = path.to_str().unwrap();
    let mut server = Server::start(&["--pid-file", path]);
    assert_eq!(fs::read_to_string(path).unwrap(), format!("{}\n", server.pid));

    let message = could_not_run(&["--bind", "127.0.0.1:0", "--pid-file", path]);
    assert!(
        message.contains(&format!("held by a running server (pid {}); stop that one", server.pid)),
        "{message}"
    );
    assert_eq!(fs::read_to_string(path).unwrap(), format!("{}\n", server.pid), "the file was touched");

    assert_eq!(server.stop(), 0);
    assert!(!Path::new(path).exists(), "the file stays behind");
}

#[test]
fn a_pid_file_of_a_dead_server_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pid");
    let path = path.to_str().unwrap();
    let mut dead = Server::start(&["--pid-file", path]);
    dead.signal(nix::sys::signal::Signal::SIGKILL);
    dead.wait();
    assert!(Path::new(path).exists());

    // Its last workers may not have left: the lock was the parent's alone.
    let mut server = Server::start(&["--pid-file", path]);
    assert_eq!(fs::read_to_string(path).unwrap(), format!("{}\n", server.pid));
    assert_eq!(server.stop(), 0);
    // A pid that belongs to another process by now is no obstacle either.
    fs::write(path, "1\n").unwrap();
    let mut server = Server::start(&["--pid-file", path]);
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_pid_file_with_other_content_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("precious");
    fs::write(&path, "my diary\n").unwrap();
    let message = could_not_run(&["--bind", "0", "--pid-file", path.to_str().unwrap()]);
    assert!(message.contains("is not a pid file; choose another with --pid-file"), "{message}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "my diary\n");

    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    could_not_run(&["--bind", "0", "--pid-file", fifo.to_str().unwrap()]);
    could_not_run(&["--bind", "0", "--log-file", fifo.to_str().unwrap()]);

    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    could_not_run(&["--bind", "0", "--pid-file", link.to_str().unwrap()]);
    could_not_run(&["--bind", "0", "--pid-file", "/no/such/directory/pid"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "my diary\n");
}

#[test]
fn the_pid_file_is_removed_at_every_orderly_end() {
    use nix::sys::signal::Signal;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pid");
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let mut server = Server::start(&["--pid-file", path.to_str().unwrap()]);
        server.signal(signal);
        server.wait();
        assert!(!path.exists(), "{signal} left it behind");
    }
}
