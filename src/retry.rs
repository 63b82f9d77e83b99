//! Retries a request if its token was rejected: [`RetryRejected`], a policy for Tower's `Retry`.

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
/// Place it above a [`BearerAuthLayer`](crate::BearerAuthLayer) with
/// [`retry_rejected`](crate::BearerAuthLayer::retry_rejected), which reports both facts.
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
/// Below that layer the policy retries nothing. This is what other layers do above the `Retry`,
/// between the `Retry` and the `BearerAuthLayer`, and below both:
///
/// | | above | between | below |
/// |---|---|---|---|
/// | `Timeout` | covers both tries | covers each try | covers each try |
/// | … and the wait for the other token | yes | yes, and what timed out is not retried | no |
/// | `ConcurrencyLimit` | one place for both tries | a place for each try | a place for each try |
/// | … while a request waits for a token, its first or another | is taken | is taken | is free |
/// | … which bounds how many requests wait | yes | yes | no |
/// | … and lets a fetch through it | **no** | **no** | yes |
/// | `LoadShed` | sheds no retry | may shed the retry | may shed the retry |
/// | … while requests wait for a token | sheds nothing for them | sheds nothing for them | sheds nothing for them |
/// | … when their token comes | sheds none of them | sheds none of them | may shed some of them |
/// | `Buffer` | serves others during that wait | the same | the same |
/// | `FollowRedirect` | retries the rejected hop | retries from the first hop | retries from the first hop |
/// | … the 401 of a foreign host, with `for_origin` | says nothing | says nothing | **marks the token** |
///
/// A request that waits for a token holds nothing below the layer, so a fetch may go through what is
/// there. A limit above the layer is different: its places are taken by the requests that wait for
/// the fetch. A `LoadShed` with such a limit below it does shed once the limit is full. A rejected
/// response that is held back keeps its connection until the source has answered.
///
/// Put a redirect follower above the `Retry`. Anywhere else, a 401 from the redirect's target makes
/// `Retry` send the first request again: a POST that the server has acted on is repeated. Where requests have
/// a [`UseToken`](crate::UseToken), [another rule](crate::UseToken#redirects) counts more.
///
/// In each of these orders a request is retried at most once. With
/// [`for_origin`](crate::BearerAuthLayer::for_origin), no token goes to a foreign host if a redirect
/// follower below drops the header [as it has to](crate::BearerAuthLayer::for_origin).
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

impl<B> RetryRejected<B> {
    /// Retries requests with a body that is `Clone`, whatever its type.
    #[must_use]
    pub fn new() -> Self
    where
        B: CloneBody,
    {
        Self::with_clone(|request| Some(request.clone()))
    }
}

/// Any body that is `Clone`. It is there for what the compiler says of another body: all of it in the
/// message, since rustc 1.95 shows no note of a trait whose blanket implementation is not recommended.
#[diagnostic::on_unimplemented(
    message = "a body of type `{Self}` is not `Clone`: `RetryRejected::with_clone` takes a function that \
               clones the requests that can be cloned"
)]
pub trait CloneBody: Clone {}
#[diagnostic::do_not_recommend]
impl<B: Clone> CloneBody for B {}

impl<B: Clone> Default for RetryRejected<B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B> RetryRejected<B> {
    /// Retries the requests that `clone` gives a copy of. A streaming body has none.
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
