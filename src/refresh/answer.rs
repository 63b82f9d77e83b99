//! The types that go into the machine and come out of it: the time, the answers, and how a fetch
//! ended.

use std::time::{Duration, Instant, SystemTime};

/// A reading of both clocks. The monotonic clock may stand still while the computer sleeps; the
/// wall clock may be set. A token expires as soon as either clock says so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) monotonic: Instant,
    pub(crate) wall: SystemTime,
}

/// A reading may be this far behind the latest reading, because a caller reads the clock before it
/// takes the lock, and may be stopped in between. A reading that is further behind shows that the
/// clock went back.
pub(super) const LATE_READING: Duration = Duration::from_secs(10);

/// The monotonic clock went back, as between two tests with paused time that share a source. How
/// much time has passed since the last reading is unknown, so every stored moment keeps the age
/// that it had at that reading.
#[derive(Clone, Copy, Debug)]
pub(super) struct WentBack {
    pub(super) to: Instant,
    pub(super) by: Duration,
}

impl WentBack {
    pub(super) fn keep_age<'a>(self, moments: impl IntoIterator<Item = &'a mut Instant>) {
        for at in moments {
            // The clock may be unable to express a moment before its start.
            let earlier = at.checked_sub(self.by);
            *at = earlier.unwrap_or((*at).min(self.to));
        }
    }
}

/// What a caller has to do.
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

/// The number of a fetch. The fetch begins when the machine first names the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FetchId(pub(super) u64);

/// What the machine did with a fetched token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The machine holds this token now.
    Held,
    /// The token had expired, and the machine keeps its good token. The caller reports a failure.
    Expired,
    /// The token is for an account that has been signed out.
    Void,
    /// The token comes from a fetch that was given up. The machine holds the token if it had no
    /// good token.
    Late { held: bool },
}

/// What an event displaced. The caller drops it without a lock, since a `Drop` may be foreign code.
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

/// When the held token expires, when the next fetch is due, and the failures so far.
#[derive(Clone, Debug)]
pub(crate) struct Status<E> {
    pub(crate) expiry: Option<Instant>,
    pub(crate) next_refresh: Option<Instant>,
    pub(crate) failures: u32,
    pub(crate) last_error: Option<E>,
}

/// What the error of a failed fetch says.
#[derive(Clone, Debug)]
pub(crate) struct Failure<E> {
    pub(crate) error: E,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) permanent: bool,
}
