//! What happened, as `tracing` events (feature `tracing`; without it, these do nothing).
//!
//! No event has a token, a URL or the text of an error: any of them may hold a secret.
#![cfg_attr(not(feature = "tracing"), allow(unused_variables))]

use std::time::{Duration, Instant};

use http::Uri;

use crate::{
    error::{SourceError, SourceErrorKind},
    token::BearerToken,
};

/// At compile time, nothing without the feature.
macro_rules! event {
    ($level:ident, $($field:tt)+) => {
        #[cfg(feature = "tracing")]
        tracing::$level!(target: "tower_bearer", $($field)+)
    };
}

pub(crate) fn fetch_started() {
    event!(debug, "token fetch started");
}

pub(crate) fn fetch_ended(result: &Result<BearerToken, SourceError>, now: Instant) {
    match result {
        Ok(token) => {
            let lifetime = token.expiry().map(|at| at.saturating_duration_since(now));
            event!(debug, ?lifetime, "token fetch succeeded");
        }
        Err(error) => {
            let reason = error.kind();
            event!(warn, ?reason, "token fetch failed");
        }
    }
}

pub(crate) fn backing_off(reason: SourceErrorKind, retry_after: Option<Duration>) {
    event!(debug, ?reason, ?retry_after, "no token, backing off");
}

pub(crate) fn token_rejected() {
    event!(debug, "a server rejected the token");
}

pub(crate) fn plaintext_refused(uri: &Uri) {
    event!(
        warn,
        scheme = uri.scheme_str(),
        host = uri.host(),
        "refused to send the token in plaintext"
    );
}
