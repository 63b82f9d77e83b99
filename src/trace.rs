//! What happened, as `tracing` events (feature `tracing`; without it, these do nothing).
//!
//! No event has a token or a URL: either may hold a secret. The texts of a fetch function's errors are
//! shown, as this crate's `Debug` shows them: a program that cannot get a token has to tell why. Each event
//! stands in the crate's documentation, under "Events".
#![cfg_attr(not(feature = "tracing"), allow(unused_variables))]

use std::{
    error::Error as _,
    fmt,
    time::{Duration, Instant},
};

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
            let error = Texts(error);
            event!(warn, ?reason, %error, "token fetch failed");
        }
    }
}

/// The texts of an error and of its causes.
struct Texts<'a>(&'a SourceError);

impl fmt::Display for Texts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

pub(crate) fn backing_off(reason: SourceErrorKind, retry_after: Option<Duration>) {
    event!(debug, ?reason, ?retry_after, "no token, backing off");
}

/// Why a request goes out without the token of the layer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WhyPassed {
    /// It has the header already, and the layer keeps that.
    KeepExisting,
    /// Its extension wants no token.
    UseToken,
    /// The source has none, and the layer sends such a request all the same.
    Absent,
    /// Its URI is within no origin: another host, or a port or a scheme that differs, or another name of
    /// this machine.
    OtherHost,
    OtherPort,
    OtherScheme,
    OtherLoopback,
    /// Its URI names no host, as under tonic without `with_origin`.
    NoHost,
    /// Its URI names no scheme, as that of a `CONNECT`.
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

/// `reason` is asked only if somebody listens.
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
