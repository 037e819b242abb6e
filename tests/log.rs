//! What is written where, in which form, and that writing harms no process.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::measure::{bench, number};
use crate::common::{KillOnDrop, Server, binary, echo, number_following, wait_until};
use nix::sys::signal::Signal;

#[test]
fn each_line_names_the_process() {
    let mut server = Server::start(&["--workers", "2"]);
    server.echo(b"hello");
    assert_eq!(server.stop(), 0);
    for line in server.log() {
        let parent = format!(" parent {}: ", server.pid);
        let worker = |slot| format!(" worker {slot} (pid ");
        let named = line.contains(&parent) || line.contains(&worker(0)) || line.contains(&worker(1));
        assert!(named, "{line}");
        assert!(!line.contains('\x1b'), "colour in a pipe: {line}");
    }
}

#[test]
fn connections_are_logged_from_accept_to_close() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    echo(&mut client, b"hello");
    let peer = client.local_addr().unwrap().to_string();
    let accepted = server.wait_for_log(&["accepted ", &peer, "as descriptor "]);
    assert!(number_following(&accepted, "descriptor ") > 2);
    drop(client);
    server.wait_for_log(&["closed ", &peer, ": end of file, 5 bytes echoed"]);
}

#[test]
fn quiet_leaves_warnings_and_verbose_adds_every_echo() {
    let mut quiet = Server::start(&["-q"]);
    quiet.echo(b"hello");
    assert_eq!(quiet.stop(), 0);
    assert_eq!(quiet.log(), Vec::<String>::new());

    let quiet = Server::start(&["-q", "--workers", "1"]);
    nix::sys::signal::kill(quiet.workers()[0], Signal::SIGKILL).unwrap();
    quiet.wait_for_log(&["killed by SIGKILL"]);

    let verbose = Server::start(&["-v"]);
    verbose.echo(b"hello");
    verbose.wait_for_log(&["echoed 5 bytes"]);
}

#[test]
fn json_logs_have_one_object_a_line() {
    let mut server = Server::start(&["--log-format", "json", "--workers", "2"]);
    server.echo(b"hello");
    assert_eq!(server.stop(), 0);
    let mut workers_spoke = false;
    for line in server.log() {
        let object: serde_json::Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(
            object["message"].is_string() && object["pid"].is_i64() && object["time"].is_string(),
            "{line}"
        );
        match object["process"].as_str() {
            Some("parent") => assert_eq!(object["pid"], server.pid.as_raw()),
            Some("worker") => workers_spoke |= object["slot"].is_u64(),
            other => panic!("{other:?} speaks in {line}"),
        }
    }
    assert!(workers_spoke);
}

#[test]
fn colour_comes_when_asked_for() {
    let server = Server::start(&["--color", "always"]);
    server.wait_for_log(&["\x1b["]);
}

#[test]
fn a_log_file_gets_everything_and_stderr_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    fs::write(&path, "what was there before\n").unwrap();
    let mut server = Server::start(&["--log-file", path.to_str().unwrap()]);
    server.echo(b"hello");
    assert_eq!(server.stop(), 0);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("what was there before\n"));
    assert!(text.contains("accepted") && text.contains("exit status 0"), "{text}");
    assert_eq!(server.log(), Vec::<String>::new());
    text.lines().skip(1).for_each(|line| assert!(begins(line, "0000-00-00 00:00:00.000 ["), "{line}"));
}

/// Does the line begin like this pattern, in which 0 stands for any digit?
fn begins(line: &str, pattern: &str) -> bool {
    let like = |(byte, like): (u8, u8)| if like == b'0' { byte.is_ascii_digit() } else { byte == like };
    line.len() >= pattern.len() && line.bytes().zip(pattern.bytes()).all(like)
}

#[test]
fn a_line_in_a_file_has_its_date() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let lines = |options: &str| {
        // stderr itself is the file.
        let script = format!("exec \"$0\" --bind 127.0.0.1:0 {options} 2>\"$1\"");
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_prefork-echo")]).arg(&path);
        let mut server = Server::spawn(shell);
        server.echo(b"hello");
        assert_eq!(server.stop(), 0);
        fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let text = lines("");
    assert!(text.len() > 4, "{text:?}");
    text.iter().for_each(|line| assert!(begins(line, "0000-00-00 00:00:00.000 ["), "{line}"));
    let json = lines("--log-format json");
    assert!(json.iter().all(|line| line.starts_with('{')), "{json:?}");

    // In a pipe, and on a terminal, it is the time alone.
    let server = Server::start(&[]);
    assert!(begins(&server.wait_for_log(&["forked"]), "00:00:00.000 ["));
    let terminal = nix::pty::openpty(None, None).unwrap();
    let mut command = binary();
    command.args(["--bind", "127.0.0.1:0", "--color", "never"]).stdout(Stdio::null()).stderr(terminal.slave);
    let mut child = KillOnDrop(command.spawn().unwrap());
    drop(command);
    let mut line = String::new();
    BufReader::new(fs::File::from(terminal.master.try_clone().unwrap())).read_line(&mut line).unwrap();
    assert!(begins(&line, "00:00:00.000 ["), "{line}");
    child.terminate();
}

#[test]
fn options_come_from_the_environment_too() {
    let mut command = binary();
    command
        .env("PREFORK_ECHO_BIND", "127.0.0.1:0")
        .env("PREFORK_ECHO_WORKERS", "3")
        .env("PREFORK_ECHO_QUIET", "1");
    let mut server = Server::spawn(command);
    assert_eq!(server.workers().len(), 3);
    server.echo(b"hello");
    assert_eq!(server.stop(), 0);
    assert_eq!(server.log(), Vec::<String>::new());
}

#[test]
fn a_typed_option_overrides_the_environment() {
    for (variable, option, lines) in [("VERBOSE", "-q", false), ("QUIET", "-v", true)] {
        let mut command = binary();
        command.args(["--bind", "127.0.0.1:0", option]).env(format!("PREFORK_ECHO_{variable}"), "1");
        let mut server = Server::spawn(command);
        assert_eq!(server.stop(), 0);
        assert_eq!(!server.log().is_empty(), lines, "{option} against {variable}");
    }
}

#[test]
fn an_unread_log_pipe_stops_no_process() {
    let mut command = binary();
    command.args(["--bind", "127.0.0.1:0", "-v"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = KillOnDrop(command.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(child.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let address = line.split(' ').nth(2).unwrap().parse().unwrap();
    // Some 200 bytes of log each: the pipe is full long before the end.
    for _ in 0..1000 {
        echo(&mut crate::common::connect(address), b"hello");
    }
    // The pipe is read again: the first lines that fit say what was lost.
    let mut stderr = BufReader::new(child.0.stderr.take().unwrap());
    let read = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&read);
    let reader = std::thread::spawn(move || {
        let lost = |line: &String| {
            count.fetch_add(1, Ordering::Relaxed);
            line.contains("of this log lost")
        };
        stderr.by_ref().lines().map_while(Result::ok).filter(lost).count() > 0
    });
    wait_until("there is room again", || read.load(Ordering::Relaxed) > 100);
    for _ in 0..20 {
        echo(&mut crate::common::connect(address), b"hello");
    }
    child.terminate();
    assert!(reader.join().unwrap(), "lines were lost, and no line says so");
}

#[test]
fn a_full_terminal_stops_no_process() {
    // The other end is not read, as after Ctrl-S.
    let terminal = nix::pty::openpty(None, None).unwrap();
    let mut command = binary();
    command.args(["--bind", "127.0.0.1:0", "-v"]).stdout(Stdio::piped()).stderr(terminal.slave);
    let mut child = KillOnDrop(command.spawn().unwrap());
    drop(command);
    let mut line = String::new();
    BufReader::new(child.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let address = line.split(' ').nth(2).unwrap().parse().unwrap();
    for _ in 0..300 {
        echo(&mut crate::common::connect(address), b"hello");
    }
    child.terminate();
    drop(terminal.master);
}

#[test]
fn a_full_stdout_stops_no_process() {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let (unread, full) = std::io::pipe().unwrap();
    fcntl(&full, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    while (&full).write(&[b'x'; 4096]).is_ok() {}
    fcntl(&full, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    let mut command = binary();
    command.args(["--bind", "127.0.0.1:0"]).stdout(full).stderr(Stdio::piped());
    let mut child = KillOnDrop(command.spawn().unwrap());
    let mut lines = BufReader::new(child.0.stderr.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.find(|line| line.contains("serving all the same")).expect("the log says it instead");
    let address = line.split("listening on ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    echo(&mut crate::common::connect(address), b"hello");
    child.terminate();
    drop(unread);
}

#[test]
fn an_unwritable_log_stops_no_process() {
    let directory = tempfile::tempdir().unwrap();
    let limited = format!(
        "ulimit -f 1; exec \"$0\" -v --bind 127.0.0.1:0 --log-file {}",
        directory.path().join("log").display()
    );
    // The first has no stderr at all, the second no more than a kilobyte or
    // half of it, the others a disk that is full.
    let mut scripts = vec!["exec \"$0\" --bind 127.0.0.1:0 2>&-", &limited];
    if std::path::Path::new("/dev/full").exists() {
        scripts.push("exec \"$0\" --bind 127.0.0.1:0 --log-file /dev/full");
        scripts.push("exec \"$0\" --bind 127.0.0.1:0 2>/dev/full");
    }
    for script in scripts {
        let mut shell = std::process::Command::new("bash");
        shell.args(["-c", script, env!("CARGO_BIN_EXE_prefork-echo")]);
        let mut server = Server::spawn(shell);
        (0..20).for_each(|_| server.echo(b"hello"));
        assert_eq!(server.stop(), 0, "{script}");
    }
}

#[test]
fn a_full_log_pipe_slows_no_client() {
    // The first one's stderr is a pipe that is not read.
    for (name, script) in [
        ("a full pipe", "exec \"$0\" -v --bind 127.0.0.1:0"),
        ("a closed stderr", "exec \"$0\" -v --bind 127.0.0.1:0 2>&-"),
        ("a full disk", "exec \"$0\" -v --bind 127.0.0.1:0 2>/dev/full"),
    ] {
        if script.contains("/dev/full") && !std::path::Path::new("/dev/full").exists() {
            continue; // macOS has none.
        }
        let mut shell = std::process::Command::new("bash");
        shell.args(["-c", script, env!("CARGO_BIN_EXE_prefork-echo")]);
        shell.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = KillOnDrop(shell.spawn().unwrap());
        let mut line = String::new();
        BufReader::new(child.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.split(' ').nth(2).unwrap();
        // A line for each echo: a pipe takes some hundreds.
        let (code, result, stderr) = bench(address, &["-n", "20000"]);
        assert_eq!((code, stderr.as_str()), (0, ""), "{name}: {result}");
        let p99 = number(&result["latency_us"]["p99"]);
        println!("{name}: 20,000 echoes, each a line of log; p99 of the latency {p99} µs");
        assert!(p99 < 50_000.0, "{name}: {result}");
        child.terminate();
    }
}

#[test]
fn lines_of_many_workers_never_tear() {
    let mut server = Server::start(&["-v", "--workers", "16"]);
    let (code, _, stderr) = bench(server.address, &["-m", "connect", "-c", "16", "-n", "5000"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(server.stop(), 0);
    let log = server.log();
    for line in &log {
        // 12:34:56.789 [INFO ] worker 3 (pid 4242): accepted ...
        let whole = line.is_char_boundary(22)
            && line[..22].bytes().zip(*b"00:00:00.000 [-----] .").all(|(byte, like)| match like {
                b'0' => byte.is_ascii_digit(),
                b'-' => byte.is_ascii_uppercase() || byte == b' ',
                b'.' => true,
                _ => byte == like,
            });
        let (speaker, message) = line[21..].split_once(": ").unwrap_or_default();
        let is_speaker = speaker.starts_with("worker ") && speaker.ends_with(')')
            || speaker == format!("parent {}", server.pid);
        assert!(whole && is_speaker && message.matches(" (pid ").count() <= 1, "{line}");
    }
    let count = |what: &str| log.iter().filter(|line| line.contains(what)).count();
    let lost: usize = log
        .iter()
        .filter(|line| line.contains(" of this log lost"))
        .map(|line| {
            let number = line.split("): ").last().and_then(|words| words.split(' ').next());
            number.and_then(|number| number.parse::<usize>().ok()).expect("so many lines were lost")
        })
        .sum();
    println!("{} lines of 16 workers, none torn; {lost} lost", log.len());
    // Three lines a connection: nothing is missing but what is said to be.
    let there = count(": accepted ") + count(": echoed ") + count(": closed ");
    assert!(there <= 15_000 && there + lost >= 15_000, "{there} lines, {lost} lost");
}

#[test]
fn hup_opens_the_log_file_anew() {
    let directory = tempfile::tempdir().unwrap();
    let (path, old) = (directory.path().join("log"), directory.path().join("log.1"));
    let mut server = Server::start(&["--workers", "1", "--log-file", path.to_str().unwrap()]);
    let mut client = server.connect();
    echo(&mut client, b"hello");
    fs::rename(&path, &old).unwrap();
    server.signal(Signal::SIGHUP);
    let has = |path, what: &str| fs::read_to_string(path).is_ok_and(|text| text.contains(what));
    wait_until("the new log has what follows", || has(&path, "may leave"));
    drop(client);
    wait_until("the old worker's last line is in the old log", || has(&old, "leaving after 1 connection"));
    server.echo(b"served by the new worker");
    wait_until("the new worker's lines are in the new log", || has(&path, "accepted"));
    assert!(!has(&old, "replacing"));

    // Where it cannot be opened, the log goes on where it is.
    fs::rename(&path, directory.path().join("log.2")).unwrap();
    fs::create_dir(&path).unwrap();
    server.signal(Signal::SIGHUP);
    let kept = directory.path().join("log.2");
    wait_until("it says so", || has(&kept, "anew: is a directory; the log stays in the old one"));
    assert_eq!(server.stop(), 0);
    assert!(has(&kept, "the end, with exit status 0"));
}
