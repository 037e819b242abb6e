//! What `scripts/lessons.sh` answers to a mistyped command, and that what a lesson shows fits
//! on a screen; that the lessons are right, they prove themselves.

use std::fs;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::process::Command;

use pty_process::{Size, blocking};

use crate::common::{heavy, rounds};

#[track_caller]
fn lessons(argument: &str) -> (Option<i32>, String, String) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lessons.sh");
    let arguments = [script, argument, "--lang", "en"];
    let output = Command::new("bash").args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn help_says_how_a_lesson_is_run_and_in_which_languages() {
    for argument in ["--help", "-h"] {
        let (status, help, complaint) = lessons(argument);
        let usage = "usage: scripts/lessons.sh [NUMBER | all] [--lang en | ko] [--no-pause]\n";
        assert!(help.starts_with(usage), "{help}");
        assert_eq!((status, complaint.as_str()), (Some(0), ""));
    }
}

#[test]
fn the_language_is_that_of_the_environment_or_of_the_option() {
    let titles = |variables: &[(&str, &str)], arguments: &[&str]| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lessons.sh");
        let mut command = Command::new("bash");
        command.arg(script).args(arguments).env_remove("LC_ALL").env_remove("LC_MESSAGES");
        let output = command.env("LANG", "C").envs(variables.iter().copied()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let (english, korean) = (titles(&[], &["--lang", "en"]), titles(&[], &["--lang", "ko"]));
    assert_ne!(english, korean);
    assert_eq!(titles(&[], &[]), english);
    assert_eq!(titles(&[("LANG", "ko_KR.UTF-8")], &[]), korean);
    assert_eq!(titles(&[("LC_MESSAGES", "ko_KR.UTF-8")], &[]), korean);
    assert_eq!(titles(&[("LANG", "ko_KR.UTF-8"), ("LC_ALL", "C")], &[]), english);
    assert_eq!(titles(&[("LANG", "ko_KR.UTF-8")], &["--lang", "en"]), english);
}

/// The second line of a lesson's file is its title.
#[test]
fn the_lessons_are_listed_in_order_and_their_page_has_them_all() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts");
    let names =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("lesson-")).collect();
    names.sort();

    let output =
        Command::new("bash").args([&format!("{directory}/lessons.sh"), "--lang", "en"]).output().unwrap();
    let list = String::from_utf8(output.stdout).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    let list = format!(" {list}");
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/lessons.md")).unwrap();
    for (number, name) in (1..).zip(&names) {
        assert!(name.starts_with(&format!("lesson-{number:02}-")), "lesson {number} is not {name}");
        let file = fs::read_to_string(format!("{directory}/{name}")).unwrap();
        let title = file.lines().nth(1).unwrap().strip_prefix("# ").unwrap();
        // A long title takes two lines.
        let line = format!(" {number} {title} ");
        assert!(list.contains(&line), "{name} is not in the list:\n{list}");
        assert!(page.contains(&format!("\n| {number} | ")), "{name} is not in docs/lessons.md");
    }
    assert!(list.starts_with(" 1 "), "{list}");
}

#[test]
fn unknown_lessons_are_refused() {
    for argument in ["99", "0", "x", "1x", "-1", "1 2", "--pause", "09a", "99999999999999999999", "../1"] {
        let message = format!("there is no lesson {argument}; scripts/lessons.sh lists them\n");
        assert_eq!(lessons(argument), (Some(2), String::new(), message));
    }
}

const ROWS: u16 = 24;

/// What counts rows, as a terminal that is high enough for all of them.
fn unlimited() -> vt100::Parser {
    vt100::Parser::new(NonZeroU16::new(500).unwrap(), NonZeroU16::new(80).unwrap(), 0)
}

/// Runs a lesson in a terminal, and presses Enter when it asks for it. How many rows each Enter
/// has shown, those of wrapped lines counted, with the row of the prompt before and after it; and
/// all that was shown.
fn screens(lesson: &str, language: &str) -> (Vec<u16>, String) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lessons.sh");
    let (mut pty, inside) = blocking::open().unwrap();
    pty.resize(Size::new(ROWS, 80)).unwrap();
    let command = blocking::Command::new("bash").args([script, lesson, "--lang", language]);
    let command = command.env("LESSON_PROGRAM", env!("CARGO_BIN_EXE_prefork-echo"));
    let mut child = command.env("XDG_RUNTIME_DIR", env!("CARGO_TARGET_TMPDIR")).spawn(inside).unwrap();

    let (mut heights, mut all, mut screen, mut bytes) = (vec![], vec![], vec![], [0; 4096]);
    let mut terminal = unlimited();
    // At the end Linux says EIO.
    while let Ok(length @ 1..) = pty.read(&mut bytes) {
        terminal.process(&bytes[..length]);
        screen.extend_from_slice(&bytes[..length]);
        let shown = String::from_utf8_lossy(&screen);
        let last = shown.rsplit('\n').next().unwrap();
        if last.starts_with("    ") && last.contains("Enter") && last.ends_with(' ') {
            heights.push(terminal.screen().cursor_position().0 + 1);
            terminal = unlimited();
            all.append(&mut screen);
            pty.write_all(b"\n").unwrap();
        }
    }
    heights.push(terminal.screen().cursor_position().0 + 1);
    all.append(&mut screen);
    child.wait().unwrap();
    (heights, String::from_utf8(all).unwrap())
}

#[test]
fn what_one_enter_shows_fits_on_one_screen_in_each_language() {
    let _alone = heavy();
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts");
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let lessons = names.filter(|name| name.to_string_lossy().starts_with("lesson-")).count();
    let few = vec![1, 9, 15];
    for lesson in rounds(few, (1..=lessons).collect()) {
        for language in ["en", "ko"] {
            let (heights, shown) = screens(&lesson.to_string(), language);
            assert!(shown.contains("\nPASS "), "lesson {lesson}, {language}:\n{shown}");
            let highest = heights.iter().max().unwrap();
            assert!(*highest <= ROWS, "lesson {lesson}, {language}: {heights:?}\n{shown}");
        }
    }
}
