//! The pages of `top` in a terminal: what each shows, of which size ever, in each model, after
//! a death, when the server is gone, with ASCII alone, and in Korean.

use std::collections::BTreeSet;

use nix::sys::signal::{Signal, kill};

use crate::common::terminal::Terminal;
use crate::common::{Server, connect, echo, models, wait_until};

/// Runs `top` in a terminal of this size; `environment` stands before the command.
fn top(server: &Server, rows: u16, columns: u16, environment: &str, options: &str) -> Terminal {
    let (binary, address) = (env!("CARGO_BIN_EXE_prefork-echo"), server.address);
    Terminal::sized(rows, columns, &format!("{environment} '{binary}' top {options} {address}"))
}

const SIZES: [(u16, u16); 3] = [(24, 80), (20, 60), (40, 120)];

#[test]
fn page_1_shows_each_client_beside_its_worker_and_its_call() {
    let server = Server::start(&["--model", "process", "--workers", "8"]);
    let mut client = server.connect();
    echo(&mut client, b"hello");
    let peer = client.local_addr().unwrap().to_string();
    for (rows, columns) in SIZES {
        let terminal = top(&server, rows, columns, "", "");
        for part in ["accept queue: empty (room for ", "one listening socket", "[1 flow]", &peer, "q quit"] {
            terminal.wait_for(part);
        }
        let screen = terminal.screen();
        let row = screen.lines().find(|line| line.contains(&peer)).unwrap();
        assert!(row.contains("▶") && row.contains("recv()"), "{screen}");
        for pid in server.workers() {
            let row = screen.lines().find(|line| line.contains(&format!("{:>5}  ", pid.as_raw())));
            assert!(row.is_some_and(|row| row.contains("()")), "worker {pid} of {columns}x{rows}: {screen}");
        }
        assert!(!screen.lines().any(|line| line.contains('…')), "something is cut: {screen}");
    }
}

#[test]
fn a_client_in_the_accept_queue_is_seen_there() {
    let server = Server::start(&["--model", "process", "--workers", "1"]);
    let mut client = server.connect();
    echo(&mut client, b"hello");
    let waiting = connect(server.address);
    let terminal = top(&server, 24, 80, "", "");
    if cfg!(target_os = "linux") {
        terminal.wait_for("accept queue: 1 of ");
        terminal.wait_for(" 1 waits ");
    }
    drop(waiting);
}

#[test]
fn page_1_shows_many_lines_into_one_process() {
    for (model, call) in [("thread", "8 threads in recv()"), ("multiplex", "asleep in ")] {
        let server = models::start_workers(model, 1, 16, &[]);
        let _clients = server.connect_served(8);
        for (rows, columns) in SIZES {
            let terminal = top(&server, rows, columns, "", "");
            terminal.wait_for(if columns == 60 { "()" } else { call });
            terminal.wait_for("8 clients");
            terminal.wait_for("q quit");
            let screen = terminal.screen();
            let lines = screen.lines().filter(|line| line.contains("● client ") && line.contains("═"));
            assert!(lines.count() >= 4, "{model} at {columns}x{rows}: {screen}");
        }
    }
}

#[test]
fn a_death_says_what_it_cut_and_how_soon_it_was_replaced() {
    for (model, cut, part) in [("process", 1, "1 client cut"), ("multiplex", 3, "3 clients cut")] {
        let server = models::start_workers(model, 1, cut, &[]);
        let _clients = server.connect_served(cut);
        let terminal = top(&server, 24, 80, "", "");
        let worker = server.workers()[0];
        terminal.wait_for(&format!(" {worker} "));
        kill(worker, Signal::SIGKILL).unwrap();
        terminal.wait_for(&format!("pid {worker} killed by SIGKILL, replaced in "));
        let screen = terminal.screen();
        let cells = terminal.cells();
        let row = screen.lines().position(|line| line.contains(&format!("✗ {part}"))).expect(&screen);
        assert_eq!(cells[row][1].fgcolor(), vt100::Color::Idx(1), "it is red: {screen}");
        // It leaves the sight again; the list of events keeps it.
        wait_until("the red line is gone", || !terminal.screen().contains('✗'));
        terminal.wait_for(&format!("worker 0 (pid {worker}) killed by SIGKILL"));
    }
}

#[test]
fn page_2_shows_one_variable_with_another_value_in_each_process() {
    let server = Server::start(&["--model", "process", "--workers", "2"]);
    for _ in 0..3 {
        server.echo(b"hello");
    }
    let look = server.status();
    let address = look["private_counter"]["address"].as_str().unwrap();
    for (rows, columns) in SIZES {
        let terminal = top(&server, rows, columns, "", "");
        terminal.wait_for("[1 flow]");
        terminal.press("2");
        terminal.wait_for("[2 memory]");
        terminal.wait_for("SHARED is one memory for all");
        let screen = terminal.screen();
        let value = |name: &str| -> u64 {
            let row = screen.lines().find(|line| line.contains(name) && line.contains(address));
            let row = row.unwrap_or_else(|| panic!("no {name} in {screen}"));
            row.split(address).nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap()
        };
        assert_eq!(value("parent"), 0);
        assert_eq!(value("worker 0") + value("worker 1"), 3, "{screen}");
    }
}

#[test]
fn tab_leads_to_the_next_page_and_the_last_one_shows_rates() {
    let server = Server::start(&[]);
    server.echo(b"hello");
    for (rows, columns) in SIZES {
        let terminal = top(&server, rows, columns, "", "");
        for page in ["[1 flow]", "[2 memory]", "[3 rates]"] {
            terminal.wait_for(page);
            if page == "[3 rates]" {
                terminal.wait_for("Connections a second: ");
                terminal.wait_for("In all 1 connection, 5 bytes; workers replaced: 0.");
                terminal.wait_for("worker 3");
                terminal.press("k");
                terminal.wait_for("no worker is selected here");
            }
            terminal.press("\t");
        }
        terminal.wait_for("[1 flow]");
    }
}

#[test]
fn no_worker_of_a_killed_server_is_shown_as_idle() {
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let mut server = Server::start(&["--model", "process"]);
        let terminal = top(&server, 24, 80, "", "");
        terminal.wait_for("accept()    ");
        server.signal(signal);
        server.wait();
        terminal.wait_for("ENDED");
        terminal.wait_for("This was its last moment");
        // The last line is drawn last.
        terminal.wait_for("; press q");
        let screen = terminal.screen();
        assert!(!screen.contains("accept()") && screen.contains("  gone"), "{screen}");
        let row = screen.lines().position(|line| line.trim_end().ends_with("  gone")).unwrap();
        let cells = terminal.cells();
        let inked = cells[row].iter().filter(|cell| cell.contents().trim() != "");
        assert!(inked.clone().count() > 4 && inked.clone().all(|cell| cell.dim()), "not grey: {screen}");
        terminal.press("\t");
        terminal.wait_for("[2 memory]");
    }
}

#[test]
fn ascii_draws_with_nothing_else() {
    let server = models::start_workers("multiplex", 2, 16, &[]);
    let _clients = server.connect_served(5);
    let terminal = top(&server, 24, 80, "", "--ascii");
    terminal.wait_for("o client ");
    for key in ["2", "3", "?"] {
        let screen = terminal.screen();
        assert!(screen.is_ascii(), "{screen}");
        terminal.press(key);
        terminal.wait_for(match key {
            "2" => "[2 memory]",
            "3" => "[3 rates]",
            _ => "Any key leads back",
        });
    }
    assert!(terminal.screen().is_ascii(), "{}", terminal.screen());
}

#[test]
fn the_pages_are_korean_where_the_locale_is_and_fit_the_terminal() {
    let server = Server::start(&["--model", "process", "--workers", "8"]);
    let mut client = server.connect();
    echo(&mut client, b"hello");
    for (rows, columns) in SIZES {
        let terminal = top(&server, rows, columns, "LC_ALL= LC_MESSAGES=ko_KR.UTF-8 LANG=C", "");
        for (key, part) in
            [("1", "연결 요청 대기 큐"), ("2", "[2 메모리]"), ("3", "[3 처리량]"), ("?", "돌아갑니다")]
        {
            terminal.press(key);
            terminal.wait_for(part);
            assert!(!terminal.screen().contains('…'), "something is cut: {}", terminal.screen());
        }
        terminal.press("1");
        terminal.press("1");
        terminal.wait_for("리스닝 소켓 1개");
        let pids = server.workers();
        // Though a letter is two columns wide: each time ends in the same column.
        wait_until("the columns stand one below the other", || {
            let (screen, cells) = (terminal.screen(), terminal.cells());
            let ends = pids.iter().map(|pid| {
                let pid = format!("{:>5}  ", pid.as_raw());
                let row = screen.lines().position(|line| line.contains(&pid))?;
                cells[row].iter().rposition(|cell| cell.contents() == "s")
            });
            let ends: BTreeSet<_> = ends.collect();
            ends.len() == 1 && ends.first().is_some_and(Option::is_some)
        });
    }
}
