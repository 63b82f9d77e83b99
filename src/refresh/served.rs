//! The fast path: the token that requests take without a lock and without asking the machine.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;

use super::answer::LATE_READING;
use crate::{runtime::Runtime, token::BearerToken};

/// The most by which a coarse clock lags: a tick takes up to 10 ms, and up to 16 ms on Windows.
pub(crate) const COARSE_CLOCK_LAG: Duration = Duration::from_millis(20);

/// The published token. Empty while callers have to ask the machine.
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

    /// Costs a lock-free load, a read of a coarse clock, two comparisons and a reference count.
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

    /// Lets callers take the token until `until`, unless the clock goes back from `now` by more than
    /// `LATE_READING`. Once a server has rejected the token, callers take it only if
    /// `despite_rejection` is set.
    ///
    /// Gives back the entry that was published before. Drop that entry without a lock: the data of
    /// its token is the user's, and so is the `Drop` of the data.
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

    /// Makes the next caller ask the machine. Gives back the entry that was published before, as
    /// [`publish`](Self::publish) does.
    #[must_use]
    pub(super) fn withdraw(&self) -> Option<Arc<Entry>> {
        self.0.swap(None)
    }
}
