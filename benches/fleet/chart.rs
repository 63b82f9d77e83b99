//! The chart: one panel for each policy, on the same scale.

use std::{error::Error, path::Path};

use plotters::prelude::*;

use crate::world::{Counts, QUIET, Summary, cut};

/// The number of seconds in a point of the chart.
const BIN: usize = 10;
const SECONDS: f64 = 10.0;

/// Draws the fetches per second while nothing happens.
pub(crate) fn draw(path: &Path, panels: &[(&str, &Counts, Summary)]) -> Result<(), Box<dyn Error>> {
    let top = panels.iter().map(|panel| panel.2.peak).fold(0.0, f64::max) * 1.1;
    let height = 120 * u32::try_from(panels.len())? + 80;
    let root = SVGBackend::new(path, (900, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let root = root.margin(10, 10, 10, 10);
    let body = root.titled(
        "100,000 clients that started together, a day later: requests per second at the token endpoint",
        ("sans-serif", 17),
    )?;
    for (area, (name, counts, summary)) in body.split_evenly((panels.len(), 1)).iter().zip(panels) {
        let color = if name.starts_with("ours") {
            RGBColor(0, 120, 80)
        } else {
            RGBColor(190, 60, 50)
        };
        let mut chart = ChartBuilder::on(area)
            .margin_top(8)
            .margin_right(20)
            .x_label_area_size(20)
            .y_label_area_size(50)
            .build_cartesian_2d(24.0..26.0, 0.0..top)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .x_labels(5)
            .y_labels(3)
            .x_label_formatter(&|hour| format!("{hour:.1} h"))
            .y_label_formatter(&|rate| format!("{rate:.0}"))
            .draw()?;
        let rates = cut(&counts.fetches, QUIET)
            .chunks(BIN)
            .map(|bin| bin.iter().copied().map(f64::from).sum::<f64>() / SECONDS);
        let points = (0_u32..)
            .zip(rates)
            .map(|(bin, rate)| (24.0 + f64::from(bin) * SECONDS / 3600.0, rate));
        chart.draw_series(AreaSeries::new(points, 0.0, color.mix(0.4)).border_style(color))?;
        let ratio = summary.peak / summary.mean;
        let label = format!("{name}: the peak is {ratio:.1} times the mean");
        let style = ("sans-serif", 15).into_font().color(&color);
        chart.draw_series([Text::new(label, (24.02, top * 0.95), style)])?;
    }
    root.present()?;
    Ok(())
}
