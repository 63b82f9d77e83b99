//! Where tokens come from: [`TokenSource`], what it answers with, [`TokenFuture`], and why it
//! could not: [`SourceError`].

use std::{
    borrow::Cow,
    error::Error as StdError,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::future::BoxFuture;

use crate::token::{BearerToken, InvalidToken};

/// Hands out the token to use now, or a future of it.
///
/// `token` is called once for each request, and where rejected requests are retried once more for
/// each of those. It is called from many threads at a time: it must not block, and it should not hold
/// a lock for longer than it takes to copy a pointer.
/// A future that it returns may be dropped at any point: that must not lose a token for anybody else.
/// A source that can get another token looks at [`BearerToken::is_rejected`] before it hands one
/// out again.
///
/// # A source of your own
///
/// Return [`TokenFuture::ready`] when the token is at hand, which costs no allocation, and
/// [`TokenFuture::boxed`] when it is not. For a source that always has to wait there is
/// [`source_fn`].
///
/// ```
/// use tower_bearer::{BearerToken, TokenFuture, TokenSource};
///
/// /// Spreads requests over two tokens.
/// struct Alternate(BearerToken, BearerToken, std::sync::atomic::AtomicBool);
///
/// impl TokenSource for Alternate {
///     fn token(&self) -> TokenFuture {
///         match self.2.fetch_not(std::sync::atomic::Ordering::Relaxed) {
///             true => self.0.clone().into(),
///             false => self.1.clone().into(),
///         }
///     }
/// }
/// ```
pub trait TokenSource: Send + Sync {
    /// The token to use now.
    fn token(&self) -> TokenFuture;
}

impl<T: TokenSource + ?Sized> TokenSource for Arc<T> {
    #[inline]
    fn token(&self) -> TokenFuture {
        (**self).token()
    }
}

impl<T: TokenSource + ?Sized> TokenSource for Box<T> {
    #[inline]
    fn token(&self) -> TokenFuture {
        (**self).token()
    }
}

type TokenResult = Result<BearerToken, SourceError>;

/// A token, or a future of one: what a [`TokenSource`] answers with.
#[must_use = "futures do nothing unless polled"]
pub struct TokenFuture {
    /// `None` once it has answered.
    state: Option<TokenState>,
}

/// Lets the service act on a token at hand without polling.
pub(crate) enum TokenState {
    Ready(TokenResult),
    Pending(BoxFuture<'static, TokenResult>),
}

impl TokenFuture {
    /// An answer that is there already. Costs no allocation.
    #[inline]
    pub fn ready(result: Result<BearerToken, SourceError>) -> Self {
        let state = Some(TokenState::Ready(result));
        Self { state }
    }

    /// An answer that has to be waited for. Costs one allocation.
    pub fn boxed(
        future: impl Future<Output = Result<BearerToken, SourceError>> + Send + 'static,
    ) -> Self {
        let state = Some(TokenState::Pending(Box::pin(future)));
        Self { state }
    }

    #[inline]
    pub(crate) fn into_state(self) -> TokenState {
        self.state
            .unwrap_or_else(|| TokenState::Ready(Err(SourceError::taken())))
    }
}

impl From<BearerToken> for TokenFuture {
    #[inline]
    fn from(token: BearerToken) -> Self {
        Self::ready(Ok(token))
    }
}

/// Polled again after it has answered, it answers with an error of kind
/// [`Closed`](SourceErrorKind::Closed).
impl Future for TokenFuture {
    type Output = Result<BearerToken, SourceError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(TokenState::Pending(future)) = &mut self.state {
            let result = ready!(future.as_mut().poll(cx));
            self.state = None;
            return Poll::Ready(result);
        }
        match self.state.take() {
            Some(TokenState::Ready(result)) => Poll::Ready(result),
            _ => Poll::Ready(Err(SourceError::taken())),
        }
    }
}

impl fmt::Debug for TokenFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            Some(TokenState::Ready(Ok(_))) => "TokenFuture(a token)",
            Some(TokenState::Ready(Err(_))) => "TokenFuture(an error)",
            Some(TokenState::Pending(_)) => "TokenFuture(pending)",
            None => "TokenFuture(taken)",
        })
    }
}

/// Makes a [`TokenSource`] from an async function that is called for each request.
///
/// The function decides about caching. An error of any type becomes a [`SourceError`] of kind
/// [`Failed`](SourceErrorKind::Failed) with that error as its `source()`; a [`SourceError`] stays
/// what it is.
///
/// ```
/// use tower_bearer::{BearerAuthLayer, BearerToken, InvalidToken, source_fn};
///
/// async fn from_keychain() -> Result<BearerToken, InvalidToken> {
///     BearerToken::new(String::from("7Fjfp0ZBr1KtDRbnfVdmIw"))
/// }
///
/// let layer = BearerAuthLayer::new(source_fn(from_keychain));
/// ```
pub fn source_fn<F, Fut, E>(f: F) -> SourceFn<F>
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<BearerToken, E>> + Send + 'static,
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    SourceFn { f }
}

/// The [`TokenSource`] that [`source_fn`] makes.
#[derive(Clone, Copy)]
pub struct SourceFn<F> {
    f: F,
}

impl<F, Fut, E> TokenSource for SourceFn<F>
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<BearerToken, E>> + Send + 'static,
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    fn token(&self) -> TokenFuture {
        let token = (self.f)();
        TokenFuture::boxed(async move {
            let token = token.await.map_err(SourceError::failed)?;
            SourceError::unless_expired(token)
        })
    }
}

impl<F> fmt::Debug for SourceFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceFn").finish_non_exhaustive()
    }
}

/// Why a source has no token. A clone is one reference count: all that wait for one fetch share
/// its error.
///
/// It never holds a byte of a token. The error of a fetch function is kept as `source()`, and only
/// its `Display` is ever shown, since the `Debug` of an HTTP client's error may hold a response body.
#[derive(Clone)]
pub struct SourceError {
    inner: Arc<ErrorInner>,
}

struct ErrorInner {
    kind: SourceErrorKind,
    message: Cow<'static, str>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
    retry_after: Option<Duration>,
}

/// What went wrong in a source, see [`SourceError::kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SourceErrorKind {
    /// Nothing is there to take a token from: a variable that is not set, a file that does not exist.
    Absent,
    /// Something is there, and it is not a token.
    Invalid,
    /// The token is past its expiry: the only one there is, or one that was fetched just now.
    Expired,
    /// The function that fetches the token failed.
    Failed,
    /// The function that fetches the token took too long.
    TimedOut,
    /// The function that fetches the token panicked.
    Panicked,
    /// The function that fetches the token gave one that a server has rejected already.
    Rejected,
    /// What would have given the token is gone.
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
        source: impl Into<Box<dyn StdError + Send + Sync>>,
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
            }),
        }
    }

    /// The error of a fetch function.
    pub(crate) fn failed(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        match error.into().downcast::<Self>() {
            Ok(error) => *error,
            Err(error) => Self::with_source(
                SourceErrorKind::Failed,
                "the token could not be fetched",
                error,
            ),
        }
    }

    /// For sources that have one token and no way to get another.
    #[inline]
    pub(crate) fn unless_expired(token: BearerToken) -> Result<BearerToken, Self> {
        if token.is_expired() {
            return Err(Self::expired());
        }
        Ok(token)
    }

    #[cold]
    fn taken() -> Self {
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
            format!("the token could not be fetched within {limit:?}"),
        )
    }

    /// Without the panic's message, which may hold anything.
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
            "the token that was fetched is one that a server has rejected",
        )
    }

    /// The error for callers who come between a failure and the next try.
    pub(crate) fn backing_off(last: &Self, retry_after: Duration) -> Self {
        Self {
            inner: Arc::new(ErrorInner {
                kind: last.kind(),
                message: format!("no token, and no new try to fetch one for {retry_after:.1?}")
                    .into(),
                source: Some(Arc::new(last.clone())),
                retry_after: Some(retry_after),
            }),
        }
    }

    /// The same error under another message, with what caused it and when the next try is.
    pub(crate) fn with_message(&self, message: String) -> Self {
        Self {
            inner: Arc::new(ErrorInner {
                kind: self.kind(),
                message: message.into(),
                source: self.inner.source.clone(),
                retry_after: self.retry_after(),
            }),
        }
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> SourceErrorKind {
        self.inner.kind
    }

    /// How long until the source tries again, if the error is that of an earlier try.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.inner.retry_after
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

impl fmt::Debug for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("SourceError");
        debug.field("kind", &self.inner.kind);
        debug.field("message", &self.inner.message);
        if let Some(source) = &self.inner.source {
            debug.field("source", &format_args!("{source}"));
        }
        debug.finish()
    }
}

impl StdError for SourceError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_deref().map(|source| source as _)
    }
}
