//! The chart: one panel for each policy, on the same scale.

use std::error::Error;

use plotters::prelude::*;

use crate::world::{Counts, DAY, HOUR, window};

const FROM: u64 = DAY - HOUR;
const TO: u64 = DAY + HOUR;
/// Seconds that make one point.
const BIN: usize = 10;
const SECONDS: f64 = 10.0;

/// Fetches per second around the end of the first day.
pub(crate) fn draw(path: &str, results: &[(&str, Counts)]) -> Result<(), Box<dyn Error>> {
    let all: Vec<Vec<f64>> = results.iter().map(|(_, counts)| bins(counts)).collect();
    let top = all.iter().flatten().copied().fold(0.0, f64::max) * 1.05;
    let root =
        SVGBackend::new(path, (900, 170 * u32::try_from(results.len())? + 50)).into_drawing_area();
    root.fill(&WHITE)?;
    let title = "Requests per second at the token endpoint, 100,000 clients, a day after they started together";
    let body = root.titled(title, ("sans-serif", 18))?;
    for (index, area) in body.split_evenly((results.len(), 1)).iter().enumerate() {
        let color = if results[index].0.starts_with("ours") {
            RGBColor(0, 120, 80)
        } else {
            RGBColor(190, 60, 50)
        };
        let mut chart = ChartBuilder::on(area)
            .caption(
                results[index].0,
                ("sans-serif", 15).into_font().color(&color),
            )
            .margin(6)
            .margin_right(30)
            .x_label_area_size(22)
            .y_label_area_size(50)
            .build_cartesian_2d(23.0..25.0, 0.0..top)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(9)
            .y_labels(4)
            .x_label_formatter(&|hour| format!("{hour:.2} h"))
            .y_label_formatter(&|rate| format!("{rate:.0}/s"))
            .draw()?;
        let points = (0_u32..)
            .zip(&all[index])
            .map(|(bin, &rate)| (23.0 + f64::from(bin) * SECONDS / 3600.0, rate));
        chart.draw_series(AreaSeries::new(points, 0.0, color.mix(0.3)).border_style(color))?;
    }
    root.present()?;
    Ok(())
}

fn bins(counts: &Counts) -> Vec<f64> {
    window(&counts.fetches, (FROM, TO))
        .chunks(BIN)
        .map(|bin| bin.iter().copied().map(f64::from).sum::<f64>() / SECONDS)
        .collect()
}
