//! What goes into the machine and what comes out of it: the time, answers, and what became of a fetch.

use std::time::{Duration, Instant, SystemTime};

/// One reading of both clocks. The monotonic clock may stand still while the machine sleeps; the wall
/// clock may be set. The earlier expiry wins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) monotonic: Instant,
    pub(crate) wall: SystemTime,
}

/// A caller reads the clock before it takes the lock, and may be stopped in between. A reading that is
/// further behind the latest shows that the clock went back.
pub(super) const LATE_READING: Duration = Duration::from_secs(10);

/// The monotonic clock went back, as between two tests with paused time that share a source. How much
/// time has passed since the last reading is not known, so everything keeps the age that it had then.
#[derive(Clone, Copy, Debug)]
pub(super) struct WentBack {
    pub(super) to: Instant,
    pub(super) by: Duration,
}

impl WentBack {
    pub(super) fn keep_age<'a>(self, moments: impl IntoIterator<Item = &'a mut Instant>) {
        for at in moments {
            // A clock may have no reading from before its start.
            let earlier = at.checked_sub(self.by);
            *at = earlier.unwrap_or((*at).min(self.to));
        }
    }
}

/// What a caller is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer<T, E> {
    /// Serve this token. Until `until`, callers may take it without asking again; once it is rejected,
    /// only if `despite_rejection`. If `fetch` is set, that fetch has to be running.
    Serve {
        token: T,
        until: Instant,
        despite_rejection: bool,
        fetch: Option<FetchId>,
    },
    /// Wait for this fetch, which has to be running, until `until` at most. Then ask again.
    Wait { fetch: FetchId, until: Instant },
    /// There is no token, and the last fetch failed with this error a short time ago.
    BackOff { error: E, retry_in: Duration },
}

/// One fetch. It begins when the machine first names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FetchId(pub(super) u64);

/// What became of a token that was fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It is the token that is held now.
    Held,
    /// It had expired, and a good token is held. To be reported as a failure.
    Expired,
    /// It is for an account that has been signed out.
    Void,
    /// The fetch had been given up. The token is held if nothing better was.
    Late { held: bool },
}

/// What an event displaced, for the caller to drop without a lock: its `Drop` may be foreign.
#[derive(Debug)]
#[must_use]
pub(crate) struct Displaced<T, E> {
    pub(super) tokens: Vec<T>,
    pub(super) errors: Vec<E>,
}

impl<T, E> Default for Displaced<T, E> {
    fn default() -> Self {
        Self {
            tokens: Vec::new(),
            errors: Vec::new(),
        }
    }
}

/// What is held, and what is to come.
#[derive(Clone, Debug)]
pub(crate) struct Status<E> {
    pub(crate) expiry: Option<Instant>,
    pub(crate) next_refresh: Option<Instant>,
    pub(crate) failures: u32,
    pub(crate) last_error: Option<E>,
}

/// What a failed fetch tells.
#[derive(Clone, Debug)]
pub(crate) struct Failure<E> {
    pub(crate) error: E,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) permanent: bool,
}
