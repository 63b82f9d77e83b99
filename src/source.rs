//! Where tokens come from: [`TokenSource`], and its answer, [`TokenFuture`].

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::future::BoxFuture;

use crate::{error::SourceError, token::BearerToken};

/// Hands out the token to use now, or a future of that token.
///
/// The layer calls `token` once per request. It calls `token` once more per rejected request if the layer
/// retries rejected requests, and once more if a token expired or was rejected while its request waited for
/// the inner service. Many threads may call `token` at the same time: `token` must not block, and should not
/// hold a lock for longer than it takes to copy a pointer. The future may be dropped at any point. Dropping
/// the future must not affect other callers.
///
/// A source that can get another token looks at [`BearerToken::is_rejected`] before it hands out the same
/// token again.
///
/// # A source of your own
///
/// Return [`TokenFuture::ready`] when the token is at hand: it costs no allocation. Return
/// [`TokenFuture::boxed`] when the source has to wait for the token. For a source that always has to wait,
/// use [`source_fn`](crate::source_fn).
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
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a token source",
    label = "this is not a `TokenSource`",
    note = "a token is a source: `BearerToken::new(text)?`",
    note = "to make a source from an async function, call `source_fn(f)` or `RefreshingToken::new(f)`",
    note = "to make a source from a builder, call `.build()`",
    note = "the result of `EnvToken::new` and of `FileToken::new` needs a `?`"
)]
pub trait TokenSource: Send + Sync {
    /// The token to use now.
    fn token(&self) -> TokenFuture;
}

/// Shows the name of the trait, so that a type that holds an `Arc<dyn TokenSource>` can derive `Debug`.
impl fmt::Debug for dyn TokenSource + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("dyn TokenSource")
    }
}

/// Like `Debug` of `dyn TokenSource`. The markers make this another type, although every [`TokenSource`] has
/// them.
impl fmt::Debug for dyn TokenSource + Send + Sync + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("dyn TokenSource")
    }
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

/// The answer of a [`TokenSource`]: a token, an error, or a future of a token or an error.
#[must_use = "futures do nothing unless polled"]
pub struct TokenFuture {
    /// `None` once the future has answered.
    state: Option<TokenState>,
}

/// Lets the service act on a token at hand without polling.
pub(crate) enum TokenState {
    Ready(Result<BearerToken, SourceError>),
    Pending(PendingToken),
}

/// A token that has to be waited for.
pub(crate) type PendingToken = BoxFuture<'static, Result<BearerToken, SourceError>>;

impl TokenFuture {
    /// An answer that is there already. Costs no allocation.
    #[inline]
    pub fn ready(result: Result<BearerToken, SourceError>) -> Self {
        let state = Some(TokenState::Ready(result));
        Self { state }
    }

    /// An answer that has to be waited for. Costs an allocation.
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

/// A poll after the answer returns an error of kind [`Closed`](crate::SourceErrorKind::Closed).
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
