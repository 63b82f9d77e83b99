//! The service that puts a token on each request that may carry one: [`BearerAuth`].

use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use crate::{
    error::{BoxError, Error},
    future::{ResponseFuture, ResponseRules},
    rules::{Rules, Verdict},
    source::{TokenSource, TokenState},
    trace,
};

/// Puts a bearer token on each request that may carry one. Made by
/// [`BearerAuthLayer`](crate::BearerAuthLayer).
///
/// A request waits for its token in the response future, not in `poll_ready`: so a timeout around
/// this service covers the wait, and a load shedder does not shed while the first token is fetched.
/// That is why the inner service has to be `Clone`; put one that is not under `tower::buffer`.
///
/// # Cost
///
/// With a token at hand, a call does not allocate, lock or clone the inner service: it costs what
/// the source costs, two reference counts and the insertion of a header. With one that has to be
/// waited for, it costs a clone of the inner service and one allocation.
///
/// # Errors
///
/// [`Error`] if the request was not sent, boxed; else the inner service's own error, untouched.
pub struct BearerAuth<S, T> {
    inner: S,
    auth: Arc<Auth<T>>,
}

/// What all clones of a service share.
struct Auth<T> {
    source: Arc<T>,
    rules: Rules,
    response_rules: Option<Arc<ResponseRules>>,
}

impl<S, T> BearerAuth<S, T> {
    pub(crate) fn new(
        inner: S,
        source: Arc<T>,
        rules: Rules,
        replacements: Option<Arc<dyn TokenSource>>,
    ) -> Self {
        let response_rules = ResponseRules::new(rules.challenger(), replacements);
        let auth = Arc::new(Auth {
            source,
            rules,
            response_rules,
        });
        Self { inner, auth }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service, without this one around it.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, T, B, R> Service<Request<B>> for BearerAuth<S, T>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    T: TokenSource,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    #[inline]
    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let Auth {
            source,
            rules,
            response_rules,
        } = &*self.auth;
        // Before the source is asked: a request that may not carry a token must not cost a fetch.
        match rules.verdict(request.uri(), request.headers()) {
            Verdict::Carry => {}
            Verdict::Pass => return ResponseFuture::without_token(self.inner.call(request)),
            Verdict::Refuse => {
                trace::plaintext_refused(request.uri());
                return not_sent(&mut self.inner, Error::insecure_transport(request.uri()));
            }
        }
        match source.token().into_state() {
            TokenState::Ready(Ok(token)) => {
                rules.attach(request.headers_mut(), &token);
                let response_rules = response_rules.clone();
                let response = self.inner.call(request);
                ResponseFuture::with_token(response, token, response_rules)
            }
            TokenState::Ready(Err(error)) => not_sent(&mut self.inner, Error::no_token(error)),
            TokenState::Pending(token) => {
                // The clone has not been polled ready and may never be; the service that has must
                // serve this request.
                let clone = self.inner.clone();
                let ready = mem::replace(&mut self.inner, clone);
                let call = (ready, request);
                ResponseFuture::after_token(
                    token,
                    call,
                    rules.header.clone(),
                    response_rules.clone(),
                )
            }
        }
    }
}

/// Ends a request before the inner service is called, and gives back what that service reserved
/// when it was polled ready: nobody may use this one again for a long time. A clone reserves nothing.
#[cold]
fn not_sent<S, B>(inner: &mut S, error: Error) -> ResponseFuture<S, B>
where
    S: Service<Request<B>> + Clone,
{
    *inner = inner.clone();
    ResponseFuture::not_sent(error)
}

impl<S: Clone, T> Clone for BearerAuth<S, T> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            auth: Arc::clone(&self.auth),
        }
    }
}

impl<S: fmt::Debug, T> fmt::Debug for BearerAuth<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BearerAuth")
            .field("inner", &self.inner)
            .field("rules", &self.auth.rules)
            .finish_non_exhaustive()
    }
}
