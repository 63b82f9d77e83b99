//! 100,000 clients whose tokens were issued in the same second: what the token endpoint sees of them
//! a day later, in an outage, and after all tokens have been revoked.
//!
//! `cargo run --release --example fleet [chart.svg]`
#![allow(clippy::print_stdout)]

mod chart;
mod clock;
mod ours;
mod peers;
mod world;

use std::{env, error::Error, time::Instant};

use ours::Settings;
use world::{CLIENTS, Counts, DAY, END, HOUR, OUTAGE, REVOCATION, STEADY, peak_and_mean, window};

fn main() -> Result<(), Box<dyn Error>> {
    let chart = env::args()
        .nth(1)
        .unwrap_or_else(|| "target/fleet.svg".into());
    println!(
        "{CLIENTS} clients, one request each in two minutes, tokens of one hour that were all\n\
         issued in second 0. {} hours of virtual time.\n",
        END / HOUR
    );
    let started = Instant::now();
    let mut results = vec![
        (
            "ours, many clients",
            ours::simulate(Settings::ManyClients, 2),
        ),
        ("ours, default", ours::simulate(Settings::Default, 2)),
    ];
    println!("ours took {:.1?} of real time", started.elapsed());
    for peer in peers::PEERS {
        results.push((peer.name, peer.simulate()));
    }
    println!("all of them took {:.1?}\n", started.elapsed());

    print_tables(&results);
    chart::draw(&chart, &results)?;
    println!("\nThe chart is in {chart}");
    check(&results[0].1)
}

fn print_tables(results: &[(&str, Counts)]) {
    println!("Fetches per second, the peak being the most in any one second");
    println!(
        "{:22} {:>9} {:>7} {:>7} {:>10}   {:>12} {:>15}",
        "", "day 1", "hour 25", "", "", "outage of", "revocation of"
    );
    println!(
        "{:22} {:>9} {:>7} {:>7} {:>10}   {:>12} {:>15}",
        "policy", "peak", "peak", "mean", "peak/mean", "10 min: peak", "all: peak"
    );
    for (name, counts) in results {
        // The first second is the same for all.
        let (first_day, _) = peak_and_mean(window(&counts.fetches, (60, DAY)));
        let (peak, mean) = peak_and_mean(window(&counts.fetches, STEADY));
        let (outage, _) = peak_and_mean(window(&counts.fetches, (OUTAGE.0, OUTAGE.1 + HOUR / 6)));
        let (revoked, _) =
            peak_and_mean(window(&counts.fetches, (REVOCATION, REVOCATION + HOUR / 6)));
        println!(
            "{name:22} {first_day:9} {peak:7} {mean:7.1} {:10.2}   {outage:12} {revoked:15}",
            peak / mean
        );
    }
    println!("\nRequests");
    println!(
        "{:22} {:>17} {:>22} {:>24} {:>20}",
        "policy",
        "failed, all told",
        "failed by the outage",
        "401s after revocation",
        "the last 401 after"
    );
    for (name, counts) in results {
        let after = window(&counts.rejected, (REVOCATION, END));
        let recovery = after.iter().rposition(|&count| count > 0);
        println!(
            "{name:22} {:17} {:22} {:24} {:>18} s",
            sum(&counts.failed),
            sum(window(&counts.failed, (OUTAGE.0, REVOCATION))),
            sum(after),
            recovery.map_or(0, |second| second + 1),
        );
    }
}

fn sum(series: &[u32]) -> u64 {
    series.iter().copied().map(u64::from).sum()
}

/// The goals, which are for the settings for many clients.
fn check(ours: &Counts) -> Result<(), Box<dyn Error>> {
    let (peak, mean) = peak_and_mean(window(&ours.fetches, STEADY));
    if peak > 2.0 * mean {
        return Err(format!("after a day, the peak is {:.2} of the mean", peak / mean).into());
    }
    let failed = sum(&ours.failed);
    if failed > 0 {
        return Err(format!("{failed} requests failed").into());
    }
    let late = window(&ours.rejected, (REVOCATION + world::REQUEST_EVERY + 1, END));
    if sum(late) > 0 {
        return Err("a client had more than its first request rejected".into());
    }
    println!("\nAll goals are met.");
    Ok(())
}
