//! Plain reqwest below the layer and Tower's `Retry`, against a server that the program starts on loopback.
//!
//! `cargo run --example reqwest_tower --features reqwest-middleware,retry`
#![allow(clippy::print_stdout)]

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn as server_fn};
use hyper_util::rt::TokioIo;
use reqwest::{Body, Client, redirect::Policy};
use tokio::net::TcpListener;
use tower::{Service, ServiceBuilder, ServiceExt, retry::RetryLayer, service_fn};
use tower_bearer::{BearerAuthLayer, BearerToken, BoxError, RefreshingToken, RetryRejected};

static FETCHED: AtomicU32 = AtomicU32::new(0);

/// Makes a Tower service of `http::Request` from reqwest's `Client`, which is a service of reqwest's own
/// `Request`.
fn http_service(
    client: Client,
) -> impl Service<Request<Bytes>, Response = Response<Body>, Error = reqwest::Error, Future: Send> + Clone
{
    service_fn(move |request: Request<Bytes>| {
        let client = client.clone();
        async move {
            let response = client.execute(request.try_into()?).await?;
            Ok(Response::from(response))
        }
    })
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let url = start_server().await?;
    let source = RefreshingToken::new(|| async {
        BearerToken::new(format!("token-{}", FETCHED.fetch_add(1, SeqCst) + 1))
    });
    // reqwest follows redirects below the layer, so a redirect could take the token along. A variable in the
    // environment may name a proxy, which sees every request over http.
    let builder = Client::builder().redirect(Policy::none()).no_proxy();
    let client = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryRejected::new()))
        .layer(
            BearerAuthLayer::new(source)
                .for_origin(&url)?
                .retry_rejected(),
        )
        .service(http_service(builder.build()?));

    let request = Request::post(&url).body(Bytes::from("body"))?;
    let response = client.oneshot(request).await?;
    let (status, fetched) = (response.status(), FETCHED.load(SeqCst));
    println!("POST {url}: {status}, after {fetched} fetches");
    if status != 200 || fetched != 2 {
        return Err("expected 200 with the second token".into());
    }
    Ok(())
}

/// Takes `token-2` only.
async fn start_server() -> Result<String, BoxError> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = server_fn(|request: Request<Incoming>| async move {
                let token = request.headers().get("authorization");
                let good = token.is_some_and(|token| token == "Bearer token-2");
                let status = if good { 200 } else { 401 };
                Response::builder()
                    .status(status)
                    .body(Full::<Bytes>::default())
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok(url)
}
