//! A token from an async function that is called for each request: [`source_fn`].

use std::{
    fmt,
    future::{Future, poll_fn},
    task::{Poll, ready},
};

use crate::{
    error::{BoxError, SourceError},
    refresh::recursion::{self, SourceId},
    source::{TokenFuture, TokenSource},
    token::BearerToken,
};

/// Makes a [`TokenSource`] from an async function that is called for each request.
///
/// The source caches nothing; the function may. An error of any type becomes a [`SourceError`] of
/// kind [`Failed`](crate::SourceErrorKind::Failed) with that error as its `source()`. A
/// [`SourceError`] is passed on unchanged. If the function asks this very source within its own task,
/// directly or through a client, it gets an error of kind
/// [`Recursive`](crate::SourceErrorKind::Recursive). Through another task, nothing notices: each call
/// begins another call, and no time limit ends this.
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
    E: Into<BoxError>,
{
    SourceFn {
        f,
        id: SourceId::new(),
    }
}

/// The [`TokenSource`] that [`source_fn`] makes.
#[derive(Clone, Copy)]
pub struct SourceFn<F> {
    f: F,
    id: SourceId,
}

impl<F, Fut, E> TokenSource for SourceFn<F>
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<BearerToken, E>> + Send + 'static,
    E: Into<BoxError>,
{
    /// Calls the function, and costs two allocations on top.
    fn token(&self) -> TokenFuture {
        let id = self.id;
        if recursion::is_within(id) {
            return TokenFuture::ready(Err(SourceError::recursive()));
        }
        let token = {
            let _within = recursion::enter(id);
            (self.f)()
        };
        let mut token = Box::pin(token);
        TokenFuture::boxed(poll_fn(move |cx| {
            // Another task called `token`, as the task of a buffer does, and the function polls the result.
            if recursion::is_within(id) {
                return Poll::Ready(Err(SourceError::recursive()));
            }
            let _within = recursion::enter(id);
            let token = ready!(token.as_mut().poll(cx)).map_err(SourceError::failed);
            Poll::Ready(token.and_then(SourceError::unless_expired))
        }))
    }
}

impl<F> fmt::Debug for SourceFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceFn").finish_non_exhaustive()
    }
}
