//! Delays and limits: the back-off after a failure, the time between replacements of a rejected
//! token, and the longest time that a request waits for a better token.

use std::time::{Duration, Instant};

use super::{
    answer::{Failure, WentBack},
    held::Lasted,
    policy::{Outage, Policy},
};

/// The failures since the last success.
#[derive(Clone, Debug)]
pub(super) struct Failures<E> {
    count: u32,
    /// How many failures in a row, up to the last, were permanent.
    permanent: u32,
    since: Option<Instant>,
    last: Option<Last<E>>,
}

#[derive(Clone, Debug)]
struct Last<E> {
    error: E,
    at: Instant,
    retry_after: Option<Duration>,
    random: f64,
}

impl<E> Failures<E> {
    pub(super) fn none() -> Self {
        Self {
            count: 0,
            permanent: 0,
            since: None,
            last: None,
        }
    }

    pub(super) fn count(&self) -> u32 {
        self.count
    }

    pub(super) fn last_error(&self) -> Option<&E> {
        self.last.as_ref().map(|last| &last.error)
    }

    /// Records a failure. Gives back the error of the failure before.
    pub(super) fn record(&mut self, at: Instant, failure: Failure<E>, random: f64) -> Option<E> {
        self.count = self.count.saturating_add(1);
        self.permanent = if failure.permanent {
            self.permanent.saturating_add(1)
        } else {
            0
        };
        self.since.get_or_insert(at);
        let last = self.last.replace(Last {
            error: failure.error,
            at,
            retry_after: failure.retry_after,
            random,
        });
        last.map(|last| last.error)
    }

    /// When the back-off ends, and the error that callers get until then.
    pub(super) fn retry(&self, policy: &Policy, has_token: bool) -> Option<(Instant, &E)> {
        let last = self.last.as_ref()?;
        let since = self.since.unwrap_or(last.at);
        let outage = Outage {
            failures: self.count,
            permanent: self.permanent,
            lasted: last.at.saturating_duration_since(since),
            retry_after: last.retry_after,
            random: last.random,
        };
        let at = later(last.at, policy.backoff(outage, has_token));
        Some((at, &last.error))
    }

    /// Forgets the failures. Gives back the last error.
    pub(super) fn end(&mut self) -> Option<E> {
        let last = std::mem::replace(self, Self::none()).last;
        last.map(|last| last.error)
    }

    pub(super) fn keep_age(&mut self, back: WentBack) {
        back.keep_age(&mut self.since);
        back.keep_age(self.last.as_mut().map(|last| &mut last.at));
    }
}

/// Spaces the fetches that replace a rejected token.
#[derive(Clone, Debug, Default)]
pub(super) struct Throttle {
    /// How many replacements came in a row, without a token that lasted.
    replacements: u32,
    /// When the fetch of the last token began.
    last: Option<Instant>,
}

impl Throttle {
    /// When the next replacement may begin. `None`: at once.
    pub(super) fn not_before(&self, policy: &Policy) -> Option<Instant> {
        let interval = policy.rejection_backoff(self.replacements)?;
        Some(later(self.last?, interval))
    }

    /// A token is not held any more. If the token has lasted, the server accepts tokens, and the
    /// count of replacements begins anew.
    pub(super) fn gone(&mut self, policy: &Policy, token: Lasted) {
        const LONG: Duration = Duration::from_secs(5 * 60);

        let interval = policy
            .rejection_backoff(self.replacements)
            .unwrap_or(policy.rejection_backoff_first);
        let lifetime = token.lifetime;
        let part = lifetime.map_or(Duration::ZERO, |lifetime| (lifetime / 10).min(LONG));
        if token.time >= interval.max(part) {
            self.replacements = 0;
        }
    }

    /// A fetch that began at `begun` has given a token.
    pub(super) fn fetched(&mut self, begun: Instant, is_replacement: bool) {
        let replacements = u32::from(is_replacement);
        self.replacements = self.replacements.saturating_add(replacements);
        self.last = Some(begun);
    }

    pub(super) fn keep_age(&mut self, back: WentBack) {
        back.keep_age(&mut self.last);
    }
}

/// Limits how long requests wait for a better token than the held token. All requests share the
/// limit, and the next token that is held resets it.
#[derive(Clone, Debug, Default)]
pub(super) struct Patience {
    until: Option<Instant>,
    is_over: bool,
}

impl Patience {
    /// Until when a request may wait. `None`: it may not wait. The time begins with the first request.
    pub(super) fn until(&mut self, policy: &Policy, now: Instant) -> Option<Instant> {
        let until = *self
            .until
            .get_or_insert_with(|| later(now, policy.replacement_wait));
        self.is_over |= until <= now;
        (!self.is_over).then_some(until)
    }

    /// From now until a fetch succeeds, no request waits.
    pub(super) fn end(&mut self) {
        self.is_over = true;
    }

    pub(super) fn keep_age(&mut self, back: WentBack) {
        back.keep_age(&mut self.until);
    }
}

/// `at` plus `by`, which counts as a century if it is longer.
pub(super) fn later(at: Instant, by: Duration) -> Instant {
    let by = by.min(Duration::from_secs(100 * 365 * 24 * 3600));
    at.checked_add(by).unwrap_or(at)
}
