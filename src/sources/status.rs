//! The status of a source that fetches: [`SourceStatus`].

use std::time::Instant;

use crate::{error::SourceError, refresh::Status};

/// What a [`RefreshingToken`](crate::RefreshingToken) holds, and when it fetches next: the result of
/// [`RefreshingToken::status`](crate::RefreshingToken::status).
#[derive(Clone, Debug)]
pub struct SourceStatus {
    expiry: Option<Instant>,
    next_refresh: Option<Instant>,
    failures: u32,
    last_error: Option<SourceError>,
}

impl SourceStatus {
    /// When the held token expires, on the runtime's monotonic clock. `None` if the source holds no
    /// token, a token without expiry, or a token that had already expired when it came.
    #[must_use]
    pub fn expiry(&self) -> Option<Instant> {
        self.expiry
    }

    /// The earliest moment at which a request begins the next fetch, on the runtime's monotonic clock,
    /// if no server rejects the token. A back-off ends no later than this moment. `None` if the source
    /// holds a token without expiry.
    #[must_use]
    pub fn next_refresh(&self) -> Option<Instant> {
        self.next_refresh
    }

    /// How many fetches in a row have failed.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The error of the last fetch, if that fetch failed.
    #[must_use]
    pub fn last_error(&self) -> Option<&SourceError> {
        self.last_error.as_ref()
    }
}

impl From<Status<SourceError>> for SourceStatus {
    fn from(status: Status<SourceError>) -> Self {
        Self {
            expiry: status.expiry,
            next_refresh: status.next_refresh,
            failures: status.failures,
            last_error: status.last_error,
        }
    }
}
