//! The `tracing` events of this crate. Without the feature `tracing`, these functions do nothing.
//!
//! No event has a token or a URL, since both may hold a secret. An event does show the texts of a fetch
//! function's errors, as `Debug` of this crate's errors does: the log of a program that cannot get a token has
//! to say why. The documentation of the crate lists the events, under "Events".
#![cfg_attr(not(feature = "tracing"), allow(unused_variables))]

use std::time::Duration;

use http::Uri;

use crate::{
    error::{SourceError, SourceErrorKind, WithCauses},
    token::BearerToken,
};

/// Expands to nothing without the feature.
macro_rules! event {
    ($level:ident, $($field:tt)+) => {
        #[cfg(feature = "tracing")]
        tracing::$level!(target: "tower_bearer", $($field)+)
    };
}

pub(crate) fn fetch_started() {
    event!(debug, "token fetch started");
}

/// `lifetime` is the time that a token is good for, if it is known.
pub(crate) fn fetch_ended(result: &Result<BearerToken, SourceError>, lifetime: Option<Duration>) {
    match result {
        Ok(_) if lifetime == Some(Duration::ZERO) => {
            event!(
                warn,
                "the fetched token has already expired by this machine's clock, and is used all the same"
            );
        }
        Ok(_) => {
            event!(debug, ?lifetime, "token fetch succeeded");
        }
        Err(error) => {
            let reason = error.kind();
            let error = WithCauses(error);
            event!(warn, ?reason, %error, "token fetch failed");
        }
    }
}

pub(crate) fn backing_off(reason: SourceErrorKind, retry_after: Option<Duration>) {
    event!(debug, ?reason, ?retry_after, "no token, backing off");
}

/// Why a request goes out without the token of the layer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WhyPassed {
    /// The request has the header already, and the layer keeps this header.
    KeepExisting,
    /// The request has the extension `UseToken::none()`.
    UseToken,
    /// The source has no token, and the layer sends requests without a token in that case.
    Absent,
    /// No origin contains the URI: its host, its port or its scheme differs from the origin, or the URI
    /// and the origin call this machine by different names.
    OtherHost,
    OtherPort,
    OtherScheme,
    OtherLoopback,
    /// The URI names no host, as under tonic without `with_origin`.
    NoHost,
    /// The URI names no scheme, like the URI of a `CONNECT`.
    NoScheme,
}

pub(crate) fn passed(reason: WhyPassed) {
    event!(debug, ?reason, "a request goes out without the token");
}

pub(crate) fn waiting() {
    event!(debug, "a request waits for a token");
}

pub(crate) fn token_rejected() {
    event!(debug, "a server rejected the token");
}

/// What the source says when it is asked for another token for a rejected request.
pub(crate) fn replacement(answer: &Result<BearerToken, SourceError>, rejected: &BearerToken) {
    match answer {
        Ok(token) if token.can_replace(rejected) => {
            event!(
                debug,
                "the source has another token, so the rejected request can be retried"
            );
        }
        Ok(_) => {
            event!(
                debug,
                "the source has no other token for the rejected request"
            );
        }
        Err(error) => {
            event!(debug, reason = ?error.kind(), "the source has no other token for the rejected request");
        }
    }
}

/// Calls `reason` only if a subscriber takes the event.
pub(crate) fn passed_outside(uri: &Uri, reason: impl FnOnce() -> WhyPassed) {
    event!(
        debug,
        reason = ?reason(),
        scheme = uri.scheme_str(),
        host = uri.host(),
        port = uri.port_u16(),
        "a request goes out without the token"
    );
}

pub(crate) fn plaintext_refused(uri: &Uri) {
    event!(
        warn,
        scheme = uri.scheme_str(),
        host = uri.host(),
        "refused to send the token in plaintext"
    );
}
