//! The decisions of a source that fetches, as a pure state machine: a state, an event and the time
//! give a new state and an answer. No I/O, no clock, no token, no lock.
//!
//! # Invariants
//!
//! All are checked after each step of
//! `machine::whatever_happens_the_machine_keeps_its_promises`, which runs random events against a
//! plain reference, from the record of all that happened. The tests named, also of `machine`, show
//! one alone.
//!
//! 1. At most one fetch is under way (`decisions::with_no_token_all_wait_for_one_fetch`).
//! 2. While a token is good, no request waits and none fails
//!    (`decisions::an_answer_holds_no_longer_than_until_the_refresh_is_due`).
//! 3. A token is not served when either clock says that its time is over
//!    (`decisions::a_token_is_served_to_the_last_nanosecond_before_the_margin_by_either_clock`).
//! 4. A refresh begins in its window before expiry, and not before
//!    (`a_refresh_falls_in_its_window_and_service_ends_at_the_margin`).
//! 5. A failure does not displace a token that may be served
//!    (`decisions::a_failed_refresh_leaves_the_token_and_is_tried_again_after_the_back_off`).
//! 6. Between a failure, or a time limit that was noticed late, and the next try, asking begins no
//!    fetch
//!    (`decisions::the_error_is_given_until_the_back_off_ends_and_then_one_request_tries_again`); the
//!    time between doubles to its limit
//!    (`the_back_off_is_any_part_of_a_ceiling_that_doubles_to_its_limit`).
//! 7. A rejected token is replaced at once (`rejections::a_rejected_token_waits_for_one_fetch`);
//!    fetches that replace one are apart by an interval that grows while each new token is rejected,
//!    too, until one has lasted
//!    (`rejections::the_interval_doubles_to_its_limit_until_a_token_has_lasted_for_it`).
//! 8. A rejected token is served again only while it cannot be replaced
//!    (`rejections::a_replacement_that_is_rejected_too_is_served_again_for_the_interval`), and not
//!    when its time is over
//!    (`rejections::a_rejected_token_is_not_served_past_its_time_even_while_throttled`).
//! 9. Until the time that an answer names, asking again gives the same answer
//!    (`decisions::an_answer_holds_no_longer_than_until_the_refresh_is_due`).
//! 10. An invalidated token is never served again
//!     (`decisions::an_invalidated_token_is_not_served_and_a_fetch_under_way_counts`).
//! 11. A fetch that was given up changes nothing when it ends
//!     (`decisions::a_fetch_that_was_given_up_does_not_count`).
//! 12. No setting panics (`no_setting_and_no_lifetime_panics`).

use std::time::{Duration, Instant, SystemTime};

use super::policy::Policy;

/// How long an answer holds before the clock on the wall has to be looked at again, and whether a
/// fetch still has somebody who drives it.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// One reading of both clocks. The monotonic one may stand still while the machine sleeps; the one
/// on the wall may be set. The earlier expiry wins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) monotonic: Instant,
    pub(crate) wall: SystemTime,
}

/// What a caller is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer<T, E> {
    /// Take this token. Until `until`, all callers may do so without asking again, unless the token
    /// is rejected and `despite_rejection` is not set. A `fetch` has to run meanwhile.
    Serve {
        token: T,
        until: Instant,
        despite_rejection: bool,
        fetch: Option<FetchId>,
    },
    /// Wait for this fetch, which has to run.
    Wait { fetch: FetchId },
    /// There is no token, and the last fetch failed with this error a short time ago.
    BackOff { error: E, retry_in: Duration },
}

/// One fetch. It begins when the machine first names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FetchId(u64);

/// Why a token that was fetched is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is past its expiry.
    Expired,
    /// This fetch was given up before it ended.
    GivenUp,
}

/// `T` is the token and `E` the error of a fetch. The machine only hands them around.
#[derive(Clone, Debug)]
pub(crate) struct Machine<T, E> {
    policy: Policy,
    held: Option<Held<T>>,
    fetch: Option<Fetch>,
    fetches: u64,
    /// Failures in a row.
    failures: u32,
    retry: Option<Retry<E>>,
    throttle: Throttle,
}

/// Set between a failure and the next success.
#[derive(Clone, Debug)]
struct Retry<E> {
    at: Instant,
    error: E,
}

/// The token that is held.
#[derive(Clone, Debug)]
struct Held<T> {
    token: T,
    since: Instant,
    refresh_at: Option<Instant>,
    refresh_at_wall: Option<SystemTime>,
    serve_until: Option<Instant>,
    serve_until_wall: Option<SystemTime>,
    /// When it was last seen not to be rejected.
    good_at: Instant,
}

/// The fetch that is under way.
#[derive(Clone, Debug)]
struct Fetch {
    id: FetchId,
    since: Instant,
    /// Begun while a good token was served, by the clock alone.
    ahead: bool,
    /// How long the rejected token was good that it replaces.
    replaces: Option<Duration>,
}

/// Spaces the fetches that replace a rejected token.
#[derive(Clone, Debug)]
struct Throttle {
    interval: Duration,
    not_before: Option<Instant>,
}

impl<T: Clone, E: Clone> Machine<T, E> {
    pub(crate) fn new(policy: Policy) -> Self {
        let throttle = Throttle {
            interval: policy.rejection_backoff_first,
            not_before: None,
        };
        Self {
            policy,
            held: None,
            fetch: None,
            fetches: 0,
            failures: 0,
            retry: None,
            throttle,
        }
    }

    /// A caller wants a token. `rejected` tells whether a server has refused one.
    pub(crate) fn ask(&mut self, now: Now, rejected: impl Fn(&T) -> bool) -> Answer<T, E> {
        self.drop_unusable(now);
        let retry = self.retry.as_ref().filter(|retry| now.monotonic < retry.at);
        let Some(held) = &mut self.held else {
            return match (&self.fetch, retry) {
                (None, Some(retry)) => Answer::BackOff {
                    error: retry.error.clone(),
                    retry_in: retry.at - now.monotonic,
                },
                _ => Answer::Wait {
                    fetch: self.fetch(now).id,
                },
            };
        };
        let backing_off = retry.map(|retry| retry.at);
        let token = held.token.clone();
        let due = held.refresh_at.is_some_and(|at| at <= now.monotonic)
            || held.refresh_at_wall.is_some_and(|at| at <= now.wall);
        let check_at = now.monotonic + CHECK_INTERVAL;
        let horizon = held.serve_until.map_or(check_at, |at| at.min(check_at));

        if !rejected(&token) {
            held.good_at = now.monotonic;
            let wake_at = if due { backing_off } else { held.refresh_at };
            let begin = due && backing_off.is_none();
            let under_way = self.fetch.as_ref().map(|fetch| fetch.id);
            return Answer::Serve {
                token,
                until: wake_at.map_or(horizon, |at| at.min(horizon)),
                despite_rejection: false,
                fetch: under_way.or_else(|| begin.then(|| self.fetch_ahead(now))),
            };
        }

        // A refresh that is due is not held up by the throttle.
        let refresh_at = held.refresh_at;
        let throttled = self
            .throttle
            .not_before
            .filter(|_| !due)
            .map(|at| refresh_at.map_or(at, |due_at| at.min(due_at)));
        let not_before = throttled.filter(|&at| now.monotonic < at).max(backing_off);
        if let (None, Some(at)) = (&self.fetch, not_before) {
            // One spurious 401 and an outage must not add up to a total outage.
            return Answer::Serve {
                token,
                until: at.min(horizon),
                despite_rejection: true,
                fetch: None,
            };
        }
        let was_good_for = held.good_at.saturating_duration_since(held.since);
        let fetch = self.fetch(now);
        fetch.replaces = Some(was_good_for);
        Answer::Wait { fetch: fetch.id }
    }

    /// The user wants a new token, back-off or not.
    pub(crate) fn refresh(&mut self, now: Now) -> FetchId {
        self.fetch(now).id
    }

    /// The user wants the token never to be served again.
    pub(crate) fn invalidate(&mut self) {
        self.held = None;
        self.retry = None;
    }

    /// A fetch has given a token that expires at `expiry`. `random` is from 0 to 1.
    pub(crate) fn fetched(
        &mut self,
        now: Now,
        id: FetchId,
        token: T,
        expiry: Option<Instant>,
        random: f64,
    ) -> Result<(), Refusal> {
        if !self.is_under_way(id) {
            return Err(Refusal::GivenUp);
        }
        if expiry.is_some_and(|at| at <= now.monotonic) {
            return Err(Refusal::Expired);
        }
        self.hold(now, token, expiry, random);
        Ok(())
    }

    /// Holds a token, and takes it for the result of the fetch under way, if there is one.
    pub(crate) fn hold(&mut self, now: Now, token: T, expiry: Option<Instant>, random: f64) {
        let fetch = self.fetch.take();
        let in_time = fetch
            .as_ref()
            .is_some_and(|fetch| fetch.ahead && fetch.replaces.is_none())
            && self.failures == 0;
        if let Some(fetch) = &fetch {
            if let Some(was_good_for) = fetch.replaces {
                self.throttle_after(fetch.since, was_good_for);
            }
        }
        let jitter = if in_time {
            self.policy.refresh_jitter
        } else {
            self.policy.startup_jitter
        };
        let lifetime = expiry.map(|at| at.saturating_duration_since(now.monotonic));
        let schedule = self.policy.schedule(lifetime, jitter * random);
        let after = |length| now.monotonic.checked_add(length);
        self.held = Some(Held {
            token,
            since: now.monotonic,
            refresh_at: schedule.refresh_after.and_then(after),
            refresh_at_wall: schedule
                .refresh_after
                .and_then(|length| now.wall.checked_add(length)),
            serve_until: schedule.serve_for.and_then(after),
            serve_until_wall: schedule
                .serve_for
                .and_then(|length| now.wall.checked_add(length)),
            good_at: now.monotonic,
        });
        self.failures = 0;
        self.retry = None;
    }

    /// A fetch has failed. `random` is from 0 to 1.
    pub(crate) fn failed(&mut self, now: Now, id: FetchId, error: E, random: f64) {
        let Some(fetch) = self.fetch.take_if(|fetch| fetch.id == id) else {
            return;
        };
        self.failures = self.failures.saturating_add(1);
        let backoff = self.policy.backoff(self.failures, random);
        // At its time limit, if that is as long ago again: then the runtime stood still, and whoever
        // comes now shall not pay for it.
        let limit = later(fetch.since, self.policy.fetch_timeout);
        let noticed_late = later(limit, self.policy.fetch_timeout) <= now.monotonic;
        let failed_at = if noticed_late { limit } else { now.monotonic };
        self.retry = Some(Retry {
            at: later(failed_at, backoff),
            error,
        });
    }

    /// The fetch under way is forgotten: it did not end, and nobody waits for it.
    pub(crate) fn abandon(&mut self) {
        self.fetch = None;
    }

    /// The fetch that has been under way for longer than it may.
    pub(crate) fn overdue(&self, now: Now) -> Option<FetchId> {
        let fetch = self.fetch.as_ref()?;
        let elapsed = now.monotonic.saturating_duration_since(fetch.since);
        (elapsed >= self.policy.fetch_timeout).then_some(fetch.id)
    }

    /// The error that the next event may drop.
    pub(crate) fn last_error(&self) -> Option<E> {
        self.retry.as_ref().map(|retry| retry.error.clone())
    }

    /// The token that may be served now, rejected or not.
    pub(crate) fn usable(&mut self, now: Now) -> Option<&T> {
        self.drop_unusable(now);
        self.held.as_ref().map(|held| &held.token)
    }

    fn drop_unusable(&mut self, now: Now) {
        self.held.take_if(|held| {
            held.serve_until.is_some_and(|at| at <= now.monotonic)
                || held.serve_until_wall.is_some_and(|at| at <= now.wall)
        });
    }

    fn is_under_way(&self, id: FetchId) -> bool {
        self.fetch.as_ref().is_some_and(|fetch| fetch.id == id)
    }

    fn fetch_ahead(&mut self, now: Now) -> FetchId {
        let fetch = self.fetch(now);
        fetch.ahead = true;
        fetch.id
    }

    /// The fetch under way, which begins now if there is none.
    fn fetch(&mut self, now: Now) -> &mut Fetch {
        self.fetch.get_or_insert_with(|| {
            self.fetches += 1;
            Fetch {
                id: FetchId(self.fetches),
                since: now.monotonic,
                ahead: false,
                replaces: None,
            }
        })
    }

    /// A token that was still good an interval after it came shows that the server takes tokens.
    fn throttle_after(&mut self, begun: Instant, was_good_for: Duration) {
        let Throttle {
            interval,
            not_before,
        } = &mut self.throttle;
        let again = not_before.is_some() && was_good_for < *interval;
        *interval = if again {
            interval
                .saturating_mul(2)
                .min(self.policy.rejection_backoff_max)
        } else {
            self.policy.rejection_backoff_first
        };
        *not_before = Some(later(begun, *interval));
    }
}

/// A time past the end of the clock is a century away.
fn later(at: Instant, by: Duration) -> Instant {
    let by = by.min(Duration::from_secs(100 * 365 * 24 * 3600));
    at.checked_add(by).unwrap_or(at)
}

#[cfg(test)]
mod tests;
