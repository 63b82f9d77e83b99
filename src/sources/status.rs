//! What a source that fetches tells of itself: [`SourceStatus`].

use std::time::Instant;

use crate::{error::SourceError, refresh::Status};

/// What a [`RefreshingToken`](crate::RefreshingToken) holds and plans, see [`RefreshingToken::status`](crate::RefreshingToken::status).
#[derive(Clone, Debug)]
pub struct SourceStatus {
    expiry: Option<Instant>,
    next_refresh: Option<Instant>,
    failures: u32,
    last_error: Option<SourceError>,
}

impl SourceStatus {
    /// When the token that is held expires, on the runtime's clock. `None` without a token, and for a
    /// token without expiry.
    #[must_use]
    pub fn expiry(&self) -> Option<Instant> {
        self.expiry
    }

    /// From when on a request begins the next fetch, or the next try after a failure.
    #[must_use]
    pub fn next_refresh(&self) -> Option<Instant> {
        self.next_refresh
    }

    /// How many fetches in a row have failed.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The error of the last fetch, if it failed.
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
