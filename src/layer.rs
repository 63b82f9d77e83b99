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
/// By default, the layer overwrites a request's own `Authorization` header, sends the token to any
/// https host, and refuses a request over plaintext http unless the request's URI names this machine.
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
/// This layer sends the token to a single server, under another header, and only in requests that lack
/// this header:
///
/// ```
/// use http::HeaderName;
/// use tower_bearer::{BearerAuthLayer, BearerToken, StaticToken};
///
/// let token = BearerToken::new("7Fjfp0ZBr1KtDRbnfVdmIw")?;
/// let layer = BearerAuthLayer::new(StaticToken::new(token))
///     .for_origin("https://api.example.com")?
///     .header_name(HeaderName::from_static("x-api-token"))
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
    /// Makes a layer that takes its tokens from `source`. An `Arc<dyn TokenSource>` is a source as well.
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
    /// Prepares rejected requests for a single retry with another token. As a reqwest middleware, the
    /// layer retries them itself.
    ///
    /// The layer holds back a response that rejects its token until the source has another token, or has
    /// failed to get another token. If the source has failed, the caller gets the response as it is. If the
    /// source has another token, the next step depends on the stack:
    /// * In a Tower stack, the response gets the extension [`TokenReplaced`](crate::TokenReplaced), and a
    ///   retry policy above this layer retries the request: `RetryRejected` (feature `retry`), or a
    ///   policy of your own.
    /// * As a `reqwest_middleware::Middleware` (feature `reqwest-middleware`), this layer retries
    ///   the request itself, if the body of the request can be cloned.
    ///
    /// In a Tower stack, this setting alone retries nothing, and neither does a `Retry` below this layer.
    /// [`guide::order`](crate::guide::order) shows the stack.
    ///
    /// The response that is held back keeps its connection, unless the client has read all of its body. If
    /// the client has a single HTTP/1 connection, as in the example of [`BearerAuth`](BearerAuth#clone), a
    /// fetch through the same client waits until
    /// [`replacement_wait`](crate::RefreshingTokenBuilder::replacement_wait) (5 s) is over, and the caller
    /// gets the response as it is. For such a client, fetch over another connection.
    #[must_use]
    pub fn retry_rejected(mut self) -> Self {
        self.replacements = Some(self.source.clone());
        self
    }
}

impl<T> BearerAuthLayer<T> {
    /// Sends the token to this origin only. May be called again for more origins.
    ///
    /// The scheme, host and port of a request must equal the origin's. A default port may be left out,
    /// upper and lower case are the same, and a subdomain is another host. All other requests pass through
    /// without a token, so a redirect follower above this layer cannot take the token to another server.
    ///
    /// A redirect follower below this layer, or inside the client, copies the header itself, and so has to
    /// drop the header when the host changes. tower-http 0.7 does, for `Authorization` and
    /// `Proxy-Authorization`, unless its policy was changed. tower-http 0.6, and reqwest, which uses it, drop
    /// the header on the first hop but restore it if the other host redirects within itself. None of them
    /// drops a header of another [name](Self::header_name). The page
    /// [With reqwest](crate::guide::reqwest#redirects) has a redirect policy that lets no header leave.
    ///
    /// A request whose URI lacks the scheme or the host passes through without a token as well. With the
    /// feature `tracing`, a debug event says why a request passes without a token: its host, its port or its
    /// scheme differs from the origin.
    ///
    /// An origin with the scheme `http` or `ws` also needs
    /// [`danger_allow_plaintext`](Self::danger_allow_plaintext), unless its host is `localhost` or a loopback
    /// address. An origin with the scheme `wss` says that your client encrypts `wss`. Without any origin, the
    /// layer refuses a request over `wss`, since many clients send `wss` in plaintext. A Unix socket is an
    /// origin such as `unix://2f7661722f72756e2f646f636b65722e736f636b:0`, as hyperlocal writes it.
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

    /// Like [`for_origin`](Self::for_origin), but takes the origin from a URI, such as the base URL of an
    /// API. The user name, path and query of the URI do not count.
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

    /// Allows plaintext http to any host, where everyone on the way can read the token (RFC 6750 §5.3).
    /// Without this setting, the token goes unencrypted only to `localhost`, loopback addresses and Unix
    /// sockets, and over a connection of your own if the URI names no host.
    ///
    /// With [`for_origin`](Self::for_origin), the token still goes to the named origins only. So this
    /// setting, together with the single origin `http://api.internal`, opens that server and no other
    /// server:
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

    /// Leaves a request as it is if the request has the header already, as
    /// `SetRequestHeaderLayer::if_not_present` of tower-http does.
    ///
    /// # Two layers on one header
    ///
    /// If two layers put a token under the same header, the inner layer decides: its token replaces the
    /// token of the outer layer, and a response then says nothing about the outer layer's token. With
    /// `keep_existing` on the inner layer, the outer layer decides: the inner layer adds its token only if
    /// the outer layer has added no token.
    #[must_use]
    pub fn keep_existing(mut self) -> Self {
        self.rules.keep_existing = true;
        self
    }

    /// Sends a request without a token if the source fails with an error of kind
    /// [`Absent`](crate::SourceErrorKind::Absent), such as a variable that is not set. Any other error
    /// still stops the request.
    ///
    /// This setting is for servers that give something to everybody, such as public registries. The
    /// response to a request without a token marks no token.
    #[must_use]
    pub fn anonymous_if_absent(mut self) -> Self {
        self.rules.anonymous_if_absent = true;
        self
    }

    /// Replaces the rule that says which responses reject the token. The default rule is
    /// [`rejects_token`](crate::rejects_token): a 401 rejects the token, unless all errors in its challenges
    /// speak of something else.
    ///
    /// This setting is for servers that reject a token with 403, 419 or 498, or that say 401 for another
    /// reason, as Matrix does when a user has to confirm something again. The rule sees the status, the
    /// headers and the extensions of each response, also of a success. A service below this layer can read
    /// the body and put what it finds into the extensions.
    ///
    /// If the rule does not reject the token, a success takes a mark off, as without this setting. The
    /// layer calls the rule once for each response: keep the rule cheap.
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

    /// Also treats the gRPC status `UNAUTHENTICATED` as a rejection of the token.
    ///
    /// A gRPC server sends its status in `grpc-status`, over HTTP 200, so without this setting no gRPC
    /// status marks a token. A server that rejects a call at once sends the status in the headers of the
    /// response. This setting costs each response a look at the headers.
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
    /// This layer does not see a status that comes after the body, for example when a stream breaks off.
    /// In that case, mark the token yourself. Take the token before the call: then a late status cannot
    /// mark a newer token. [`RefreshingToken::invalidate`](crate::RefreshingToken::invalidate) can hit a
    /// newer token.
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
    /// A tonic client makes requests whose URI names no host: the channel adds the host below this layer.
    /// Build the client `with_origin`. Otherwise this layer cannot see where a request goes: it attaches
    /// the token even on a plaintext channel, and with [`for_origin`](Self::for_origin) it never attaches
    /// the token.
    ///
    /// The channel also enforces the deadlines of a request and of an endpoint, so these deadlines do not
    /// cover the wait for a token. To limit the wait, put Tower's `Timeout` above this layer.
    #[must_use]
    pub fn grpc_status(mut self) -> Self {
        self.rules.grpc_status = true;
        self
    }

    /// Sends the token without `Bearer ` before it, for servers that take the token under a
    /// [header](Self::header_name) of their own, such as GitLab's `PRIVATE-TOKEN`, or `X-API-Key`.
    ///
    /// The value is marked sensitive and wiped like the usual value, since it is a part of the same buffer.
    /// There is no setting for other schemes, such as `Basic` or `token`. Credentials of other schemes are
    /// not bearer tokens (RFC 6750), servers answer them with other challenges, and some schemes need a new
    /// value for each request.
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
    /// With `Proxy-Authorization`, a 407 marks the token as rejected instead of a 401, and
    /// `Proxy-Authenticate` counts instead of `WWW-Authenticate`. The rules for plaintext and for origins
    /// still look at the URI of the request, which does not name the proxy.
    ///
    /// A client that tunnels https through the proxy sends the headers of its requests to the origin
    /// server; the proxy sees the headers of the `CONNECT` only. In that case, put the layer where the
    /// `CONNECT` is sent. Anywhere else, the origin server gets the proxy's token.
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

/// A clone shares the source: every service of every clone sees the same rejections and fetches.
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
