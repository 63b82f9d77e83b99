//! Tokens from an OAuth 2.0 endpoint (RFC 6749 §4.4), fetched with the `oauth2` crate.
//!
//! `cargo run --example oauth2_client_credentials` starts the token endpoint and an API itself.
//!
//! How far secrets are wiped: the token is, from the moment that it is a `BearerToken`. Before that
//! it is in buffers that cannot be reached from here: hyper's, the response body, which the `oauth2`
//! crate takes by value as a plain `Vec`, and that crate's `String`s for the access token and for the
//! client secret. A fetch of one's own, with a parser that borrows, would do better.
#![allow(clippy::print_stdout)]

use std::{
    convert::Infallible,
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use oauth2::{
    ClientId, ClientSecret, HttpRequest, HttpResponse, RequestTokenError, TokenResponse, TokenUrl,
    basic::BasicClient,
};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_bearer::{BearerAuthLayer, BearerToken, RefreshingToken, SourceError, SourceErrorKind};

type BoxError = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let server = Server::default();
    let url = server.clone().start().await?;

    let token_url = format!("{url}/token");
    let source = RefreshingToken::new(move || fetch(token_url.clone()));
    let mut api = ServiceBuilder::new()
        .layer(BearerAuthLayer::new(source))
        .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());

    for (step, revoke, expected_status, expected_fetches) in [
        ("the first request fetches a token", false, 200, 1),
        ("the second one is served from the cache", false, 200, 1),
        ("the server revokes the token: 401", true, 401, 1),
        ("the next request fetches another", false, 200, 2),
    ] {
        if revoke {
            server
                .revoked_up_to
                .store(server.issued(), Ordering::SeqCst);
        }
        let request = Request::get(format!("{url}/api")).body(Full::default())?;
        let status = api.ready().await?.call(request).await?.status();
        println!("{step}: {status}, {} fetched so far", server.issued());
        if status.as_u16() != expected_status || server.issued() != expected_fetches {
            return Err(format!("expected {expected_status}, {expected_fetches} fetched").into());
        }
    }
    Ok(())
}

async fn fetch(token_url: String) -> Result<BearerToken, SourceError> {
    let invalid = |error| SourceError::with_source(SourceErrorKind::Invalid, "token URL", error);
    let client = BasicClient::new(ClientId::new("example".into()))
        .set_client_secret(ClientSecret::new("s3cret".into()))
        .set_token_uri(TokenUrl::new(token_url).map_err(invalid)?);
    let request = client.exchange_client_credentials();
    let response = request.request_async(&send).await.map_err(|error| {
        // `Parse` holds the response body, which may hold a token; and so does its `Debug`.
        let what = match error {
            RequestTokenError::ServerResponse(response) => {
                format!("the endpoint refused: {}", response.error())
            }
            RequestTokenError::Request(_) => "the endpoint could not be reached".into(),
            _ => "the endpoint's answer is not a token".into(),
        };
        SourceError::new(SourceErrorKind::Failed, what)
    })?;
    let token = BearerToken::new(response.access_token().secret())?;
    Ok(match response.expires_in() {
        Some(lifetime) => token.expires_in(lifetime),
        None => token,
    })
}

async fn send(request: HttpRequest) -> Result<HttpResponse, hyper_util::client::legacy::Error> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let response = client.request(request.map(Full::from)).await?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes().to_vec());
    Ok(Response::from_parts(parts, body.unwrap_or_default()))
}

/// A token endpoint and an API in one. Its tokens are `token-1`, `token-2` and so on.
#[derive(Clone, Default)]
struct Server {
    issued: Arc<AtomicU32>,
    revoked_up_to: Arc<AtomicU32>,
}

impl Server {
    fn issued(&self) -> u32 {
        self.issued.load(Ordering::SeqCst)
    }

    async fn start(self) -> Result<String, BoxError> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = self.clone();
                let service = hyper::service::service_fn(move |request| {
                    let response = server.respond(&request);
                    async { Ok::<_, Infallible>(response) }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(url)
    }

    fn respond(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let authorization = request.headers().get(header::AUTHORIZATION);
        let authorization = authorization.and_then(|value| value.to_str().ok());
        let mut response = Response::new(Full::default());
        // `example:s3cret`, as RFC 6749 §2.3.1 has it.
        if request.uri().path() == "/token" && authorization == Some("Basic ZXhhbXBsZTpzM2NyZXQ=") {
            let number = self.issued.fetch_add(1, Ordering::SeqCst) + 1;
            let body = format!(
                r#"{{"access_token":"token-{number}","token_type":"bearer","expires_in":3600}}"#
            );
            *response.body_mut() = Full::from(body);
            return response;
        }
        let number = authorization
            .and_then(|value| value.strip_prefix("Bearer token-"))
            .and_then(|number| number.parse().ok());
        let revoked = self.revoked_up_to.load(Ordering::SeqCst);
        if number.is_none_or(|number: u32| number <= revoked) {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        response
    }
}
