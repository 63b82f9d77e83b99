//! What a rejected token leads to, one decision a test; and what a server costs that rejects all.

use std::time::Duration;

use super::{
    super::Answer,
    decisions::Bench,
    events::{DAY, HOUR, MILLI, MINUTE, NANO, SECOND},
};

#[test]
fn a_rejected_token_waits_for_one_fetch() {
    let mut bench = Bench::with_one_hour();
    let fetch = Bench::waits(bench.ask_rejected());
    assert_eq!(bench.ask_rejected(), Answer::Wait { fetch });
}

#[test]
fn a_rejected_token_is_served_again_while_the_source_backs_off() {
    let mut bench = Bench::with_one_hour();
    let fetch = Bench::waits(bench.ask_rejected());
    bench.failed(fetch);
    let until = bench.after(100 * MILLI);
    assert_eq!(bench.ask_rejected(), Bench::again(1, until));
    bench.pass(100 * MILLI);
    assert_ne!(Bench::waits(bench.ask_rejected()), fetch);
}

#[test]
fn a_replacement_that_is_rejected_too_is_served_again_for_the_interval() {
    let mut bench = Bench::with_one_hour();
    let fetch = Bench::waits(bench.ask_rejected());
    bench.pass(3 * SECOND);
    bench.fetched(fetch, 2, HOUR);
    let until = bench.after(SECOND);
    assert_eq!(bench.ask_rejected(), Bench::again(2, until));
    // Ten seconds from one beginning to the next.
    bench.pass(7 * SECOND - NANO);
    let until = bench.after(NANO);
    assert_eq!(bench.ask_rejected(), Bench::again(2, until));
    bench.pass(NANO);
    assert_ne!(Bench::waits(bench.ask_rejected()), fetch);
}

#[test]
fn a_rejected_token_that_is_due_is_refreshed_whatever_the_interval() {
    let mut bench = Bench::with_one_hour();
    let fetch = Bench::waits(bench.ask_rejected());
    // Due after 4 seconds.
    bench.fetched(fetch, 2, 5 * SECOND);
    bench.pass(4 * SECOND - NANO);
    let until = bench.after(NANO);
    assert_eq!(bench.ask_rejected(), Bench::again(2, until));
    bench.pass(NANO);
    Bench::waits(bench.ask_rejected());
}

#[test]
fn a_rejected_token_is_not_served_past_its_time_even_while_throttled() {
    let mut bench = Bench::with_one_hour();
    for (token, lifetime) in [(2, HOUR), (3, 11 * SECOND)] {
        let fetch = Bench::waits(bench.ask_rejected());
        bench.fetched(fetch, token, lifetime);
        bench.pass(10 * SECOND);
    }
    // Token 3 may be served for half a second more, and the interval is 20 s.
    let fetch = Bench::waits(bench.ask_rejected());
    bench.failed(fetch);
    assert!(matches!(bench.ask_rejected(), Answer::Serve { .. }));
    bench.pass(450 * MILLI);
    Bench::waits(bench.ask_rejected());
}

/// The length of the throttle after a token is replaced that lasted for that long.
fn interval_after(bench: &mut Bench, lasted: Duration) -> Duration {
    bench.pass(lasted);
    bench.ask();
    // Beyond any throttle.
    bench.pass(HOUR);
    let fetch = Bench::waits(bench.ask_rejected());
    bench.fetched(fetch, 2, DAY);
    let begun = bench.now.monotonic;
    let mut probe = Bench {
        machine: bench.machine.clone(),
        now: bench.now,
    };
    while let Answer::Serve { until, .. } = probe.ask_rejected() {
        probe.pass_until(until);
    }
    probe.now.monotonic - begun
}

#[test]
fn the_interval_doubles_to_its_limit_until_a_token_has_lasted_for_it() {
    let mut bench = Bench::empty();
    bench.hold(1, DAY);
    let lasts = |bench: &mut Bench, seconds| interval_after(bench, SECOND * seconds).as_secs();
    assert_eq!(lasts(&mut bench, 0), 10);
    assert_eq!(lasts(&mut bench, 9), 20);
    assert_eq!(lasts(&mut bench, 19), 40);
    assert_eq!(lasts(&mut bench, 0), 80);
    assert_eq!(lasts(&mut bench, 0), 160);
    assert_eq!(lasts(&mut bench, 0), 300);
    assert_eq!(lasts(&mut bench, 299), 300);
    assert_eq!(lasts(&mut bench, 300), 10);
    assert_eq!(lasts(&mut bench, 10), 10);
    assert_eq!(lasts(&mut bench, 0), 20);
}

#[test]
fn a_token_that_lasted_counts_even_if_its_time_ends_before_its_replacement_comes() {
    let mut bench = Bench::with_one_hour();
    let fetch = Bench::waits(bench.ask_rejected());
    bench.fetched(fetch, 2, HOUR);
    bench.pass(HOUR - 11 * SECOND);
    bench.ask();
    let fetch = Bench::waits(bench.ask_rejected());
    bench.pass(SECOND);
    assert_eq!(bench.ask_rejected(), Answer::Wait { fetch });
    bench.fetched(fetch, 3, HOUR);
    // Ten seconds from when the fetch began, not twenty.
    bench.pass(9 * SECOND - NANO);
    assert!(matches!(bench.ask_rejected(), Answer::Serve { .. }));
    bench.pass(NANO);
    Bench::waits(bench.ask_rejected());
}

/// One request a second, and each token is rejected as soon as it was served.
fn fetches_in_a_hostile_day(lifetime: Option<Duration>) -> Vec<Duration> {
    let mut bench = Bench::empty();
    let (mut begun, mut token, mut rejected) = (Vec::new(), 0, 0);
    let first = bench.now.monotonic;
    for _ in 0..DAY.as_secs() {
        match bench.machine.ask(bench.now, |&token| token <= rejected) {
            Answer::Wait { fetch } => {
                begun.push(bench.now.monotonic - first);
                token += 1;
                let expiry = lifetime.map(|lifetime| bench.after(lifetime));
                let outcome = bench.machine.fetched(bench.now, fetch, token, expiry, 0.5);
                assert_eq!(outcome, Ok(()));
            }
            Answer::Serve {
                despite_rejection, ..
            } => assert!(despite_rejection),
            Answer::BackOff { .. } => panic!("a back-off without a failure"),
        }
        rejected = token;
        bench.pass(SECOND);
    }
    begun
}

#[test]
fn a_day_of_nothing_but_401_costs_293_fetches() {
    for lifetime in [None, Some(DAY)] {
        let begun = fetches_in_a_hostile_day(lifetime);
        let gaps: Vec<_> = begun
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).as_secs())
            .collect();
        // The first rejected token is replaced at once, at the next request.
        assert_eq!(gaps[..7], [1, 10, 20, 40, 80, 160, 300]);
        assert!(gaps[6..].iter().all(|&gap| gap == 300), "{gaps:?}");
        assert_eq!(begun.len(), 293);
    }
}

#[test]
fn a_hostile_server_costs_no_more_than_the_expiry_of_its_tokens_does() {
    // A token of a minute is due after 45 seconds in the mean of its jitter.
    let begun = fetches_in_a_hostile_day(Some(MINUTE));
    assert_eq!(begun.len(), 1923);
}
