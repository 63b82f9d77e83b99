//! [`Error`] says why a request was not sent: users [find](Error::find) it in the [`BoxError`].
//! [`SourceError`] says why a source has no token.

mod source_error;

use std::{error::Error as StdError, fmt, io, sync::Arc};

pub(crate) use self::source_error::WithCauses;
pub use self::source_error::{SourceError, SourceErrorKind};

/// The error type of this crate's services, and the same type as Tower's.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Why this crate did not send a request.
///
/// Errors of the inner service pass through unchanged, and a layer above may wrap this error. So look for
/// this error with [`find`](Self::find). Log an error with `{e:?}`: `Debug` shows the causes, which `{e}` leaves out.
pub struct Error {
    cause: Cause,
}

enum Cause {
    NoToken(SourceError),
    InsecureTransport {
        scheme: Option<String>,
        host: String,
    },
    TooManyHeaders,
    Finished,
}

/// What stopped a request, see [`Error::kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The token source has no token, because the user is signed out, the token endpoint is down, or
    /// [for another reason](SourceErrorKind). [`Error::source_error`] says why.
    NoToken,
    /// The token would have crossed the network in plaintext.
    InsecureTransport,
    /// The request has as many headers as an `http::HeaderMap` holds (24,576 names), and no room for
    /// the token.
    TooManyHeaders,
    /// The response future was polled again after it had failed without sending the request, or after it
    /// had returned a response that was [held back](crate::BearerAuthLayer::retry_rejected).
    Finished,
}

impl Error {
    pub(crate) fn no_token(error: SourceError) -> Self {
        let cause = Cause::NoToken(error);
        Self { cause }
    }

    pub(crate) fn insecure_transport(uri: &http::Uri) -> Self {
        let cause = Cause::InsecureTransport {
            scheme: uri.scheme_str().map(str::to_owned),
            host: uri.host().unwrap_or_default().to_owned(),
        };
        Self { cause }
    }

    pub(crate) fn too_many_headers() -> Self {
        let cause = Cause::TooManyHeaders;
        Self { cause }
    }

    pub(crate) fn finished() -> Self {
        let cause = Cause::Finished;
        Self { cause }
    }

    /// The error of this crate in `error` or in the chain of its `source()`.
    ///
    /// So `find` finds the error under a buffer, a timeout or the error type of an SDK, and in the errors of
    /// reqwest-middleware and reqwest-retry. `None` means that the error is not from this crate: the HTTP
    /// client failed, or another layer, such as a timeout.
    ///
    /// ```
    /// use tower_bearer::{BoxError, Error, SourceErrorKind as Kind};
    ///
    /// /// What an SDK tells its user.
    /// fn advice(error: &BoxError) -> &'static str {
    ///     let Some(error) = Error::find(&**error).and_then(Error::source_error) else {
    ///         return "the request failed"; // for another reason than the lack of a token
    ///     };
    ///     match error.kind() {
    ///         _ if error.is_permanent() => "sign in again",
    ///         Kind::Absent | Kind::Expired | Kind::Invalidated => "sign in again",
    ///         Kind::Failed | Kind::TimedOut | Kind::Rejected => "the sign-in server is down, try again later",
    ///         _ => "this program or its configuration has a mistake",
    ///     }
    /// }
    /// ```
    ///
    /// An error type of your own has to return this error as its `source()`, as `#[source]` and `#[from]` of
    /// thiserror do. `#[error(transparent)]` hides this error from every walk along the chain.
    #[must_use]
    pub fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        find_in_chain(error)
    }

    /// What stopped the request.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self.cause {
            Cause::NoToken(_) => ErrorKind::NoToken,
            Cause::InsecureTransport { .. } => ErrorKind::InsecureTransport,
            Cause::TooManyHeaders => ErrorKind::TooManyHeaders,
            Cause::Finished => ErrorKind::Finished,
        }
    }

    /// The error of the token source, if the source stopped the request.
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
                "refused to send a bearer token over plaintext {} to {host}: {}",
                scheme.as_deref().unwrap_or("HTTP"),
                remedy(scheme.as_deref())
            ),
            Cause::TooManyHeaders => {
                f.write_str("no room for the bearer token: the request has too many headers")
            }
            Cause::Finished => f.write_str("response future polled after it had finished"),
        }
    }
}

/// What the user can do about a scheme that is not known to be encrypted.
fn remedy(scheme: Option<&str>) -> &'static str {
    let Some(scheme) = scheme else {
        // The target of a `CONNECT` has a host and no scheme.
        return "a token for a proxy goes under `Proxy-Authorization`";
    };
    if scheme.eq_ignore_ascii_case("https") {
        "clients encrypt only what equals `http::uri::Scheme::HTTPS`, which is in lower case"
    } else if scheme.eq_ignore_ascii_case("wss") {
        "if your client encrypts it, name the server with `for_origin`"
    } else if scheme.eq_ignore_ascii_case("unix") {
        "write the path of the socket in hexadecimal, or name the socket with `for_origin`"
    } else {
        "use https"
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source_error().map(|error| error as _)
    }
}

/// Shows the text of `Display`, since `main` prints an error by its `Debug`.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        debug.field("kind", &self.kind());
        debug.field("message", &Quoted(self));
        if let Some(source) = self.source_error() {
            debug.field("source", source);
        }
        debug.finish()
    }
}

/// The text of an error in quotes, without escapes.
struct Quoted<'a>(&'a dyn fmt::Display);

impl fmt::Debug for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

/// The first error of type `E` in `error` and the chain of its causes.
fn find_in_chain<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = within::<E>(error).or_else(|| error.source());
    }
    None
}

/// The error that `error` wraps, if the `source()` of `error` skips the wrapped error.
fn within<'a, E: StdError + 'static>(
    error: &'a (dyn StdError + 'static),
) -> Option<&'a (dyn StdError + 'static)> {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return error.get_ref().map(|error| error as _);
    }
    if let Some(error) = error.downcast_ref::<Arc<dyn StdError + Send + Sync>>() {
        return Some(&**error);
    }
    if let Some(error) = error.downcast_ref::<Arc<E>>() {
        return Some(&**error);
    }
    error.downcast_ref::<Box<E>>().map(|error| &**error as _)
}
