//! The layer that users compose, and its settings: [`BearerAuthLayer`].

use std::{fmt, sync::Arc};

use http::{Extensions, HeaderMap, HeaderName, StatusCode, Uri};
use tower_layer::Layer;

use crate::{
    origin::InvalidOrigin,
    response_rules::RejectedWhen,
    rules::{Erase, Rules},
    service::BearerAuth,
    source::TokenSource,
};

/// Puts `Authorization: Bearer …` on each request that may carry it, with a token from a
/// [`TokenSource`].
///
/// By default a request's own `Authorization` header is overwritten, any https host gets the token,
/// and a request over plaintext http is refused unless its URI names this machine.
///
/// ```
/// use tower::ServiceBuilder;
/// use tower_bearer::{BearerAuthLayer, BearerToken, StaticToken};
///
/// let token = BearerToken::new("7Fjfp0ZBr1KtDRbnfVdmIw")?;
/// let stack = ServiceBuilder::new().layer(BearerAuthLayer::new(StaticToken::new(token)));
/// # Ok::<(), tower_bearer::InvalidToken>(())
/// ```
///
/// Bound to one server, under another header, and only where a request has none of its own:
///
/// ```
/// use http::header::PROXY_AUTHORIZATION;
/// use tower_bearer::{BearerAuthLayer, BearerToken, StaticToken};
///
/// let token = BearerToken::new("7Fjfp0ZBr1KtDRbnfVdmIw")?;
/// let layer = BearerAuthLayer::new(StaticToken::new(token))
///     .for_origin("https://api.example.com")?
///     .header_name(PROXY_AUTHORIZATION)
///     .keep_existing();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct BearerAuthLayer<T> {
    source: Arc<T>,
    erase: Erase<T>,
    rules: Rules,
    replacements: Option<Arc<dyn TokenSource>>,
}

impl<T: TokenSource + 'static> BearerAuthLayer<T> {
    /// Takes tokens from `source`. An `Arc<dyn TokenSource>` is a source, too.
    pub fn new(source: T) -> Self {
        Self {
            source: Arc::new(source),
            erase: |auth| Arc::clone(auth) as _,
            rules: Rules::default(),
            replacements: None,
        }
    }
}

impl<T: TokenSource + 'static> BearerAuthLayer<T> {
    /// Has requests retried whose token a server rejected, once, if the source has another.
    ///
    /// A response that rejects its token is then held back until the source has another one or has
    /// failed to get one. After that
    /// * in a Tower stack, it gets the extension [`TokenReplaced`](crate::TokenReplaced) if there is
    ///   another token, and a retry policy above this layer retries the request:
    ///   `RetryRejected` (feature `retry`), or your own;
    /// * as a `reqwest_middleware::Middleware` (feature `reqwest-middleware`), this layer retries
    ///   the request itself, if its body can be cloned.
    #[must_use]
    pub fn retry_rejected(mut self) -> Self {
        self.replacements = Some(self.source.clone());
        self
    }
}

impl<T> BearerAuthLayer<T> {
    /// Sends the token to this origin only. May be called again for more origins.
    ///
    /// Scheme, host and port must be equal to the request's; a default port may be left out, upper
    /// and lower case are the same, and a subdomain is another host. All other requests pass
    /// through without a token, so a layer above that follows redirects cannot take it elsewhere.
    ///
    /// One below, or inside the client, copies the header itself, and has to take it off for another
    /// host. tower-http's does, from 0.7 on and if its policy is the default one, for `Authorization`
    /// and `Proxy-Authorization`. That of 0.6, and reqwest, which is built on it, put it back on if
    /// the other host redirects once more within itself. None takes off a header of another
    /// [name](Self::header_name). The page [With reqwest](crate::guide::reqwest#redirects) has a redirect
    /// policy that lets no header leave.
    ///
    /// A request whose URI names no scheme and host passes through without a token as well. With the
    /// feature `tracing`, a debug event says of each request without a token why it has none: its host,
    /// its port or its scheme is not the one that was named here.
    ///
    /// An origin of scheme `wss` says that your client encrypts `wss`. Without that, a request over
    /// `wss` is refused, since many clients send it in plaintext. A Unix socket is an origin such as
    /// `unix://2f7661722f72756e2f646f636b65722e736f636b:0`, as hyperlocal writes it.
    ///
    /// # Errors
    ///
    /// If `origin` is not `scheme://host` or `scheme://host:port`, with a scheme of https, http,
    /// wss, ws or unix.
    ///
    /// ```
    /// # use tower_bearer::{BearerAuthLayer, RotatingToken};
    /// let layer = BearerAuthLayer::new(RotatingToken::empty());
    /// assert!(layer.clone().for_origin("https://api.example.com:8443").is_ok());
    /// assert!(layer.clone().for_origin("https://api.example.com/v1").is_err());
    /// ```
    pub fn for_origin(mut self, origin: &str) -> Result<Self, InvalidOrigin> {
        self.rules.add_origin(origin)?;
        Ok(self)
    }

    /// As [`for_origin`](Self::for_origin), with the origin of a URI such as the base URL of an API.
    /// The URI's user name, path and query do not count.
    ///
    /// # Errors
    ///
    /// If the URI has no scheme and host, or another scheme than https, http, wss, ws or unix.
    ///
    /// ```
    /// # use tower_bearer::{BearerAuthLayer, RotatingToken};
    /// let base_url: http::Uri = "https://api.example.com/v1?tenant=7".parse()?;
    /// let layer = BearerAuthLayer::new(RotatingToken::empty()).for_origin_of(&base_url)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn for_origin_of(mut self, uri: &Uri) -> Result<Self, InvalidOrigin> {
        self.rules.add_origin_of(uri)?;
        Ok(self)
    }

    /// Sends the token over plaintext http to any host, where everyone on the way can read it
    /// (RFC 6750 §5.3). Without this, only `localhost`, loopback addresses and Unix sockets get it.
    ///
    /// With [`for_origin`](Self::for_origin), the token goes to these origins only, as always. So this
    /// setting with the one origin `http://api.internal` opens that server and no other:
    ///
    /// ```
    /// # use tower_bearer::{BearerAuthLayer, RotatingToken};
    /// let layer = BearerAuthLayer::new(RotatingToken::empty())
    ///     .for_origin("http://api.internal")?
    ///     .danger_allow_plaintext();
    /// # Ok::<(), tower_bearer::InvalidOrigin>(())
    /// ```
    #[must_use]
    pub fn danger_allow_plaintext(mut self) -> Self {
        self.rules.allow_plaintext = true;
        self
    }

    /// Leaves a request alone that has the header already.
    ///
    /// # Two layers on one header
    ///
    /// Of two layers that put a token under the same header, the inner layer decides: its token
    /// replaces the token of the outer layer, and a response then says nothing of the outer layer's
    /// token. With `keep_existing` on the inner layer, the outer layer decides, and the inner layer
    /// fills in what is missing.
    #[must_use]
    pub fn keep_existing(mut self) -> Self {
        self.rules.keep_existing = true;
        self
    }

    /// Sends a request without a token if the source says that it has none: that is, if its error is of
    /// kind [`Absent`](crate::SourceErrorKind::Absent), such as a variable that is not set. Any other
    /// error still stops the request.
    ///
    /// For servers that give something to everybody, such as public registries. A response to such a
    /// request marks nothing.
    #[must_use]
    pub fn anonymous_if_absent(mut self) -> Self {
        self.rules.anonymous_if_absent = true;
        self
    }

    /// Replaces the rule for which responses reject the token: by default, a 401 whose challenges do not
    /// speak of something else ([`rejects_token`](crate::rejects_token)).
    ///
    /// For servers that say 403, 419 or 498 instead, or that say 401 for another reason, such as Matrix
    /// when a user has to confirm something again. The rule sees status, headers and extensions of each
    /// response, also of a success. A service below this layer that reads the body can put into the
    /// extensions what it found there.
    ///
    /// A success that does not reject the token takes a mark off, as without this setting. The rule is
    /// called once for each response: keep it cheap.
    ///
    /// ```
    /// use http::StatusCode;
    /// use tower_bearer::{BearerAuthLayer, RotatingToken, rejects_token};
    ///
    /// // A server that says 498 for an expired token.
    /// let layer = BearerAuthLayer::new(RotatingToken::empty()).rejected_when(
    ///     |status, headers, _| status.as_u16() == 498 || rejects_token(status, headers),
    /// );
    ///
    /// // A service below has read the body of a 401, and says that the user has to confirm again.
    /// #[derive(Clone)]
    /// struct ConfirmAgain;
    ///
    /// let layer = BearerAuthLayer::new(RotatingToken::empty()).rejected_when(
    ///     |status, _, extensions| {
    ///         status == StatusCode::UNAUTHORIZED && extensions.get::<ConfirmAgain>().is_none()
    ///     },
    /// );
    /// ```
    #[must_use]
    pub fn rejected_when(
        mut self,
        rule: impl Fn(StatusCode, &HeaderMap, &Extensions) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.rules.rejected_when = Some(RejectedWhen::new(rule));
        self
    }

    /// Reads responses as gRPC's, too: one with the status `UNAUTHENTICATED` marks the token.
    ///
    /// gRPC sends its status in `grpc-status`, over HTTP 200, so without this setting no response of
    /// a gRPC server marks a token. A server that refuses a call at once sends it in the response's
    /// headers. This setting costs each response a look at those.
    ///
    /// ```
    /// # use http::{Request, Response};
    /// # use tower::{BoxError, Layer, ServiceExt, service_fn};
    /// # use tower_bearer::{BearerAuthLayer, BearerToken, StaticToken};
    /// # futures::executor::block_on(async {
    /// let token = BearerToken::new("7Fjfp0ZBr1KtDRbnfVdmIw")?;
    /// let layer = BearerAuthLayer::new(StaticToken::new(token.clone())).grpc_status();
    /// let channel = layer.layer(service_fn(refuse)); // yours: a `tonic::transport::Channel`
    ///
    /// channel.oneshot(Request::new(())).await?;
    /// assert!(token.is_rejected());
    /// # Ok::<(), BoxError>(())
    /// # }).unwrap();
    ///
    /// async fn refuse(_: Request<()>) -> Result<Response<()>, BoxError> {
    ///     let response = Response::builder()
    ///         .header("content-type", "application/grpc")
    ///         .header("grpc-status", "16");
    ///     Ok(response.body(())?)
    /// }
    /// ```
    ///
    /// # In trailers
    ///
    /// A status that comes after the body, as that of a stream that breaks off does, passes this
    /// layer unseen. Mark the token yourself then. Take it before the call, so that a late refusal
    /// cannot hit a newer one, as it can with
    /// [`RefreshingToken::invalidate`](crate::RefreshingToken::invalidate):
    ///
    /// ```
    /// # use tower_bearer::{BearerToken, RotatingToken, SourceError, TokenSource};
    /// # async fn call() -> Result<(), i32> { Err(16) }
    /// # futures::executor::block_on(async {
    /// # let source = RotatingToken::new(BearerToken::new("7Fjfp0ZBr1KtDRbnfVdmIw")?);
    /// let token = source.token().await?; // a clone of the layer's source
    /// if call().await == Err(16) {
    ///     token.reject();
    /// }
    /// # assert!(token.is_rejected());
    /// # Ok::<(), SourceError>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # With tonic
    ///
    /// The URI of a request that a tonic client makes names no host: the channel adds it, below this
    /// layer. Make the client `with_origin`, or else the token goes wherever the channel does, in
    /// plaintext, too, and with [`for_origin`](Self::for_origin) nowhere.
    ///
    /// The channel keeps the deadlines as well, those of a request and of an endpoint. So the wait for
    /// a token is not in them: put Tower's `Timeout` above this layer for that.
    #[must_use]
    pub fn grpc_status(mut self) -> Self {
        self.rules.grpc_status = true;
        self
    }

    /// Sends the token without `Bearer ` before it, for servers that take it under a
    /// [header](Self::header_name) of their own, such as GitLab's `PRIVATE-TOKEN`, or `X-API-Key`.
    ///
    /// The value is as sensitive, and wiped like the usual value: it is a part of the same buffer. There
    /// is no setting for other schemes, such as `Basic` or `token`. Their credentials are no bearer
    /// tokens (RFC 6750), servers answer them with other challenges, and some need a new value for each
    /// request.
    ///
    /// ```
    /// use http::HeaderName;
    /// use tower_bearer::{BearerAuthLayer, BearerToken, StaticToken};
    ///
    /// let token = BearerToken::new("glpat-7Fjfp0ZBr1KtDRbnfVdm")?;
    /// let layer = BearerAuthLayer::new(StaticToken::new(token))
    ///     .for_origin("https://gitlab.example.com")?
    ///     .header_name(HeaderName::from_static("private-token"))
    ///     .bare();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn bare(mut self) -> Self {
        self.rules.set_bare();
        self
    }

    /// Puts the token under another header than `Authorization`.
    ///
    /// With `Proxy-Authorization`, a 407 with `Proxy-Authenticate` marks the token as rejected
    /// instead of a 401 with `WWW-Authenticate`. The rules for plaintext and for origins still look
    /// at the request's URI, which does not name the proxy. If a client tunnels its https requests
    /// through the proxy, their headers go to the server at the other end, and the proxy sees those
    /// of the `CONNECT` only: the layer then belongs where that is sent, or the server gets the token.
    #[must_use]
    pub fn header_name(mut self, name: HeaderName) -> Self {
        self.rules.set_header(name);
        self
    }
}

#[cfg(feature = "reqwest-middleware")]
impl<T> BearerAuthLayer<T> {
    pub(crate) fn source(&self) -> &T {
        &self.source
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    pub(crate) fn retries(&self) -> bool {
        self.replacements.is_some()
    }
}

impl<S, T> Layer<S> for BearerAuthLayer<T> {
    type Service = BearerAuth<S, T>;

    fn layer(&self, inner: S) -> Self::Service {
        BearerAuth::new(
            inner,
            Arc::clone(&self.source),
            self.erase,
            self.rules.clone(),
            self.replacements.clone(),
        )
    }
}

/// Shares the source: one rejection or fetch is seen by every service that the clones make.
impl<T> Clone for BearerAuthLayer<T> {
    fn clone(&self) -> Self {
        Self {
            source: Arc::clone(&self.source),
            erase: self.erase,
            rules: self.rules.clone(),
            replacements: self.replacements.clone(),
        }
    }
}

impl<T> fmt::Debug for BearerAuthLayer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BearerAuthLayer")
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}
