//! The SDK, as if it were a crate of its own: an API client for any source of tokens.
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
    /// The source had no token; the request was not sent.
    NoToken(SourceError),
    /// The server does not take the token. The next call has another token, if the source can get it.
    Unauthorized,
    /// Anything else.
    Other(BoxError),
}

impl Client {
    /// Takes any source, also a source that is chosen at run time.
    ///
    /// # Errors
    ///
    /// If `url` is not a scheme, a host and a port.
    pub fn new(url: &str, source: impl TokenSource + 'static) -> Result<Self, BoxError> {
        let source: Arc<dyn TokenSource> = Arc::new(source);
        // The token is for this API: a redirect of the server cannot take it elsewhere.
        let stack = ServiceBuilder::new()
            .layer(BearerAuthLayer::new(source).for_origin(url)?)
            .service(HttpClient::builder(TokioExecutor::new()).build_http());
        Ok(Self {
            stack: Stack::new(stack),
            url: url.to_owned(),
        })
    }

    /// Who the server takes the caller for.
    ///
    /// # Errors
    ///
    /// If there is no token, or the server cannot be reached, does not take it or fails.
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

/// Finds what this SDK's users can act on. tower-bearer's own error type does not show.
impl From<BoxError> for Error {
    fn from(error: BoxError) -> Self {
        let ours = error.downcast_ref::<tower_bearer::Error>();
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
            Self::Unauthorized => "the server does not take the token",
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
