//! Each test shows a single decision of the machine, after a history that the test writes out.

use std::time::{Duration, Instant};

use super::{
    super::Machine,
    events::{DAY, HOUR, MILLI, MINUTE, NANO, SECOND},
    world::start,
};
use crate::refresh::answer::{Answer, Arrival, Failure, FetchId, Now};
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

    /// Holds token 1, which came now: its refresh is due after 47 minutes and 50 seconds, and its
    /// service ends 12 minutes later.
    pub(super) fn holding_a_token_of_an_hour() -> Self {
        let mut bench = Self::empty();
        bench.hold(1, HOUR);
        bench
    }

    pub(super) fn hold(&mut self, token: u32, lifetime: Duration) {
        let _ = self.machine.hold(self.now, token, Some(lifetime), 0.0);
    }

    pub(super) fn pass(&mut self, duration: Duration) {
        self.now.monotonic += duration;
        self.now.wall += duration;
    }

    /// Asserts that time goes on, so that a loop over this call ends.
    pub(super) fn pass_until(&mut self, until: Instant) {
        assert!(until > self.now.monotonic, "an answer that does not hold");
        self.pass(until - self.now.monotonic);
    }

    pub(super) fn ask(&mut self) -> Answer<u32, u32> {
        self.machine.ask(self.now, |_| false).0
    }

    pub(super) fn ask_rejected(&mut self) -> Answer<u32, u32> {
        self.machine.ask(self.now, |_| true).0
    }

    pub(super) fn refresh(&mut self) -> FetchId {
        self.machine.refresh(self.now).0
    }

    pub(super) fn usable(&mut self) -> Option<u32> {
        self.machine.usable(self.now).0
    }

    /// The fetch that the answer says to wait for.
    pub(super) fn waits(answer: Answer<u32, u32>) -> FetchId {
        match answer {
            Answer::Wait { fetch, .. } => fetch,
            other => panic!("{other:?}"),
        }
    }

    /// The fetch that runs in the background while the answer's token is served.
    pub(super) fn ahead(answer: Answer<u32, u32>) -> FetchId {
        match answer {
            Answer::Serve {
                fetch: Some(fetch), ..
            } => fetch,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn arrival(
        &mut self,
        fetch: FetchId,
        token: u32,
        lifetime: Option<Duration>,
        random: f64,
    ) -> Arrival {
        self.machine
            .fetched(self.now, fetch, token, lifetime, |_| false, random)
            .0
    }

    pub(super) fn fetched(&mut self, fetch: FetchId, token: u32, lifetime: Duration) {
        let arrival = self.arrival(fetch, token, Some(lifetime), 0.0);
        assert_eq!(arrival, Arrival::Held);
    }

    /// A failure with the longest back-off: the random part is the whole ceiling.
    pub(super) fn failed(&mut self, fetch: FetchId) {
        self.failed_with(fetch, None, false);
    }

    pub(super) fn failed_with(
        &mut self,
        fetch: FetchId,
        retry_after: Option<Duration>,
        permanent: bool,
    ) {
        let failure = Failure {
            error: 7,
            retry_after,
            permanent,
        };
        let _ = self.machine.failed(self.now, fetch, failure, 1.0);
    }

    /// How long the back-off still takes. Panics unless the machine answers with the error.
    pub(super) fn backs_off(&mut self) -> Duration {
        match self.ask() {
            Answer::BackOff { error: 7, retry_in } => retry_in,
            other => panic!("{other:?}"),
        }
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
fn with_no_token_all_requests_wait_for_a_single_fetch_up_to_its_time_limit() {
    let mut bench = Bench::empty();
    let until = bench.after(30 * SECOND);
    let fetch = Bench::waits(bench.ask());
    bench.pass(SECOND);
    assert_eq!(bench.ask(), Answer::Wait { fetch, until });
    assert_eq!(bench.machine.refresh(bench.now), (fetch, until));
}

#[test]
fn a_good_token_is_served_for_a_second_before_the_wall_clock_is_looked_at_again() {
    let mut bench = Bench::holding_a_token_of_an_hour();
    let until = bench.after(SECOND);
    assert_eq!(bench.ask(), Bench::good(1, until, None));
}

#[test]
fn an_answer_holds_no_longer_than_until_the_refresh_is_due() {
    let mut bench = Bench::holding_a_token_of_an_hour();
    bench.pass(47 * MINUTE + 50 * SECOND - 3 * MILLI);
    let until = bench.after(3 * MILLI);
    assert_eq!(bench.ask(), Bench::good(1, until, None));
    bench.pass(3 * MILLI);
    let fetch = bench.clone().refresh();
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
        let mut bench = Bench::holding_a_token_of_an_hour();
        pass(&mut bench.now, 47 * MINUTE + 50 * SECOND - NANO);
        assert!(matches!(bench.ask(), Answer::Serve { fetch: None, .. }));
        pass(&mut bench.now, NANO);
        Bench::ahead(bench.ask());
        pass(&mut bench.now, 12 * MINUTE - NANO);
        assert_eq!(bench.usable(), Some(1));
        pass(&mut bench.now, NANO);
        assert_eq!(bench.usable(), None);
        Bench::waits(bench.ask());
    }
}

#[test]
fn a_server_that_counts_whole_seconds_gets_no_token_in_its_last_second() {
    let mut bench = Bench::empty();
    bench.hold(1, 5 * SECOND);
    bench.pass(4 * SECOND - NANO);
    assert_eq!(bench.usable(), Some(1));
    bench.pass(NANO);
    assert_eq!(bench.usable(), None);
}

#[test]
fn a_token_is_served_for_a_second_and_not_refreshed_before_however_short_it_lives() {
    for lifetime in [NANO, MILLI, 999 * MILLI, SECOND] {
        let mut bench = Bench::empty();
        let fetch = Bench::waits(bench.ask());
        let arrival = bench.arrival(fetch, 1, Some(lifetime), 1.0);
        assert_eq!(arrival, Arrival::Held);
        bench.pass(SECOND - NANO);
        assert!(matches!(bench.ask(), Answer::Serve { fetch: None, .. }));
        bench.pass(NANO);
        Bench::waits(bench.ask());
    }
}

#[test]
fn a_token_whose_time_is_over_does_not_come_back_when_the_wall_clock_is_set_back() {
    let mut bench = Bench::holding_a_token_of_an_hour();
    bench.now.wall += HOUR;
    Bench::waits(bench.ask());
    bench.now.wall -= HOUR;
    Bench::waits(bench.ask());
}

#[test]
fn a_wall_clock_that_is_set_back_does_not_lengthen_a_tokens_life() {
    let mut bench = Bench::holding_a_token_of_an_hour();
    bench.now.wall -= DAY;
    bench.now.monotonic += HOUR;
    assert_eq!(bench.usable(), None);
}

/// A clock goes back between two tests with paused time that share a source.
#[test]
fn a_monotonic_clock_that_goes_back_ends_no_wait_late_and_no_service() {
    let mut bench = Bench::empty();
    bench.pass(10 * DAY);
    let fetch = bench.refresh();
    bench.failed_with(fetch, Some(10 * MINUTE), false);
    bench.now.monotonic -= DAY;
    assert_eq!(bench.backs_off(), 10 * MINUTE, "as if it had failed now");
    let fetch = bench.refresh();
    bench.now.monotonic -= DAY;
    let until = bench.after(30 * SECOND);
    assert_eq!(bench.ask(), Answer::Wait { fetch, until });
    bench.fetched(fetch, 1, HOUR);
    bench.pass(30 * MINUTE);
    assert_eq!(bench.usable(), Some(1));
    for back in [10 * SECOND + NANO, DAY] {
        let mut bench = Bench {
            machine: bench.machine.clone(),
            ..bench
        };
        bench.now.monotonic -= back;
        assert!(matches!(bench.ask(), Answer::Serve { fetch: None, .. }));
        bench.now.monotonic += 30 * MINUTE - 10 * SECOND;
        assert_eq!(bench.usable(), None, "back by {back:?}");
    }
}

/// If the machine went by the old clock, each late reading would count as another jump.
#[test]
fn a_clock_that_has_gone_back_is_the_clock_that_counts() {
    let mut bench = Bench::empty();
    bench.pass(10 * DAY);
    let fetch = Bench::waits(bench.ask());
    bench.now.monotonic -= DAY;
    bench.fetched(fetch, 1, HOUR);
    // This reading is as far behind as a reading may be.
    bench.now.monotonic -= 10 * SECOND;
    let until = bench.after(SECOND);
    assert_eq!(bench.ask(), Bench::good(1, until, None));
}

#[test]
fn a_clock_that_goes_back_to_the_arrival_of_the_token_finds_a_fresh_token() {
    let mut bench = Bench::holding_a_token_of_an_hour();
    bench.pass(MINUTE);
    bench.ask();
    bench.now.monotonic -= MINUTE;
    let until = bench.after(SECOND);
    assert_eq!(bench.ask(), Bench::good(1, until, None));
}

#[test]
fn a_clock_reading_that_is_a_moment_old_changes_nothing() {
    let mut bench = Bench::holding_a_token_of_an_hour();
    for behind in [SECOND, 10 * SECOND] {
        bench.now.monotonic -= behind;
        let until = bench.after(SECOND);
        assert_eq!(bench.ask(), Bench::good(1, until, None));
        bench.now.monotonic += behind;
    }
    let status = bench.machine.status(bench.now);
    assert_eq!(status.expiry, Some(bench.after(HOUR)));
}

#[test]
fn a_token_that_had_expired_when_it_came_is_served_and_refreshed_ever_more_rarely() {
    let mut bench = Bench::empty();
    let mut fetch = Bench::waits(bench.ask());
    for (token, seconds) in (1..).zip([10, 20, 40, 80, 160, 300, 300]) {
        let arrival = bench.arrival(fetch, token, Some(Duration::ZERO), 1.0);
        assert_eq!(arrival, Arrival::Held);
        bench.pass(seconds * SECOND - NANO);
        assert!(
            matches!(bench.ask(), Answer::Serve { fetch: None, .. }),
            "{seconds}"
        );
        bench.pass(NANO);
        fetch = Bench::ahead(bench.ask());
    }
    bench.fetched(fetch, 8, HOUR);
    bench.pass(HOUR);
    let fetch = Bench::waits(bench.ask());
    bench.arrival(fetch, 9, Some(Duration::ZERO), 1.0);
    bench.pass(10 * SECOND);
    Bench::ahead(bench.ask());
}

#[test]
fn an_expired_token_displaces_no_good_token_but_a_rejected_one() {
    let mut bench = Bench::holding_a_token_of_an_hour();
    let fetch = bench.refresh();
    let arrival = bench.arrival(fetch, 2, Some(Duration::ZERO), 0.0);
    assert_eq!(arrival, Arrival::Expired);
    assert_eq!(bench.machine.previous(), Some(2), "the fetch may need it");
    bench.failed(fetch);
    assert_eq!(bench.usable(), Some(1));
    let fetch = bench.refresh();
    let expired = Some(Duration::ZERO);
    let (arrival, _) = bench
        .machine
        .fetched(bench.now, fetch, 3, expired, |_| true, 0.0);
    assert_eq!(arrival, Arrival::Held);
    assert_eq!(bench.usable(), Some(3));
}

#[test]
fn a_first_token_that_has_expired_is_not_served_but_given_to_the_fetch() {
    let mut bench = Bench::empty();
    bench.hold(1, Duration::ZERO);
    assert_eq!(bench.usable(), None);
    assert_eq!(bench.machine.previous(), Some(1));
}

#[test]
fn a_source_that_fetches_every_so_often_does_so_whether_or_not_its_token_expires() {
    for (lifetime, due) in [
        (None, MINUTE),
        (Some(HOUR), MINUTE),
        (Some(MINUTE), 45 * SECOND),
    ] {
        let mut bench = Bench::empty();
        bench.machine = Machine::new(Policy {
            refresh_every: Some(MINUTE),
            ..Policy::default()
        });
        let _ = bench.machine.hold(bench.now, 1, lifetime, 0.0);
        bench.pass(due - NANO);
        assert!(matches!(bench.ask(), Answer::Serve { fetch: None, .. }));
        bench.pass(NANO);
        Bench::ahead(bench.ask());
    }
}

#[test]
fn a_request_waits_for_an_overdue_refresh_but_not_for_long_and_not_again() {
    let mut bench = Bench::empty();
    bench.machine = Machine::new(Policy {
        refresh_every: Some(MINUTE),
        wait_after: Some(2 * MINUTE),
        ..Policy::default()
    });
    let _ = bench.machine.hold(bench.now, 1, None, 0.0);
    bench.pass(2 * MINUTE - NANO);
    let fetch = Bench::ahead(bench.ask());
    bench.pass(NANO);
    let until = bench.after(5 * SECOND);
    assert_eq!(bench.ask(), Answer::Wait { fetch, until });
    bench.pass(5 * SECOND);
    assert_eq!(Bench::ahead(bench.ask()), fetch);
    bench.failed(fetch);
    bench.pass(MINUTE);
    let fetch = Bench::ahead(bench.ask());
    let arrival = bench.arrival(fetch, 2, None, 0.0);
    assert_eq!(arrival, Arrival::Held);
    bench.pass(2 * MINUTE);
    Bench::waits(bench.ask());
}

/// The jitter of a token with a lifetime of ten hours, if the random number is 1. `how` begins the
/// fetch of this token, when the refresh of the previous token is due.
fn jitter_of(how: fn(&mut Bench) -> FetchId) -> Duration {
    let mut bench = Bench::empty();
    bench.machine = Machine::new(Policy {
        refresh_jitter: 0.1,
        startup_jitter: 0.5,
        ..Policy::default()
    });
    bench.hold(1, HOUR);
    bench.pass(48 * MINUTE);
    let fetch = how(&mut bench);
    let arrival = bench.arrival(fetch, 2, Some(10 * HOUR), 1.0);
    assert_eq!(arrival, Arrival::Held);
    let came = bench.now.monotonic;
    while let Answer::Serve {
        until, fetch: None, ..
    } = bench.ask()
    {
        bench.pass_until(until);
    }
    10 * HOUR - 15 * MINUTE - 10 * SECOND - (bench.now.monotonic - came)
}

#[test]
fn only_a_token_that_came_by_a_refresh_in_time_has_the_smaller_jitter() {
    assert_eq!(
        jitter_of(|bench| Bench::ahead(bench.ask())),
        HOUR,
        "in time"
    );
    let after_a_failure = jitter_of(|bench| {
        let fetch = Bench::ahead(bench.ask());
        bench.failed(fetch);
        bench.pass(SECOND);
        Bench::ahead(bench.ask())
    });
    assert_eq!(after_a_failure, 5 * HOUR, "after a failure");
    let rejected = jitter_of(|bench| {
        let fetch = Bench::ahead(bench.ask());
        bench.ask_rejected();
        fetch
    });
    assert_eq!(rejected, 5 * HOUR, "rejected meanwhile");
    let wanted = jitter_of(Bench::refresh);
    assert_eq!(wanted, 5 * HOUR, "the user wanted it");
    let late = jitter_of(|bench| {
        bench.pass(12 * MINUTE);
        Bench::waits(bench.ask())
    });
    assert_eq!(late, 5 * HOUR, "too late");
}

#[test]
fn the_status_tells_expiry_next_refresh_and_failures() {
    let mut bench = Bench::holding_a_token_of_an_hour();
    let status = bench.machine.status(bench.now);
    assert_eq!(status.expiry, Some(bench.after(HOUR)));
    assert_eq!(
        status.next_refresh,
        Some(bench.after(47 * MINUTE + 50 * SECOND))
    );
    assert_eq!((status.failures, status.last_error), (0, None));
    bench.pass(50 * MINUTE);
    let fetch = bench.refresh();
    bench.failed(fetch);
    let status = bench.machine.status(bench.now);
    assert_eq!(status.next_refresh, Some(bench.after(100 * MILLI)));
    assert_eq!((status.failures, status.last_error), (1, Some(7)));
    bench.pass(10 * MINUTE);
    let status = bench.machine.status(bench.now);
    let retry = bench.now.monotonic - 10 * MINUTE + 100 * MILLI;
    assert_eq!(status.next_refresh, Some(retry));
    let _ = bench.machine.invalidate();
    let status = bench.machine.status(bench.now);
    assert_eq!((status.expiry, status.failures), (None, 0));
    assert_eq!(status.next_refresh, Some(bench.now.monotonic));
}
