//! Text of a known width. A letter of Korean is two columns wide, so a width is never a
//! number of characters.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The columns that a text takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// The text with spaces after it, so that it is so wide, or cut to that.
pub fn left(text: &str, width: usize) -> String {
    let text = cut(text, width);
    let spaces = width.saturating_sub(text.width());
    text + &" ".repeat(spaces)
}

/// The text with spaces before it, so that it is so wide, or cut to that.
pub fn right(text: &str, width: usize) -> String {
    let text = cut(text, width);
    " ".repeat(width.saturating_sub(text.width())) + &text
}

/// At most so many columns of the text. A cut is marked: half a number would mislead.
pub fn cut(text: &str, width: usize) -> String {
    match text.width() <= width {
        true => text.to_owned(),
        false => marked(text, width),
    }
}

/// The line, cut where it is too long.
pub fn fit(line: Line<'static>, width: usize) -> Line<'static> {
    if line.width() <= width {
        return line;
    }
    let mut room = width;
    let mut fitting = Line::default().style(line.style);
    for span in line.spans {
        // The mark has one column.
        let Some(left) = room.checked_sub(span.width()).filter(|left| *left > 0) else {
            fitting.push_span(Span::styled(marked(&span.content, room), span.style));
            break;
        };
        room = left;
        fitting.push_span(span);
    }
    fitting
}

/// The start of the text and the mark, in so many columns.
fn marked(text: &str, width: usize) -> String {
    let mut room = width.saturating_sub(1);
    let fits = |letter: &char| {
        let left = room.checked_sub(letter.width().unwrap_or(0));
        room = left.unwrap_or(0);
        left.is_some()
    };
    let start: String = text.chars().take_while(fits).collect();
    if width > 0 { start + "…" } else { start }
}

/// The line as of something that is no more: grey, whatever colour it had.
pub fn grey(line: Line<'static>) -> Line<'static> {
    let style = Style::new().fg(Color::DarkGray).add_modifier(Modifier::DIM);
    let spans = line.spans.into_iter().map(|span| Span::styled(span.content, style));
    Line::from(spans.collect::<Vec<_>>()).style(style)
}

/// The line with ASCII in the place of what is drawn. Letters stay, and each place too: what
/// is one column wide becomes one character.
pub fn ascii(mut line: Line<'static>) -> Line<'static> {
    for span in &mut line.spans {
        span.content = span.content.chars().map(ascii_of).collect::<String>().into();
    }
    line
}

fn ascii_of(drawn: char) -> char {
    match drawn {
        '─' => '-',
        '═' => '=',
        '│' | '║' => '|',
        '┌' | '┐' | '└' | '┘' | '├' | '┤' | '┬' | '┴' | '┼' | '╪' | '╤' | '╦' | '╣' | '╝' => {
            '+'
        }
        '▶' | '▸' | '→' => '>',
        '●' => 'o',
        '✗' => 'x',
        '…' => '~',
        '⋮' => ':',
        '↑' => '^',
        '↓' => 'v',
        'µ' => 'u',
        '≥' => '>',
        '▁' | '▂' => '.',
        '▃' | '▄' => '-',
        '▅' | '▆' => '=',
        '▇' | '▏' | '▎' | '▍' | '▌' | '▋' | '▊' | '▉' | '█' => '#',
        other => other,
    }
}

/// Values as columns, in so many lines; the highest is as high as all of them.
pub fn curve(values: &[f64], lines: usize) -> Vec<String> {
    const LEVELS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = values.iter().copied().fold(0.0, f64::max);
    let eighths =
        |value: f64| if most > 0.0 { (value / most * 8.0 * lines as f64).ceil() as usize } else { 0 };
    let level = |value: f64, below: usize| LEVELS[eighths(value).saturating_sub(8 * below).min(8)];
    (0..lines).rev().map(|below| values.iter().map(|value| level(*value, below)).collect()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cut_is_marked_and_korean_letters_are_two_columns_wide() {
        assert_eq!([cut("12345", 5), cut("12345", 4), cut("1", 0)], ["12345", "123…", ""]);
        assert_eq!([cut("소켓", 4), cut("소켓", 3), cut("소켓", 2)], ["소켓", "소…", "…"]);
        assert_eq!([left("소켓", 6), right("소켓", 6)], ["소켓  ", "  소켓"]);
        assert_eq!(curve(&[0.0, 1.0, 8.0], 1), [" ▁█"]);
        assert_eq!(curve(&[1.0, 4.0, 8.0], 2), ["  █", "▂██"]);
    }

    proptest! {
        #[test]
        fn lines_fit(texts in proptest::collection::vec("[a소 …]{0,6}", 0..4), width in 0..20_usize) {
            let line = Line::from(texts.iter().cloned().map(Span::raw).collect::<Vec<_>>());
            let all = texts.concat();
            let fitting = fit(line, width);
            prop_assert!(fitting.width() <= width);
            if super::width(&all) <= width {
                prop_assert_eq!(fitting.to_string(), all);
            } else {
                prop_assert!(width == 0 || fitting.to_string().ends_with('…'));
            }
        }
    }
}
