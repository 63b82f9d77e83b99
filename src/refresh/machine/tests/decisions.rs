//! One decision a test, each in the middle of a history that is written out.

use std::time::{Duration, Instant};

use super::{
    super::{Answer, FetchId, Machine, Now, Refusal},
    events::{DAY, HOUR, MILLI, MINUTE, NANO, SECOND},
    world::start,
};
use crate::refresh::policy::Policy;

/// A machine and its clocks.
#[derive(Clone)]
pub(super) struct Bench {
    pub(super) machine: Machine<u32, u32>,
    pub(super) now: Now,
}

impl Bench {
    pub(super) fn empty() -> Self {
        Self {
            machine: Machine::new(Policy::default()),
            now: start(),
        }
    }

    /// Holds token 1, just come: due to be refreshed after 55 minutes.
    pub(super) fn with_one_hour() -> Self {
        let mut bench = Self::empty();
        bench.hold(1, HOUR);
        bench
    }

    pub(super) fn hold(&mut self, token: u32, lifetime: Duration) {
        let expiry = self.now.monotonic + lifetime;
        self.machine.hold(self.now, token, Some(expiry), 0.0);
    }

    pub(super) fn pass(&mut self, duration: Duration) {
        self.now.monotonic += duration;
        self.now.wall += duration;
    }

    /// Asserts that time goes on, so that a loop of it ends.
    pub(super) fn pass_until(&mut self, until: Instant) {
        assert!(until > self.now.monotonic, "an answer that does not hold");
        self.pass(until - self.now.monotonic);
    }

    pub(super) fn ask(&mut self) -> Answer<u32, u32> {
        self.machine.ask(self.now, |_| false)
    }

    pub(super) fn ask_rejected(&mut self) -> Answer<u32, u32> {
        self.machine.ask(self.now, |_| true)
    }

    /// The fetch that an answer is to wait for.
    pub(super) fn waits(answer: Answer<u32, u32>) -> FetchId {
        match answer {
            Answer::Wait { fetch } => fetch,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn fetched(&mut self, fetch: FetchId, token: u32, lifetime: Duration) {
        let expiry = Some(self.now.monotonic + lifetime);
        let outcome = self.machine.fetched(self.now, fetch, token, expiry, 0.0);
        assert_eq!(outcome, Ok(()));
    }

    /// A failure after which nothing is tried for the ceiling of its back-off.
    pub(super) fn failed(&mut self, fetch: FetchId) {
        self.machine.failed(self.now, fetch, 7, 1.0);
    }

    pub(super) fn good(token: u32, until: Instant, fetch: Option<FetchId>) -> Answer<u32, u32> {
        Answer::Serve {
            token,
            until,
            despite_rejection: false,
            fetch,
        }
    }

    pub(super) fn again(token: u32, until: Instant) -> Answer<u32, u32> {
        Answer::Serve {
            token,
            until,
            despite_rejection: true,
            fetch: None,
        }
    }

    pub(super) fn after(&self, duration: Duration) -> Instant {
        self.now.monotonic + duration
    }
}

#[test]
fn with_no_token_all_wait_for_one_fetch() {
    let mut bench = Bench::empty();
    let fetch = Bench::waits(bench.ask());
    assert_eq!(bench.ask(), Answer::Wait { fetch });
    assert_eq!(bench.machine.refresh(bench.now), fetch);
}

#[test]
fn a_good_token_is_served_for_a_second_before_the_wall_clock_is_looked_at_again() {
    let mut bench = Bench::with_one_hour();
    let until = bench.after(SECOND);
    assert_eq!(bench.ask(), Bench::good(1, until, None));
}

#[test]
fn an_answer_holds_no_longer_than_until_the_refresh_is_due() {
    let mut bench = Bench::with_one_hour();
    bench.pass(55 * MINUTE - 3 * MILLI);
    let until = bench.after(3 * MILLI);
    assert_eq!(bench.ask(), Bench::good(1, until, None));
    bench.pass(3 * MILLI);
    let fetch = bench.machine.clone().refresh(bench.now);
    let until = bench.after(SECOND);
    assert_eq!(bench.ask(), Bench::good(1, until, Some(fetch)));
    assert_eq!(bench.ask(), Bench::good(1, until, Some(fetch)));
}

#[test]
fn a_token_is_served_to_the_last_nanosecond_before_the_margin_by_either_clock() {
    let pass: [fn(&mut Now, Duration); 3] = [
        |now, duration| now.monotonic += duration,
        |now, duration| now.wall += duration,
        |now, duration| {
            now.monotonic += duration;
            now.wall += duration;
        },
    ];
    for pass in pass {
        let mut bench = Bench::with_one_hour();
        pass(&mut bench.now, 55 * MINUTE - NANO);
        assert!(matches!(bench.ask(), Answer::Serve { fetch: None, .. }));
        pass(&mut bench.now, NANO);
        let begun = bench.ask();
        assert!(matches!(begun, Answer::Serve { fetch: Some(_), .. }));
        pass(&mut bench.now, 4 * MINUTE + 50 * SECOND - NANO);
        assert_eq!(bench.machine.usable(bench.now), Some(&1));
        pass(&mut bench.now, NANO);
        assert_eq!(bench.machine.usable(bench.now), None);
        Bench::waits(bench.ask());
    }
}

#[test]
fn a_token_whose_time_is_over_does_not_come_back_when_the_wall_clock_is_set_back() {
    let mut bench = Bench::with_one_hour();
    bench.now.wall += HOUR;
    Bench::waits(bench.ask());
    bench.now.wall -= HOUR;
    Bench::waits(bench.ask());
}

#[test]
fn a_wall_clock_that_is_set_back_does_not_lengthen_a_tokens_life() {
    let mut bench = Bench::with_one_hour();
    bench.now.wall -= DAY;
    bench.now.monotonic += HOUR;
    assert_eq!(bench.machine.usable(bench.now), None);
}

#[test]
fn the_error_is_given_until_the_back_off_ends_and_then_one_request_tries_again() {
    let mut bench = Bench::empty();
    let fetch = Bench::waits(bench.ask());
    bench.failed(fetch);
    bench.pass(100 * MILLI - NANO);
    let answer = Answer::BackOff {
        error: 7,
        retry_in: NANO,
    };
    assert_eq!(bench.ask(), answer);
    bench.pass(NANO);
    assert_ne!(Bench::waits(bench.ask()), fetch);
}

#[test]
fn a_failure_that_is_noticed_long_after_the_time_limit_counts_from_there() {
    let mut bench = Bench::empty();
    let fetch = Bench::waits(bench.ask());
    bench.pass(60 * SECOND - NANO);
    let mut late = bench.clone();
    bench.failed(fetch);
    let answer = Answer::BackOff {
        error: 7,
        retry_in: 100 * MILLI,
    };
    assert_eq!(bench.ask(), answer);
    late.pass(NANO);
    late.failed(fetch);
    assert_ne!(Bench::waits(late.ask()), fetch);
}

#[test]
fn a_refresh_is_not_held_up_by_the_back_off() {
    let mut bench = Bench::empty();
    let fetch = Bench::waits(bench.ask());
    bench.failed(fetch);
    let forced = bench.machine.refresh(bench.now);
    assert_ne!(forced, fetch);
    assert_eq!(bench.ask(), Answer::Wait { fetch: forced });
}

#[test]
fn a_failed_refresh_leaves_the_token_and_is_tried_again_after_the_back_off() {
    let mut bench = Bench::with_one_hour();
    bench.pass(56 * MINUTE);
    let fetch = bench.machine.refresh(bench.now);
    bench.failed(fetch);
    let until = bench.after(100 * MILLI);
    assert_eq!(bench.ask(), Bench::good(1, until, None));
    bench.pass(100 * MILLI);
    assert!(matches!(bench.ask(), Answer::Serve { fetch: Some(_), .. }));
}

#[test]
fn an_invalidated_token_is_not_served_and_a_fetch_under_way_counts() {
    let mut bench = Bench::with_one_hour();
    let fetch = bench.machine.refresh(bench.now);
    bench.machine.invalidate();
    assert_eq!(bench.machine.usable(bench.now), None);
    assert_eq!(bench.ask(), Answer::Wait { fetch });
    bench.failed(fetch);
    assert!(matches!(bench.ask(), Answer::BackOff { .. }));
    bench.machine.invalidate();
    Bench::waits(bench.ask());
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
fn a_fetch_that_was_given_up_does_not_count() {
    let mut bench = Bench::with_one_hour();
    let fetch = bench.machine.refresh(bench.now);
    bench.machine.abandon();
    bench.failed(fetch);
    let outcome = bench.machine.fetched(bench.now, fetch, 2, None, 0.0);
    assert_eq!(outcome, Err(Refusal::GivenUp));
    assert_eq!(bench.machine.usable(bench.now), Some(&1));
    bench.pass(55 * MINUTE);
    let Answer::Serve {
        fetch: Some(next), ..
    } = bench.ask()
    else {
        panic!("the late failure backs off");
    };
    assert_ne!(next, fetch);
}

#[test]
fn a_fetched_token_that_has_expired_is_refused_and_the_old_one_stays() {
    let mut bench = Bench::with_one_hour();
    let fetch = bench.machine.refresh(bench.now);
    let expiry = Some(bench.now.monotonic);
    let outcome = bench.machine.fetched(bench.now, fetch, 2, expiry, 0.0);
    assert_eq!(outcome, Err(Refusal::Expired));
    assert_eq!(bench.machine.usable(bench.now), Some(&1));
}

#[test]
fn a_source_that_fetches_every_so_often_does_so_whether_or_not_its_token_expires() {
    for (lifetime, due) in [
        (None, MINUTE),
        (Some(HOUR), MINUTE),
        (Some(MINUTE), 48 * SECOND),
    ] {
        let mut bench = Bench::empty();
        bench.machine = Machine::new(Policy {
            refresh_every: Some(MINUTE),
            ..Policy::default()
        });
        let expiry = lifetime.map(|lifetime| bench.after(lifetime));
        bench.machine.hold(bench.now, 1, expiry, 0.0);
        bench.pass(due - NANO);
        assert!(matches!(bench.ask(), Answer::Serve { fetch: None, .. }));
        bench.pass(NANO);
        assert!(matches!(bench.ask(), Answer::Serve { fetch: Some(_), .. }));
    }
}

/// By how much of its lifetime of ten hours a token is refreshed earlier, when each random number
/// is 1. It comes as `how` says, after one that was due after 55 minutes.
fn jitter_of(how: fn(&mut Bench) -> FetchId) -> Duration {
    let mut bench = Bench::empty();
    bench.machine = Machine::new(Policy {
        refresh_jitter: 0.1,
        startup_jitter: 0.5,
        ..Policy::default()
    });
    bench.hold(1, HOUR);
    bench.pass(55 * MINUTE);
    let fetch = how(&mut bench);
    let expiry = Some(bench.after(10 * HOUR));
    let outcome = bench.machine.fetched(bench.now, fetch, 2, expiry, 1.0);
    assert_eq!(outcome, Ok(()));
    let came = bench.now.monotonic;
    while let Answer::Serve {
        until, fetch: None, ..
    } = bench.ask()
    {
        bench.pass_until(until);
    }
    10 * HOUR - 5 * MINUTE - (bench.now.monotonic - came)
}

fn begun_ahead(bench: &mut Bench) -> FetchId {
    match bench.ask() {
        Answer::Serve {
            fetch: Some(fetch), ..
        } => fetch,
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_a_token_that_came_by_a_refresh_in_time_has_the_smaller_jitter() {
    assert_eq!(jitter_of(begun_ahead), HOUR, "in time");
    let after_a_failure = jitter_of(|bench| {
        let fetch = begun_ahead(bench);
        bench.failed(fetch);
        bench.pass(SECOND);
        begun_ahead(bench)
    });
    assert_eq!(after_a_failure, 5 * HOUR, "after a failure");
    let rejected = jitter_of(|bench| {
        let fetch = begun_ahead(bench);
        bench.ask_rejected();
        fetch
    });
    assert_eq!(rejected, 5 * HOUR, "rejected meanwhile");
    let wanted = jitter_of(|bench| bench.machine.refresh(bench.now));
    assert_eq!(wanted, 5 * HOUR, "the user wanted it");
    let late = jitter_of(|bench| {
        bench.pass(5 * MINUTE);
        Bench::waits(bench.ask())
    });
    assert_eq!(late, 5 * HOUR, "too late");
}

#[test]
fn a_back_off_and_an_interval_without_end_are_kept() {
    let century = 36_500 * DAY;
    let mut bench = Bench::empty();
    bench.machine = Machine::new(Policy {
        backoff_first: Duration::MAX,
        backoff_max: Duration::MAX,
        rejection_backoff_first: Duration::MAX,
        rejection_backoff_max: Duration::MAX,
        ..Policy::default()
    });
    let fetch = Bench::waits(bench.ask());
    bench.failed(fetch);
    bench.pass(century - NANO);
    assert!(matches!(bench.ask(), Answer::BackOff { .. }));

    let fetch = bench.machine.refresh(bench.now);
    bench.ask_rejected();
    bench.fetched(fetch, 1, 2 * century);
    let fetch = Bench::waits(bench.ask_rejected());
    bench.fetched(fetch, 2, 2 * century);
    bench.pass(century - NANO);
    assert!(matches!(bench.ask_rejected(), Answer::Serve { .. }));
}
