//! A request whose token a server rejects is sent once more with another one, under Tower's `Retry`,
//! against a server of its own on loopback.
//!
//! `cargo run --example retry --features retry`
#![allow(clippy::print_stdout)]

use std::{
    sync::atomic::{AtomicU32, Ordering::SeqCst},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use tokio::net::TcpListener;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, retry::RetryLayer};
use tower_bearer::{BearerAuthLayer, BearerToken, RefreshingToken, RetryRejected};

const HOUR: Duration = Duration::from_secs(3600);

/// The server takes the tokens from this number on.
static FIRST_VALID: AtomicU32 = AtomicU32::new(1);
static FETCHED: AtomicU32 = AtomicU32::new(0);
static SERVED: AtomicU32 = AtomicU32::new(0);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let url = start_server().await?;
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
        // The source has just fetched, and has no other.
        ("A path that takes no token.", "never", 2, [401, 1, 2]),
    ] {
        println!("{what}");
        FIRST_VALID.store(first_valid, SeqCst);
        let before = SERVED.load(SeqCst);
        let request = Request::post(format!("{url}{path}")).body(Full::from("body"))?;
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

async fn start_server() -> Result<String, BoxError> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}/", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|request| std::future::ready(answer(&request)));
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok(url)
}

fn answer(request: &Request<Incoming>) -> http::Result<Response<Full<Bytes>>> {
    SERVED.fetch_add(1, SeqCst);
    let token = request.headers().get("authorization");
    let number = token
        .and_then(|token| token.to_str().ok()?.strip_prefix("Bearer token-"))
        .and_then(|number| number.parse::<u32>().ok());
    let is_valid = number.is_some_and(|number| number >= FIRST_VALID.load(SeqCst));
    let status = match request.uri().path() {
        "/" if is_valid => 200,
        _ => 401,
    };
    println!("   the server says {status} to {token:?}");
    Response::builder().status(status).body(Full::default())
}
