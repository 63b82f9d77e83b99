//! Tower's `Retry` sends a request again, with another token, after a server rejected its token:
//! `cargo run --example retry --features retry`.
#![allow(clippy::print_stdout)]

mod support;

use std::{
    sync::atomic::{AtomicU32, Ordering::SeqCst},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use support::{check, serve};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, retry::RetryLayer};
use tower_bearer::{BearerAuthLayer, BearerToken, RefreshingToken, RetryRejected};

/// The server accepts the tokens from this number on.
static FIRST_VALID: AtomicU32 = AtomicU32::new(1);
static FETCHED: AtomicU32 = AtomicU32::new(0);
static SERVED: AtomicU32 = AtomicU32::new(0);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let url = serve(answer).await?;
    let hour = Duration::from_secs(3600);
    // Each fetch gives another token, as an OAuth 2.0 endpoint would.
    let source = RefreshingToken::builder(|| async {
        let number = FETCHED.fetch_add(1, SeqCst) + 1;
        println!("   token-{number} is fetched");
        BearerToken::new(format!("token-{number}"))
    })
    // If a server rejects every new token, the source soon fetches at this interval only. The
    // interval is an hour, so that it does not end during this run, even on a slow computer.
    .rejection_backoff(hour, hour)
    .build();
    let mut client = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryRejected::new()))
        .layer(BearerAuthLayer::new(source).retry_rejected())
        .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());

    for (what, path, first_valid, expected) in [
        ("The first request.", "", 1, [200, 1, 1]),
        ("The server has revoked token-1.", "", 2, [200, 2, 2]),
        ("A path that accepts no token.", "never", 2, [401, 2, 3]),
        // The first two replacements are immediate. The third has to wait.
        ("The same path again.", "never", 2, [401, 1, 3]),
    ] {
        println!("{what}");
        FIRST_VALID.store(first_valid, SeqCst);
        let before = SERVED.load(SeqCst);
        let request = Request::post(format!("{url}/{path}")).body(Full::from("body"))?;
        let response = client.ready().await?.call(request).await?;
        let status = u32::from(response.status().as_u16());
        let tries = SERVED.load(SeqCst) - before;
        let happened = [status, tries, FETCHED.load(SeqCst)];
        let what = format!("the caller sees {status}; requests at the server: {tries}");
        check(happened == expected, &what)?;
    }
    println!("All checks passed.");
    Ok(())
}

/// Answers 200 to an accepted token on the path `/`, and 401 to any other request.
fn answer(request: &Request<Incoming>, token: Option<&str>) -> (u16, String) {
    SERVED.fetch_add(1, SeqCst);
    let number = token.and_then(|token| token.strip_prefix("token-")?.parse().ok());
    let is_valid = number.is_some_and(|number: u32| number >= FIRST_VALID.load(SeqCst));
    let is_right = is_valid && request.uri().path() == "/";
    let status = if is_right { 200 } else { 401 };
    println!("   the server says {status} to {token:?}");
    (status, String::new())
}
