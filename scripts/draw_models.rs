//! Draws what scripts/models.sh has measured: scripts/models.svg, which docs/measurements.md shows.
//!
//! ```sh
//! cargo run --example draw_models -- TABLE FILE
//! ```
//!
//! The table is separated by tabs: server, clients, echoes a second, p50, p99 (both in
//! microseconds), processor time of an echo (in microseconds), memory of a client (in kB),
//! threads, processes. "-" stands where there is no figure; a line after "# " is written
//! below the picture. Fonts are the viewer's: no font is read here.

use std::error::Error;
use std::{env, fs};

use plotters::coord::Shift;
use plotters::prelude::*;

const SIZE: (u32, u32) = (840, 640);
const LEGEND: u32 = 30;
const FOOTER: u32 = 24;
const FONT: &str = "sans-serif";
/// Column of the table, and what it is.
const PANELS: [(usize, &str); 4] = [
    (2, "echoes a second"),
    (4, "p99 of an echo, microseconds"),
    (5, "processor time of the server an echo, microseconds"),
    (6, "memory of the server a client, kB"),
];
/// Told apart also by those who see no difference of red and green (Okabe and Ito).
const COLORS: [RGBColor; 6] = [
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(110, 110, 110),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
];

type Result<T> = std::result::Result<T, Box<dyn Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// One server's figures, a row for each number of clients.
struct Server {
    name: String,
    rows: Vec<Vec<Option<f64>>>,
}

impl Server {
    /// Clients, and the figure of that column, where there is one.
    fn points(&self, column: usize) -> impl Iterator<Item = (f64, f64)> {
        let figure = move |row: &Vec<Option<f64>>, column: usize| row.get(column).copied().flatten();
        self.rows
            .iter()
            .filter_map(move |row| Some((figure(row, 1)?, figure(row, column).filter(|n| *n > 0.0)?)))
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [table, target] = arguments.as_slice() else {
        return Err("usage: draw_models TABLE FILE".into());
    };
    let (servers, footer) = read(&fs::read_to_string(table)?);
    if servers.is_empty() {
        return Err(format!("{table} has no rows").into());
    }
    draw(&servers, &footer, target)?;
    println!("{target}: {} servers", servers.len());
    Ok(())
}

fn read(table: &str) -> (Vec<Server>, String) {
    let (mut servers, mut footer): (Vec<Server>, _) = (Vec::new(), String::new());
    for line in table.lines() {
        if let Some(text) = line.strip_prefix("# ") {
            footer = text.into();
            continue;
        }
        let name = line.split('\t').next().unwrap_or_default();
        let row = line.split('\t').map(|field| field.parse().ok()).collect();
        match servers.iter_mut().find(|server| server.name == name) {
            Some(server) => server.rows.push(row),
            None => servers.push(Server { name: name.into(), rows: vec![row] }),
        }
    }
    (servers, footer)
}

fn draw(servers: &[Server], footer: &str, target: &str) -> Result<()> {
    let root = SVGBackend::new(target, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (legend, rest) = root.split_vertically(LEGEND);
    let (panels, foot) = rest.split_vertically(SIZE.1 - LEGEND - FOOTER);
    draw_legend(&legend, servers)?;
    for (area, (column, title)) in panels.split_evenly((2, 2)).iter().zip(PANELS) {
        draw_panel(area, servers, column, title)?;
    }
    foot.draw(&Text::new(footer, (12, 4), (FONT, 12).into_font().color(&BLACK.mix(0.7))))?;
    root.present()?;
    Ok(())
}

fn draw_legend(area: &Area, servers: &[Server]) -> Result<()> {
    for (number, server) in servers.iter().enumerate() {
        let x = 14 + 130 * number as i32;
        let color = COLORS[number % COLORS.len()];
        area.draw(&PathElement::new([(x, 16), (x + 22, 16)], color.stroke_width(3)))?;
        area.draw(&Text::new(server.name.clone(), (x + 28, 9), (FONT, 14)))?;
    }
    Ok(())
}

/// Both axes are logarithmic: the figures span decades.
fn draw_panel(area: &Area, servers: &[Server], column: usize, title: &str) -> Result<()> {
    let all = || servers.iter().flat_map(|server| server.points(column));
    let (low, high) = all().fold((f64::INFINITY, 0.0_f64), |(low, high), (_, y)| (low.min(y), high.max(y)));
    let (low, high) = if low <= high { (low / 1.3, high * 1.3) } else { (1.0, 10.0) };
    let most = all().fold(10.0_f64, |most, (x, _)| most.max(x));
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 14))
        .margin(8)
        .margin_right(16)
        .x_label_area_size(34)
        .y_label_area_size(56)
        .build_cartesian_2d((0.8..most * 1.25).log_scale(), (low..high).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("clients")
        .label_style((FONT, 12))
        .axis_desc_style((FONT, 12))
        .light_line_style(BLACK.mix(0.06))
        .bold_line_style(BLACK.mix(0.15))
        .x_label_formatter(&|n| format!("{n}"))
        .y_label_formatter(&|n| format!("{n}"))
        .draw()?;
    for (number, server) in servers.iter().enumerate() {
        let color = COLORS[number % COLORS.len()];
        let line = LineSeries::new(server.points(column), color.stroke_width(2)).point_size(3);
        chart.draw_series(line)?;
    }
    Ok(())
}
