//! The language of what `top` and `client` show: English, or Korean where the user's locale
//! says so. The log, `--help` and all that programs read are English.
//!
//! An English text stands in the source, as a literal in a call of [`tr`], on one line, and is the key of its
//! translation in the catalogue, scripts/ko.po: a PO file, as gettext(1) and the tools of
//! translators know it. A text without a translation is shown in English.

use std::fmt::Display;
use std::sync::OnceLock;

use polib::catalog::Catalog;

const KOREAN: &str = include_str!("../scripts/ko.po");

/// The text in the user's language.
pub fn tr(english: &'static str) -> &'static str {
    static CATALOG: OnceLock<Option<Catalog>> = OnceLock::new();
    if !is_korean() {
        return english;
    }
    // Read at the first use: nothing else pays for it.
    let catalog = CATALOG.get_or_init(|| polib::po_file::parse_from_reader(KOREAN.as_bytes()).ok());
    let message = catalog.as_ref().and_then(|catalog| catalog.find_message(None, english, None));
    message.and_then(|message| message.msgstr().ok()).filter(|korean| !korean.is_empty()).unwrap_or(english)
}

/// The text with a value in the place of each `{name}`.
pub fn fill(text: &str, values: &[(&str, &dyn Display)]) -> String {
    let fill = |text: String, (name, value): &(&str, &dyn Display)| {
        text.replace(&format!("{{{name}}}"), &value.to_string())
    };
    values.iter().fold(text.to_owned(), fill)
}

/// See setlocale(3) and locale(7): the first of these variables that is not empty decides.
#[cfg(not(test))]
fn is_korean() -> bool {
    static IS_KOREAN: OnceLock<bool> = OnceLock::new();
    *IS_KOREAN.get_or_init(|| {
        let values = ["LC_ALL", "LC_MESSAGES", "LANG"].map(|name| std::env::var(name).unwrap_or_default());
        values.iter().find(|value| !value.is_empty()).is_some_and(|value| value.starts_with("ko"))
    })
}

#[cfg(test)]
use self::tests::is_korean;

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    thread_local! {
        static IS_KOREAN: Cell<bool> = const { Cell::new(false) };
    }

    /// In tests each thread chooses, and English is the default whatever the environment says.
    pub(super) fn is_korean() -> bool {
        IS_KOREAN.get()
    }

    /// Runs `body` with Korean as the language.
    pub(crate) fn in_korean<T>(body: impl FnOnce() -> T) -> T {
        IS_KOREAN.set(true);
        let result = body();
        IS_KOREAN.set(false);
        result
    }

    /// The literals of the calls of `tr` in all source files under `directory`.
    fn literals(directory: &Path) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(literals(&path));
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
                for line in code {
                    // Not the end of another name, such as from_str.
                    let is_call = |(at, _): &(usize, &str)| !line[..*at].ends_with(char::is_alphanumeric);
                    let calls = line
                        .match_indices("tr(\"")
                        .filter(|call| is_call(call) && !line[..call.0].ends_with('_'));
                    let text = |(at, call): (usize, &str)| line[at + call.len()..].split_once("\")");
                    found.extend(calls.filter_map(text).map(|(text, _)| text.to_owned()));
                }
            }
        }
        found
    }

    fn placeholders(text: &str) -> BTreeSet<&str> {
        text.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0)).collect()
    }

    #[test]
    fn each_text_of_the_program_has_a_korean_translation_with_the_same_placeholders() {
        let texts = literals(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
        assert!(texts.len() > 50, "too few were found: {texts:?}");
        in_korean(|| {
            for english in texts {
                let english: &'static str = english.leak();
                let korean = tr(english);
                assert_ne!(korean, english, "no translation in scripts/ko.po");
                assert_eq!(placeholders(korean), placeholders(english), "{korean}");
            }
        });
    }

    #[test]
    fn each_placeholder_is_filled() {
        assert_eq!(fill("{n} of {all}, {n}", &[("n", &3), ("all", &"four")]), "3 of four, 3");
    }

    #[test]
    fn without_a_translation_the_text_is_english() {
        assert_eq!(in_korean(|| tr(concat!("no such", " text"))), "no such text");
    }
}
