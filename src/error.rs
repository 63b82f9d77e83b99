//! Why a request was not sent: [`Error`], which users find in the [`BoxError`] by downcast.

use std::{error::Error as StdError, fmt};

use crate::{source::SourceError, trace};

/// The error of the services in this crate, as in Tower.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Why this crate did not send a request.
///
/// The inner service's own errors pass through untouched, so look for this one by downcast:
///
/// ```
/// use tower_bearer::{BoxError, Error, ErrorKind};
///
/// fn is_ours_to_retry(error: &BoxError) -> bool {
///     error
///         .downcast_ref::<Error>()
///         .is_some_and(|error| error.kind() == ErrorKind::NoToken)
/// }
/// ```
#[derive(Debug)]
pub struct Error {
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    NoToken(SourceError),
    InsecureTransport { scheme: String, host: String },
    Finished,
}

/// What stopped a request, see [`Error::kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The token source has no token. `source()` is its [`SourceError`].
    NoToken,
    /// The token would have crossed the network in plaintext.
    InsecureTransport,
    /// The response future was polled again after it had given the error that stopped the request, or
    /// a response that was [held back](crate::BearerAuthLayer::retry_rejected).
    Finished,
}

impl Error {
    pub(crate) fn no_token(error: SourceError) -> Self {
        let cause = Cause::NoToken(error);
        Self { cause }
    }

    pub(crate) fn insecure_transport(uri: &http::Uri) -> Self {
        trace::plaintext_refused(uri);
        let cause = Cause::InsecureTransport {
            scheme: uri.scheme_str().unwrap_or("HTTP").to_owned(),
            host: uri.host().unwrap_or_default().to_owned(),
        };
        Self { cause }
    }

    pub(crate) fn finished() -> Self {
        let cause = Cause::Finished;
        Self { cause }
    }

    /// What stopped the request.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self.cause {
            Cause::NoToken(_) => ErrorKind::NoToken,
            Cause::InsecureTransport { .. } => ErrorKind::InsecureTransport,
            Cause::Finished => ErrorKind::Finished,
        }
    }

    /// The token source's error, if that is what stopped the request.
    #[must_use]
    pub fn source_error(&self) -> Option<&SourceError> {
        match &self.cause {
            Cause::NoToken(error) => Some(error),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::NoToken(_) => f.write_str("no bearer token for the request"),
            Cause::InsecureTransport { scheme, host } => write!(
                f,
                "refused to send a bearer token over plaintext {scheme} to {host}: use https"
            ),
            Cause::Finished => f.write_str("response future polled after it had finished"),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source_error().map(|error| error as _)
    }
}
