//! `completions`: a script by which a shell completes commands and options, made by
//! clap_complete of what `--help` is made of.

use clap::{Arg, Args, CommandFactory, ValueHint};
use clap_complete::{Shell, generate};

use super::CommandLine;
use crate::error::Error;
use crate::text;

/// What `completions` is to do.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CompletionsOptions {
    /// The shell that is to read the script
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

const EXAMPLES: &str = "\
Files:
  bash  ~/.local/share/bash-completion/completions/prefork-echo
  fish  ~/.config/fish/completions/prefork-echo.fish
  zsh   _prefork-echo in a directory of $fpath

Examples:
  eval \"$(prefork-echo completions bash)\"  in this bash, until it ends
  prefork-echo completions fish > FILE     in each fish that is started later";

/// Prints the script for a shell.
///
/// # Errors
/// If stdout cannot be written.
pub fn run(options: &CompletionsOptions) -> Result<(), Error> {
    let command = CommandLine::command().mut_args(with_hint);
    let mut command = command.mut_subcommands(|command| command.mut_args(with_hint));
    let mut script = Vec::new();
    generate(options.shell, &mut command, "prefork-echo", &mut script);
    let script = String::from_utf8_lossy(&script);
    text::print(corrected(options.shell, &script).trim_end())
}

/// Corrects two mistakes of clap_complete 4.6: `.ci/generated` and the tests find when one of
/// these is not enough any more.
fn corrected(shell: Shell, script: &str) -> String {
    match shell {
        // clap issue 6421: with a hyphen in the program's name, it calls each subcommand by two
        // names, and completes no option of it.
        Shell::Bash => script.replace("prefork__subcmd__echo", "prefork__echo"),
        // It does not understand a line whose last option still lacks its value, and offers the
        // names of files in place of the value.
        Shell::Fish => script.replace(
            "    set -e cmd[1]\n",
            "    set -e cmd[1]\n    if set -q cmd[1]; and string match -q -- '-*' $cmd[-1]\n        \
             set -e cmd[-1]\n    end\n",
        ),
        _ => script.to_owned(),
    }
}

/// Says what kind of value it is. Where nothing is said, shells offer the names of files.
fn with_hint(option: Arg) -> Arg {
    if !option.get_action().takes_values() {
        return option;
    }
    let name = option.get_value_names().and_then(|names| names.first()).map(|name| name.as_str());
    match name {
        None | Some("DIR") => option,
        Some("PATH") => option.value_hint(ValueHint::FilePath),
        Some("USER") => option.value_hint(ValueHint::Username),
        // To zsh a colon is the end of the name.
        Some("[HOST:]PORT") => option.value_hint(ValueHint::Other).value_name("ADDRESS"),
        Some(_) => option.value_hint(ValueHint::Other),
    }
}
