//! Pages as text, to be read.

use super::super::{Page, TopView};
use super::{eight, several, shown};
use crate::config::Model;

#[test]
fn page_1_at_80_by_24() {
    assert_eq!(
        "\n".to_owned() + &shown(&eight(), 80, 24),
        "
 prefork-echo  127.0.0.1:7777  running for 4m05s    [1 flow] 2 memory  3 rates
 accept() takes a connection from the queue. The worker serves it to its end.

 CLIENTS                ┌─ one listening socket, 127.0.0.1:7777 ──────────────┐
 2 wait ───────────────▶│ accept queue: 2 of 10 ●●                            │
                        └─────┬───────────────────────────────────────────────┘
                              │  parent 4242 forked these; it serves no client
                              │          worker   pid  it is                 for
                              ├──────▶        0  4243  asleep in accept()   3.0s
 127.0.0.1:40312 ═════════════│══════▶ ▸      1  4244  asleep in recv()     4.0s
 [2001:db8:1:2…]:40313 ═══════│══════▶        2  4245  in send()
                              └──────▶        3  4246  asleep in accept()   6.0s
 127.0.0.1:40314 ════════════════════▶        4  4247  leaving in order     7.0s
 127.0.0.1:40315 ════════════════════▶        5  4248  stopped by SIGSTOP
                                              6     -  no process
                                              7  4250  starting            10.0s

 What has happened, and how long ago
 4m05s 8 workers forked
  7.0s worker 1 (pid 4230) killed by SIGKILL after 3.2s and 5 connections
  7.0s worker 1 (pid 4244) replaces pid 4230, 135.5µs after its death was seen


 q quit  ? help  Tab page  ↑↓ select  k KILL  t TERM  s STOP  c CONT  +- workers
"
    );
}

#[test]
fn page_1_at_60_by_20_with_several_clients_in_one_thread() {
    assert_eq!(
        "\n".to_owned() + &shown(&several(Model::Multiplex), 60, 20).replace("kevent()    ", "epoll_wait()"),
        "
 127.0.0.1:7777  4m05s          [1 flow] 2 memory  3 rates
 A worker waits for all its clients at once, in one call of
 epoll_wait().

 CLIENTS          ┌─ one listening socket, 127.0.0.1:7777 ┐
 2 wait ─────────▶│ accept queue: 2 of 10 ●●              │
                  └─┬─────────────────────────────────────┘
                    │  parent 4242 forked the workers
                    │      worker   pid  it is           for
 ● client ════════╦═╪══▶        0  4243  epoll_wait()
 ● client ════════╣ │             8 clients, one thread
 ● client ════════╣ │
 5 more ══════════╝ │
 ● client ════════╦═╪══▶ ▸      1  4244  epoll_wait()
 ● client ════════╝               2 clients, one thread

 What has happened, and how long ago
  7.0s worker 1 (pid 4230) killed by SIGKILL after 3.2s and…
  7.0s worker 1 (pid 4244) replaces pid 4230, 135.5µs after…
 q quit  ? help  Tab page  ↑↓ select  k KILL  t TERM  s STOP
"
    );
}

#[test]
fn page_2_at_80_by_24() {
    assert_eq!(
        "\n".to_owned() + &shown(&TopView { page: Page::Memory, ..eight() }, 80, 24),
        "
 prefork-echo  127.0.0.1:7777  running for 4m05s     1 flow [2 memory] 3 rates
 Each process counts its connections in a variable, at the same address.

  process    pid  at address      PRIVATE                  SHARED
  parent    4242  0x55d0c8a010e8        0                       -
  worker 0  4243  0x55d0c8a010e8       10 ████████▎            10 ████████▎
▸ worker 1  4244  0x55d0c8a010e8       11 █████████            11 █████████
  worker 2  4245  0x55d0c8a010e8       12 █████████▉           12 █████████▉
  worker 3  4246  0x55d0c8a010e8       13 ██████████▊          13 ██████████▊
  worker 4  4247  0x55d0c8a010e8       14 ███████████▌         14 ███████████▌
  worker 5  4248  0x55d0c8a010e8       15 ████████████▍        15 ████████████▍
  worker 6                              -                      16 █████████████▏
  worker 7  4250  0x55d0c8a010e8       17 ██████████████       17 ██████████████
  all                                   -                     108

 PRIVATE is in each process's own memory. When the process dies, it is lost.
 SHARED is one memory for all: the scoreboard. It stays when a process dies.
 6 workers were replaced, and have begun at 0.





 q quit  ? help  Tab page  ↑↓ select  k KILL  t TERM  s STOP  c CONT  +- workers
"
    );
}

#[test]
fn page_3_at_60_by_20() {
    assert_eq!(
        "\n".to_owned() + &shown(&TopView { page: Page::Rates, ..eight() }, 60, 20),
        "
 127.0.0.1:7777  4m05s           1 flow  2 memory [3 rates]
 How many connections the kernel gave to each worker:

  worker 0 ███████████████████████▌ 10
  worker 1 █████████████████████████▉ 11
  worker 2 ████████████████████████████▎ 12
  worker 3 ██████████████████████████████▋ 13
  worker 4 █████████████████████████████████ 14
  worker 5 ███████████████████████████████████▎ 15
  worker 6 █████████████████████████████████████▋ 16
  worker 7 ████████████████████████████████████████ 17
 The busiest has 1.26 times the mean; 1.00 is even.

 Connections a second: 12 now, 12 at most
                                                       ▂▅█
 Bytes a second: 1.24M now, 1.24M at most
                                                       ▂▅█
 In all 108 connections, 46080 bytes; workers replaced: 6.

 q quit  ? help  Tab page  ↑↓ select  k KILL  t TERM  s STOP
"
    );
}
