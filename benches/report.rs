//! Writes `benches/overhead.svg` from the counts that the `instructions` bench left.
//!
//! `cargo bench -p tower-bearer-benches --bench instructions && cargo run -p tower-bearer-benches --bin report`
#![allow(clippy::print_stdout)]

use std::{error::Error, fs, path::Path};

use plotters::prelude::*;
use tower_bearer_benches::target_directory;

/// A case, the instructions it adds, and its heap allocations.
type Row = (String, f64, u64);

fn main() -> Result<(), Box<dyn Error>> {
    let json = fs::read_to_string(target_directory()?.join("instructions.json"))?;
    let mut rows: Vec<Row> = json.lines().filter_map(parse).collect();
    rows.retain(|(name, _, _)| name != "bare" && !name.ends_with(", scoped"));
    rows.sort_by(|a, b| b.1.total_cmp(&a.1));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("overhead.svg");
    draw(&path, &rows)?;
    println!("{}", path.display());
    Ok(())
}

/// Reads a line such as `"static": {"instructions": 545.0, "allocations": 0},`.
fn parse(line: &str) -> Option<Row> {
    let (name, rest) = line
        .trim()
        .strip_prefix('"')?
        .split_once("\": {\"instructions\": ")?;
    let (instructions, rest) = rest.split_once(", \"allocations\": ")?;
    let allocations = rest.trim_end_matches(['}', ',']).parse().ok()?;
    Some((name.to_owned(), instructions.parse().ok()?, allocations))
}

fn draw(path: &Path, rows: &[Row]) -> Result<(), Box<dyn Error>> {
    const BAR: i32 = 26;
    const LEFT: i32 = 240;
    const WIDTH: f64 = 420.0;
    let height = 60 + BAR * i32::try_from(rows.len())?;
    let root = SVGBackend::new(path, (800, u32::try_from(height)?)).into_drawing_area();
    root.fill(&WHITE)?;
    let title = "Instructions that an Authorization header adds to a request";
    root.draw(&Text::new(title, (20, 14), ("sans-serif", 18)))?;
    let most = rows.first().map_or(1.0, |row| row.1);
    for (index, (name, instructions, allocations)) in (0_i32..).zip(rows) {
        let theirs = name.starts_with("tower-http") || name == "by hand" || name.starts_with("cf-");
        let color = if theirs {
            RGBColor(150, 150, 150)
        } else {
            RGBColor(0, 120, 80)
        };
        let top = 48 + BAR * index;
        #[expect(clippy::cast_possible_truncation)]
        let right = LEFT + (instructions / most * WIDTH) as i32;
        let label = if theirs {
            name.clone()
        } else {
            format!("tower-bearer, {name}")
        };
        let font = ("sans-serif", 14).into_font();
        root.draw(&Text::new(label, (20, top + 3), font.clone()))?;
        root.draw(&Rectangle::new(
            [(LEFT, top), (right, top + BAR - 6)],
            color.filled(),
        ))?;
        let allocations = match allocations {
            0 => String::new(),
            count => format!(", {count} allocations"),
        };
        root.draw(&Text::new(
            format!("{instructions:.0}{allocations}"),
            (right + 6, top + 3),
            font,
        ))?;
    }
    root.present()?;
    Ok(())
}
