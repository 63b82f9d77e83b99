//! A request whose token a server rejects is sent once more, with another token, under Tower's `Retry`,
//! against a server of its own on loopback.
//!
//! `cargo run --example retry --features retry`
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
use support::serve;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, retry::RetryLayer};
use tower_bearer::{BearerAuthLayer, BearerToken, RefreshingToken, RetryRejected};

const HOUR: Duration = Duration::from_secs(3600);

/// The server takes the tokens from this number on.
static FIRST_VALID: AtomicU32 = AtomicU32::new(1);
static FETCHED: AtomicU32 = AtomicU32::new(0);
static SERVED: AtomicU32 = AtomicU32::new(0);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let url = serve(answer).await?;
    // Each fetch gives another token, as an OAuth 2.0 endpoint would.
    let source = RefreshingToken::builder(|| async {
        let number = FETCHED.fetch_add(1, SeqCst) + 1;
        println!("   token-{number} is fetched");
        BearerToken::new(format!("token-{number}"))
    })
    // A server that takes nothing costs no more than this. Long, for a machine that is very slow.
    .rejection_backoff(HOUR, HOUR)
    .build();
    let mut client = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryRejected::new()))
        .layer(BearerAuthLayer::new(source).retry_rejected())
        .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());

    for (what, path, first_valid, expected) in [
        ("The first request.", "", 1, [200, 1, 1]),
        ("The server has revoked token-1.", "", 2, [200, 2, 2]),
        ("A path that takes no token.", "never", 2, [401, 2, 3]),
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
        println!("   the caller sees {status}, the server saw {tries}");
        let happened = [status, tries, FETCHED.load(SeqCst)];
        if happened != expected {
            return Err(format!("{happened:?} instead of {expected:?}").into());
        }
    }
    println!("All of it held.");
    Ok(())
}

/// The server takes tokens from `FIRST_VALID` on, and none for any path but `/`.
fn answer(request: &Request<Incoming>, token: Option<&str>) -> (u16, String) {
    SERVED.fetch_add(1, SeqCst);
    let number = token.and_then(|token| token.strip_prefix("token-")?.parse().ok());
    let is_valid = number.is_some_and(|number: u32| number >= FIRST_VALID.load(SeqCst));
    let is_right = is_valid && request.uri().path() == "/";
    let status = if is_right { 200 } else { 401 };
    println!("   the server says {status} to {token:?}");
    (status, String::new())
}
