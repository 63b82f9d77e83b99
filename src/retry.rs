//! Retries a request if its token was rejected: [`RetryRejected`], a policy for Tower's `Retry`.

use std::{
    fmt,
    future::{Ready, ready},
};

use http::{Request, Response};
use tower::retry::Policy;

use crate::{future::TokenReplaced, retry_of::RetryOf};

/// A [`Policy`] that retries a request once, if a server rejected the request's token and the
/// source has another token.
///
/// Place it above a [`BearerAuthLayer`](crate::BearerAuthLayer) with
/// [`retry_rejected`](crate::BearerAuthLayer::retry_rejected), which reports both facts by
/// [`TokenReplaced`].
///
/// ```
/// use tower::{ServiceBuilder, retry::RetryLayer};
/// use tower_bearer::{BearerAuthLayer, RetryRejected, RotatingToken};
///
/// let stack = ServiceBuilder::new()
///     // The bodies of the requests are `String`s.
///     .layer(RetryLayer::new(RetryRejected::<String>::new()))
///     .layer(BearerAuthLayer::new(RotatingToken::empty()).retry_rejected());
/// ```
///
/// # Order
///
/// The order of the layers matters: below the `BearerAuthLayer`, a `Retry` with this policy retries nothing.
/// [Which order in my stack](crate::guide::order) says where other layers go, and what each place does.
///
/// # Bodies
///
/// `Retry` clones each request, so the body has to be `Clone`. If only some bodies can be cloned,
/// give a function that clones a request or returns `None`:
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

/// Any body that is `Clone`. For any other body, the compiler shows the message below. The advice
/// is in the message and not in a note, since rustc 1.95 shows no note beside `do_not_recommend`.
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
    /// Retries a request if `clone` gives a copy of it. `clone` gives `None` for a request that
    /// cannot be copied, such as a request with a streaming body.
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
        request: &mut Request<B>,
        result: &mut Result<Response<R>, E>,
    ) -> Option<Self::Future> {
        let extensions = result.as_mut().ok()?.extensions_mut();
        extensions.get::<TokenReplaced>()?;
        // The account may be signed out before the retry is sent.
        if let Some(retry_of) = extensions.remove::<RetryOf>() {
            request.extensions_mut().insert(retry_of);
        }
        self.retried = true;
        Some(ready(()))
    }

    /// Tower's `Retry` clones the policy for each request, and asks for a copy before each try. The
    /// second try needs no copy, since there is no third try.
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
