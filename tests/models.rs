//! Three ways to serve (`--model`): what is promised of serving holds in each of them. How
//! they leave is in `models_shutdown`, how they differ in `models_compared`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::models::{ALL, SHARED, echo_in_bulk, in_each, start, start_workers, sum, workers};
use crate::common::{
    PATIENCE, Server, SetOnDrop, connect, echo, heavy, noise, number_following, rounds, wait_until,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use socket2::SockRef;

#[test]
fn every_byte_comes_back_also_in_bulk() {
    in_each(&ALL, |model| {
        let server = start(model, 4, &["-q"]);
        thread::scope(|scope| {
            for client_number in 1..=4 {
                let is_small = client_number % 2 == 0;
                let mut client =
                    if is_small { server.connect_with_small_buffers() } else { server.connect() };
                scope.spawn(move || {
                    echo(&mut client, &(0..=255).collect::<Vec<u8>>());
                    // No two of them send the same byte at the same place.
                    let message = &noise(client_number * 700_000)[client_number..];
                    echo_in_bulk(client, message);
                });
            }
        });
    });
}

#[test]
fn clients_that_read_slowly_or_never_hinder_no_other() {
    in_each(&ALL, |model| {
        let server = start(model, 4, &["-q"]);
        let _greedy = server.connect_without_reading();
        let (mut slow, mut other, message) = (server.connect(), server.connect(), noise(3_000_000));
        SockRef::from(&slow).set_recv_buffer_size(16_384).unwrap();
        thread::scope(|scope| {
            let (mut sender, sent) = (slow.try_clone().unwrap(), &message);
            scope.spawn(move || sender.write_all(sent).unwrap());
            let mut answer = vec![0; message.len()];
            for part in answer[..400_000].chunks_mut(10_000) {
                slow.read_exact(part).unwrap();
                echo(&mut other, b"served meanwhile");
                server.echo(b"and so is a new one");
            }
            slow.read_exact(&mut answer[400_000..]).unwrap();
            assert!(answer == message, "what came back differs");
        });
    });
}

#[test]
fn the_idle_timeout_is_for_each_connection_by_itself() {
    let _alone = heavy();
    in_each(&ALL, |model| {
        let server = start(model, 3, &["--idle-timeout", "1s"]);
        let _greedy = server.connect_without_reading();
        let (mut active, start) = (server.connect(), Instant::now());
        let mut idle = server.connect();
        idle.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        while idle.read(&mut [0]).is_err() {
            echo(&mut active, b"not idle");
            assert!(start.elapsed() < PATIENCE, "the idle client is never closed");
        }
        assert!(start.elapsed() >= Duration::from_millis(990), "closed after {:?}", start.elapsed());
        let is_closed = |line: &&String| line.contains("idle for too long");
        while server.log().iter().filter(is_closed).count() < 2 {
            echo(&mut active, b"not idle");
            assert!(start.elapsed() < PATIENCE, "the client that never reads is never closed");
        }
        echo(&mut active, b"still served");
    });
}

#[test]
fn a_killed_worker_is_replaced_and_the_log_counts_its_clients() {
    in_each(&ALL, |model| {
        let most = if model == "process" { 1 } else { 3 };
        let server = start_workers(model, 2, most, &[]);
        // As many as it takes until one worker has its three.
        let mut clients = Vec::new();
        let is_full = |look: &Value| {
            workers(look)
                .iter()
                .find(|worker| worker["clients"] == most)
                .and_then(|worker| worker["pid"].as_i64())
        };
        let victim = loop {
            clients.extend(server.connect_served(1));
            if let Some(pid) = is_full(&server.status()) {
                break Pid::from_raw(pid as i32);
            }
        };
        let is_served_by_victim = |client: &TcpStream| {
            let line = server.wait_for_log(&["accepted ", &client.local_addr().unwrap().to_string()]);
            number_following(&line, "(pid ") == victim.as_raw()
        };
        kill(victim, Signal::SIGKILL).unwrap();
        for mut client in clients {
            match is_served_by_victim(&client) {
                true => assert_eq!(client.read(&mut [0]).unwrap_or(0), 0),
                false => echo(&mut client, b"the client of another worker"),
            }
        }
        let cut = if most == 1 { ", its client 127.0.0.1:" } else { ", its 3 clients are cut off" };
        server.wait_for_log(&[&format!("(pid {victim}) killed by SIGKILL after"), cut]);
        server.wait_for_log(&[&format!("replaces pid {victim}")]);
        server.wait_for_workers(2);
        server.connect_served(2 * most);
    });
}

/// Kills workers again and again under the load of such clients. Returns how many bytes they
/// have got, how many connections have ended well and badly.
fn load_with_kills(server: &Server, clients: usize, kills: usize) -> (u64, u64, u64) {
    let (address, stop) = (server.address, AtomicBool::new(false));
    let (got, whole, cut) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let one_life = || -> std::io::Result<()> {
        let mut client = connect(address);
        for _ in 0..20 {
            client.write_all(&[7; 64])?;
            let mut left = 64;
            while left > 0 {
                let length = match client.read(&mut [0; 64][..left])? {
                    0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                    length => length,
                };
                left -= length;
                got.fetch_add(length as u64, Ordering::Relaxed);
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let outcome = if one_life().is_ok() { &whole } else { &cut };
                    outcome.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _end = SetOnDrop(&stop);
        for round in 0..=kills {
            let before = whole.load(Ordering::Relaxed);
            wait_until("the load goes on", || whole.load(Ordering::Relaxed) > before + 20);
            if round < kills {
                kill(server.workers()[0], Signal::SIGKILL).unwrap();
            }
        }
    });
    (got.into_inner(), whole.into_inner(), cut.into_inner())
}

#[test]
fn counts_are_true_with_threads_that_count_at_once_and_through_kills() {
    let _alone = heavy();
    in_each(&SHARED, |model| {
        for kills in [0, rounds(5, 30)] {
            let server = start_workers(model, 2, 8, &["-q"]);
            let (got, whole, cut) = load_with_kills(&server, 8, kills);
            let look = server.wait_for_status("all are idle", |look| {
                workers(look).iter().all(|worker| worker["state"] == "idle" && worker["clients"] == 0)
            });
            let (connections, bytes) = (sum(&look, "connections"), sum(&look, "bytes"));
            assert_eq!(look["totals"]["connections"], connections);
            assert_eq!(look["totals"]["bytes"], bytes);
            // A connection that was cut may have been cut before accept, and a worker may be
            // killed between a count and its send.
            assert!((whole..=whole + cut).contains(&connections), "{connections}: {whole} whole, {cut} cut");
            assert!((got..=got + cut * 64).contains(&bytes), "{bytes} counted, {got} got, {cut} cut");
            if kills == 0 {
                assert_eq!((cut, sum(&look, "private_counter")), (0, connections));
            }
        }
    });
}

/// Linux shows the threads of a process, and changes the limits of one that runs.
#[cfg(target_os = "linux")]
mod on_linux {
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    use super::*;

    #[test]
    fn each_thread_is_in_the_sandbox() {
        // As far as this kernel has it.
        let process = start("process", 1, &[]);
        let look =
            process.wait_for_status("it is in the sandbox", |look| look["workers"][0]["sandbox"].is_array());
        let sandbox = &look["workers"][0]["sandbox"];
        let line = |worker: &Path, name: &str| {
            let status = fs::read_to_string(worker.join("status")).unwrap();
            status.lines().find(|line| line.starts_with(name)).map(str::to_owned)
        };
        let names = ["Seccomp:", "NoNewPrivs:"];
        let of_process = names.map(|name| line(Path::new(&format!("/proc/{}", process.workers()[0])), name));
        in_each(&SHARED, |model| {
            let server = start_workers(model, 2, 5, &[]);
            let look = server.wait_for_status("all are in the sandbox", |look| {
                workers(look).iter().all(|worker| worker["sandbox"] == *sandbox)
            });
            for worker in workers(&look) {
                let tasks = fs::read_dir(format!("/proc/{}/task", worker["pid"])).unwrap();
                let tasks: Vec<_> = tasks.map(|task| task.unwrap().path()).collect();
                assert_eq!(worker["threads"], tasks.len());
                for task in tasks {
                    assert_eq!(names.map(|name| line(&task, name)), of_process, "{}", task.display());
                }
            }
        });
    }

    fn limit_descriptors(worker: Pid, limit: &str) {
        let prlimit = ["--pid", &worker.to_string(), &format!("--nofile={limit}:")];
        assert!(Command::new("prlimit").args(prlimit).status().unwrap().success());
    }

    /// Processor time of all threads of a process so far, in hundredths of a second.
    fn cpu(pid: Pid) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    #[test]
    fn without_descriptors_a_worker_serves_its_clients_and_does_not_spin() {
        let _alone = heavy();
        in_each(&SHARED, |model| {
            let server = start(model, 4, &[]);
            let worker = server.workers()[0];
            let mut client = server.connect_served(1).remove(0);
            limit_descriptors(worker, "1");
            if model == "thread" {
                // Each of the others is in accept, and has a descriptor for the next client.
                (0..3).for_each(|_| server.echo(b"the last one of this thread"));
            }
            let mut waiting = server.connect();
            waiting.write_all(b"hello").unwrap();
            server.wait_for_log(&["cannot accept: too many open files", "ulimit -n"]);
            // In a busy loop a second would be a second of processor time.
            let before = cpu(worker);
            for _ in 0..10 {
                echo(&mut client, b"served all the same");
                thread::sleep(Duration::from_millis(100)); // The client's rhythm.
            }
            let used = cpu(worker) - before;
            assert!(used < 30, "{used} hundredths of a second");
            limit_descriptors(worker, "1000");
            waiting.read_exact(&mut [0; 5]).unwrap();
            server.wait_for_log(&["accepting again, after"]);
            assert_eq!(server.workers(), [worker], "it survives");
        });
    }
}
