//! A panic in the midst of `top` gives the terminal back.
//!
//! No harness: this program runs itself in a terminal, where it panics on purpose.

#[path = "../common/mod.rs"]
#[allow(dead_code)] // It uses a part of the fixture.
mod common;

use common::terminal::Terminal;
use prefork_echo::monitor::top::terminal::Screen;

const PANIC: &str = "PANIC_ON_SCREEN";

fn main() {
    if std::env::var_os(PANIC).is_some() {
        let _screen = Screen::enter().expect("there is a terminal");
        panic!("on purpose");
    }
    let this = std::env::current_exe().expect("it runs");
    let mut terminal = Terminal::run(&format!(
        "stty -g; echo; RUST_BACKTRACE=0 {PANIC}=1 '{}'; echo left with $?; stty -g; echo end",
        this.display()
    ));
    let message = terminal.assert_restored(101);
    assert!(message.contains("on purpose"), "{message}");
}
