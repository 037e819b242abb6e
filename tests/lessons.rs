//! What `scripts/lessons.sh` answers to a mistyped command; that the lessons are right, they
//! prove themselves.

use std::fs;
use std::process::Command;

#[track_caller]
fn lessons(argument: &str) -> (Option<i32>, String, String) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lessons.sh");
    let output = Command::new("bash").args([script, argument]).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn each_lesson_has_a_line_of_help() {
    let usage =
        "usage: scripts/lessons.sh [NUMBER | all] [--no-pause]; without a NUMBER it lists the lessons\n";
    for argument in ["--help", "-h"] {
        assert_eq!(lessons(argument), (Some(0), usage.into(), String::new()));
    }
}

/// The second line of a lesson's file is its title.
#[test]
fn the_lessons_are_listed_in_order_and_their_page_has_them_all() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts");
    let names =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("lesson-")).collect();
    names.sort();

    let output = Command::new("bash").arg(format!("{directory}/lessons.sh")).output().unwrap();
    let list = String::from_utf8(output.stdout).unwrap();
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/lessons.md")).unwrap();
    for (number, name) in (1..).zip(&names) {
        assert!(name.starts_with(&format!("lesson-{number:02}-")), "lesson {number} is not {name}");
        let file = fs::read_to_string(format!("{directory}/{name}")).unwrap();
        let title = file.lines().nth(1).unwrap().strip_prefix("# ").unwrap();
        assert!(list.contains(&format!("{number:3}  {title}\n")), "{name} is not in the list:\n{list}");
        assert!(page.contains(&format!("\n| {number} | ")), "{name} is not in docs/lessons.md");
    }
    assert!(list.starts_with("  1  "), "{list}");
}

#[test]
fn unknown_lessons_are_refused() {
    for argument in ["99", "0", "x", "1x", "-1", "1 2", "--pause", "09a", "99999999999999999999", "../1"] {
        let message = format!("there is no lesson {argument}; scripts/lessons.sh lists them\n");
        assert_eq!(lessons(argument), (Some(2), String::new(), message));
    }
}
