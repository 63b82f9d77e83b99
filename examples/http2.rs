//! hyper 1 under the layer, over HTTP/1.1 and HTTP/2, with a pool and with a single connection:
//! `cargo run --example http2`.
//!
//! Without TLS the client speaks HTTP/2 from the first byte on ("prior knowledge"). With TLS, ALPN
//! would choose the version. HPACK keeps the token in no table, since the header value of the token
//! is marked sensitive.
#![allow(clippy::print_stdout)]

mod support;

use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;
use futures::future::try_join_all;
use http::{Request, Response, Version};
use http_body_util::Empty;
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use support::{CONNECTIONS, check, get, serve};
use tokio::net::TcpStream;
use tower::{Layer, Service};
use tower_bearer::{BearerAuthLayer, BearerToken, BoxError, RotatingToken};

const REQUESTS: usize = 50;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let url = serve(answer).await?;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        println!("{version:?}, {REQUESTS} requests at a time, through a pool");
        let mut client = Client::builder(TokioExecutor::new());
        let pool = client.http2_only(version == Version::HTTP_2).build_http();
        CONNECTIONS.store(0, SeqCst);
        rotate_between_requests(pool, &url, version).await?;
        let connections = CONNECTIONS.load(SeqCst);
        println!("   connections: {connections}");
        if version == Version::HTTP_2 {
            check(connections == 1, "all requests share a connection")?;
        }
    }

    println!("HTTP/2, through a connection that the program opened");
    let stream = TcpStream::connect(url.trim_start_matches("http://")).await?;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    // A connection over HTTP/1 is not `Clone`. The documentation of `BearerAuth` shows what to do.
    let inner = tower::service_fn(move |request| sender.clone().send_request(request));
    rotate_between_requests(inner, &url, Version::HTTP_2).await?;

    println!("All checks passed.");
    Ok(())
}

/// Sends requests with a token, then with another token, and finally with a token that the server
/// rejects.
async fn rotate_between_requests<S>(http: S, url: &str, version: Version) -> Result<(), BoxError>
where
    S: Service<Request<Empty<Bytes>>, Response = Response<Incoming>, Error: Into<BoxError>> + Clone,
{
    let source = RotatingToken::empty();
    let client = BearerAuthLayer::new(source.clone()).layer(http);
    for name in ["good-1", "good-2"] {
        source.rotate(BearerToken::new(name)?);
        // The first request opens the connection that the other requests may share.
        let mut answers = vec![get(client.clone(), url).await?];
        answers.extend(try_join_all((1..REQUESTS).map(|_| get(client.clone(), url))).await?);
        let expected = format!("200: {name} over {version:?}");
        let all = answers.iter().all(|answer| *answer == expected);
        check(all, &format!("each request carries {name}"))?;
    }

    let bad = BearerToken::new("bad")?;
    source.rotate(bad.clone());
    let said = get(client, url).await?;
    check(said.starts_with("401"), "a bad token gets 401")?;
    check(bad.is_rejected(), "the 401 marks the bad token")
}

/// Answers 200 to a good token, with the token's text. A real server should send no token back.
fn answer(request: &Request<Incoming>, token: Option<&str>) -> (u16, String) {
    let token = token.unwrap_or_default();
    let status = if token.starts_with("good-") { 200 } else { 401 };
    (status, format!("{token} over {:?}", request.version()))
}
