//! A picture of a terminal in SVG, of its cells; or a moving one, of several frames: they are
//! stacked, and a style moves the stack up.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use vt100::{Cell, Color};

/// The terminal's size, and the time from one frame to the next.
pub const COLUMNS: u16 = 80;
pub const ROWS: u16 = 24;
pub const FRAME: Duration = Duration::from_millis(500);

/// The terminal's cells, and what the picture says below them.
#[derive(Clone)]
pub struct Frame {
    pub rows: Vec<Vec<Cell>>,
    pub caption: &'static str,
}

// The drawing. Sizes are in the picture's own units: a cell is 8 by 17.
const WIDTH: usize = 8;
const HEIGHT: usize = 17;
const MARGIN: usize = 12;
/// The palette of a terminal: black, red, green, yellow, blue, magenta, cyan, white,
/// and the same brighter.
const PALETTE: [&str; 16] = [
    "#45475a", "#f38ba8", "#a6e3a1", "#f9e2af", "#89b4fa", "#f5c2e7", "#94e2d5", "#bac2de", "#7f849c",
    "#f38ba8", "#a6e3a1", "#f9e2af", "#89b4fa", "#f5c2e7", "#94e2d5", "#ffffff",
];
const FOREGROUND: &str = "#cdd6f4";
const BACKGROUND: &str = "#1e1e2e";

/// The picture: moving, if there are several frames.
pub fn draw(frames: &[Frame]) -> String {
    let width = usize::from(COLUMNS) * WIDTH + 2 * MARGIN;
    let caption = if frames.len() > 1 { 2 } else { 0 };
    let height = (usize::from(ROWS) + caption) * HEIGHT + 2 * MARGIN;
    let (mut lines, mut stack) = (HashMap::new(), String::new());
    let mut definitions = String::new();
    for (number, frame) in frames.iter().enumerate() {
        let caption = format!(
            "<text x=\"{WIDTH}\" y=\"{}\" fill=\"{}\" font-style=\"italic\">{}</text>",
            (usize::from(ROWS) + 1) * HEIGHT + HEIGHT / 2,
            PALETTE[5],
            escape(frame.caption)
        );
        let _ = write!(stack, "<g transform=\"translate({MARGIN} {})\">{caption}", number * height + MARGIN);
        for (row, cells) in frame.rows.iter().enumerate() {
            let line = draw_line(cells);
            if line.is_empty() {
                continue;
            }
            // What stands in many frames is drawn once.
            let next = lines.len();
            let id = *lines.entry(line).or_insert_with_key(|line| {
                let _ = writeln!(definitions, "<g id=\"l{next}\">{line}</g>");
                next
            });
            let _ = write!(stack, "<use href=\"#l{id}\" y=\"{}\"/>", row * HEIGHT);
        }
        stack.push_str("</g>\n");
    }
    let seconds = frames.len() as f64 * FRAME.as_secs_f64();
    let (number, total) = (frames.len(), frames.len() * height);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" xml:space=\"preserve\" viewBox=\"0 0 {width} {height}\" width=\"{width}\">\n\
         <title>prefork-echo top</title>\n\
         <style>text {{ font: 13.3px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; white-space: pre }}\n\
         .film {{ animation: film {seconds}s steps({number}) infinite }}\n\
         @keyframes film {{ to {{ transform: translateY(-{total}px) }} }}\n\
         @media (prefers-reduced-motion: reduce) {{ .film {{ animation: none }} }}</style>\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{BACKGROUND}\"/>\n\
         <defs>\n{definitions}</defs>\n<g class=\"film\">\n{stack}</g>\n</svg>\n"
    )
}

/// One line of the terminal: a text for each run of cells that look alike.
fn draw_line(cells: &[Cell]) -> String {
    let mut line = String::new();
    let mut column = 0;
    let mut looks: Vec<Look> = Vec::new();
    for cell in cells {
        // The second half of a wide letter has no look of its own.
        let first_half = looks.last().filter(|_| cell.is_wide_continuation()).cloned();
        looks.push(first_half.unwrap_or_else(|| look(cell)));
    }
    for run in looks.chunk_by(|one, other| one == other) {
        let (ink, paper, bold, _) = run[0].clone();
        let run = &cells[column..column + run.len()];
        let (x, length) = (column * WIDTH, run.len() * WIDTH);
        let is_blank = |cell: &&Cell| cell.contents().trim().is_empty() && !cell.is_wide_continuation();
        let blanks = run.iter().rev().take_while(is_blank).count();
        column += run.len();
        if paper != BACKGROUND {
            let _ = write!(line, "<rect x=\"{x}\" width=\"{length}\" height=\"{HEIGHT}\" fill=\"{paper}\"/>");
        }
        let text: String = run
            .iter()
            .filter(|cell| !cell.is_wide_continuation())
            .map(|cell| if cell.has_contents() { cell.contents() } else { " " })
            .collect();
        if text.trim().is_empty() {
            continue;
        }
        // Blanks at the end have no ink; those before it have a length.
        let text = text.trim_end();
        let length = (run.len() - blanks) * WIDTH;
        let bold = if bold { " font-weight=\"bold\"" } else { "" };
        let _ = write!(
            line,
            "<text x=\"{x}\" y=\"13\" textLength=\"{length}\" fill=\"{ink}\"{bold}>{}</text>",
            escape(text)
        );
    }
    line
}

/// Ink, paper, whether it is bold, and whether its letters are two cells wide: those stand by
/// themselves, because fonts differ in that.
type Look = (String, String, bool, bool);

fn look(cell: &Cell) -> Look {
    let ink = color(cell.fgcolor(), FOREGROUND);
    let paper = color(cell.bgcolor(), BACKGROUND);
    let ink = if cell.dim() { PALETTE[8].into() } else { ink };
    let (ink, paper) = if cell.inverse() { (paper, ink) } else { (ink, paper) };
    (ink, paper, cell.bold(), cell.is_wide())
}

fn color(color: Color, or: &str) -> String {
    match color {
        Color::Default => or.into(),
        Color::Idx(number) => PALETTE.get(usize::from(number)).map_or(or, |color| color).into(),
        Color::Rgb(red, green, blue) => format!("#{red:02x}{green:02x}{blue:02x}"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
