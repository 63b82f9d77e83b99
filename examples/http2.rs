//! hyper 1 under the layer, over HTTP/1.1 and over HTTP/2, with its pool and with one connection:
//! `cargo run --example http2`.
//!
//! The servers are on loopback, without TLS, so the client speaks HTTP/2 from the first byte on
//! ("prior knowledge"). With TLS, ALPN would choose. On the wire, the token's field is marked as one
//! that no table of HPACK may keep; the tests look at that.
#![allow(clippy::print_stdout)]

use std::{
    convert::Infallible,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use bytes::Bytes;
use futures::future::try_join_all;
use http::{Request, Response, StatusCode, Uri, Version, header::AUTHORIZATION};
use http_body_util::Empty;
use hyper::{body::Incoming, client::conn::http2, server::conn, service::service_fn};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use tokio::net::{TcpListener, TcpStream};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_bearer::{BearerAuthLayer, BearerToken, BoxError, RotatingToken};

type Body = Empty<Bytes>;

const REQUESTS: usize = 50;
static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        println!("{version:?}, {REQUESTS} requests at a time, through a pool");
        let url = start_server(version).await?;
        let mut client = Client::builder(TokioExecutor::new());
        let pool = client.http2_only(version == Version::HTTP_2).build_http();
        CONNECTIONS.store(0, SeqCst);
        rotate_between_requests(pool, &url).await?;
        let connections = CONNECTIONS.load(SeqCst);
        println!("   connections: {connections}");
        if version == Version::HTTP_2 {
            check(connections == 1, "all of them share a connection")?;
        }
    }

    println!("HTTP/2, through one connection that the program opened");
    let url = start_server(Version::HTTP_2).await?;
    let authority = url.authority().ok_or("no authority")?.as_str();
    let stream = TokioIo::new(TcpStream::connect(authority).await?);
    let builder = http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.handshake(stream).await?;
    tokio::spawn(connection);
    // One over HTTP/1 is not `Clone`: `ServiceBuilder::buffer` goes between it and the layer.
    let inner = tower::service_fn(move |request| sender.clone().send_request(request));
    rotate_between_requests(inner, &url).await?;

    println!("All of it held.");
    Ok(())
}

/// Sends with one token and then with another, and last with one that the server does not take.
async fn rotate_between_requests<S>(http: S, url: &Uri) -> Result<(), BoxError>
where
    S: Service<Request<Body>, Response = Response<Incoming>, Error: Into<BoxError>> + Clone,
{
    let source = RotatingToken::empty();
    let client = ServiceBuilder::new()
        .layer(BearerAuthLayer::new(source.clone()))
        .service(http);
    for name in ["good-1", "good-2"] {
        source.rotate(BearerToken::new(name)?);
        // The first opens the connection that the others may share.
        let mut answers = vec![send(client.clone(), url).await?];
        let others = (1..REQUESTS).map(|_| send(client.clone(), url));
        answers.extend(try_join_all(others).await?);
        let expected = (StatusCode::OK, format!("Bearer {name}"));
        let all = answers.iter().all(|answer| *answer == expected);
        check(all, &format!("each carries {name}"))?;
    }

    let bad = BearerToken::new("bad")?;
    source.rotate(bad.clone());
    let (status, _) = send(client, url).await?;
    check(status == StatusCode::UNAUTHORIZED, "a bad token gets 401")?;
    check(bad.is_rejected(), "which marks it")
}

/// The status, and which `Authorization` came to the server.
async fn send<S>(client: S, url: &Uri) -> Result<(StatusCode, String), BoxError>
where
    S: Service<Request<Body>, Response = Response<Incoming>, Error = BoxError>,
{
    let request = Request::get(url).body(Body::new())?;
    let response = client.oneshot(request).await?;
    let seen = response.headers()["x-seen"].to_str()?.to_owned();
    Ok((response.status(), seen))
}

fn check(holds: bool, what: &str) -> Result<(), BoxError> {
    if !holds {
        return Err(format!("does not hold: {what}").into());
    }
    println!("   ok: {what}");
    Ok(())
}

async fn start_server(version: Version) -> Result<Uri, BoxError> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}/", listener.local_addr()?).parse()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            CONNECTIONS.fetch_add(1, SeqCst);
            let stream = TokioIo::new(stream);
            let service = service_fn(move |request| {
                std::future::ready(Ok::<_, Infallible>(answer(version, &request)))
            });
            if version == Version::HTTP_2 {
                let http2 = conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(http2.serve_connection(stream, service));
            } else {
                tokio::spawn(conn::http1::Builder::new().serve_connection(stream, service));
            }
        }
    });
    Ok(url)
}

/// 200 to a good token over the right version. No server should send a token back.
fn answer(version: Version, request: &Request<Incoming>) -> Response<Body> {
    let mut response = Response::new(Body::new());
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    if let Some(seen) = request.headers().get(AUTHORIZATION) {
        if seen.as_bytes().starts_with(b"Bearer good-") && request.version() == version {
            *response.status_mut() = StatusCode::OK;
        }
        response.headers_mut().insert("x-seen", seen.clone());
    }
    response
}
