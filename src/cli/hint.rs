//! The answer to a common mistake: the port is typed alone, or with an option that other
//! programs have for it.

use std::env;

use clap::CommandFactory;
use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue};

use super::CommandLine;
use crate::config::BindAddress;

/// Adds to an error of the command line how the port is written, if that was the mistake.
pub(super) fn added(mut error: clap::Error) -> clap::Error {
    let wrong = [ContextKind::InvalidSubcommand, ContextKind::InvalidArg].into_iter().find_map(|kind| {
        match error.get(kind) {
            Some(ContextValue::String(word)) => Some(word.clone()),
            _ => None,
        }
    });
    let is_mistake = |word: &String| is_address(word) || word == "--port" || word == "-p";
    if let Some(word) = wrong.filter(is_mistake) {
        let typed: Vec<String> = env::args().skip(1).collect();
        let tip = StyledStr::from(tip(&word, &typed));
        error.remove(ContextKind::SuggestedArg);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
    }
    error
}

/// How the port is written. It is the wrong word itself, or stands behind it: as "-p 8080",
/// "-p8080" or "--port=8080".
fn tip(wrong: &str, typed: &[String]) -> String {
    let behind = typed.iter().skip_while(|word| !word.starts_with(wrong));
    let address = match is_address(wrong) {
        true => Some(wrong),
        false => behind
            .map(|word| word.trim_start_matches(wrong).trim_start_matches('='))
            .find(|word| is_address(word)),
    };
    let address = address.unwrap_or("PORT");
    let commands = CommandLine::command();
    match typed.iter().find_map(|word| commands.find_subcommand(word)) {
        Some(command) => format!("the address has no option: prefork-echo {} {address}", command.get_name()),
        None => format!("the option for the address is --bind: prefork-echo --bind {address}"),
    }
}

fn is_address(text: &str) -> bool {
    text.parse::<BindAddress>().is_ok()
}
