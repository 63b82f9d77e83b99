//! The end of a fetch: a token, an error, the time limit, or the loss of its owner.

use std::time::Duration;

use super::{Fetch, Machine};
use crate::refresh::{
    answer::{Arrival, Displaced, Failure, FetchId, Now},
    held::Held,
    throttle::{Patience, later},
};

impl<T: Clone, E: Clone> Machine<T, E> {
    /// Holds a token that no fetch gave, unless the token has expired by our clock. `lifetime` is the
    /// time to expiry, and zero if the token has expired. `random` is from 0 to 1.
    pub(crate) fn hold(
        &mut self,
        now: Now,
        token: T,
        lifetime: Option<Duration>,
        random: f64,
    ) -> Displaced<T, E> {
        let mut displaced = self.pass_to(now);
        if lifetime == Some(Duration::ZERO) {
            // The fetch function may need the expired token, for its refresh token.
            displaced.tokens.extend(self.previous.replace(token));
        } else {
            self.store(now, token, lifetime, None, random, &mut displaced);
        }
        displaced
    }

    /// A fetch has given a token. `rejected` tells whether a server has rejected its argument.
    pub(crate) fn fetched(
        &mut self,
        now: Now,
        id: FetchId,
        token: T,
        lifetime: Option<Duration>,
        rejected: impl Fn(&T) -> bool,
        random: f64,
    ) -> (Arrival, Displaced<T, E>) {
        let mut displaced = self.pass_to(now);
        if self.is_void(id) {
            self.fetch.take_if(|fetch| fetch.id == id);
            displaced.tokens.push(token);
            return (Arrival::Void, displaced);
        }
        let holds_good = |held: &Held<T>| held.is_judged && !rejected(&held.token);
        let is_late = !self.is_under_way(id);
        if self.held.as_ref().is_some_and(holds_good) {
            if is_late {
                displaced.tokens.extend(self.previous.replace(token));
                return (Arrival::Late { held: false }, displaced);
            }
            if lifetime == Some(Duration::ZERO) {
                displaced.tokens.extend(self.previous.replace(token));
                return (Arrival::Expired, displaced);
            }
        }
        let fetch = self.fetch.take_if(|fetch| fetch.id == id);
        self.store(now, token, lifetime, fetch, random, &mut displaced);
        let arrival = if is_late {
            Arrival::Late { held: true }
        } else {
            Arrival::Held
        };
        (arrival, displaced)
    }

    fn store(
        &mut self,
        now: Now,
        token: T,
        lifetime: Option<Duration>,
        fetch: Option<Fetch>,
        random: f64,
        displaced: &mut Displaced<T, E>,
    ) {
        let is_judged = lifetime != Some(Duration::ZERO);
        let in_time = fetch
            .as_ref()
            .is_some_and(|fetch| fetch.is_ahead && fetch.replaces.is_none())
            && self.failures.count() == 0
            && self.unjudged == 0;
        if let Some(held) = self.held.take() {
            self.throttle.gone(&self.policy, held.lasted());
            displaced.tokens.push(held.token);
        }
        if let Some(fetch) = fetch {
            // The rejected token may not be held any more, so the fetch remembers how long that
            // token was good.
            if let Some(lasted) = fetch.replaces {
                self.throttle.gone(&self.policy, lasted);
            }
            self.throttle.fetched(fetch.since, fetch.replaces.is_some());
        }
        let jitter = if in_time {
            self.policy.refresh_jitter
        } else {
            self.policy.startup_jitter
        };
        let judged = lifetime.filter(|_| is_judged);
        let mut schedule = self.policy.schedule(judged, jitter * random);
        if is_judged {
            self.unjudged = 0;
        } else {
            self.unjudged = self.unjudged.saturating_add(1);
            let used = self.policy.unjudged(self.unjudged);
            schedule.refresh_after = schedule.refresh_after.into_iter().chain([used]).min();
        }
        let wait_after = self.policy.wait_after;
        let held = Held::new(now, token.clone(), lifetime, schedule, wait_after);
        self.held = Some(held);
        displaced.tokens.extend(self.previous.replace(token));
        displaced.errors.extend(self.failures.end());
        self.after_loss = false;
        self.patience = Patience::default();
    }

    /// A fetch has given a token that cannot be served. The next fetch gets this token, since it may need the
    /// token's data, such as a refresh token. Call this before [`failed`](Self::failed). Gives the token to drop.
    pub(crate) fn remember(&mut self, id: FetchId, token: T) -> Option<T> {
        if self.is_void(id) {
            return Some(token);
        }
        self.previous.replace(token)
    }

    /// A fetch has failed. `random` is from 0 to 1.
    pub(crate) fn failed(
        &mut self,
        now: Now,
        id: FetchId,
        failure: Failure<E>,
        random: f64,
    ) -> Displaced<T, E> {
        let mut displaced = self.pass_to(now);
        let fetch = self.fetch.take_if(|fetch| fetch.id == id);
        let Some(fetch) = fetch.filter(|_| !self.is_void(id)) else {
            displaced.errors.push(failure.error);
            return displaced;
        };
        // A failure that is noticed late counts from the time limit: the runtime stood still, and
        // the next caller must not pay for that.
        let limit = later(fetch.since, self.policy.fetch_timeout);
        let is_late = later(limit, self.policy.fetch_timeout) <= now.monotonic;
        let at = if is_late { limit } else { now.monotonic };
        displaced
            .errors
            .extend(self.failures.record(at, failure, random));
        self.after_loss = false;
        if fetch.is_awaited || fetch.replaces.is_some() {
            self.patience.end();
        }
        displaced
    }

    /// The owner of a fetch was dropped, or shows no sign of life. A loss is not a failure.
    pub(crate) fn lost(&mut self, id: FetchId) {
        let lost = self.fetch.take_if(|fetch| fetch.id == id);
        // A lost void fetch sets the flag as well. The flag has no effect until a token is held,
        // and a new token clears it.
        self.after_loss |= lost.is_some();
    }

    /// The fetch that is past its time limit. The caller has to report the end of this fetch, as
    /// failed or as lost, before any other event.
    pub(crate) fn overdue(&self, now: Now) -> Option<FetchId> {
        let fetch = self.fetch.as_ref()?;
        let elapsed = now.monotonic.saturating_duration_since(fetch.since);
        (elapsed >= self.policy.fetch_timeout).then_some(fetch.id)
    }
}
