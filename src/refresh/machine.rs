//! Decides what a source that fetches does. The machine is pure: a state, an event and the time
//! give a new state and an answer. It does no I/O, reads no clock, looks into no token and takes no
//! lock.
//!
//! # Invariants
//!
//! The test `tests::whatever_happens_the_machine_keeps_its_promises` runs random events and checks
//! all invariants after each event, against a reference that reads the record of all events. Each
//! test that is named below shows a single invariant.
//!
//! 1. At most one fetch is under way
//!    (`decisions::with_no_token_all_requests_wait_for_a_single_fetch_up_to_its_time_limit`).
//! 2. While a token is good, no request fails and no request waits
//!    (`decisions::an_answer_holds_no_longer_than_until_the_refresh_is_due`), except for a refresh
//!    after a loss
//!    (`losses::after_a_loss_a_request_waits_for_a_refresh_that_is_due_until_a_fetch_has_ended`) or
//!    for a refresh that is long overdue
//!    (`decisions::a_request_waits_for_an_overdue_refresh_but_not_for_long_and_not_again`).
//! 3. A token is served until either clock says that its time is over
//!    (`decisions::a_token_is_served_to_the_last_nanosecond_before_the_margin_by_either_clock`). That
//!    time is at least a second
//!    (`decisions::a_token_is_served_for_a_second_and_not_refreshed_before_however_short_it_lives`).
//! 4. A refresh begins in its window (`a_refresh_falls_in_its_window_and_service_ends_at_the_margin`).
//! 5. A failure does not displace a token that may be served
//!    (`failures::a_failed_refresh_leaves_the_token_and_is_tried_again_after_the_back_off`).
//! 6. Between a failure and the end of its back-off, asking begins no fetch
//!    (`failures::the_error_is_given_until_the_back_off_ends_and_then_one_request_tries_again`).
//! 7. The first two replacements of a rejected token are immediate. Later replacements keep an
//!    interval, which doubles until a token has lasted
//!    (`rejections::the_interval_doubles_to_its_limit_until_a_token_has_lasted_for_it`).
//! 8. Until a fetch succeeds, requests wait for a better token only once, and for at most
//!    `replacement_wait` (`rejections::one_spurious_401_and_an_endpoint_that_hangs_cost_one_wait`).
//! 9. A token of a fetch that began before a sign-out is never held
//!    (`losses::an_invalidated_token_is_not_served_and_the_fetch_under_way_brings_nothing`).
//! 10. A lost fetch is no failure
//!     (`losses::a_lost_fetch_is_no_failure_and_the_next_request_begins_anew`), and its late token
//!     displaces no good token
//!     (`losses::a_late_token_is_held_if_nothing_better_is_and_leaves_the_fetch_under_way_alone`).
//! 11. A clock by which each token has expired when it comes stops no request
//!     (`decisions::a_token_that_had_expired_when_it_came_is_served_and_refreshed_ever_more_rarely`), and a
//!     monotonic clock that goes back changes no age
//!     (`decisions::a_monotonic_clock_that_goes_back_ends_no_wait_late_and_no_service`).
//! 12. No setting panics (`no_setting_and_no_lifetime_panics`).

mod ends;

use std::time::{Duration, Instant};

use super::{
    answer::{Answer, Displaced, FetchId, LATE_READING, Now, Status, WentBack},
    held::{Held, Lasted},
    policy::Policy,
    throttle::{Failures, Patience, Throttle, later},
};

/// The longest time that an answer holds. Then the next caller has to look at the wall clock again,
/// and has to check that somebody still polls the fetch under way.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The state. `T` is a token and `E` is the error of a fetch; the machine looks into neither.
///
/// ```text
///            ask               fetched                 refresh is due
///   Empty ─────────► Fetching ───────────► Good ───────────────────────► Good, Fetching
///     ▲  ▲            │    │ lost           │  ▲                          │ failed: still served
///     │  │            │    └─► ask again    │  └───────── fetched ────────┘
///     │  │ retry time │ failed              │ a server rejects it
///     │  └─ BackOff ◄─┘                     ▼
///     │                  Rejected, Fetching ── fetched ──► Good
///     │                        │ failed, overran or throttled: the rejected token is served,
///     │                        │ and later fetches run in the background
///     └── from every state: service ends on either clock, or `invalidate`. After `invalidate`, the
///         fetch under way is void, and the next fetch begins when the void fetch has ended.
/// ```
#[derive(Clone, Debug)]
pub(crate) struct Machine<T, E> {
    policy: Policy,
    held: Option<Held<T>>,
    /// The last token that came since the last `invalidate`, held or not: the next fetch gets it.
    previous: Option<T>,
    fetch: Option<Fetch>,
    fetches: u64,
    /// Fetches up to this number began before a sign-out: they are void, and their tokens are
    /// dropped.
    void: u64,
    /// A fetch was lost, and no fetch has ended since.
    after_loss: bool,
    /// How many tokens in a row had expired when they came.
    unjudged: u32,
    failures: Failures<E>,
    throttle: Throttle,
    patience: Patience,
    /// The latest reading of the monotonic clock.
    latest: Option<Instant>,
}

/// The fetch that is under way.
#[derive(Clone, Debug)]
struct Fetch {
    id: FetchId,
    since: Instant,
    /// The fetch began because a refresh was due, while the held token was good.
    is_ahead: bool,
    /// A request has waited for this fetch, although the machine holds a token that could be sent.
    is_awaited: bool,
    /// If the fetch replaces a rejected token: how long that token was good.
    replaces: Option<Lasted>,
}

impl<T: Clone, E: Clone> Machine<T, E> {
    pub(crate) fn new(policy: Policy) -> Self {
        Self {
            policy,
            held: None,
            previous: None,
            fetch: None,
            fetches: 0,
            void: 0,
            after_loss: false,
            unjudged: 0,
            failures: Failures::none(),
            throttle: Throttle::default(),
            patience: Patience::default(),
            latest: None,
        }
    }

    /// A caller wants a token. `rejected` tells whether a server has rejected its argument.
    pub(crate) fn ask(
        &mut self,
        now: Now,
        rejected: impl Fn(&T) -> bool,
    ) -> (Answer<T, E>, Displaced<T, E>) {
        let displaced = self.pass_to(now);
        let answer = match self.held.take() {
            None => self.ask_without_token(now),
            Some(mut held) => {
                let answer = self.ask_with_token(now, &mut held, &rejected);
                self.held = Some(held);
                answer
            }
        };
        (answer, displaced)
    }

    fn ask_without_token(&mut self, now: Now) -> Answer<T, E> {
        let retry = self.failures.retry(&self.policy, false);
        if let Some((at, error)) =
            retry.filter(|&(at, _)| self.fetch.is_none() && now.monotonic < at)
        {
            Answer::BackOff {
                error: error.clone(),
                retry_in: at - now.monotonic,
            }
        } else {
            let (fetch, until) = self.refresh(now);
            Answer::Wait { fetch, until }
        }
    }

    fn ask_with_token(
        &mut self,
        now: Now,
        held: &mut Held<T>,
        rejected: impl Fn(&T) -> bool,
    ) -> Answer<T, E> {
        let is_rejected = rejected(&held.token);
        held.see(is_rejected, now);
        let is_due = held.refresh.has_come(now);
        let not_before = self.not_before(now, is_due);
        let is_wanted = is_due || is_rejected;
        if is_wanted && self.fetch.is_none() && not_before.is_none() {
            self.begin(now).is_ahead = !is_rejected;
        }
        // This fetch is not void: `invalidate` forgets the token, and a void fetch ends before
        // another token is held.
        if let Some(fetch) = &mut self.fetch {
            if is_rejected {
                fetch.replaces.get_or_insert(held.lasted());
            }
            let waits = is_rejected || is_due && (self.after_loss || held.wait.has_come(now));
            let patience = waits.then(|| self.patience.until(&self.policy, now.monotonic));
            if let Some(until) = patience.flatten() {
                fetch.is_awaited = true;
                let limit = later(fetch.since, self.policy.fetch_timeout);
                return Answer::Wait {
                    fetch: fetch.id,
                    until: until.min(limit),
                };
            }
        }
        let check = later(now.monotonic, CHECK_INTERVAL);
        let not_before = not_before.filter(|_| is_wanted);
        let due = held.refresh.monotonic.filter(|_| !is_due);
        let wait = held.wait.monotonic.filter(|&at| now.monotonic < at);
        let until = [held.end.monotonic, not_before, due, wait]
            .into_iter()
            .flatten();
        Answer::Serve {
            token: held.token.clone(),
            until: until.fold(check, Instant::min),
            despite_rejection: is_rejected,
            fetch: self.fetch.as_ref().map(|fetch| fetch.id),
        }
    }

    /// The moment before which no fetch begins while a token is held. The throttle does not delay a
    /// refresh that is due.
    fn not_before(&self, now: Now, is_due: bool) -> Option<Instant> {
        let retry = self.failures.retry(&self.policy, true).map(|(at, _)| at);
        let spaced = self.throttle.not_before(&self.policy).filter(|_| !is_due);
        retry.max(spaced).filter(|&at| now.monotonic < at)
    }

    /// Gives the fetch under way, which may be void, and its time limit. If no fetch is under way,
    /// begins a fetch, even during a back-off.
    pub(crate) fn refresh(&mut self, now: Now) -> (FetchId, Instant) {
        self.read(now);
        if self.fetch.is_none() {
            self.begin(now);
        }
        let (id, since) = match &self.fetch {
            Some(fetch) => (fetch.id, fetch.since),
            // Not reached.
            None => (FetchId(self.fetches), now.monotonic),
        };
        (id, later(since, self.policy.fetch_timeout))
    }

    /// The user signs out. Gives back the held token.
    pub(crate) fn invalidate(&mut self) -> (Option<T>, Displaced<T, E>) {
        self.void = self.fetches;
        self.after_loss = false;
        self.unjudged = 0;
        self.patience = Patience::default();
        let held = self.held.take().map(|held| {
            self.throttle.gone(&self.policy, held.lasted());
            held.token
        });
        let mut displaced = Displaced::default();
        displaced.tokens.extend(self.previous.take());
        displaced.errors.extend(self.failures.end());
        (held, displaced)
    }

    pub(crate) fn is_under_way(&self, id: FetchId) -> bool {
        self.fetch.as_ref().is_some_and(|fetch| fetch.id == id)
    }

    /// Whether this fetch is for an account that has been signed out.
    pub(crate) fn is_void(&self, id: FetchId) -> bool {
        id.0 <= self.void
    }

    /// The token that may be served now, rejected or not.
    pub(crate) fn usable(&mut self, now: Now) -> (Option<T>, Displaced<T, E>) {
        let displaced = self.pass_to(now);
        let usable = self.held.as_ref().map(|held| held.token.clone());
        (usable, displaced)
    }

    /// The token to give to the next fetch.
    pub(crate) fn previous(&self) -> Option<T> {
        self.previous.clone()
    }

    pub(crate) fn status(&self, now: Now) -> Status<E> {
        let expiry = |held: &Held<T>| Some(later(held.since, held.lifetime?));
        Status {
            expiry: self.held.as_ref().and_then(expiry),
            next_refresh: self.next_event(now),
            failures: self.failures.count(),
            last_error: self.failures.last_error().cloned(),
        }
    }

    /// The earliest moment at which `ask` begins the next fetch, if no server rejects the token.
    pub(crate) fn next_event(&self, now: Now) -> Option<Instant> {
        let held = self.held.as_ref().filter(|held| !held.end.has_come(now));
        let retry = self.failures.retry(&self.policy, held.is_some());
        let retry = retry.map(|(at, _)| at);
        match held {
            Some(held) => held
                .refresh
                .monotonic
                .map(|at| retry.map_or(at, |retry| retry.max(at))),
            None => Some(retry.unwrap_or(now.monotonic)),
        }
    }

    /// Notes the time. If the clock went back, every stored moment moves back by as much. Without
    /// that, every wait would end late, and a token would be served past its end.
    fn read(&mut self, now: Now) {
        let to = now.monotonic;
        let by = self.latest.unwrap_or(to).saturating_duration_since(to);
        if by <= LATE_READING {
            self.latest = self.latest.max(Some(to));
            return;
        }
        self.latest = Some(to);
        let back = WentBack { to, by };
        self.failures.keep_age(back);
        self.throttle.keep_age(back);
        self.patience.keep_age(back);
        back.keep_age(self.fetch.as_mut().map(|fetch| &mut fetch.since));
        if let Some(held) = &mut self.held {
            held.keep_age(back);
        }
    }

    /// Notes the time, and drops the held token if its service has ended.
    fn pass_to(&mut self, now: Now) -> Displaced<T, E> {
        self.read(now);
        let ended = self.held.take_if(|held| held.end.has_come(now));
        let mut displaced = Displaced::default();
        if let Some(held) = ended {
            self.throttle.gone(&self.policy, held.lasted());
            displaced.tokens.push(held.token);
        }
        displaced
    }

    fn begin(&mut self, now: Now) -> &mut Fetch {
        self.fetches += 1;
        self.fetch.insert(Fetch {
            id: FetchId(self.fetches),
            since: now.monotonic,
            is_ahead: false,
            is_awaited: false,
            replaces: None,
        })
    }
}

#[cfg(test)]
mod tests;
