//! The SDK, which would be a separate crate: an API client for any source of tokens.
#![allow(unreachable_pub)]

use std::{error::Error as StdError, fmt, sync::Arc};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::{client::legacy::Client as HttpClient, rt::TokioExecutor};
use tower::{ServiceBuilder, ServiceExt, util::BoxCloneSyncService};
use tower_bearer::{BearerAuthLayer, BoxError, SourceError, TokenSource};

type Body = Empty<Bytes>;
type Stack = BoxCloneSyncService<Request<Body>, Response<Incoming>, BoxError>;

/// The client. Clones share connections and the token.
#[derive(Clone, Debug)]
pub struct Client {
    stack: Stack,
    url: String,
}

/// Why a call failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The source had no token, so the request was not sent.
    NoToken(SourceError),
    /// The server rejected the token. The next call carries another token, if the source can get
    /// another.
    Unauthorized,
    /// Anything else.
    Other(BoxError),
}

impl Client {
    /// Makes a client with any source, even a source that is chosen at run time.
    ///
    /// # Errors
    ///
    /// An error if `url` is not `scheme://host` or `scheme://host:port`.
    pub fn new(url: &str, source: impl TokenSource + 'static) -> Result<Self, BoxError> {
        let source: Arc<dyn TokenSource> = Arc::new(source);
        // The token is for this API only: a redirect by the server cannot take the token to another
        // host.
        let stack = ServiceBuilder::new()
            .layer(BearerAuthLayer::new(source).for_origin(url)?)
            .service(HttpClient::builder(TokioExecutor::new()).build_http());
        Ok(Self {
            stack: Stack::new(stack),
            url: url.to_owned(),
        })
    }

    /// Asks the server for the name of the caller.
    ///
    /// # Errors
    ///
    /// An error if there is no token, or if the server cannot be reached, rejects the token or
    /// fails.
    pub async fn whoami(&self) -> Result<String, Error> {
        let url = format!("{}/whoami", self.url);
        let request = Request::get(url).body(Body::new());
        let request = request.map_err(|error| Error::Other(error.into()))?;
        let response = self.stack.clone().oneshot(request).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => return Err(Error::Unauthorized),
            other => return Err(Error::Other(format!("the server says {other}").into())),
        }
        let body = response.into_body().collect().await;
        let body = body.map_err(|error| Error::Other(error.into()))?;
        Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
    }
}

/// Finds the errors that users of this SDK can act on. Of tower-bearer's error types, only
/// `SourceError` is a part of the SDK's API.
impl From<BoxError> for Error {
    fn from(error: BoxError) -> Self {
        let ours = tower_bearer::Error::find(&*error);
        match ours.and_then(tower_bearer::Error::source_error) {
            Some(error) => Self::NoToken(error.clone()),
            None => Self::Other(error),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoToken(_) => "no token for the request",
            Self::Unauthorized => "the server rejected the token",
            Self::Other(_) => "the request failed",
        })
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::NoToken(error) => Some(error),
            Self::Unauthorized => None,
            Self::Other(error) => Some(&**error),
        }
    }
}
