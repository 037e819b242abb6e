//! `top` in a terminal: what it shows, what its keys do, and how it leaves.

use std::process::Command;

use crate::common::terminal::Terminal;
use crate::common::{KillOnDrop, Server, binary, echo, processes, run, wait_until};
use nix::sys::signal::{Signal, kill};

#[test]
fn a_worker_killed_by_a_key_is_replaced_on_screen() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    echo(&mut client, b"hello");
    let mut terminal = Terminal::top(server.address);
    let peer = client.local_addr().unwrap().to_string();
    for part in [&server.address.to_string(), "one listening socket", &peer, "4 workers forked"] {
        terminal.wait_for(part);
    }
    assert!(terminal.is_on_other_screen());
    for worker in server.workers() {
        terminal.wait_for(&format!(" {worker} "));
    }

    // Down to worker 1, whichever that is.
    let second = server.status()["workers"][1]["pid"].to_string();
    terminal.press("\x1b[B");
    terminal.wait_for(&format!("▸      1 {second:>5}  "));
    terminal.press("k");
    terminal.wait_for(&format!("SIGKILL sent to worker 1 (pid {second})"));
    terminal.wait_for(&format!("worker 1 (pid {second}) killed by SIGKILL"));
    terminal.wait_for(&format!("replaces pid {second}, "));
    assert!(!server.workers().iter().any(|pid| pid.to_string() == second));

    terminal.press("q");
    assert_eq!(terminal.assert_restored(0), "");
}

#[test]
fn keys_stop_continue_drain_and_resize_the_workers() {
    let server = Server::start(&["--model", "process", "--workers", "2"]);
    let terminal = Terminal::top(server.address);
    let first = server.status()["workers"][0]["pid"].to_string();
    terminal.wait_for(&format!("▸      0 {first:>5}  "));
    let state = || {
        let processes = processes();
        processes.into_iter().find(|process| process.pid.to_string() == first).map(|process| process.state)
    };
    terminal.press("s");
    terminal.wait_for(&format!("{first:>5}  stopped by SIGSTOP"));
    assert_eq!(state(), Some('T'));
    terminal.press("c");
    wait_until("it runs again", || state() != Some('T'));
    terminal.press("t");
    terminal.wait_for(&format!("replaces pid {first}, "));
    terminal.press("+");
    terminal.wait_for("       2 ");
    terminal.press("-");
    wait_until("there is one worker fewer", || !terminal.screen().contains("       2 "));
    terminal.press("?");
    terminal.wait_for("Any key leads back");
    // The next key leads back, and does nothing else.
    terminal.press("k");
    terminal.wait_for("one listening socket");
    assert!(!terminal.screen().contains("SIGKILL sent"));
    terminal.press("p");
    terminal.wait_for("PAUSED");
    server.echo(b"hello");
    // Keys are answered while the picture stands still.
    terminal.press("-");
    terminal.wait_for("SIGTTOU sent to the parent");
    terminal.press("3");
    terminal.wait_for("In all 0 connections, 0 bytes");
    terminal.press("p");
    terminal.wait_for("In all 1 connection, 5 bytes");
}

#[test]
fn no_key_signals_an_unrelated_process() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("board");
    let server = Server::start(&["--workers", "1", "--scoreboard", path.to_str().unwrap()]);
    let worker = server.workers()[0];
    let mut stranger = KillOnDrop(Command::new("sleep").arg("60").spawn().unwrap());
    // A worker gone wrong could write any pid.
    let number = |pid: i32| (pid as u64).to_le_bytes();
    let board = std::fs::read(&path).unwrap();
    let at = board.chunks(8).position(|bytes| bytes == number(worker.as_raw())).unwrap() * 8;
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &number(stranger.0.id() as i32), at as u64).unwrap();

    let (binary, path) = (env!("CARGO_BIN_EXE_prefork-echo"), path.display());
    let terminal = Terminal::run(&format!("'{binary}' top --scoreboard '{path}'"));
    terminal.wait_for(&format!("▸      0 {:>5}  ", stranger.0.id()));
    terminal.press("k");
    terminal.wait_for("worker 0 has no process at this moment");
    assert!(stranger.0.try_wait().unwrap().is_none(), "it was killed");
}

#[test]
fn no_key_signals_another_server() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("board");
    let options = ["--workers", "2", "--scoreboard", path.to_str().unwrap()];
    let mut first = Server::start(&options);
    let (binary, path) = (env!("CARGO_BIN_EXE_prefork-echo"), path.display());
    let terminal = Terminal::run(&format!("'{binary}' top --scoreboard '{path}'"));
    terminal.press("p");
    terminal.wait_for("PAUSED");
    first.signal(Signal::SIGKILL);
    first.wait();
    // An empty file is taken as it is: the next server has the very one that top looks at.
    std::fs::File::options().write(true).truncate(true).open(directory.path().join("board")).unwrap();
    let next = Server::start(&options);
    terminal.press("+");
    let mut screen = String::new();
    wait_until("the key is answered", || {
        screen = terminal.screen();
        screen.contains(" sent to ") || screen.contains("the server is no more")
    });
    assert!(!screen.contains(" sent to "), "{screen}");
    // The picture goes on after this key was answered, too.
    terminal.press("k");
    terminal.press("p");
    terminal.wait_for("ENDED");
    next.echo(b"hello");
    next.signal(Signal::SIGUSR1);
    next.wait_for_log(&["served: 1 connection, 5 bytes; 0 restarts"]);
    assert_eq!(next.workers().len(), 2);
}

#[test]
fn top_follows_the_size_of_the_terminal() {
    let server = Server::start(&["--workers", "60"]);
    let terminal = Terminal::top(server.address);
    terminal.wait_for("q quit");
    for (rows, columns, last) in
        [(12, 50, "q quit"), (5, 20, "q quit"), (50, 120, "p pause"), (24, 80, "? help")]
    {
        terminal.resize(rows, columns);
        wait_until("the last line is in the last row", || {
            let screen = terminal.screen();
            screen.lines().count() == usize::from(rows) && screen.lines().last().unwrap().contains(last)
        });
    }
    terminal.press("\x1b[F");
    terminal.wait_for("▸     59 ");
}

#[test]
fn top_says_how_the_server_ended() {
    let mut server = Server::start(&[]);
    let mut terminal = Terminal::top(server.address);
    terminal.wait_for("q quit");
    assert_eq!(server.stop(), 0);
    let end = format!("the server (pid {}) has ended, with exit status 0", server.pid);
    terminal.wait_for(&end);
    terminal.press("q");
    assert_eq!(terminal.assert_restored(0), end);

    let mut server = Server::start(&[]);
    let terminal = Terminal::top(server.address);
    terminal.wait_for("q quit");
    server.signal(Signal::SIGKILL);
    server.wait();
    terminal.wait_for("is dead: it was killed; press q");
}

#[test]
fn a_signal_or_ctrl_c_restores_the_terminal() {
    let server = Server::start(&[]);
    for (signal, status) in [(Signal::SIGTERM, 143), (Signal::SIGHUP, 129), (Signal::SIGINT, 130)] {
        let mut terminal = Terminal::top(server.address);
        terminal.wait_for("q quit");
        kill(terminal.top_pid(), signal).unwrap();
        terminal.assert_restored(status);
    }
    let mut terminal = Terminal::top(server.address);
    terminal.wait_for("q quit");
    terminal.press("\x03");
    terminal.assert_restored(0);
}

#[test]
fn top_ends_with_its_terminal() {
    let server = Server::start(&[]);
    let mut terminal = Terminal::top(server.address);
    terminal.wait_for("q quit");
    let top = terminal.top_pid();
    terminal.close();
    wait_until("top has ended", || {
        !processes().iter().any(|process| process.pid == top && process.state != 'Z')
    });
}

#[test]
fn half_a_key_sequence_does_not_block() {
    let server = Server::start(&[]);
    for half in ["\x1b[", "\x1bO", "\x1b[99~", "\x1b[200~"] {
        let mut terminal = Terminal::top(server.address);
        terminal.wait_for("q quit");
        terminal.press("3");
        terminal.wait_for("[3 rates]");
        let before = server.status()["totals"]["connections"].as_u64().unwrap();
        terminal.press(half);
        server.echo(b"hello");
        terminal.wait_for(&format!("In all {} connection", before + 1));
        kill(terminal.top_pid(), Signal::SIGTERM).unwrap();
        terminal.assert_restored(143);
    }
}

#[test]
fn a_stopped_top_restores_the_terminal() {
    let server = Server::start(&[]);
    let terminal = Terminal::top(server.address);
    terminal.wait_for("q quit");
    let top = terminal.top_pid();
    let is_stopped = || processes().iter().any(|process| process.pid == top && process.state == 'T');
    kill(top, Signal::SIGSTOP).unwrap();
    wait_until("it is stopped, with no time to do anything", is_stopped);
    kill(top, Signal::SIGCONT).unwrap();
    for stop in [Some("\x1a"), None] {
        match stop {
            None => kill(top, Signal::SIGTSTP).unwrap(),
            // Ctrl-Z stops the shell, too.
            Some(keys) => terminal.press(keys),
        }
        wait_until("it is stopped", is_stopped);
        wait_until("the terminal is given back", || !terminal.is_on_other_screen());
        terminal.continue_shell();
        kill(top, Signal::SIGCONT).unwrap();
        wait_until("it has the terminal again", || terminal.is_on_other_screen());
        terminal.wait_for("q quit");
    }
}

#[test]
fn once_prints_the_pages_as_text() {
    let server = Server::start(&["--workers", "30"]);
    server.echo(b"hello");
    let mut command = binary();
    command.args(["top", "--once", &server.address.to_string()]).env("LC_ALL", "C");
    let output = command.output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains('\x1b') && text.lines().all(|line| line.chars().count() <= 80), "{text}");
    for worker in server.workers() {
        assert!(text.contains(&format!(" {worker} ")), "{text}");
    }
    for part in ["[1 flow]", "[2 memory]", "[3 rates]", "In all 1 connection, 5 bytes; workers replaced: 0."]
    {
        assert!(text.contains(part), "no {part} in {text}");
    }
}

#[test]
fn without_a_terminal_top_names_the_remedy() {
    let server = Server::start(&[]);
    let mut command: Command = binary();
    command.args(["top", &server.address.to_string()]);
    let (code, message) = run(command);
    assert_eq!(code, 1);
    assert!(message.contains("top needs a terminal; into a file or a pipe goes top --once"), "{message}");
}
