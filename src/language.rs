//! The language of what a person reads while the program runs.

use std::fmt::Display;

/// The text in the user's language.
pub fn tr(english: &'static str) -> &'static str {
    english
}

/// The text with a value in the place of each `{name}`.
pub fn fill(text: &str, values: &[(&str, &dyn Display)]) -> String {
    let fill = |text: String, (name, value): &(&str, &dyn Display)| {
        text.replace(&format!("{{{name}}}"), &value.to_string())
    };
    values.iter().fold(text.to_owned(), fill)
}
