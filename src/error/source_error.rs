//! Why a source has no token: [`SourceError`].

use std::{borrow::Cow, error::Error as StdError, fmt, sync::Arc, time::Duration};

use super::{BoxError, Quoted, find_in_chain};
use crate::token::{BearerToken, InvalidToken};

/// A server cannot make a source, or a program that obeys the error, wait for longer than this.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(15 * 60);

/// Why a source has no token.
///
/// Cheap to clone: every request that waited for the same failed fetch gets a clone of the same error.
///
/// This crate puts no byte of a token into the error. The error of a fetch function is kept as `source()`.
/// Only the `Display` of a `source()` is ever shown, since the `Debug` of an HTTP client's error may hold a
/// response body.
#[derive(Clone)]
pub struct SourceError {
    inner: Arc<ErrorInner>,
}

#[derive(Clone)]
struct ErrorInner {
    kind: SourceErrorKind,
    message: Cow<'static, str>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
    retry_after: Option<Duration>,
    permanent: bool,
}

/// What went wrong in a source, see [`SourceError::kind`].
///
/// | Kind | What happened | What a program does |
/// |---|---|---|
/// | any kind, if [`is_permanent`](SourceError::is_permanent) | the token endpoint does not accept the refresh token, the client or the request | has the user sign in again, or the configuration fixed |
/// | `Absent`, `Expired`, `Invalidated` | there is nothing to take a token from, the token is over, or the program has signed out | has the user sign in again |
/// | `Failed`, `TimedOut`, `Rejected` | the token endpoint cannot be reached or gives no good token | tries again later: [`retry_after`](SourceError::retry_after) may tell when |
/// | `Invalid`, `Panicked`, `Recursive`, `Closed` | the configuration or the program has a mistake | has the mistake fixed |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SourceErrorKind {
    /// There is nothing to take a token from: a variable is not set, or a file does not exist.
    Absent,
    /// There is something, but it is not a token.
    Invalid,
    /// The token has expired, and the source has no other token; or a token was just fetched and has already
    /// expired.
    Expired,
    /// The function that fetches the token failed.
    Failed,
    /// The function that fetches the token took too long.
    TimedOut,
    /// The function that fetches the token panicked. Outside a tokio runtime, tokio's sockets and timers
    /// panic: `TokioRuntime::with_handle` gives the fetch a runtime. With `panic = "abort"`, a panic ends the
    /// process.
    Panicked,
    /// A server has already rejected the token that was fetched.
    Rejected,
    /// The fetch asked its own source for a token, and so would have waited for itself. A fetch through the
    /// client that carries the layer does this.
    Recursive,
    /// [`RefreshingToken::invalidate`](crate::RefreshingToken::invalidate) was called while the request
    /// waited for a token, for the inner service or for its retry.
    Invalidated,
    /// No token can arrive any more: whatever would have supplied it was dropped.
    Closed,
}

impl SourceError {
    /// An error with a message that a user can act on. Put nothing secret in it.
    pub fn new(kind: SourceErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self::from_parts(kind, message.into(), None)
    }

    /// An error with a message and the error that caused it.
    pub fn with_source(
        kind: SourceErrorKind,
        message: impl Into<Cow<'static, str>>,
        source: impl Into<BoxError>,
    ) -> Self {
        Self::from_parts(kind, message.into(), Some(source.into().into()))
    }

    fn from_parts(
        kind: SourceErrorKind,
        message: Cow<'static, str>,
        source: Option<Arc<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self {
            inner: Arc::new(ErrorInner {
                kind,
                message,
                source,
                retry_after: None,
                permanent: false,
            }),
        }
    }

    /// The error of a fetch function.
    pub(crate) fn failed(error: impl Into<BoxError>) -> Self {
        match error.into().downcast::<Self>() {
            Ok(error) => *error,
            Err(error) => {
                let cause = find_in_chain::<Self>(&*error).map(Self::kind);
                // If the fetch went through a client that asks this source, the client wraps the error.
                let kind = match cause {
                    Some(SourceErrorKind::Recursive) => SourceErrorKind::Recursive,
                    _ => SourceErrorKind::Failed,
                };
                Self::with_source(kind, "the token could not be fetched", error)
            }
        }
    }

    /// The answer of a source that has no way to get another token.
    #[inline]
    pub(crate) fn unless_expired(token: BearerToken) -> Result<BearerToken, Self> {
        if token.is_expired() {
            return Err(Self::expired());
        }
        Ok(token)
    }

    #[cold]
    pub(crate) fn taken() -> Self {
        Self::new(
            SourceErrorKind::Closed,
            "the token was already taken from this future",
        )
    }

    #[cold]
    fn expired() -> Self {
        Self::new(SourceErrorKind::Expired, "the token has expired")
    }

    pub(crate) fn timed_out(limit: Duration) -> Self {
        Self::new(
            SourceErrorKind::TimedOut,
            format!(
                "the token could not be fetched within {limit:?}: the endpoint is slow, or the fetch goes \
                 through a client that waits for this token"
            ),
        )
    }

    /// Leaves out the message of the panic, which may hold a secret.
    pub(crate) fn panicked() -> Self {
        Self::new(
            SourceErrorKind::Panicked,
            "the function that fetches the token panicked",
        )
    }

    pub(crate) fn fetched_expired() -> Self {
        Self::new(
            SourceErrorKind::Expired,
            "the token that was fetched has already expired",
        )
    }

    pub(crate) fn fetched_rejected() -> Self {
        Self::new(
            SourceErrorKind::Rejected,
            "a server has already rejected the token that was fetched",
        )
    }

    pub(crate) fn recursive() -> Self {
        Self::new(
            SourceErrorKind::Recursive,
            "fetching the token waits for that very token: the fetch must not go through a client that \
             asks this source",
        )
    }

    pub(crate) fn invalidated() -> Self {
        Self::new(
            SourceErrorKind::Invalidated,
            "the source was invalidated while the request waited",
        )
    }

    pub(crate) fn closed_after_losses() -> Self {
        Self::new(
            SourceErrorKind::Closed,
            "the runtime drops every task that fetches the token, or does not run it",
        )
    }

    /// The error for a caller that comes between a failed fetch and the next fetch.
    pub(crate) fn backing_off(last: &Self, retry_after: Duration) -> Self {
        Self {
            inner: Arc::new(ErrorInner {
                message: format!("no token, and no new fetch for {retry_after:.1?}").into(),
                source: Some(Arc::new(last.clone())),
                retry_after: Some(retry_after),
                ..(*last.inner).clone()
            }),
        }
    }

    /// The same error under another message.
    pub(crate) fn with_message(&self, message: String) -> Self {
        self.clone().with(|inner| inner.message = message.into())
    }

    fn with(self, change: impl FnOnce(&mut ErrorInner)) -> Self {
        let mut inner = Arc::unwrap_or_clone(self.inner);
        change(&mut inner);
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The same error, with a time to wait: the back-off of a [`RefreshingToken`](crate::RefreshingToken) then
    /// lasts for at least `wait`. For an endpoint that says 429 or 503 with `Retry-After` (RFC 9110 §10.2.3). A
    /// `wait` of more than 15 minutes counts as 15 minutes, and [`retry_after`](Self::retry_after) then returns
    /// 15 minutes.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_bearer::{SourceError, SourceErrorKind};
    ///
    /// let error = SourceError::new(SourceErrorKind::Failed, "the token endpoint is busy")
    ///     .with_retry_after(Duration::from_secs(60));
    /// assert_eq!(error.retry_after(), Some(Duration::from_secs(60)));
    /// ```
    #[must_use]
    pub fn with_retry_after(self, wait: Duration) -> Self {
        self.with(|inner| inner.retry_after = Some(wait.min(LONGEST_RETRY_AFTER)))
    }

    /// The same error, marked as an error that does not go away by itself, such as `invalid_grant` of an
    /// OAuth 2.0 server (RFC 6749 §5.2). A [`RefreshingToken`](crate::RefreshingToken) then waits for 10 seconds
    /// before it fetches again, and for up to 5 minutes if such errors go on.
    #[must_use]
    pub fn permanent(self) -> Self {
        self.with(|inner| inner.permanent = true)
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> SourceErrorKind {
        self.inner.kind
    }

    /// The time until the source fetches again. `None`, unless a source returned this error while it was
    /// backing off after a failed fetch, or [`with_retry_after`](Self::with_retry_after) set the time.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.inner.retry_after
    }

    /// Whether the error is marked as [an error that does not go away by itself](Self::permanent).
    ///
    /// A fetch function marks its own errors. This crate marks only errors of an OAuth 2.0 server. It leaves the
    /// kinds `Absent`, `Invalid`, `Expired`, `Recursive`, `Panicked` and `Closed` unmarked, although another
    /// try seldom helps: see the table of [`SourceErrorKind`].
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.inner.permanent
    }

    /// The first error of type `E` in the chain of causes, such as the error of a fetch function.
    ///
    /// ```
    /// use std::{fmt::Error, io};
    /// use tower_bearer::{SourceError, SourceErrorKind};
    ///
    /// let busy = io::Error::from(io::ErrorKind::ConnectionRefused);
    /// let error = SourceError::with_source(SourceErrorKind::Failed, "no connection", busy);
    /// assert_eq!(error.cause::<io::Error>().unwrap().kind(), io::ErrorKind::ConnectionRefused);
    /// assert!(error.cause::<Error>().is_none());
    /// ```
    #[must_use]
    pub fn cause<E: StdError + 'static>(&self) -> Option<&E> {
        self.source().and_then(find_in_chain)
    }
}

impl From<InvalidToken> for SourceError {
    fn from(error: InvalidToken) -> Self {
        Self::with_source(
            SourceErrorKind::Invalid,
            "the source's text is not a token",
            error,
        )
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)
    }
}

/// Shows the text of `Display` and the texts of the causes, since `main` prints an error by its `Debug`.
impl fmt::Debug for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("SourceError");
        debug.field("kind", &self.inner.kind);
        debug.field("message", &Quoted(self));
        if let Some(source) = self.source() {
            debug.field("source", &Quoted(&WithCauses(source)));
        }
        debug.finish()
    }
}

/// The texts of an error and of its causes.
pub(crate) struct WithCauses<'a>(pub(crate) &'a dyn StdError);

impl fmt::Display for WithCauses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        match self.0.source() {
            Some(cause) => write!(f, ": {}", WithCauses(cause)),
            None => Ok(()),
        }
    }
}

impl StdError for SourceError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_deref().map(|source| source as _)
    }
}
