//! Workers hold few rights: those of another user, and a sandbox.

use crate::common::Server;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{User, geteuid};

#[test]
fn workers_run_with_another_users_credentials() {
    if !geteuid().is_root() {
        // Without root only oneself can be asked for, and that changes nothing.
        let me = User::from_uid(geteuid()).unwrap().unwrap().name;
        return Server::start(&["--user", &me]).echo(b"served by me");
    }
    let mut server = Server::start(&["--user", "nobody", "--workers", "2"]);
    server.echo(b"served by nobody");
    for worker in server.workers() {
        let ids = |option: &str| {
            let output =
                std::process::Command::new("ps").args(["-o", option, "-p", &worker.to_string()]).output();
            String::from_utf8(output.unwrap().stdout).unwrap().trim().to_owned()
        };
        // Real and effective: neither leads back.
        for option in ["uid=", "ruid=", "gid=", "rgid="] {
            assert_ne!(ids(option), "0", "{option} of {worker}");
        }
    }
    for worker in server.status()["workers"].as_array().unwrap() {
        assert_eq!(worker["uid"], User::from_name("nobody").unwrap().unwrap().uid.as_raw());
    }
    // The parent, which keeps its rights, can still signal and replace them.
    let worker = server.workers()[0];
    kill(worker, Signal::SIGKILL).unwrap();
    server.wait_for_log(&[&format!("replaces pid {worker}")]);
    assert_eq!(server.stop(), 0);
}

#[cfg(target_os = "linux")]
mod as_linux_knows_them {
    use std::collections::BTreeMap;
    use std::fs;

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::{Pid, User, geteuid};
    use serde_json::{Value, json};

    use crate::common::{Server, binary};

    /// A field of /proc/PID/status, its words parted by single spaces.
    fn field(pid: Pid, name: &str) -> String {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// What a worker says of its sandbox, and what the kernel knows of it.
    fn sandbox(server: &Server) -> (Value, [String; 2]) {
        let worker = &server.status()["workers"][0];
        let pid = Pid::from_raw(worker["pid"].as_i64().unwrap() as i32);
        (worker["sandbox"].clone(), [field(pid, "NoNewPrivs"), field(pid, "Seccomp")])
    }

    #[test]
    fn every_available_sandbox_layer_is_active_and_shown() {
        let server = Server::start(&["--explain", "--workers", "1"]);
        server.echo(b"served from a sandbox");
        let (said, known) = sandbox(&server);
        assert_eq!(known, ["1", "2"], "no new privileges, a filter");
        let landlock = said.as_array().unwrap().contains(&json!("landlock"));
        if landlock {
            assert_eq!(said, json!(["no_new_privs", "landlock", "seccomp"]));
        } else {
            assert_eq!(said, json!(["no_new_privs", "seccomp"]));
            server.wait_for_log(&["worker 0", "the sandbox lacks landlock: "]);
        }
        let (_, table, _) = crate::common::status(&[&server.address.to_string()]);
        let names: Vec<_> = said.as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(table.contains(&format!("; sandbox: {}\n", names.join(", "))), "{table}");
        for name in names {
            server.wait_for_log(&[&format!("worker 0 (pid {}): {name}: ", server.workers()[0])]);
        }
        // The parent has to fork, and to signal.
        assert_eq!([field(server.pid, "NoNewPrivs"), field(server.pid, "Seccomp")], ["0", "0"]);
    }

    /// What a process has open, by number.
    fn descriptors(pid: Pid) -> BTreeMap<i32, String> {
        let list = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().filter_map(Result::ok);
        let link = |entry: &fs::DirEntry| fs::read_link(entry.path()).map(|path| path.display().to_string());
        list.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, link(&entry).ok()?)))
            .collect()
    }

    /// Starts a server with files open that are not for its workers, and serves a client.
    /// What its only worker has open by then.
    fn started_with_open_files(arguments: &str) -> (BTreeMap<i32, String>, Server) {
        let mut shell = std::process::Command::new("bash");
        let files = "exec 5<Cargo.toml 9<Cargo.toml 200<Cargo.toml 0<Cargo.toml";
        shell.args(["-c", &format!("{files}; exec \"$0\" --bind 127.0.0.1:0 --workers 1 {arguments}")]);
        let server = Server::spawn({
            shell.arg(env!("CARGO_BIN_EXE_prefork-echo"));
            shell
        });
        let mut client = server.connect();
        crate::common::echo(&mut client, b"hello");
        assert!(descriptors(server.pid)[&9].ends_with("Cargo.toml"), "the server has inherited it");
        (descriptors(server.workers()[0]), server)
    }

    #[test]
    fn workers_keep_no_inherited_descriptors() {
        for option in ["", "--no-sandbox"] {
            let (open, server) = started_with_open_files(option);
            assert_eq!(open.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3, 4], "{open:?}");
            assert_eq!((open[&0].as_str(), open[&1].as_str()), ("/dev/null", "/dev/null"));
            assert!(open[&2].starts_with("pipe:"), "the log goes there: {open:?}");
            assert!(open[&3].starts_with("socket:") && open[&4].starts_with("socket:"), "{open:?}");
            let accepted = server.wait_for_log(&["accepted"]);
            assert!(accepted.contains("as descriptor 4"), "{accepted}");
        }
    }

    #[test]
    fn workers_keep_no_stderr_without_a_log_on_it() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let (open, _) = started_with_open_files(&format!("--log-file {}", log.display()));
        assert_eq!(open[&2], "/dev/null");
        assert_eq!(open[&3], log.display().to_string());
        assert_eq!(open.len(), 6, "stdin, stdout, stderr, log, two sockets: {open:?}");
    }

    #[test]
    fn no_sandbox_disables_the_sandbox() {
        let by_option = Server::start(&["--no-sandbox", "--workers", "1"]);
        let by_environment = Server::spawn({
            let mut command = binary();
            command.args(["--bind", "127.0.0.1:0"]).env("PREFORK_ECHO_NO_SANDBOX", "1");
            command
        });
        for server in [by_option, by_environment] {
            server.echo(b"served without");
            assert_eq!(sandbox(&server), (json!([]), ["0".into(), "0".into()]));
            let (_, table, _) = crate::common::status(&[&server.address.to_string()]);
            assert!(table.contains("; sandbox: none\n"), "{table}");
        }
    }

    #[test]
    fn a_parent_unable_to_signal_its_workers_does_not_start() {
        if geteuid().is_root() {
            let mut command = std::process::Command::new("setpriv");
            command.args(["--bounding-set=-kill", "--inh-caps=-kill", env!("CARGO_BIN_EXE_prefork-echo")]);
            command.args(["--bind", "127.0.0.1:0", "--user", "nobody"]);
            let (status, message) = crate::common::run(command);
            assert_eq!(status, 1, "{message}");
            assert!(
                message.contains("cannot signal workers of another user") && message.contains("CAP_KILL"),
                "{message}"
            );
        }
    }

    #[test]
    fn without_descriptors_no_worker_serves_outside_the_sandbox() {
        let server = Server::start(&["--workers", "1"]);
        if !sandbox(&server).0.as_array().unwrap().contains(&json!("landlock")) {
            return; // It is what takes a descriptor.
        }
        let limit = |what: &str| {
            let pid = server.pid.to_string();
            assert!(
                std::process::Command::new("prlimit").args(["--pid", &pid, what]).status().unwrap().success()
            );
        };
        // The worker that is forked next has none to spare.
        limit("--nofile=4:20000");
        let worker = server.workers()[0];
        kill(worker, Signal::SIGKILL).unwrap();
        server.wait_for_log(&["cannot enter the sandbox's landlock: ", "too many open files"]);
        let next = server.wait_for_workers(1)[0];
        let status = std::process::Command::new("prlimit")
            .args(["--pid", &next.to_string(), "--nofile=1000:"])
            .status();
        assert!(status.unwrap().success());
        server.echo(b"served from the sandbox");
        limit("--nofile=1000:");
        assert_eq!(sandbox(&server).0, json!(["no_new_privs", "landlock", "seccomp"]));
    }

    #[test]
    fn another_users_workers_have_no_capabilities() {
        if geteuid().is_root() {
            let server = Server::start(&["--user", "nobody", "--workers", "1"]);
            server.echo(b"hello");
            let worker = server.workers()[0];
            let nobody = User::from_name("nobody").unwrap().unwrap();
            let four = |id: u32| [id; 4].map(|id| id.to_string()).join(" ");
            assert_eq!(field(worker, "Uid"), four(nobody.uid.as_raw()), "real, effective, saved, of files");
            assert_eq!(field(worker, "Gid"), four(nobody.gid.as_raw()));
            assert!(!field(worker, "Groups").split(' ').any(|group| group == "0"));
            for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
                assert_eq!(field(worker, set), "0000000000000000", "{set}");
            }
        }
    }
}
