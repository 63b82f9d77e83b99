//! Rejected tokens. Each test shows a single decision. The last tests count what many rejections in a
//! row cost.

use std::time::{Duration, Instant};

use super::{
    decisions::Bench,
    events::{DAY, HOUR, MILLI, MINUTE, NANO, SECOND},
};
use crate::refresh::answer::{Answer, Arrival};

#[test]
fn requests_with_a_rejected_token_wait_for_a_single_fetch_for_five_seconds() {
    let mut bench = Bench::holding_a_token_of_an_hour();
    let until = bench.after(5 * SECOND);
    let fetch = Bench::waits(bench.ask_rejected());
    bench.pass(5 * SECOND - NANO);
    assert_eq!(bench.ask_rejected(), Answer::Wait { fetch, until });
}

#[test]
fn a_rejected_token_is_served_once_its_replacement_takes_too_long() {
    let mut bench = Bench::holding_a_token_of_an_hour();
    let fetch = Bench::waits(bench.ask_rejected());
    bench.pass(5 * SECOND);
    let until = bench.after(SECOND);
    let despite = |fetch| Answer::Serve {
        token: 1,
        until,
        despite_rejection: true,
        fetch: Some(fetch),
    };
    assert_eq!(bench.ask_rejected(), despite(fetch));
    // Later tries run in the background, whatever marks come and go.
    bench.failed(fetch);
    bench.pass(MINUTE);
    bench.ask();
    assert_ne!(Bench::ahead(bench.ask_rejected()), fetch);
}

#[test]
fn after_a_failed_replacement_no_request_waits_until_a_fetch_succeeds() {
    let mut bench = Bench::holding_a_token_of_an_hour();
    let fetch = Bench::waits(bench.ask_rejected());
    bench.failed(fetch);
    let until = bench.after(100 * MILLI);
    assert_eq!(bench.ask_rejected(), Bench::again(1, until));
    bench.pass(100 * MILLI);
    let fetch = Bench::ahead(bench.ask_rejected());
    bench.fetched(fetch, 2, HOUR);
    bench.pass(HOUR / 2);
    assert!(matches!(bench.ask(), Answer::Serve { .. }));
    Bench::waits(bench.ask_rejected());
}

#[test]
fn the_wait_is_counted_once_for_a_replacement_whatever_marks_come_and_go() {
    let mut bench = Bench::holding_a_token_of_an_hour();
    let until = bench.after(5 * SECOND);
    let fetch = Bench::waits(bench.ask_rejected());
    bench.pass(2 * SECOND);
    assert_eq!(
        Bench::ahead(bench.ask()),
        fetch,
        "a success took the mark off"
    );
    bench.pass(2 * SECOND);
    assert_eq!(bench.ask_rejected(), Answer::Wait { fetch, until });
}

#[test]
fn the_first_two_replacements_are_immediate_and_the_third_is_ten_seconds_later() {
    let mut bench = Bench::holding_a_token_of_an_hour();
    for token in [2, 3] {
        let fetch = Bench::waits(bench.ask_rejected());
        bench.pass(3 * SECOND);
        bench.fetched(fetch, token, HOUR);
    }
    let until = bench.after(SECOND);
    assert_eq!(bench.ask_rejected(), Bench::again(3, until));
    // The interval of ten seconds counts from the beginning of the fetch.
    bench.pass(7 * SECOND - NANO);
    let until = bench.after(NANO);
    assert_eq!(bench.ask_rejected(), Bench::again(3, until));
    bench.pass(NANO);
    Bench::waits(bench.ask_rejected());
}

/// A bench whose token was replaced twice just now, so that the next replacement has to wait.
fn throttled(lifetime: Duration) -> Bench {
    let mut bench = Bench::holding_a_token_of_an_hour();
    for token in [2, 3] {
        let fetch = Bench::waits(bench.ask_rejected());
        bench.fetched(fetch, token, lifetime);
    }
    bench
}

#[test]
fn a_rejected_token_that_is_due_is_refreshed_whatever_the_interval() {
    // The token is served for 4 seconds, and its refresh is due after 3.
    let mut bench = throttled(5 * SECOND);
    bench.pass(3 * SECOND - NANO);
    let until = bench.after(NANO);
    assert_eq!(bench.ask_rejected(), Bench::again(3, until));
    bench.pass(NANO);
    Bench::waits(bench.ask_rejected());
}

#[test]
fn a_rejected_token_is_not_served_past_its_time_even_while_throttled() {
    let mut bench = throttled(2 * SECOND);
    bench.pass(1_500 * MILLI - NANO);
    assert!(matches!(bench.ask_rejected(), Answer::Wait { .. }), "due");
    bench.pass(NANO);
    assert_eq!(bench.usable(), None);
}

/// A clock goes back between two tests with paused time that share a source.
#[test]
fn a_clock_that_goes_back_makes_no_request_wait_longer_for_a_replacement() {
    let mut bench = Bench::empty();
    bench.pass(10 * DAY);
    bench.hold(1, HOUR);
    let fetch = Bench::waits(bench.ask_rejected());
    bench.now.monotonic -= DAY;
    let until = bench.after(5 * SECOND);
    assert_eq!(bench.ask_rejected(), Answer::Wait { fetch, until });
}

#[test]
fn a_clock_that_goes_back_makes_no_interval_between_replacements_longer() {
    let mut bench = Bench::empty();
    bench.pass(10 * DAY);
    bench.hold(1, HOUR);
    for token in [2, 3] {
        let fetch = Bench::waits(bench.ask_rejected());
        bench.fetched(fetch, token, HOUR);
    }
    let lost = bench.refresh();
    bench.machine.lost(lost);
    bench.now.monotonic -= DAY;
    // The late token of a lost fetch does not begin the interval anew.
    let hour = Some(HOUR);
    let arrival = bench
        .machine
        .fetched(bench.now, lost, 4, hour, |_| true, 0.0);
    assert_eq!(arrival.0, Arrival::Late { held: true });
    let until = bench.after(SECOND);
    assert_eq!(bench.ask_rejected(), Bench::again(4, until));
    bench.pass(10 * SECOND);
    Bench::waits(bench.ask_rejected());
}

#[test]
fn a_rejection_while_a_refresh_is_under_way_joins_it() {
    let mut bench = Bench::holding_a_token_of_an_hour();
    bench.pass(48 * MINUTE);
    let fetch = Bench::ahead(bench.ask());
    assert_eq!(Bench::waits(bench.ask_rejected()), fetch);
}

/// Replaces a token that was good for `lasted`. Gives the time from the beginning of this
/// replacement to the beginning of the next.
fn interval_after(bench: &mut Bench, lasted: Duration) -> Duration {
    bench.pass(lasted);
    bench.ask();
    // Longer than any interval.
    bench.pass(HOUR);
    let fetch = Bench::waits(bench.ask_rejected());
    let arrival = bench.arrival(fetch, 2, None, 0.0);
    assert_eq!(arrival, Arrival::Held);
    let begun = bench.now.monotonic;
    let mut probe = bench.clone();
    while let Answer::Serve { until, .. } = probe.ask_rejected() {
        probe.pass_until(until);
    }
    probe.now.monotonic - begun
}

#[test]
fn the_interval_doubles_to_its_limit_until_a_token_has_lasted_for_it() {
    let mut bench = Bench::empty();
    let _ = bench.machine.hold(bench.now, 1, None, 0.0);
    let lasts = |bench: &mut Bench, seconds| interval_after(bench, SECOND * seconds).as_secs();
    assert_eq!(lasts(&mut bench, 0), 0);
    assert_eq!(lasts(&mut bench, 9), 10);
    assert_eq!(lasts(&mut bench, 9), 20);
    assert_eq!(lasts(&mut bench, 19), 40);
    assert_eq!(lasts(&mut bench, 0), 80);
    assert_eq!(lasts(&mut bench, 0), 160);
    assert_eq!(lasts(&mut bench, 0), 300);
    assert_eq!(lasts(&mut bench, 299), 300);
    assert_eq!(lasts(&mut bench, 300), 0);
    assert_eq!(lasts(&mut bench, 10), 0);
    assert_eq!(lasts(&mut bench, 0), 10);
}

#[test]
fn a_token_has_not_lasted_before_a_tenth_of_its_lifetime_or_five_minutes() {
    for (lifetime, lasting) in [
        (10 * MINUTE, MINUTE),
        (DAY, 5 * MINUTE),
        (MINUTE, 10 * SECOND),
    ] {
        for (lasted, immediate) in [(lasting - NANO, false), (lasting, true)] {
            let mut bench = Bench::holding_a_token_of_an_hour();
            let fetch = Bench::waits(bench.ask_rejected());
            bench.fetched(fetch, 2, lifetime);
            bench.pass(lasted);
            bench.ask();
            let fetch = Bench::waits(bench.ask_rejected());
            bench.fetched(fetch, 3, HOUR);
            let again = matches!(bench.ask_rejected(), Answer::Wait { .. });
            assert_eq!(again, immediate, "{lifetime:?} {lasted:?}");
        }
    }
}

#[test]
fn a_token_has_lasted_for_the_time_before_its_first_mark() {
    let mut bench = Bench::holding_a_token_of_an_hour();
    let fetch = Bench::waits(bench.ask_rejected());
    bench.fetched(fetch, 2, HOUR);
    let fetch = Bench::waits(bench.ask_rejected());
    bench.failed(fetch);
    // A success takes the mark off, and the token stays in use.
    bench.pass(10 * MINUTE);
    assert!(matches!(bench.ask(), Answer::Serve { fetch: None, .. }));
    bench.pass(MINUTE);
    let fetch = Bench::ahead(bench.ask_rejected());
    bench.fetched(fetch, 3, HOUR);
    assert_eq!(bench.ask_rejected(), Bench::again(3, bench.after(SECOND)));
}

#[test]
fn a_token_that_lasted_counts_even_if_its_time_ends_before_its_replacement_comes() {
    let mut bench = Bench::holding_a_token_of_an_hour();
    for token in [2, 3] {
        let fetch = Bench::waits(bench.ask_rejected());
        bench.fetched(fetch, token, HOUR);
    }
    bench.pass(HOUR - 11 * SECOND);
    bench.ask();
    let fetch = Bench::waits(bench.ask_rejected());
    bench.pass(SECOND);
    assert_eq!(Bench::waits(bench.ask_rejected()), fetch);
    bench.fetched(fetch, 4, HOUR);
    // The token lasted, so the next replacement is immediate.
    Bench::waits(bench.ask_rejected());
}

/// The fetches and the rejected requests of a run.
#[derive(Debug, Default)]
struct Costs {
    fetches: Vec<Instant>,
    rejected: u32,
}

impl Costs {
    fn gaps(&self) -> Vec<u64> {
        let pairs = self.fetches.windows(2);
        pairs.map(|pair| (pair[1] - pair[0]).as_secs()).collect()
    }
}

/// Sends a request every second. `accepts` tells whether the server accepts a token of the given
/// age. Each fetch gives a token immediately, even in the background, and a success takes the mark
/// off.
fn run(seconds: u64, lifetime: Option<Duration>, accepts: impl Fn(Duration) -> bool) -> Costs {
    let mut bench = Bench::empty();
    let mut costs = Costs::default();
    let (mut token, mut came, mut marked) = (0, bench.now.monotonic, 0);
    for _ in 0..seconds {
        loop {
            let (answer, _) = bench.machine.ask(bench.now, |&asked| asked == marked);
            let (fetch, waits) = match answer {
                Answer::Wait { fetch, .. } => (Some(fetch), true),
                Answer::Serve { fetch, .. } => (fetch, false),
                Answer::BackOff { .. } => panic!("a back-off without a failure"),
            };
            let sent = token;
            let age = bench.now.monotonic - came;
            if let Some(fetch) = fetch {
                token += 1;
                came = bench.now.monotonic;
                costs.fetches.push(came);
                let arrival = bench.arrival(fetch, token, lifetime, 0.5);
                assert_eq!(arrival, Arrival::Held);
            }
            if !waits {
                let is_accepted = accepts(age);
                costs.rejected += u32::from(!is_accepted);
                if sent == token {
                    marked = if is_accepted { 0 } else { sent };
                }
                break;
            }
        }
        bench.pass(SECOND);
    }
    costs
}

#[test]
fn a_day_of_nothing_but_401_costs_294_fetches() {
    for lifetime in [None, Some(DAY)] {
        let costs = run(DAY.as_secs(), lifetime, |_| false);
        let gaps = costs.gaps();
        // The first two rejected tokens are replaced at once, at the next request.
        assert_eq!(gaps[..8], [1, 1, 10, 20, 40, 80, 160, 300]);
        assert!(gaps[7..].iter().all(|&gap| gap == 300), "{gaps:?}");
        assert_eq!(costs.fetches.len(), 294);
    }
}

#[test]
fn tokens_that_are_accepted_two_seconds_after_their_issue_cost_few_fetches() {
    let costs = run(3 * HOUR.as_secs(), Some(HOUR), |age| age >= 2 * SECOND);
    println!(
        "{} fetches, {} rejected requests",
        costs.fetches.len(),
        costs.rejected
    );
    assert!(costs.fetches.len() <= 15, "{}", costs.fetches.len());
    assert!(costs.rejected <= 40, "{}", costs.rejected);
}

#[test]
fn two_revocations_within_seconds_are_both_answered_at_once() {
    let mut bench = Bench::holding_a_token_of_an_hour();
    bench.pass(10 * MINUTE);
    bench.ask();
    let fetch = Bench::waits(bench.ask_rejected());
    bench.fetched(fetch, 2, HOUR);
    bench.pass(5 * SECOND);
    bench.ask();
    Bench::waits(bench.ask_rejected());
}

#[test]
fn one_spurious_401_and_an_endpoint_that_hangs_cost_one_wait() {
    let mut bench = Bench::holding_a_token_of_an_hour();
    let mut waited = 0;
    for _ in 0..180 {
        if let Some(fetch) = bench.machine.overdue(bench.now) {
            bench.failed(fetch);
        }
        match bench.ask_rejected() {
            Answer::Wait { .. } => waited += 1,
            Answer::Serve { .. } => {}
            Answer::BackOff { .. } => panic!("an error although the token is good"),
        }
        bench.pass(SECOND);
    }
    assert_eq!(waited, 5, "seconds in which requests waited");
}
