//! Retries a request whose token was rejected: [`RetryRejected`], a policy for Tower's `Retry`.

use std::{
    fmt,
    future::{Ready, ready},
};

use http::{Request, Response};
use tower::retry::Policy;

use crate::future::TokenReplaced;

/// A [`Policy`] that retries a request once, if a server rejected the token that was sent and the
/// source has another.
///
/// It goes above a [`BearerAuthLayer`](crate::BearerAuthLayer) with
/// [`retry_rejected`](crate::BearerAuthLayer::retry_rejected), which tells it both.
///
/// ```
/// use tower::{ServiceBuilder, retry::RetryLayer};
/// use tower_bearer::{BearerAuthLayer, RetryRejected, RotatingToken};
///
/// let stack = ServiceBuilder::new()
///     // For requests with a `String` for a body.
///     .layer(RetryLayer::new(RetryRejected::<String>::new()))
///     .layer(BearerAuthLayer::new(RotatingToken::empty()).retry_rejected());
/// ```
///
/// # Order
///
/// Below that layer it retries nothing. What other layers do above it, between the two, or below the
/// layer:
///
/// | | above | between | below |
/// |---|---|---|---|
/// | `Timeout` | covers both tries | covers each try | covers each try |
/// | … and the wait for the other token | yes | yes, and what timed out is not retried | no |
/// | `ConcurrencyLimit` | one place for both tries | a place for each try | a place for each try |
/// | … during the wait for the other token | is taken | is taken | is free |
/// | `LoadShed` | sheds no retry | may shed the retry | may shed the retry |
/// | `Buffer` | serves others during that wait | the same | the same |
/// | `FollowRedirect` | retries one hop | retries the first hop, too | retries the first hop, too |
/// | … the 401 of a foreign host, with `for_origin` | says nothing | says nothing | **marks the token** |
///
/// So put a redirect follower above: elsewhere, a POST that a server has acted on is sent again
/// because the page after it rejects the token. In each of these orders a request is retried at
/// most once, and with [`for_origin`](crate::BearerAuthLayer::for_origin) no token goes to a foreign
/// host, if a redirect follower below takes it off [as it has to](crate::BearerAuthLayer::for_origin).
///
/// # Bodies
///
/// Requests are cloned, so their body has to be `Clone`. Where only some are, say which:
///
/// ```
/// use http::Request;
/// use tower_bearer::RetryRejected;
///
/// enum Body {
///     Buffered(String),
///     Streamed,
/// }
///
/// let policy = RetryRejected::with_clone(|request: &Request<Body>| match request.body() {
///     Body::Buffered(text) => {
///         let mut clone = Request::new(Body::Buffered(text.clone()));
///         *clone.method_mut() = request.method().clone();
///         *clone.uri_mut() = request.uri().clone();
///         *clone.version_mut() = request.version();
///         *clone.headers_mut() = request.headers().clone();
///         *clone.extensions_mut() = request.extensions().clone();
///         Some(clone)
///     }
///     Body::Streamed => None,
/// });
/// ```
pub struct RetryRejected<B> {
    clone: fn(&Request<B>) -> Option<Request<B>>,
    retried: bool,
}

impl<B: Clone> RetryRejected<B> {
    /// Retries requests with a body that is `Clone`.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clone(|request| Some(request.clone()))
    }
}

impl<B: Clone> Default for RetryRejected<B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B> RetryRejected<B> {
    /// Retries those requests that `clone` gives a copy of. A streaming body has none.
    #[must_use]
    pub fn with_clone(clone: fn(&Request<B>) -> Option<Request<B>>) -> Self {
        Self {
            clone,
            retried: false,
        }
    }
}

impl<B, R, E> Policy<Request<B>, Response<R>, E> for RetryRejected<B> {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request<B>,
        result: &mut Result<Response<R>, E>,
    ) -> Option<Self::Future> {
        let response = result.as_ref().ok()?;
        response.extensions().get::<TokenReplaced>()?;
        self.retried = true;
        Some(ready(()))
    }

    /// Tower's `Retry` asks for a copy before each try, and clones the policy for each request.
    fn clone_request(&mut self, request: &Request<B>) -> Option<Request<B>> {
        if self.retried {
            return None;
        }
        (self.clone)(request)
    }
}

impl<B> Clone for RetryRejected<B> {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

impl<B> fmt::Debug for RetryRejected<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryRejected")
            .field("retried", &self.retried)
            .finish_non_exhaustive()
    }
}
