//! Fetches that give no token: lost, given up, or for an account that was signed out.

use super::{
    decisions::Bench,
    events::{HOUR, MINUTE, SECOND},
};
use crate::refresh::answer::{Answer, Arrival};

#[test]
fn a_lost_fetch_is_no_failure_and_the_next_request_begins_anew() {
    let mut bench = Bench::empty();
    let fetch = Bench::waits(bench.ask());
    bench.machine.lost(fetch);
    assert_ne!(Bench::waits(bench.ask()), fetch);
    assert_eq!(bench.machine.status(bench.now).failures, 0);
}

#[test]
fn after_a_loss_a_request_waits_for_a_refresh_that_is_due_until_a_fetch_has_ended() {
    let mut bench = Bench::holding_a_token_of_an_hour();
    bench.pass(48 * MINUTE);
    let fetch = Bench::ahead(bench.ask());
    bench.machine.lost(fetch);
    let fetch = Bench::waits(bench.ask());
    bench.machine.lost(fetch);
    let fetch = Bench::waits(bench.ask());
    bench.failed(fetch);
    bench.pass(SECOND);
    Bench::ahead(bench.ask());
}

#[test]
fn after_a_loss_no_request_waits_while_no_refresh_is_due() {
    let mut bench = Bench::holding_a_token_of_an_hour();
    let fetch = bench.refresh();
    bench.machine.lost(fetch);
    assert!(matches!(bench.ask(), Answer::Serve { fetch: None, .. }));
}

/// The time limit ends a fetch for its waiters. The task of the fetch may be dropped later.
#[test]
fn a_fetch_that_is_lost_after_it_failed_makes_no_request_wait() {
    let mut bench = Bench::holding_a_token_of_an_hour();
    bench.pass(48 * MINUTE);
    let fetch = Bench::ahead(bench.ask());
    bench.failed(fetch);
    bench.machine.lost(fetch);
    bench.pass(SECOND);
    Bench::ahead(bench.ask());
}

#[test]
fn after_a_loss_a_fetch_that_hangs_holds_requests_up_for_five_seconds_at_most() {
    let mut bench = Bench::holding_a_token_of_an_hour();
    bench.pass(48 * MINUTE);
    let fetch = Bench::ahead(bench.ask());
    bench.machine.lost(fetch);
    let until = bench.after(5 * SECOND);
    let fetch = Bench::waits(bench.ask());
    assert_eq!(bench.ask(), Answer::Wait { fetch, until });
    bench.pass(5 * SECOND);
    assert_eq!(Bench::ahead(bench.ask()), fetch);
    bench.machine.lost(fetch);
    Bench::ahead(bench.ask());
}

#[test]
fn a_late_token_is_held_if_nothing_better_is_and_leaves_the_fetch_under_way_alone() {
    let mut bench = Bench::empty();
    let late = Bench::waits(bench.ask());
    bench.machine.lost(late);
    let fetch = Bench::waits(bench.ask());
    let arrival = bench.arrival(late, 1, Some(HOUR), 0.0);
    assert_eq!(arrival, Arrival::Late { held: true });
    assert_eq!(bench.usable(), Some(1));
    assert!(bench.machine.is_under_way(fetch));
    bench.fetched(fetch, 2, HOUR);
    let arrival = bench.arrival(late, 3, Some(HOUR), 0.0);
    assert_eq!(arrival, Arrival::Late { held: false });
    assert_eq!(bench.usable(), Some(2));
    assert_eq!(
        bench.machine.previous(),
        Some(3),
        "it is the last that came"
    );
}

#[test]
fn a_late_failure_has_no_effect() {
    let mut bench = Bench::holding_a_token_of_an_hour();
    let fetch = bench.refresh();
    bench.machine.lost(fetch);
    bench.failed(fetch);
    bench.pass(48 * MINUTE);
    assert_ne!(Bench::waits(bench.ask()), fetch);
    assert_eq!(bench.machine.status(bench.now).failures, 0);
}

#[test]
fn an_invalidated_token_is_not_served_and_the_fetch_under_way_brings_nothing() {
    let mut bench = Bench::holding_a_token_of_an_hour();
    let fetch = bench.refresh();
    let (forgotten, _) = bench.machine.invalidate();
    assert_eq!(forgotten, Some(1));
    assert_eq!(bench.usable(), None);
    assert_eq!(bench.machine.previous(), None);
    assert!(bench.machine.is_void(fetch));
    // Two fetches at the same time could spend a refresh token twice.
    assert_eq!(Bench::waits(bench.ask()), fetch);
    assert_eq!(bench.refresh(), fetch);
    let arrival = bench.arrival(fetch, 2, Some(HOUR), 0.0);
    assert_eq!(arrival, Arrival::Void);
    assert_eq!((bench.usable(), bench.machine.previous()), (None, None));
    let next = Bench::waits(bench.ask());
    assert_ne!(next, fetch);
    assert!(!bench.machine.is_void(next));
}

#[test]
fn a_void_fetch_that_fails_or_is_lost_makes_way_for_the_next() {
    for is_lost in [true, false] {
        let mut bench = Bench::empty();
        let fetch = Bench::waits(bench.ask());
        let _ = bench.machine.invalidate();
        if is_lost {
            bench.machine.lost(fetch);
        } else {
            bench.failed(fetch);
        }
        assert_ne!(Bench::waits(bench.ask()), fetch);
        assert_eq!(bench.machine.status(bench.now).failures, 0);
    }
}

#[test]
fn a_void_fetch_is_overdue_at_its_time_limit() {
    let mut bench = Bench::empty();
    let fetch = Bench::waits(bench.ask());
    let _ = bench.machine.invalidate();
    bench.pass(30 * SECOND);
    assert_eq!(bench.machine.overdue(bench.now), Some(fetch));
}

#[test]
fn a_fetch_that_was_lost_before_the_sign_out_brings_nothing() {
    let mut bench = Bench::empty();
    let lost = Bench::waits(bench.ask());
    bench.machine.lost(lost);
    let _ = bench.machine.invalidate();
    let arrival = bench.arrival(lost, 1, Some(HOUR), 0.0);
    assert_eq!(arrival, Arrival::Void);
    assert_eq!(bench.usable(), None);
}

#[test]
fn a_sign_out_forgets_failures_and_keeps_the_interval_of_replacements() {
    let mut bench = Bench::holding_a_token_of_an_hour();
    for token in [2, 3] {
        let fetch = Bench::waits(bench.ask_rejected());
        bench.fetched(fetch, token, HOUR);
    }
    let fetch = bench.refresh();
    bench.failed(fetch);
    let _ = bench.machine.invalidate();
    assert_eq!(bench.machine.status(bench.now).failures, 0);
    let fetch = Bench::waits(bench.ask());
    bench.fetched(fetch, 4, HOUR);
    assert!(matches!(
        bench.ask_rejected(),
        Answer::Serve {
            despite_rejection: true,
            fetch: None,
            ..
        }
    ));
}
