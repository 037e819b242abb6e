//! The sections of a manual page that `--help` has after its options.
//!
//! The form of such a text: lines that end in a colon are headings; lines that are indented by
//! two spaces are rows, of two columns, and further indented ones go on with the second column;
//! all others are paragraphs. A paragraph after an empty line belongs to no table: it is a note.

use clap_mangen::roff::{Roff, bold, roman};

/// What stands before the text of a paragraph that is a section of its own.
const EXIT_STATUS: &str = "Exit status: ";

/// Writes the text as sections of a page.
pub(super) fn sections(text: &str) -> String {
    let mut roff = Roff::new();
    let mut lines = text.lines().peekable();
    let (mut section, mut is_after_gap) = (String::new(), true);
    while let Some(line) = lines.next() {
        let mut rest_of = |line: &str, goes_on: fn(&str) -> bool| {
            let mut words = line.trim().to_owned();
            while let Some(next) = lines.next_if(|next| goes_on(next)) {
                words += " ";
                words += next.trim();
            }
            words
        };
        if line.is_empty() {
            is_after_gap = true;
            continue;
        } else if let Some((name, text)) = row(line) {
            let text = rest_of(text, is_second_column);
            roff.control("TP", []).text([bold(name)]).text([roman(text)]);
        } else if let Some(heading) = line.strip_suffix(':') {
            section = heading.trim_end_matches(" to the parent").to_uppercase();
            roff.control("SH", [section.as_str()]);
        } else {
            let text = rest_of(line, is_paragraph);
            let exit_status = text.strip_prefix(EXIT_STATUS);
            let wanted = match (exit_status, is_after_gap) {
                (Some(_), _) => "EXIT STATUS",
                (None, true) => "NOTES",
                (None, false) => section.as_str(),
            };
            match wanted == section {
                true => roff.control("PP", []),
                false => roff.control("SH", [wanted]),
            };
            section = wanted.to_owned();
            roff.text([roman(exit_status.unwrap_or(&text))]);
        }
        is_after_gap = false;
    }
    roff.render()
}

/// The columns of the first line of a row.
fn row(line: &str) -> Option<(&str, &str)> {
    let row = line.strip_prefix("  ").filter(|row| !row.starts_with(' '))?;
    Some(row.split_once("  ").unwrap_or((row, "")))
}

fn is_second_column(line: &str) -> bool {
    line.starts_with("   ")
}

fn is_paragraph(line: &str) -> bool {
    !line.is_empty() && !line.starts_with(' ') && !line.ends_with(':')
}
