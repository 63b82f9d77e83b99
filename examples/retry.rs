//! A request whose token a server rejects is sent once more with another one, under Tower's `Retry`.
//!
//! `cargo run --example retry --features retry`
#![allow(clippy::print_stdout)]

use std::sync::atomic::{AtomicU32, Ordering};

use http::{Request, Response, StatusCode};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, retry::RetryLayer, service_fn};
use tower_bearer::{BearerAuthLayer, BearerToken, RefreshingToken, ReplayRejected};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // Each fetch gives another token, as an OAuth 2.0 endpoint would.
    let fetches = AtomicU32::new(0);
    let source = RefreshingToken::new(move || {
        let number = fetches.fetch_add(1, Ordering::SeqCst) + 1;
        println!("   token {number} is fetched");
        async move { BearerToken::new(format!("token-{number}")) }
    });

    let mut client = ServiceBuilder::new()
        .layer(RetryLayer::new(ReplayRejected::new()))
        .layer(BearerAuthLayer::new(source).replay_rejected())
        .service(service_fn(server));

    for (what, expected) in [("/", 200), ("/revoked-token-1", 200), ("/never", 401)] {
        println!("GET {what}");
        let request = Request::get(format!("https://api.example.com{what}")).body(String::new())?;
        let response = client.ready().await?.call(request).await?;
        println!("   the caller sees {}", response.status());
        if response.status().as_u16() != expected {
            return Err(format!("expected {expected}").into());
        }
    }
    Ok(())
}

/// Has revoked the first token for one path, and takes no token for another.
async fn server(request: Request<String>) -> Result<Response<()>, BoxError> {
    let authorization = request.headers()["authorization"].to_str()?;
    let refuses = match request.uri().path() {
        "/revoked-token-1" => authorization == "Bearer token-1",
        "/never" => true,
        _ => false,
    };
    let mut response = Response::new(());
    if refuses {
        *response.status_mut() = StatusCode::UNAUTHORIZED;
    }
    println!("   the server says {}", response.status());
    Ok(response)
}
