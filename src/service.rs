//! The service that puts the token on each request that may carry it: [`BearerAuth`].

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use crate::{
    error::{BoxError, Error, SourceError},
    future::ResponseFuture,
    retry_of::RetryOf,
    rules::{Auth, Erase, Rules, Verdict},
    source::{PendingToken, TokenSource, TokenState},
    trace,
    use_token::UseToken,
};

/// Puts the bearer token on each request that may carry it.
/// [`BearerAuthLayer`](crate::BearerAuthLayer) makes this service.
///
/// A request waits for its token in the response future, not in `poll_ready`. A timeout around this
/// service therefore covers the wait.
///
/// A request that waits holds nothing. It drops the service that was polled ready, with the permit,
/// the buffer slot or the connection that `poll_ready` reserved, and keeps a clone. Once the token
/// has come, the request polls that clone ready and calls it. The source may therefore fetch
/// through every service below this service, whatever the limits of these services. Requests that
/// need no token go on meanwhile. If the token expires or is rejected before the clone is ready,
/// the request asks the source once more.
///
/// A limit *above* this service keeps its permit while a request waits. The limit bounds how many
/// requests wait, and a fetch must not go through it. Without such a limit nothing bounds how many
/// requests wait: a load shedder above sheds none of them.
///
/// # Clone
///
/// The inner service has to be `Clone`, as for Tower's `Retry`, and a clone must hold no
/// reservation, as [`Service`] demands. hyper-util's client is `Clone`. Wrap any other service in
/// `tower::buffer`.
///
/// If rustc says "the method `oneshot` exists for struct `BearerAuth<…>`, but its trait bounds were
/// not satisfied" (E0599), the inner service is not `Clone`, does not take an `http::Request<B>`,
/// does not give an `http::Response`, or has an error that is not `Into<BoxError>`. rustc names the
/// missing bound if you write `tower::ServiceExt::oneshot(client, request)`.
///
/// A few lines make a service from a bare HTTP/1 connection of hyper:
///
/// ```
/// use std::task::{Context, Poll};
///
/// use futures::future::BoxFuture;
/// use http::{Request, Response};
/// use hyper::{body::Incoming, client::conn::http1::SendRequest};
/// use tower::{Service, ServiceBuilder};
/// use tower_bearer::{BearerAuthLayer, BearerToken, BoxError, StaticToken};
///
/// type Body = http_body_util::Empty<bytes::Bytes>;
///
/// struct Connection(SendRequest<Body>);
///
/// impl Service<Request<Body>> for Connection {
///     type Response = Response<Incoming>;
///     type Error = hyper::Error;
///     type Future = BoxFuture<'static, hyper::Result<Response<Incoming>>>;
///
///     fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
///         self.0.poll_ready(cx)
///     }
///
///     fn call(&mut self, request: Request<Body>) -> Self::Future {
///         Box::pin(self.0.send_request(request))
///     }
/// }
///
/// fn client(
///     connection: SendRequest<Body>,
///     token: BearerToken,
/// ) -> impl Service<Request<Body>, Response = Response<Incoming>, Error = BoxError> + Clone {
///     ServiceBuilder::new()
///         .layer(BearerAuthLayer::new(StaticToken::new(token)))
///         .buffer(8) // spawns a task: call this within a tokio runtime
///         .service(Connection(connection))
/// }
/// ```
///
/// # In a task
///
/// If a future can be spawned with Tower's `Timeout` in this layer's place, it can be spawned with
/// this layer, even if the source is an `Arc<dyn TokenSource>`. Under both layers, rustc does not
/// accept an `async` block as `Send` if the block awaits a request and the inner service has the
/// error `BoxError` ("implementation of `From` is not general enough",
/// [rust-lang/rust#110338](https://github.com/rust-lang/rust/issues/110338)). In that case, box the
/// future:
///
/// ```
/// # use std::sync::Arc;
/// # use http::{Request, Response};
/// # use tower::util::BoxCloneSyncService;
/// use futures::FutureExt;
/// use tower::{Layer, ServiceExt};
/// use tower_bearer::{BearerAuthLayer, BoxError, TokenSource};
///
/// fn send(client: BoxCloneSyncService<Request<()>, Response<()>, BoxError>, source: Arc<dyn TokenSource>) {
///     let client = BearerAuthLayer::new(source).layer(client);
///     tokio::spawn(async move { client.oneshot(Request::default()).boxed().await });
/// }
/// ```
///
/// # Cost
///
/// With a token at hand, a request costs what the source costs, at most two reference counts, and the
/// insertion of a header. It costs no lock and no clone of the inner service. It costs an allocation
/// only if the token is marked as rejected, if the header is there already, if the header map has no
/// room, or if the request has a [`UseToken`](UseToken#cost) and the layer retries. A request that
/// waits for its token costs two clones of the inner service and an allocation.
///
/// # Errors
///
/// A boxed [`Error`] if this service did not send the request; otherwise the inner service's error,
/// unchanged.
pub struct BearerAuth<S, T> {
    inner: S,
    auth: Arc<Auth<Arc<T>>>,
    erase: Erase<T>,
}

impl<S, T> BearerAuth<S, T> {
    pub(crate) fn new(
        inner: S,
        source: Arc<T>,
        erase: Erase<T>,
        rules: Rules,
        replacements: Option<Arc<dyn TokenSource>>,
    ) -> Self {
        let response_rules = rules.response_rules(None, false, replacements);
        let response_rules = (!response_rules.are_usual()).then(|| Arc::new(response_rules));
        let auth = Arc::new(Auth {
            rules,
            response_rules,
            source,
        });
        Self { inner, auth, erase }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Takes the inner service out.
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
        let Auth { source, rules, .. } = &*self.auth;
        if let Some(chosen) = UseToken::of(request.extensions(), &rules.header) {
            let chosen = chosen.source().cloned();
            return self.call_with(chosen, request);
        }
        // Judge before asking the source: a request that may not carry a token must not cost a
        // fetch.
        match rules.verdict(request.uri(), request.headers()) {
            Verdict::Carry => {}
            Verdict::Pass => return ResponseFuture::without_token(self.inner.call(request)),
            Verdict::Refuse => return self.refuse(&request),
        }
        match source.token().into_state() {
            TokenState::Ready(Ok(token)) => {
                let attached = rules.attach(request.headers_mut(), &token);
                let Ok(overwrote) = attached else {
                    return self.too_many_headers();
                };
                let response_rules = self.auth.rules_for(&token, overwrote);
                // Each retry goes through a layer that retries, whose rules are never the usual rules.
                if response_rules.is_some() {
                    if let Err(error) = RetryOf::check(request.extensions()) {
                        return self.not_sent(error);
                    }
                }
                let response = self.inner.call(request);
                ResponseFuture::with_token(response, token, response_rules)
            }
            TokenState::Ready(Err(error)) => self.without_token(error, request),
            TokenState::Pending(token) => self.wait(token, None, request),
        }
    }
}

/// The methods off the fast path.
impl<S, T> BearerAuth<S, T> {
    /// Sends a request whose `UseToken` names a source, or says that the request carries no token.
    #[cold]
    fn call_with<B>(
        &mut self,
        chosen: Option<Arc<dyn TokenSource>>,
        mut request: Request<B>,
    ) -> ResponseFuture<S, B>
    where
        S: Service<Request<B>> + Clone,
    {
        let Some(chosen) = chosen else {
            trace::passed(trace::WhyPassed::UseToken);
            return ResponseFuture::without_token(self.inner.call(request));
        };
        let rules = &self.auth.rules;
        match rules.verdict_by_uri(request.uri()) {
            Verdict::Carry => {}
            Verdict::Pass => return ResponseFuture::without_token(self.inner.call(request)),
            Verdict::Refuse => return self.refuse(&request),
        }
        match chosen.token().into_state() {
            TokenState::Ready(Ok(token)) => {
                let attached = rules.attach(request.headers_mut(), &token);
                let Ok(overwrote) = attached else {
                    return self.too_many_headers();
                };
                let response_rules = self.auth.rules_for_chosen(&token, overwrote, &chosen);
                if let Err(error) = RetryOf::check(request.extensions()) {
                    return self.not_sent(error);
                }
                let response = self.inner.call(request);
                ResponseFuture::with_token(response, token, response_rules)
            }
            TokenState::Ready(Err(error)) => self.not_sent(Error::no_token(error)),
            TokenState::Pending(token) => self.wait(token, Some(chosen), request),
        }
    }

    #[cold]
    fn wait<B>(
        &mut self,
        token: PendingToken,
        chosen: Option<Arc<dyn TokenSource>>,
        request: Request<B>,
    ) -> ResponseFuture<S, B>
    where
        S: Service<Request<B>> + Clone,
    {
        trace::waiting();
        self.release();
        let (inner, auth) = (self.inner.clone(), (self.erase)(&self.auth));
        ResponseFuture::after_token(token, inner, request, auth, chosen)
    }

    #[cold]
    fn refuse<B>(&mut self, request: &Request<B>) -> ResponseFuture<S, B>
    where
        S: Service<Request<B>> + Clone,
    {
        trace::plaintext_refused(request.uri());
        self.not_sent(Error::insecure_transport(request.uri()))
    }

    #[cold]
    fn too_many_headers<B>(&mut self) -> ResponseFuture<S, B>
    where
        S: Service<Request<B>> + Clone,
    {
        self.not_sent(Error::too_many_headers())
    }

    /// Handles a request for which the source has no token: sends it without a token, or fails it.
    #[cold]
    fn without_token<B>(&mut self, error: SourceError, request: Request<B>) -> ResponseFuture<S, B>
    where
        S: Service<Request<B>> + Clone,
    {
        if self.auth.rules.lets_pass(&error) {
            return ResponseFuture::without_token(self.inner.call(request));
        }
        self.not_sent(Error::no_token(error))
    }

    /// Fails a request that never reaches the inner service.
    fn not_sent<B>(&mut self, error: Error) -> ResponseFuture<S, B>
    where
        S: Service<Request<B>> + Clone,
    {
        self.release();
        ResponseFuture::not_sent(error)
    }

    /// Releases the inner service's reservation.
    ///
    /// `poll_ready` may have reserved a permit or a buffer slot, which only `call` or a drop releases.
    /// So this drops the service and keeps a clone, which holds no reservation.
    fn release(&mut self)
    where
        S: Clone,
    {
        self.inner = self.inner.clone();
    }
}

impl<S: Clone, T> Clone for BearerAuth<S, T> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            auth: Arc::clone(&self.auth),
            erase: self.erase,
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
