//! `man` and `completions` say what `--help` says, and can be used as they come. Whether each
//! formatter and shell takes them without a warning, `.ci/generated` checks.

use std::fs;
use std::process::{Command, Stdio};

use crate::common::{command, run, unprivileged_binary};

const COMMANDS: [&str; 6] = ["status", "top", "client", "bench", "completions", "man"];

/// What a command prints that must succeed.
#[track_caller]
fn output(arguments: &[&str]) -> String {
    let (code, stdout, stderr) = command(arguments);
    assert_eq!((code, stderr.as_str()), (0, ""), "{arguments:?}");
    stdout
}

/// The pages of all commands: the command, "" for the server, and the text.
fn pages() -> Vec<(&'static str, String)> {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(output(&["man", directory.path().to_str().unwrap()]), "");
    let mut pages = vec![("", fs::read_to_string(directory.path().join("prefork-echo.1")).unwrap())];
    for command in COMMANDS {
        let path = directory.path().join(format!("prefork-echo-{command}.1"));
        pages.push((command, fs::read_to_string(path).unwrap()));
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), pages.len());
    pages
}

/// The words of a page as a reader sees them, with one space between them.
fn shown(page: &str) -> String {
    let text: Vec<&str> = page.lines().filter(|line| !line.starts_with('.')).collect();
    let escapes = [
        ("\\fB", ""),
        ("\\fI", ""),
        ("\\fR", ""),
        ("\\&", ""),
        ("\\-", "-"),
        ("\\*(Aq", "'"),
        ("\\(ti", "~"),
    ];
    let text = escapes.iter().fold(text.join(" "), |text, (escape, meaning)| text.replace(escape, meaning));
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn each_page_has_all_that_help_says() {
    for (command, page) in pages() {
        let arguments: Vec<&str> = [command, "--help"].into_iter().filter(|word| !word.is_empty()).collect();
        let (help, page) = (output(&arguments), shown(&page));
        let lines = help.lines().filter(|line| !line.ends_with(':') && !line.contains("Print this message"));
        for part in lines.flat_map(|line| line.split("  ")).map(|part| part.trim().trim_start_matches("- ")) {
            let part = part.trim_start_matches("Usage: ").trim_start_matches("Exit status: ");
            // The page has a list of these values.
            let part = part.split(" [possible values").next().unwrap_or_default();
            if part.ends_with("zsh]") {
                continue;
            }
            assert!(page.contains(part), "the page of {command:?} lacks {part:?}\n{page}");
        }
    }
}

#[test]
fn the_first_page_has_the_sections_of_a_server_and_goes_to_stdout() {
    let page = output(&["man"]);
    let sections: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix(".SH ")).collect();
    let wanted = [
        "NAME",
        "SYNOPSIS",
        "DESCRIPTION",
        "OPTIONS",
        "COMMANDS",
        "SIGNALS",
        "\"EXIT STATUS\"",
        "ENVIRONMENT",
        "FILES",
        "EXAMPLES",
        "\"SEE ALSO\"",
    ];
    assert_eq!(sections, wanted);
    assert_eq!(page, pages()[0].1);
    for command in COMMANDS {
        assert!(shown(&page).contains(&format!("prefork-echo-{command}(1)")), "{command}\n{page}");
    }
}

#[test]
fn what_cannot_be_written_names_the_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    let (code, stdout, stderr) = command(&["man", missing.to_str().unwrap()]);
    let message = format!(
        "prefork-echo: cannot write {}/prefork-echo.1: no such file or directory; give a DIR that exists and in \
         which this user may write\n",
        missing.display()
    );
    assert_eq!((code, stdout.as_str(), stderr), (1, "", message));

    let mut foreign = unprivileged_binary(directory.path());
    foreign.args(["man", "/"]);
    let (code, message) = run(foreign);
    assert!(code == 1 && message.contains("cannot write /prefork-echo.1: "), "{code} {message}");
    assert!(message.ends_with("; give a DIR that exists and in which this user may write\n"), "{message}");

    for arguments in ["man", "completions bash"] {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec \"$0\" {arguments} >&-"), env!("CARGO_BIN_EXE_prefork-echo")]);
        let (code, message) = run(shell);
        assert!(code == 1 && message.contains("stdout: it is closed; let it lead to"), "{code} {message}");
    }
}

#[test]
fn each_shell_has_a_script_and_no_other() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = output(&["completions", shell]);
        for word in COMMANDS.iter().copied().chain(["max-workers", "openmetrics", "multiplex"]) {
            assert!(script.contains(word), "{shell} lacks {word}");
        }
    }
    let (code, _, message) = command(&["completions", "ksh"]);
    assert!(code == 2 && message.contains("[possible values: bash, elvish, fish"), "{code} {message}");
}

#[test]
fn bash_completes_commands_options_and_values() {
    let completed = |words: &str| {
        // As bash does when Tab is pressed behind the last word.
        let script = format!(
            "eval \"$(\"$0\" completions bash)\"; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
             function=$(complete -p prefork-echo | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
             $function prefork-echo \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD - 1]}}\"
             echo \"${{COMPREPLY[@]}}\""
        );
        let mut bash = Command::new("bash");
        bash.args(["-c", &script, env!("CARGO_BIN_EXE_prefork-echo")]).stdin(Stdio::null());
        String::from_utf8(bash.output().unwrap().stdout).unwrap()
    };
    assert_eq!(completed("prefork-echo st"), "status\n");
    assert_eq!(completed("prefork-echo --max-w"), "--max-workers\n");
    assert_eq!(completed("prefork-echo --model m"), "multiplex\n");
    assert_eq!(completed("prefork-echo status --op"), "--openmetrics\n");
    assert_eq!(completed("prefork-echo completions z"), "zsh\n");
}
