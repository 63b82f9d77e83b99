//! The layer as a middleware of reqwest-middleware, against a server on loopback.
//!
//! `cargo run --example reqwest_middleware --features reqwest-middleware`
#![allow(clippy::print_stdout)]

use std::convert::Infallible;

use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use reqwest_middleware::ClientBuilder;
use tower_bearer::{BearerAuthLayer, BearerToken, RotatingToken};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let url = start_server().await?;
    let source = RotatingToken::new(BearerToken::new("old")?);
    let auth = BearerAuthLayer::new(source.clone()).for_origin(&url)?;
    let client = ClientBuilder::new(reqwest::Client::new())
        .with(auth)
        .build();

    let mut seen = Vec::new();
    seen.push(client.get(&url).send().await?.status());
    println!("the server wants `new`, the token is `old`: {}", seen[0]);
    source.rotate(BearerToken::new("new")?);
    seen.push(client.get(&url).send().await?.status());
    println!("after `rotate`: {}", seen[1]);
    if seen != [StatusCode::UNAUTHORIZED, StatusCode::OK] {
        return Err(format!("{seen:?}").into());
    }
    Ok(())
}

async fn start_server() -> Result<String, BoxError> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(|request: http::Request<_>| async move {
                let authorized = request.headers().get("authorization");
                let mut response = Response::new(Full::<Bytes>::default());
                if authorized.is_none_or(|value| value != "Bearer new") {
                    *response.status_mut() = StatusCode::UNAUTHORIZED;
                }
                Ok::<_, Infallible>(response)
            });
            let connection = hyper::server::conn::http1::Builder::new();
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok(url)
}
