//! Tokens from an OAuth 2.0 token endpoint: [`TokenRequest`].

mod exchange;
mod form;
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
    source::{TokenFuture, TokenSource},
    token::TokenText,
};

/// A request for an access token to the token endpoint of an OAuth 2.0 server, as a program makes it that
/// acts without a user at hand. [`over`](Self::over) an HTTP client, it is the fetch function of a
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
/// The URL has to be https, or http to `localhost` or a loopback address. A clone shares the refresh token
/// that a server has rotated, and nothing else.
///
/// # The HTTP client
///
/// Any Tower service from `Request<B>`, with `B: From<Bytes>`, to a response with an [`http_body::Body`]. It
/// is cloned and polled ready for each request. It should not follow redirects: this type answers a redirect
/// with an error, but a client that follows one within itself sends the credentials wherever the server
/// says. hyper-util's client follows none. reqwest's client follows them: [With
/// reqwest](crate::guide::reqwest#for-a-token-endpoint) has the lines that make it a service without redirects.
///
/// A response of more than 64 KiB is an error. Time is limited by the
/// [`fetch_timeout`](crate::RefreshingTokenBuilder::fetch_timeout) of the source: this type sets no limit of
/// its own.
///
/// # Errors of the server
///
/// `invalid_client`, `invalid_grant`, `unauthorized_client`, `unsupported_grant_type`, `invalid_scope` and
/// `invalid_target` are [permanent](SourceError::permanent) (RFC 6749 §5.2, RFC 8693 §2.2.2). A 429 or 503
/// says [when to try again](SourceError::with_retry_after); a date, or nothing on a 429, counts as 30 s. The
/// message has the server's code and description, cut to 64 and 256 characters, without control characters,
/// and without the description if that repeats a part of a secret, as it is or as it was sent.
///
/// # What is wiped
///
/// Client secrets, refresh tokens, the form, and the buffer that the response is collected in. The HTTP
/// client's own buffers are not, which hold what it wrote and what it read.
///
/// # Not here
///
/// Discovery, flows with a user and a browser, PKCE, `DPoP` and signing: the crates `huskarl` and `oauth2`
/// have them, and their result can be what the function of a `RefreshingToken` returns.
#[derive(Clone)]
pub struct TokenRequest {
    url: Uri,
    client_id: Option<String>,
    /// For the header. A secret in the form is a parameter.
    secret: Option<Zeroizing<String>>,
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
    /// The client's own token (client credentials grant, RFC 6749 §4.4), for a client with a secret, which
    /// goes into a Basic `Authorization` header unless [`secret_in_body`](Self::secret_in_body) is called.
    ///
    /// A secret given by value is wiped, as by [`BearerToken::new`](crate::BearerToken::new).
    ///
    /// # Errors
    ///
    /// [`SourceErrorKind::Invalid`] if `url` is not the https URL of an endpoint; so for each grant.
    pub fn client_credentials(
        url: &str,
        client_id: &str,
        secret: impl TokenText,
    ) -> Result<Self, SourceError> {
        let request = Self::new(url, "client_credentials")?.client_id(client_id);
        Ok(request.client_secret(secret))
    }

    /// The client's own token, for a client that authenticates by an assertion (RFC 7523 §2.2) from any
    /// source. With a [`FileToken`](crate::FileToken), that is workload identity on Kubernetes.
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

    /// A token for a refresh token (RFC 6749 §6), by a public client. A client with a secret adds
    /// [`client_secret`](Self::client_secret).
    ///
    /// If the server rotates the refresh token, the new refresh token takes the place of the old in this
    /// request and in its clones. Give one source the request, and share that source: two sources would
    /// spend the same refresh token twice. A fetch that is cut off by the source's time limit may lose the new
    /// refresh token on its way: leave the limit longer than the endpoint ever takes.
    ///
    /// # Errors
    ///
    /// As [`client_credentials`](Self::client_credentials).
    pub fn refresh_token(
        url: &str,
        client_id: &str,
        refresh_token: impl TokenText,
    ) -> Result<Self, SourceError> {
        let rotation = Rotation::new(copy(refresh_token));
        let request = Self::new(url, "refresh_token")?.client_id(client_id);
        Ok(request.with("refresh_token", Value::Refresh(rotation)))
    }

    /// A token in exchange for another token (RFC 8693), which is an access token unless
    /// [`subject_token_type`](Self::subject_token_type) is called.
    ///
    /// The subject is asked for anew for each fetch, and marked as rejected if the server says
    /// `invalid_grant` or `invalid_request`, so that the subject's source can get another.
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

    /// A token for a JWT (RFC 7523 §2.1), which is asked for and marked as the subject of
    /// [`token_exchange`](Self::token_exchange) is.
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
            params: Vec::new(),
        };
        Ok(request.param("grant_type", grant))
    }

    /// Names the client, where the grant does not yet. Alone, it makes a public client.
    #[must_use]
    pub fn client_id(mut self, id: &str) -> Self {
        self.client_id = Some(id.to_owned());
        self
    }

    /// Authenticates the client by a secret in a Basic header (`client_secret_basic`, RFC 6749 §2.3.1).
    #[must_use]
    pub fn client_secret(mut self, secret: impl TokenText) -> Self {
        self.secret = Some(copy(secret));
        self.without(CLIENT_SECRET).without(CLIENT_ASSERTION)
    }

    /// Puts the client's secret into the form (`client_secret_post`), for a server that takes no header.
    #[must_use]
    pub fn secret_in_body(mut self) -> Self {
        match self.secret.take() {
            Some(secret) => self.with(CLIENT_SECRET, Value::Text(secret)),
            None => self,
        }
    }

    /// Authenticates the client by a JWT (RFC 7523 §2.2) from any source, which is asked for each fetch.
    /// The JWT is marked as rejected if the server says `invalid_client`.
    #[must_use]
    pub fn client_assertion(mut self, assertion: impl TokenSource + 'static) -> Self {
        self.secret = None;
        let request = self.without(CLIENT_SECRET).without(CLIENT_ASSERTION);
        request.with(CLIENT_ASSERTION, Value::Token(Arc::new(assertion)))
    }

    /// The scope to ask for, words with spaces between them (RFC 6749 §3.3). Replaces an earlier one.
    #[must_use]
    pub fn scope(self, scope: &str) -> Self {
        self.without("scope").param("scope", scope)
    }

    /// What the subject of a [`token_exchange`](Self::token_exchange) is, such as
    /// `urn:ietf:params:oauth:token-type:jwt` (RFC 8693 §3).
    #[must_use]
    pub fn subject_token_type(self, uri: &str) -> Self {
        let request = self.without("subject_token_type");
        request.param("subject_token_type", uri)
    }

    /// A resource that the token is for (RFC 8707). May be called again for more.
    #[must_use]
    pub fn resource(self, uri: &str) -> Self {
        self.param("resource", uri)
    }

    /// Any other parameter, such as `audience`. May be called again with the same name. The value is wiped,
    /// but not looked for in what the server says.
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

    /// Has a new refresh token stored, where the server rotates it: `hook` gets the token before anything
    /// else in the response is judged. If it fails, so does the fetch; the request keeps the new token,
    /// since the old is spent, and the next fetch begins with another call of the hook.
    #[must_use]
    pub fn on_rotation<F, Fut, E>(mut self, hook: F) -> Self
    where
        F: Fn(SecretString) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let hook = rotation::hook(hook);
        for (_, value) in &mut self.params {
            if let Value::Refresh(rotation) = value {
                rotation.hook = Some(Arc::clone(&hook));
            }
        }
        self
    }

    /// The fetch function of a [`RefreshingToken`](crate::RefreshingToken), or of a
    /// [`source_fn`](crate::source_fn) that fetches for each request.
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

    /// Fetches once, for a function that changes the request from one fetch to the next. This function asks
    /// for what a server's challenge names:
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

/// A copy without spare capacity: it is not moved any more, and wiped.
fn copy(text: impl TokenText) -> Zeroizing<String> {
    text.with_text(|text| Zeroizing::new(text.to_owned()))
}

/// RFC 6749 §3.2. The error does not show the URL: it may hold a password.
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
        return invalid("secrets would go over plaintext; use https");
    }
    Ok(uri)
}
