//! `man`: the manual pages, made of what `--help` is made of. It runs in a process of its own:
//! the server holds no page in memory.
//!
//! clap_mangen writes what it knows of a command: its options and subcommands. The rest is the
//! text after the options in `--help`: `sections` reads it.

mod sections;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory, ValueHint};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use self::sections::sections;
use super::CommandLine;
use crate::error::Error;
use crate::text;

/// When the pages have changed last. It stands at their foot.
const DATE: &str = "2026-11-26";

/// The longest line of text, in bytes, without the newline and two more that may be added.
const LINE: usize = 76;

/// What `man` is to do.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ManualOptions {
    /// Write a page for each command into this directory [default: the first page to stdout]
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    directory: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  prefork-echo man | man -l -                     read the first page
  prefork-echo man /usr/local/share/man/man1      install all pages (as root)";

/// Prints the page of the server, or writes the pages of all commands.
///
/// # Errors
/// If stdout or a file in the directory cannot be written.
pub fn run(options: &ManualOptions) -> Result<(), Error> {
    let command = definitions();
    let failed = |path: &Path, error: &io::Error| {
        let remedy = "give a DIR that exists and in which this user may write";
        Error::new(format_args!("write {}", path.display()), error, remedy)
    };
    let Some(directory) = &options.directory else {
        return text::print(page(&command, &command).trim_end());
    };
    for one in [&command].into_iter().chain(command.get_subcommands()) {
        let path = directory.join(Man::new(one.clone()).get_filename());
        fs::write(&path, page(&command, one)).map_err(|error| failed(&path, &error))?;
    }
    Ok(())
}

/// All commands, with what differs from `--help`.
fn definitions() -> clap::Command {
    let command = CommandLine::command().disable_help_subcommand(true);
    let mut command = command.subcommand_help_heading("COMMANDS");
    command.build();
    // Those of the server, last: --help and --version.
    command.mut_args(|option| match option.get_help_heading() {
        None => option.help_heading("General"),
        Some(_) => option,
    })
}

/// The page of one of the commands.
fn page(all: &clap::Command, command: &clap::Command) -> String {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").to_owned();
    let name = command.get_display_name().unwrap_or(command.get_name());
    let man = Man::new(command.clone().override_usage(usage))
        .title(name.to_uppercase())
        .date(DATE)
        .source(format!("prefork-echo {}", env!("CARGO_PKG_VERSION")))
        .manual("User Commands");
    let mut roff = Vec::new();
    let written = write_known(&man, command, &mut roff);
    written.expect("a vector takes everything");
    let mut page = String::from_utf8(roff).expect("it was made of text");
    if let Some(first) = command.get_arguments().find_map(|option| option.get_help_heading()) {
        let heading = format!(".SH {}\n", first.to_uppercase());
        page = page.replacen(&heading, &format!(".SH OPTIONS\n{heading}"), 1);
    }
    for heading in command.get_arguments().filter_map(|option| option.get_help_heading()) {
        page = page.replace(&format!(".SH {}\n", heading.to_uppercase()), &format!(".SS {heading}\n"));
    }
    // clap_mangen's empty lines between the help of an option and its values.
    page = page.replace("\n.br\n\n.br\n", "\n.sp\n");
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    page += &(sections(&after) + &see_also(all, command));
    // Each part has it.
    let preamble = Roff::new().render();
    with_short_lines(&(preamble.clone() + &page.replace(&preamble, "")))
        // In a typeset page these are accents, unless they are named.
        .replace('~', "\\(ti")
        .replace('^', "\\(ha")
        .replace('`', "\\(ga")
}

/// Breaks what is text at spaces. Lines longer than 80 bytes are hard to read in mails and
/// patches, and mandoc warns of them.
fn with_short_lines(roff: &str) -> String {
    let (mut short, mut is_tag) = (String::new(), false);
    for line in roff.lines() {
        let (mut rest, is_request) = (line, line.starts_with(['.', '\'']));
        while let Some(end) = rest.get(..=LINE).and_then(|start| start.rfind(' '))
            && !is_request
            // The first line after .TP is the heading of a paragraph.
            && !is_tag
        {
            short += &rest[..end];
            // A period would make it a request.
            short += if rest[end + 1..].starts_with(['.', '\'']) { "\n\\&" } else { "\n" };
            rest = &rest[end + 1..];
        }
        short += rest;
        short += "\n";
        is_tag = line == ".TP";
    }
    short
}

/// What clap_mangen knows.
fn write_known(man: &Man, command: &clap::Command, roff: &mut Vec<u8>) -> io::Result<()> {
    man.render_title(roff)?;
    man.render_name_section(roff)?;
    man.render_synopsis_section(roff)?;
    man.render_description_section(roff)?;
    man.render_options_section(roff)?;
    if command.has_subcommands() {
        man.render_subcommands_section(roff)?;
    }
    Ok(())
}

/// Names the other pages: that of the server those of all commands, and each of them that one.
fn see_also(all: &clap::Command, command: &clap::Command) -> String {
    let name =
        |command: &clap::Command| format!("{}(1)", command.get_display_name().unwrap_or(command.get_name()));
    let others: Vec<String> = match command.has_subcommands() {
        true => command.get_subcommands().map(name).collect(),
        false => vec![name(all)],
    };
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]).text([roman(others.join(", "))]);
    roff.render()
}
