//! What holds fetches and requests back: the time after a failure, the time between replacements of a
//! rejected token, and how long a request waits that could send the token that it has.

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
    /// The last so many were permanent.
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

    /// Gives back the error before.
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

    /// When asking may begin the next fetch, and the error until then.
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

    /// Gives back the last error.
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
    /// Replacements in a row, while no token has lasted.
    replacements: u32,
    /// When the fetch began that gave the last token.
    last: Option<Instant>,
}

impl Throttle {
    /// When the next replacement may begin, if that is limited.
    pub(super) fn not_before(&self, policy: &Policy) -> Option<Instant> {
        let interval = policy.rejection_backoff(self.replacements)?;
        Some(later(self.last?, interval))
    }

    /// A token is not held any more, which was good for so long. If it has lasted, the server takes
    /// tokens, and the row ends.
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

/// How long requests wait that have a token to send, for a better token: once, until a fetch succeeds.
#[derive(Clone, Debug, Default)]
pub(super) struct Patience {
    until: Option<Instant>,
    is_over: bool,
}

impl Patience {
    /// Until when a request may wait, if it may.
    pub(super) fn until(&mut self, policy: &Policy, now: Instant) -> Option<Instant> {
        let until = *self
            .until
            .get_or_insert_with(|| later(now, policy.replacement_wait));
        self.is_over |= until <= now;
        (!self.is_over).then_some(until)
    }

    /// No request waits until a fetch succeeds.
    pub(super) fn end(&mut self) {
        self.is_over = true;
    }

    pub(super) fn keep_age(&mut self, back: WentBack) {
        back.keep_age(&mut self.until);
    }
}

/// A time past the end of the clock is a century away.
pub(super) fn later(at: Instant, by: Duration) -> Instant {
    let by = by.min(Duration::from_secs(100 * 365 * 24 * 3600));
    at.checked_add(by).unwrap_or(at)
}
