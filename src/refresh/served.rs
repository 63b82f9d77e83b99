//! The fast path: the token that requests take without a lock and without a question to the machine.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;

use super::answer::LATE_READING;
use crate::{runtime::Runtime, token::BearerToken};

/// No coarse clock is further behind than this: ticks take up to 10 ms, on Windows 16.
pub(crate) const COARSE_CLOCK_LAG: Duration = Duration::from_millis(20);

/// Empty while callers have to ask the machine.
pub(super) struct Served(ArcSwapOption<Entry>);

pub(super) struct Entry {
    token: BearerToken,
    from: Instant,
    until: Instant,
    despite_rejection: bool,
}

impl Served {
    pub(super) fn nothing() -> Self {
        Self(ArcSwapOption::empty())
    }

    /// Costs one lock-free load, one read of a coarse clock, two comparisons and one reference count.
    #[inline]
    pub(super) fn token(&self, runtime: &dyn Runtime) -> Option<BearerToken> {
        if let Some(entry) = &*self.0.load() {
            let now = runtime.coarse_now();
            if now < entry.until
                && now >= entry.from
                && (!entry.token.is_rejected() || entry.despite_rejection)
            {
                return Some(entry.token.clone());
            }
        }
        None
    }

    /// Lets callers take the token from `now` until `until`, if the clock does not go back; once a server has rejected it, only if
    /// `despite_rejection` is set.
    ///
    /// Gives back what was served so far, to be dropped without a lock: data in a token is foreign.
    #[must_use]
    pub(super) fn publish(
        &self,
        token: BearerToken,
        now: Instant,
        until: Instant,
        despite_rejection: bool,
    ) -> Option<Arc<Entry>> {
        let until = until.checked_sub(COARSE_CLOCK_LAG).unwrap_or(until);
        self.0.swap(Some(Arc::new(Entry {
            token,
            from: now.checked_sub(LATE_READING).unwrap_or(now),
            until,
            despite_rejection,
        })))
    }

    /// Sends the next caller to the machine. Gives back what was served so far, as
    /// [`publish`](Self::publish) does.
    #[must_use]
    pub(super) fn withdraw(&self) -> Option<Arc<Entry>> {
        self.0.swap(None)
    }
}
