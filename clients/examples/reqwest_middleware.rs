//! The layer as a middleware of reqwest-middleware, against a server that the program starts on
//! loopback. The layer retries rejected requests, a middleware above the layer retries other
//! failures, and a redirect to another host does not carry the token.
//!
//! `cargo run --example reqwest_middleware --features reqwest-middleware`
#![allow(clippy::print_stdout)]

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use reqwest::redirect::Policy;
use reqwest_middleware::ClientBuilder;
use reqwest_retry::{RetryTransientMiddleware, policies::ExponentialBackoff};
use tokio::net::TcpListener;
use tower_bearer::{BearerAuthLayer, BearerToken, BoxError, RefreshingToken};

/// The requests that the server got: path and token.
static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());
static FETCHED: AtomicU32 = AtomicU32::new(0);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let url = start_server().await?;
    let source = RefreshingToken::new(|| async {
        BearerToken::new(format!("token-{}", FETCHED.fetch_add(1, SeqCst) + 1))
    });
    let auth = BearerAuthLayer::new(source)
        .for_origin(&url)?
        .retry_rejected();
    // On some redirects to another host, reqwest keeps the header or restores it. So this client
    // follows no redirect to another origin.
    let within_the_origin = Policy::custom(|attempt| {
        if attempt.url().origin() == attempt.previous()[0].origin() {
            Policy::default().redirect(attempt)
        } else {
            attempt.stop()
        }
    });
    // `no_proxy`, so that no environment variable sends the requests to a proxy.
    let http = reqwest::Client::builder()
        .no_proxy()
        .redirect(within_the_origin)
        .build()?;
    let back_off = ExponentialBackoff::builder()
        .retry_bounds(Duration::ZERO, Duration::from_millis(10))
        .build_with_max_retries(2);
    let client = ClientBuilder::new(http)
        // Above the layer, so that each try asks for a token.
        .with(RetryTransientMiddleware::new_with_policy(back_off))
        .with(auth)
        .build();

    for (path, expected, requests) in [
        ("/ok", 200, ["/ok token-1"].as_slice()),
        // The layer sends the request once more, with another token.
        ("/revoked", 200, &["/revoked token-1", "/revoked token-2"]),
        // reqwest-retry sends the request once more.
        ("/busy", 200, &["/busy token-2", "/busy token-2"]),
        // reqwest follows the redirect of `/moved`. It does not follow the redirect of `/elsewhere`,
        // which leads to another host.
        ("/moved", 200, &["/moved token-2", "/ok token-2"]),
        ("/elsewhere", 302, &["/elsewhere token-2"]),
    ] {
        let response = client.post(format!("{url}{path}")).body("body");
        let status = response.send().await?.status();
        let seen = std::mem::take(&mut *seen());
        println!("POST {path}: {status}, and the server saw {seen:?}");
        if status != expected || seen != requests {
            return Err(format!("expected {expected} and {requests:?}").into());
        }
    }
    println!("All checks passed.");
    Ok(())
}

fn seen() -> MutexGuard<'static, Vec<String>> {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn start_server() -> Result<String, BoxError> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|request| std::future::ready(answer(&request)));
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok(url)
}

fn answer(request: &Request<Incoming>) -> http::Result<Response<Full<Bytes>>> {
    let path = request.uri().path();
    let token = request.headers().get("authorization");
    let token = token
        .and_then(|token| token.to_str().ok()?.strip_prefix("Bearer "))
        .unwrap_or("without a token");
    let is_first = !seen().iter().any(|seen| seen.starts_with(path));
    seen().push(format!("{path} {token}"));
    let response = Response::builder();
    let response = match path {
        "/ok" => response.status(200),
        "/revoked" => response.status(if token == "token-1" { 401 } else { 200 }),
        "/busy" => response.status(if is_first { 503 } else { 200 }),
        "/moved" => response.status(307).header("location", "/ok"),
        _ => response
            .status(302)
            .header("location", "http://localhost:9/"),
    };
    response.body(Full::default())
}
