//! Tokens from an OAuth 2.0 token endpoint: [`TokenRequest`].

mod exchange;
mod response;
mod rotation;

use std::{borrow::Cow, fmt, future::Future, str::FromStr, sync::Arc};

use bytes::Bytes;
use http::{Request, Response, Uri, uri::Scheme};
use http_body::Body;
use secrecy::{SecretString, zeroize::Zeroizing};
use tower_service::Service;

use self::rotation::Rotation;
use crate::{
    error::{BoxError, SourceError, SourceErrorKind},
    origin::is_local,
    secret_form,
    source::{TokenFuture, TokenSource},
    token::TokenText,
};

/// Asks the token endpoint of an OAuth 2.0 server for an access token, without a user's interaction.
/// [`over`](Self::over) turns the request and an HTTP client into the fetch function of a
/// [`RefreshingToken`](crate::RefreshingToken):
///
/// ```
/// use tower::{BoxError, ServiceBuilder};
/// use tower_bearer::{BearerAuthLayer, RefreshingToken, TokenRequest};
///
/// # #[derive(Clone)] struct Http;
/// # impl tower::Service<http::Request<bytes::Bytes>> for Http {
/// #     type Response = http::Response<String>;
/// #     type Error = BoxError;
/// #     type Future = std::future::Ready<Result<Self::Response, BoxError>>;
/// #     fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), BoxError>> { Ok(()).into() }
/// #     fn call(&mut self, _: http::Request<bytes::Bytes>) -> Self::Future { std::future::ready(Ok(<_>::default())) }
/// # }
/// # let (http_client, secret) = (Http, String::from("s3cret"));
/// let fetch = TokenRequest::client_credentials("https://id.example/oauth2/token", "my-client", secret)?
///     .scope("read write")
///     .param("audience", "https://api.example.com")
///     .over(http_client.clone()); // the Tower client that you have
/// let client = ServiceBuilder::new()
///     .layer(BearerAuthLayer::new(RefreshingToken::new(fetch)))
///     .service(http_client);
/// # Ok::<(), tower_bearer::SourceError>(())
/// ```
///
/// The URL has to be https, or http to `localhost` or a loopback address. Clones share the current refresh
/// token, which the server may rotate, and the sources of assertions and subject tokens. A setting of one
/// clone does not change the other clones.
///
/// # The HTTP client
///
/// The client is any Tower service from `Request<B>`, with `B: From<Bytes>`, to a response with an
/// [`http_body::Body`]. With [`over`](Self::over), each fetch clones the client and polls the clone ready.
///
/// Use a client that does not follow redirects: then a redirect makes the fetch fail. A client that follows
/// redirects sends the credentials wherever the server says. hyper-util's client follows no redirects.
/// reqwest's client does, unless it is built as
/// [With reqwest](crate::guide::reqwest#for-a-token-endpoint) shows.
///
/// A fetch may go through a `BearerAuthLayer`, even the layer that waits for this fetch. The request has
/// [`UseToken::none`](crate::UseToken::none), so a layer for `Authorization` sends the request unchanged.
///
/// A response of more than 64 KiB is an error. This type sets no time limit: the
/// [`fetch_timeout`](crate::RefreshingTokenBuilder::fetch_timeout) of the source is the limit.
///
/// # Errors of the server
///
/// `invalid_client`, `invalid_grant`, `unauthorized_client`, `unsupported_grant_type`, `invalid_scope` and
/// `invalid_target` are [permanent](SourceError::permanent) (RFC 6749 §5.2, RFC 8693 §2.2.2), unless the
/// status is 429 or 5xx. The `Retry-After` of a 429 or 503 says
/// [when to fetch again](SourceError::with_retry_after). A `Retry-After` that is a date counts as 30 s, and
/// so does a 429 without `Retry-After`. The message has the server's code and description, cut to 64 and 256
/// characters, without control characters. A code or a description that repeats eight consecutive bytes of a
/// secret, or a whole shorter secret, in plain or encoded form, is left out.
///
/// # What is wiped
///
/// This type wipes client secrets, refresh tokens, the form, and the buffer that collects the response. It
/// cannot wipe the buffers of the HTTP client, which hold what the client wrote and read.
///
/// # Not here
///
/// This type has no discovery, no flows with a user and a browser, no PKCE, no `DPoP` and no signing. The
/// crate `huskarl` has all of these, and the crate `oauth2` has the flows and PKCE. Call either crate in the
/// fetch function of a `RefreshingToken`. Both crates leave secrets in freed memory, so this type does not
/// build on them: [`guide::which_crate`](crate::guide::which_crate) has the counts.
#[derive(Clone)]
pub struct TokenRequest {
    url: Uri,
    client_id: Option<String>,
    secret: Option<Zeroizing<String>>,
    /// Whether the secret goes into the form, and not into a Basic header.
    in_body: bool,
    /// In the order in which they are sent.
    params: Vec<(Cow<'static, str>, Value)>,
}

#[derive(Clone)]
enum Value {
    Text(Zeroizing<String>),
    Token(Arc<dyn TokenSource>),
    Refresh(Rotation),
}

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const CLIENT_ASSERTION: &str = "client_assertion";
const CLIENT_SECRET: &str = "client_secret";

impl TokenRequest {
    /// Asks for the client's own token (client credentials grant, RFC 6749 §4.4), for a client with a secret.
    /// The secret goes into a Basic `Authorization` header unless [`secret_in_body`](Self::secret_in_body) is
    /// called.
    ///
    /// Wipes a secret that is given by value, as [`BearerToken::new`](crate::BearerToken::new) does.
    ///
    /// # Errors
    ///
    /// [`SourceErrorKind::Invalid`] if `url` is not a URL, has no host, has a fragment or a user before the
    /// host, or is neither https nor http to this machine. Also, as a permanent error, if the secret has an
    /// ASCII control character, such as the line feed at the end of a file (RFC 6749 appendix A.2).
    pub fn client_credentials(
        url: &str,
        client_id: &str,
        secret: impl TokenText,
    ) -> Result<Self, SourceError> {
        // The copy comes first, so that the secret is wiped on each path.
        let secret = copy(secret);
        let request = Self::new(url, "client_credentials")?.client_id(client_id);
        let request = request.client_secret(secret);
        request.check_client_secret()?;
        Ok(request)
    }

    /// Asks for the client's own token, for a client that authenticates with an assertion (RFC 7523 §2.2)
    /// from any source. With a [`FileToken`](crate::FileToken), this is workload identity on Kubernetes.
    ///
    /// # Errors
    ///
    /// As [`client_credentials`](Self::client_credentials).
    pub fn client_credentials_by_assertion(
        url: &str,
        client_id: &str,
        assertion: impl TokenSource + 'static,
    ) -> Result<Self, SourceError> {
        let request = Self::new(url, "client_credentials")?.client_id(client_id);
        Ok(request.client_assertion(assertion))
    }

    /// Exchanges a refresh token for an access token (RFC 6749 §6), for a public client. For a client with a
    /// secret, add [`client_secret`](Self::client_secret).
    ///
    /// If the server rotates the refresh token, the new refresh token takes the place of the old refresh token
    /// in this request and in its clones. Give the request to a single source, and share that source: two
    /// sources would spend the same refresh token twice. If the source's time limit cuts off a fetch, the new
    /// refresh token may be lost: set a limit that is longer than the endpoint ever takes.
    ///
    /// # Errors
    ///
    /// As [`client_credentials`](Self::client_credentials), with the refresh token as the secret. Also if the
    /// refresh token is empty.
    pub fn refresh_token(
        url: &str,
        client_id: &str,
        refresh_token: impl TokenText,
    ) -> Result<Self, SourceError> {
        let token = copy(refresh_token);
        let request = Self::new(url, "refresh_token")?.client_id(client_id);
        secret_form::check_secret("refresh token", &token, false)?;
        Ok(request.with("refresh_token", Value::Refresh(Rotation::new(token))))
    }

    /// Exchanges another token, the subject, for an access token (RFC 8693). The subject is an access token
    /// as well, unless [`subject_token_type`](Self::subject_token_type) is called.
    ///
    /// Each fetch asks `subject` for a token. If the server says `invalid_grant` or `invalid_request`, the
    /// fetch marks the subject's token as rejected, so that `subject` can get another token.
    ///
    /// # Errors
    ///
    /// As [`client_credentials`](Self::client_credentials).
    pub fn token_exchange(
        url: &str,
        subject: impl TokenSource + 'static,
    ) -> Result<Self, SourceError> {
        let subject = Value::Token(Arc::new(subject));
        let request = Self::new(url, TOKEN_EXCHANGE)?.with("subject_token", subject);
        Ok(request.subject_token_type(ACCESS_TOKEN))
    }

    /// Exchanges a JWT for an access token (RFC 7523 §2.1). Each fetch asks `assertion` for the JWT. If the
    /// server says `invalid_grant` or `invalid_request`, the fetch marks the JWT as rejected.
    ///
    /// # Errors
    ///
    /// As [`client_credentials`](Self::client_credentials).
    pub fn jwt_bearer(
        url: &str,
        assertion: impl TokenSource + 'static,
    ) -> Result<Self, SourceError> {
        let assertion = Value::Token(Arc::new(assertion));
        Ok(Self::new(url, JWT_BEARER)?.with("assertion", assertion))
    }

    fn new(url: &str, grant: &'static str) -> Result<Self, SourceError> {
        let request = Self {
            url: endpoint(url)?,
            client_id: None,
            secret: None,
            in_body: false,
            params: Vec::new(),
        };
        Ok(request.param("grant_type", grant))
    }

    /// Names the client. [`token_exchange`](Self::token_exchange) and [`jwt_bearer`](Self::jwt_bearer) name no
    /// client by themselves. A client without a secret and without an assertion is a public client.
    #[must_use]
    pub fn client_id(mut self, id: &str) -> Self {
        self.client_id = Some(id.to_owned());
        self
    }

    /// Authenticates the client with a secret in a Basic header (`client_secret_basic`, RFC 6749 §2.3.1), unless
    /// [`secret_in_body`](Self::secret_in_body) is called, before or after. A secret that has an
    /// ASCII control character makes each fetch fail, with a permanent error of kind
    /// [`Invalid`](SourceErrorKind::Invalid).
    #[must_use]
    pub fn client_secret(mut self, secret: impl TokenText) -> Self {
        self.secret = Some(copy(secret));
        self.without(CLIENT_SECRET).without(CLIENT_ASSERTION)
    }

    /// Puts the client's secret into the form (`client_secret_post`), for a server that takes no header.
    #[must_use]
    pub fn secret_in_body(mut self) -> Self {
        self.in_body = true;
        self
    }

    /// Authenticates the client with a JWT (RFC 7523 §2.2) from any source. Each fetch asks `assertion` for
    /// the JWT. If the server says `invalid_client`, the fetch marks the JWT as rejected.
    #[must_use]
    pub fn client_assertion(mut self, assertion: impl TokenSource + 'static) -> Self {
        (self.secret, self.in_body) = (None, false);
        let request = self.without(CLIENT_SECRET).without(CLIENT_ASSERTION);
        request.with(CLIENT_ASSERTION, Value::Token(Arc::new(assertion)))
    }

    /// Sets the scope to ask for: words with spaces between them (RFC 6749 §3.3). Replaces an earlier scope.
    #[must_use]
    pub fn scope(self, scope: &str) -> Self {
        self.without("scope").param("scope", scope)
    }

    /// Sets the type of the subject of a [`token_exchange`](Self::token_exchange), such as
    /// `urn:ietf:params:oauth:token-type:jwt` (RFC 8693 §3).
    #[must_use]
    pub fn subject_token_type(self, uri: &str) -> Self {
        let request = self.without("subject_token_type");
        request.param("subject_token_type", uri)
    }

    /// Adds a resource that the token is for (RFC 8707). May be called again for more resources.
    #[must_use]
    pub fn resource(self, uri: &str) -> Self {
        self.param("resource", uri)
    }

    /// Adds any other parameter, such as `audience`. May be called again with the same name. The value is
    /// wiped. An error may show the value, if the server repeats the value in its error response.
    #[must_use]
    pub fn param(self, name: impl Into<Cow<'static, str>>, value: impl TokenText) -> Self {
        self.with(name, Value::Text(copy(value)))
    }

    fn with(mut self, name: impl Into<Cow<'static, str>>, value: Value) -> Self {
        self.params.push((name.into(), value));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.params.retain(|(other, _)| other != name);
        self
    }

    /// Calls `hook` with the new refresh token when the server rotates the refresh token, so that `hook` can
    /// store the new refresh token. The fetch calls `hook` before it judges anything else in the response.
    ///
    /// If `hook` fails, the fetch fails. The request keeps the new refresh token, since the old refresh token
    /// is spent. The next fetch begins with another call of `hook`.
    #[must_use]
    pub fn on_rotation<F, Fut, E>(mut self, hook: F) -> Self
    where
        F: Fn(SecretString) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let hook: rotation::Hook = Arc::new(move |token| {
            let stored = hook(token);
            Box::pin(async move { stored.await.map_err(Into::into) })
        });
        for (_, value) in &mut self.params {
            if let Value::Refresh(rotation) = value {
                rotation.hook = Some(Arc::clone(&hook));
            }
        }
        self
    }

    /// Makes the fetch function of a [`RefreshingToken`](crate::RefreshingToken), or of a
    /// [`source_fn`](crate::source_fn) that fetches for each request. `http` is the HTTP client.
    pub fn over<S, B, R>(self, http: S) -> impl Fn() -> TokenFuture + Clone + Send + 'static
    where
        S: Service<Request<B>, Response = Response<R>, Error: Into<BoxError>, Future: Send>,
        S: Clone + Send + 'static,
        B: From<Bytes> + 'static,
        R: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let request = Arc::new(self);
        move || TokenFuture::boxed(exchange::exchange(Arc::clone(&request), http.clone()))
    }

    /// Fetches once, for a fetch function that changes the request before each fetch. The function in this
    /// example asks for the scope that a server's challenge names:
    ///
    /// ```
    /// # use tower_bearer::{BearerToken, RefreshingToken, TokenRequest};
    /// # fn example<S, B>(request: TokenRequest, http_client: S)
    /// # where
    /// #     S: tower::Service<http::Request<B>, Response = http::Response<String>> + Clone + Send + 'static,
    /// #     S::Error: Into<tower::BoxError>, S::Future: Send, B: From<bytes::Bytes> + 'static {
    /// let source = RefreshingToken::renewing(move |previous: Option<BearerToken>| {
    ///     let mut request = request.clone();
    ///     if let Some(rejection) = previous.and_then(|token| token.rejection()) {
    ///         if let Some(scope) = rejection.parameter("scope") {
    ///             request = request.scope(&scope);
    ///         }
    ///     }
    ///     request.fetch(http_client.clone())
    /// });
    /// # }
    /// ```
    pub fn fetch<S, B, R>(self, http: S) -> TokenFuture
    where
        S: Service<Request<B>, Response = Response<R>, Error: Into<BoxError>, Future: Send>,
        S: Send + 'static,
        B: From<Bytes> + 'static,
        R: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        TokenFuture::boxed(exchange::exchange(Arc::new(self), http))
    }
}

impl fmt::Debug for TokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRequest")
            .field("host", &self.url.host())
            .finish_non_exhaustive()
    }
}

/// A copy without spare capacity. The copy never grows, and is wiped when it is dropped.
fn copy(text: impl TokenText) -> Zeroizing<String> {
    text.with_text(|text| Zeroizing::new(text.to_owned()))
}

/// RFC 6749 §3.2. The error does not show the URL, since a URL may hold a password.
fn endpoint(url: &str) -> Result<Uri, SourceError> {
    let invalid = |why| {
        let message = format!("not the URL of a token endpoint: {why}");
        Err(SourceError::new(SourceErrorKind::Invalid, message))
    };
    let Ok(uri) = Uri::from_str(url) else {
        return invalid("it cannot be read");
    };
    let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
        return invalid("it has no scheme or no host");
    };
    if url.contains('#') || authority.as_str().contains('@') {
        return invalid("it has a fragment, or a user before the host");
    }
    if *scheme != Scheme::HTTPS && !(*scheme == Scheme::HTTP && is_local(authority)) {
        return invalid("it would send secrets in plaintext; use https");
    }
    Ok(uri)
}
