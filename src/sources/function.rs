//! A token from an async function that is called for each request: [`source_fn`].

use std::{fmt, future::Future};

use crate::{
    error::{BoxError, SourceError},
    source::{TokenFuture, TokenSource},
    token::BearerToken,
};

/// Makes a [`TokenSource`] from an async function that is called for each request.
///
/// The function decides about caching. An error of any type becomes a [`SourceError`] of kind
/// [`Failed`](crate::SourceErrorKind::Failed) with that error as its `source()`; a [`SourceError`] stays
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
    E: Into<BoxError>,
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
    E: Into<BoxError>,
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
