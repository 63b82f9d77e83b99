//! Tokens from an OAuth 2.0 endpoint (RFC 6749 §4.4), for requests over hyper's pool:
//! `cargo run --example oauth2_client_credentials --features oauth2`. The program starts the token
//! endpoint and the API itself.
#![allow(clippy::print_stdout)]

mod support;

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use bytes::Bytes;
use http::{Request, header::AUTHORIZATION};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use support::{check, get, serve};
use tower::ServiceBuilder;
use tower_bearer::{BearerAuthLayer, BoxError, RefreshingToken, TokenRequest};

/// The tokens are `token-1`, `token-2` and so on.
static ISSUED: AtomicU32 = AtomicU32::new(0);
static REVOKED: AtomicU32 = AtomicU32::new(0);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let url = serve(answer).await?;
    let secret = String::from("s3cret"); // yours: from a file or a variable

    let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let fetch = TokenRequest::client_credentials(&format!("{url}/token"), "example", secret)?
        .scope("read write")
        .over(http);
    let api = ServiceBuilder::new()
        .layer(BearerAuthLayer::new(RefreshingToken::new(fetch)))
        .service(Client::builder(TokioExecutor::new()).build_http());

    let api_url = format!("{url}/api");
    let said = get(api.clone(), &api_url).await?;
    check(said == "200: token-1", "the first request fetches a token")?;
    let said = get(api.clone(), &api_url).await?;
    check(said == "200: token-1", "the second sends the same token")?;
    REVOKED.store(1, SeqCst);
    let said = get(api.clone(), &api_url).await?;
    check(said == "401: ", "the server revokes that token")?;
    let said = get(api, &api_url).await?;
    check(said == "200: token-2", "the next fetches another token")
}

/// The token endpoint and the API, which answers 200 with the token's text until the token is revoked. A real
/// API should send no token back.
fn answer(request: &Request<Incoming>, token: Option<&str>) -> (u16, String) {
    if request.uri().path() == "/token" {
        // `example:s3cret`, encoded as in RFC 6749 §2.3.1.
        if request.headers()[AUTHORIZATION] != "Basic ZXhhbXBsZTpzM2NyZXQ=" {
            return (401, r#"{"error":"invalid_client"}"#.into());
        }
        let text = format!("token-{}", ISSUED.fetch_add(1, SeqCst) + 1);
        let response =
            format!(r#"{{"access_token":"{text}","token_type":"bearer","expires_in":3600}}"#);
        return (200, response);
    }
    let number = token.and_then(|token| token.strip_prefix("token-")?.parse().ok());
    match token {
        Some(token) if number > Some(REVOKED.load(SeqCst)) => (200, token.to_owned()),
        _ => (401, String::new()),
    }
}
