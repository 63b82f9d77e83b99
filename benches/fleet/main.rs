//! Simulates 100,000 clients whose tokens were issued in the same second, and counts what the token
//! endpoint sees: a day later, in an outage, and after all tokens have been revoked.
//!
//! `cargo run --release -p tower-bearer-benches --bin fleet -- [chart.svg]`
//!
//! The simulation runs in virtual time, once for each policy and scenario, and takes a few minutes. A
//! client sends a request every 30 to 60 s, at random. Requests that come while the token is too young
//! for anything to happen are left out. For our policy, a run with a hundredth of the clients checks that
//! the requests that are left out change no count in any second.
#![allow(clippy::print_stdout)]

mod chart;
mod clock;
mod ours;
mod peers;
mod world;

use std::{env, error::Error, thread, time::Instant};

use ours::Requested;
use tower_bearer_benches::target_directory;
use world::{CLIENTS, Counts, DAY, HOUR, Incident, MINUTE, QUIET, Summary};

/// A policy, and the results of its simulations.
struct Outcome {
    name: &'static str,
    quiet: Counts,
    /// The scenarios: quiet, outage, revocation.
    summaries: [Summary; 3],
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = match env::args_os().nth(1) {
        Some(path) => path.into(),
        None => target_directory()?.join("fleet.svg"),
    };
    println!("{CLIENTS} clients, a request each in 30 to 60 s, tokens of one hour");
    check_what_is_left_out()?;
    let started = Instant::now();
    let outcomes = simulate_all();
    println!("Simulated in {:.1?}", started.elapsed());

    for (index, scenario) in [
        "Nothing happens, hours 24 to 26",
        "The token endpoint is down for 10 min, from 2 min before the busiest second of hour 25",
        "All tokens are revoked 5 min after the busiest second of hour 25",
    ]
    .into_iter()
    .enumerate()
    {
        println!("\n{scenario}");
        println!("                          fetches per second      requests      until the last");
        println!("policy                      peak  mean  ratio  failed  rejected  of those, s");
        for outcome in &outcomes {
            let of = outcome.summaries[index];
            println!(
                "{:26} {:5.0} {:5.1} {:6.2} {:7} {:9} {:12}",
                outcome.name,
                of.peak,
                of.mean,
                of.peak / of.mean,
                of.failed,
                of.rejected,
                of.recovery
            );
        }
    }
    let panels: Vec<_> = outcomes
        .iter()
        .map(|outcome| (outcome.name, &outcome.quiet, outcome.summaries[0]))
        .collect();
    chart::draw(&path, &panels)?;
    println!("\nThe chart is in {}", path.display());
    check(&outcomes[0].summaries)
}

fn check_what_is_left_out() -> Result<(), Box<dyn Error>> {
    let incidents = [
        Incident::Nothing,
        Incident::Outage(DAY + HOUR),
        Incident::Revocation(DAY + HOUR),
    ];
    for incident in incidents {
        let run = |requested| ours::simulate(CLIENTS / 100, incident, requested);
        if run(Requested::Each) != run(Requested::ThatMayMatter) {
            return Err("a request that was left out would have mattered".into());
        }
    }
    Ok(())
}

fn simulate_all() -> Vec<Outcome> {
    let ours = || {
        simulate("ours", |incident| {
            ours::simulate(CLIENTS, incident, Requested::ThatMayMatter)
        })
    };
    thread::scope(|scope| {
        let ours = scope.spawn(ours);
        let peers = peers::PEERS.iter();
        let peers: Vec<_> = peers
            .map(|peer| simulate(peer.name, |incident| peer.simulate(incident)))
            .collect();
        ours.join().into_iter().chain(peers).collect()
    })
}

/// Simulates a policy. Each incident comes at the moment that hurts this policy most.
fn simulate(name: &'static str, run: impl Fn(Incident) -> Counts) -> Outcome {
    let quiet = run(Incident::Nothing);
    let busiest = quiet.busiest((DAY + HOUR, DAY + 2 * HOUR));
    let outage = Incident::Outage(busiest - 2 * MINUTE);
    let revocation = Incident::Revocation(busiest + 5 * MINUTE);
    Outcome {
        name,
        summaries: [
            quiet.in_window(QUIET),
            run(outage).in_window(outage.window()),
            run(revocation).in_window(revocation.window()),
        ],
        quiet,
    }
}

/// Checks that our policy meets its goals.
fn check([quiet, outage, revocation]: &[Summary; 3]) -> Result<(), Box<dyn Error>> {
    if quiet.peak > 2.0 * quiet.mean {
        return Err(format!("after a day, the peak is {:.2}", quiet.peak / quiet.mean).into());
    }
    if outage.failed > 0 {
        return Err(format!("{} requests failed by the outage", outage.failed).into());
    }
    // Of each client, only the first request after the revocation is rejected.
    if revocation.failed > 0 || revocation.rejected > CLIENTS || revocation.recovery > 61 {
        return Err("the fleet has not recovered from the revocation within a minute".into());
    }
    println!("All goals are met.");
    Ok(())
}
