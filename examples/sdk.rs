//! An API client, such as an SDK, whose users choose where the token comes from:
//! `cargo run --example sdk`.
//!
//! The module `acme` is what the SDK's authors write, and `main` what one of its users does. None of
//! the SDK's types has a parameter: the source is an `Arc<dyn TokenSource>`, and the stack is in a
//! `BoxCloneSyncService`. A request pays for that with two allocations: its future, and the stack's
//! clone. That it is sent again at once when its token was rejected, `examples/retry.rs` shows.
#![allow(clippy::print_stdout)]

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use http::{Request, Response, header::AUTHORIZATION};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tower_bearer::{
    BearerToken, BoxError, FileToken, RefreshingToken, RotatingToken, SourceErrorKind, StaticToken,
    TokenSource, source_fn,
};

/// The SDK, as if it were a crate of its own.
#[allow(unreachable_pub)]
mod acme {
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
        /// The server does not take the token. The next call has another, if the source can get one.
        Unauthorized,
        /// Anything else.
        Other(BoxError),
    }

    impl Client {
        /// Takes any source, one that was chosen at run time, too.
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
}

/// A user of the SDK: the client is a field like any other.
struct App {
    api: acme::Client,
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let url = start_server().await?;

    println!("1. The source is a setting, read at run time.");
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("token");
    std::fs::write(&path, "good-of-a-file\n")?;
    let file = format!("file:{}", path.display());
    for (setting, user) in [
        ("text:good-of-a-text", "good-of-a-text"),
        (&file, "good-of-a-file"),
    ] {
        let app = App {
            api: acme::Client::new(&url, source(setting)?)?,
        };
        // Calls can be made anywhere.
        let answer = tokio::spawn(async move { app.api.whoami().await });
        check(answer.await?? == user, user)?;
    }
    let answer = acme::Client::new(&url, source("login")?)?.whoami().await;
    let kind = match answer {
        Err(acme::Error::NoToken(error)) => Some(error.kind()),
        _ => None,
    };
    check(kind == Some(SourceErrorKind::Failed), "no token, and why")?;

    println!("2. A user who keeps the source can push tokens, to all clones.");
    let source = RotatingToken::new(BearerToken::new("good-before")?);
    let api = acme::Client::new(&url, source.clone())?;
    let clone = api.clone();
    check(clone.whoami().await? == "good-before", "the first token")?;
    source.rotate(BearerToken::new("good-after")?);
    check(clone.whoami().await? == "good-after", "the second")?;

    println!("3. A token that the server has revoked is replaced for the next call.");
    let fetches = AtomicUsize::new(0);
    let source = RefreshingToken::new(move || {
        let revoked = fetches.fetch_add(1, SeqCst) == 0;
        let name = if revoked { "revoked" } else { "good-again" };
        async move { BearerToken::new(name) }
    });
    let api = acme::Client::new(&url, source)?;
    let refused = matches!(api.whoami().await, Err(acme::Error::Unauthorized));
    check(refused, "an error that says so")?;
    check(api.whoami().await? == "good-again", "and another token")?;

    println!("All of it held.");
    Ok(())
}

/// A source of a type that only the setting tells.
fn source(setting: &str) -> Result<Arc<dyn TokenSource>, BoxError> {
    Ok(match setting.split_once(':') {
        Some(("text", text)) => Arc::new(StaticToken::new(BearerToken::new(text)?)),
        Some(("file", path)) => Arc::new(FileToken::new(path)?),
        _ => Arc::new(source_fn(|| async { Err("nobody is logged in") })),
    })
}

fn check(holds: bool, what: &str) -> Result<(), BoxError> {
    if !holds {
        return Err(format!("does not hold: {what}").into());
    }
    println!("   ok: {what}");
    Ok(())
}

/// Takes each token that says it is good. No server should send one back.
async fn start_server() -> Result<String, BoxError> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|request: Request<Incoming>| async move {
                let sent = request.headers().get(AUTHORIZATION);
                let sent = sent.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
                let body = Bytes::copy_from_slice(sent.unwrap_or_default());
                let status = if body.starts_with(b"good") { 200 } else { 401 };
                let mut response = Response::new(http_body_util::Full::new(body));
                *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
                Ok::<_, Infallible>(response)
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok(url)
}
