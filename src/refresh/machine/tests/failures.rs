//! Failed fetches. Each test shows a single decision.

use std::time::Duration;

use super::{
    super::Machine,
    decisions::Bench,
    events::{DAY, HOUR, MILLI, MINUTE, NANO, SECOND},
};
use crate::refresh::answer::Answer;
use crate::refresh::policy::Policy;

#[test]
fn the_error_is_given_until_the_back_off_ends_and_then_one_request_tries_again() {
    let mut bench = Bench::empty();
    let fetch = Bench::waits(bench.ask());
    bench.failed(fetch);
    bench.pass(100 * MILLI - NANO);
    assert_eq!(bench.backs_off(), NANO);
    bench.pass(NANO);
    assert_ne!(Bench::waits(bench.ask()), fetch);
}

#[test]
fn a_failure_that_is_noticed_long_after_the_time_limit_counts_from_the_limit() {
    let mut bench = Bench::empty();
    let fetch = Bench::waits(bench.ask());
    bench.pass(60 * SECOND - NANO);
    let mut late = bench.clone();
    bench.failed(fetch);
    assert_eq!(bench.backs_off(), 100 * MILLI);
    late.pass(NANO);
    late.failed(fetch);
    assert_ne!(Bench::waits(late.ask()), fetch);
}

#[test]
fn a_refresh_is_not_held_up_by_the_back_off() {
    let mut bench = Bench::empty();
    let fetch = Bench::waits(bench.ask());
    bench.failed_with(fetch, Some(MINUTE), true);
    let forced = bench.refresh();
    assert_ne!(forced, fetch);
    assert_eq!(Bench::waits(bench.ask()), forced);
}

#[test]
fn a_failed_refresh_leaves_the_token_and_is_tried_again_after_the_back_off() {
    let mut bench = Bench::holding_a_token_of_an_hour();
    bench.pass(48 * MINUTE);
    let fetch = bench.refresh();
    bench.failed(fetch);
    let until = bench.after(100 * MILLI);
    assert_eq!(bench.ask(), Bench::good(1, until, None));
    bench.pass(100 * MILLI);
    Bench::ahead(bench.ask());
}

/// The longest wait after each failure. The failures are a second apart.
fn waits(bench: &mut Bench, failures: u32) -> Vec<Duration> {
    (0..failures)
        .map(|_| {
            let fetch = bench.refresh();
            bench.failed(fetch);
            let wait = bench.backs_off();
            bench.pass(SECOND);
            wait
        })
        .collect()
}

#[test]
fn with_no_token_to_serve_the_back_off_is_at_most_half_the_outage() {
    let mut bench = Bench::empty();
    let waits = waits(&mut bench, 100);
    assert_eq!(
        waits[..6],
        [100, 200, 400, 800, 1_600, 3_200].map(|ms| ms * MILLI)
    );
    // Five seconds while the outage has lasted for at most ten, and never over thirty.
    assert_eq!(waits[6..11], [5 * SECOND; 5]);
    assert_eq!(waits[11], 5_500 * MILLI);
    assert_eq!(waits[40], 20 * SECOND);
    assert_eq!(waits[60..], [30 * SECOND; 40]);
}

#[test]
fn whether_there_is_a_token_to_serve_is_judged_when_asked() {
    let mut bench = Bench::empty();
    bench.hold(1, MINUTE);
    bench.pass(50 * SECOND);
    for _ in 0..10 {
        let fetch = bench.refresh();
        bench.failed(fetch);
        bench.pass(MILLI);
    }
    assert!(matches!(bench.ask(), Answer::Serve { fetch: None, .. }));
    bench.pass(6 * SECOND);
    assert!(
        matches!(bench.ask(), Answer::Serve { fetch: None, .. }),
        "30 s"
    );
    bench.pass(SECOND);
    Bench::waits(bench.ask());
}

#[test]
fn a_back_off_that_the_user_has_set_holds_also_with_no_token() {
    let mut bench = Bench::empty();
    bench.machine = Machine::new(Policy {
        backoff_first: MINUTE,
        backoff_max: HOUR,
        backoff_is_users: true,
        ..Policy::default()
    });
    assert_eq!(
        waits(&mut bench, 3),
        [1, 2, 4].map(|minutes| minutes * MINUTE)
    );
}

#[test]
fn a_server_can_make_the_back_off_longer_and_not_shorter() {
    for (says, waits) in [(MILLI, 100 * MILLI), (MINUTE, MINUTE), (HOUR, HOUR)] {
        let mut bench = Bench::empty();
        let fetch = bench.refresh();
        bench.failed_with(fetch, Some(says), false);
        assert_eq!(bench.backs_off(), waits);
    }
}

#[test]
fn a_permanent_error_is_tried_again_after_ten_seconds_doubling_to_five_minutes() {
    let mut bench = Bench::empty();
    for seconds in [10, 20, 40, 80, 160, 300, 300] {
        let fetch = bench.refresh();
        bench.failed_with(fetch, None, true);
        assert_eq!(bench.backs_off(), seconds * SECOND);
    }
    let fetch = bench.refresh();
    bench.failed(fetch);
    assert!(bench.backs_off() <= 30 * SECOND, "not permanent any more");
    let fetch = bench.refresh();
    bench.failed_with(fetch, Some(MINUTE), true);
    assert_eq!(bench.backs_off(), MINUTE);
}

#[test]
fn a_dead_grant_costs_few_fetches_in_an_hour() {
    let mut bench = Bench::empty();
    let mut fetches = 0;
    for _ in 0..HOUR.as_secs() {
        if let Answer::Wait { fetch, .. } = bench.ask() {
            bench.failed_with(fetch, None, true);
            fetches += 1;
        }
        bench.pass(SECOND);
    }
    assert_eq!(fetches, 16);
}

#[test]
fn a_success_ends_the_failures() {
    let mut bench = Bench::empty();
    waits(&mut bench, 10);
    let fetch = bench.refresh();
    bench.fetched(fetch, 1, SECOND);
    bench.pass(SECOND);
    let fetch = Bench::waits(bench.ask());
    bench.failed(fetch);
    assert_eq!(bench.backs_off(), 100 * MILLI);
}

#[test]
fn a_fetch_is_overdue_when_its_time_limit_is_reached() {
    let mut bench = Bench::empty();
    assert_eq!(bench.machine.overdue(bench.now), None);
    let fetch = Bench::waits(bench.ask());
    bench.pass(30 * SECOND - NANO);
    assert_eq!(bench.machine.overdue(bench.now), None);
    bench.pass(NANO);
    assert_eq!(bench.machine.overdue(bench.now), Some(fetch));
}

#[test]
fn a_back_off_and_an_interval_without_end_are_kept() {
    let century = 36_500 * DAY;
    let mut bench = Bench::empty();
    bench.machine = Machine::new(Policy {
        backoff_first: Duration::MAX,
        backoff_max: Duration::MAX,
        backoff_is_users: true,
        rejection_backoff_first: Duration::MAX,
        rejection_backoff_max: Duration::MAX,
        ..Policy::default()
    });
    let fetch = Bench::waits(bench.ask());
    bench.failed(fetch);
    bench.pass(century - NANO);
    bench.backs_off();

    let fetch = bench.refresh();
    bench.fetched(fetch, 1, 2 * century);
    for token in [2, 3] {
        let fetch = Bench::waits(bench.ask_rejected());
        bench.fetched(fetch, token, 2 * century);
    }
    bench.pass(century - NANO);
    assert!(matches!(bench.ask_rejected(), Answer::Serve { .. }));
}
