//! What `scripts/lessons.sh` answers to a mistyped command; that the lessons are right, they
//! prove themselves.

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

#[test]
fn unknown_lessons_are_refused() {
    for argument in ["99", "0", "x", "1x", "-1", "1 2", "--pause", "09a", "99999999999999999999", "../1"] {
        let message = format!("there is no lesson {argument}; scripts/lessons.sh lists them\n");
        assert_eq!(lessons(argument), (Some(2), String::new(), message));
    }
}
