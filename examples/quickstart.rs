//! The whole crate in a single run, against a server that the program starts on loopback:
//! `cargo run --example quickstart`.
//!
//! The program prints what it does, checks each statement, and fails if a statement is not true.
#![allow(clippy::print_stdout)]

mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use support::{Workers, check, get, serve};
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_bearer::{BearerAuthLayer, BearerToken, BoxError, Error, ErrorKind, RotatingToken};

/// The tokens that the server calls key 1 and key 2, and whether it accepts each key. A real
/// client gets its token from elsewhere.
const TOKENS: [&str; 2] = ["first-demo-token", "second-demo-token"];
static ACCEPTED: [AtomicBool; 2] = [AtomicBool::new(true), AtomicBool::new(false)];
/// How many connections the client has tried to open.
static DIALLED: AtomicUsize = AtomicUsize::new(0);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let url = serve(answer).await?;
    let connector = HttpConnector::new().map_request(|uri: Uri| {
        DIALLED.fetch_add(1, SeqCst);
        uri
    });
    let http = Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(connector);

    println!("1. A server at {url}/ wants a bearer token.");
    let said = get(http.clone(), &url).await?;
    check(said == "401: no token", "a plain client gets 401")?;

    println!("2. The same client under a BearerAuthLayer, with its token from a RotatingToken.");
    let [first, second] = [BearerToken::new(TOKENS[0])?, BearerToken::new(TOKENS[1])?];
    let source = RotatingToken::new(first.clone());
    let layer = BearerAuthLayer::new(source.clone());
    let client = ServiceBuilder::new().layer(layer).service(http.clone());
    let said = get(client.clone(), &url).await?;
    check(said == "200: key 1 of 1", "its requests carry the token")?;
    println!("   {source:?}");
    let shown = format!("{source:?}").contains(TOKENS[0]);
    check(!shown, "printing the source shows no token")?;

    println!("3. 8 workers send without a pause while the token is replaced.");
    let mut workers = Workers::start(8, &client, &url);
    let mut sent = workers.until_all_got("200: key 1 of 1").await?;
    println!("   all use key 1; the server now accepts key 2 as well; the client rotates");
    ACCEPTED[1].store(true, SeqCst);
    source.rotate(second.clone());
    sent += workers.until_all_got("200: key 2 of 2").await?;
    println!("   all use key 2; the server stops accepting key 1");
    ACCEPTED[0].store(false, SeqCst);
    sent += workers.until_all_got("200: key 2 of 1").await?;
    drop(workers);
    println!("   ok: {sent} requests, and none failed");

    println!("4. Someone still sends the old token.");
    let late = BearerAuthLayer::new(first.clone()).layer(http.clone());
    check(get(late, &url).await? == "401: not a valid token", "401")?;
    check(first.is_rejected(), "that token is marked as rejected")?;
    check(!second.is_rejected(), "the new token is not marked")?;

    println!("5. A request over plaintext http that would leave this machine.");
    let dialled = DIALLED.load(SeqCst);
    let error = get(client, "http://api.example.com/")
        .await
        .err()
        .ok_or("the request was sent")?;
    println!("   {error}");
    let kind = error.downcast_ref::<Error>().map(Error::kind);
    check(kind == Some(ErrorKind::InsecureTransport), "refused")?;
    check(dialled == DIALLED.load(SeqCst), "no connection was opened")?;

    println!("6. A layer for https://api.example.com only, and a request that goes elsewhere.");
    let layer = BearerAuthLayer::new(source).for_origin("https://api.example.com")?;
    let said = get(layer.layer(http), &url).await?;
    check(said == "401: no token", "it went out without the token")?;

    println!("All checks passed.");
    Ok(())
}

/// Answers 200 to an accepted token, with the number of its key and the number of accepted keys.
/// Answers 401 to any other request.
fn answer(_: &Request<Incoming>, token: Option<&str>) -> (u16, String) {
    let Some(token) = token else {
        return (401, "no token".into());
    };
    let keys: Vec<_> = (0..2).filter(|&key| ACCEPTED[key].load(SeqCst)).collect();
    match keys.iter().find(|&&key| token == TOKENS[key]) {
        Some(key) => (200, format!("key {} of {}", key + 1, keys.len())),
        None => (401, "not a valid token".into()),
    }
}
