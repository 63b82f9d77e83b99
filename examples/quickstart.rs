//! The whole crate in one run, against a server of its own on loopback:
//! `cargo run --example quickstart`.
//!
//! It prints what it does, checks what it says, and fails if anything does not hold.
#![allow(clippy::print_stdout)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use futures::{StreamExt, channel::mpsc};
use http::{
    Request, Response, Uri,
    header::{AUTHORIZATION, WWW_AUTHENTICATE},
};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tower::{Service, ServiceBuilder, ServiceExt, util::MapRequest};
use tower_bearer::{
    BearerAuth, BearerAuthLayer, BearerToken, BoxError, Error, ErrorKind, RotatingToken,
    StaticToken,
};

/// The server's keys, and which of them it accepts. A real client gets its token from elsewhere.
const TOKENS: [&str; 2] = ["first-demo-token", "second-demo-token"];
static ACCEPTED: [AtomicBool; 2] = [AtomicBool::new(true), AtomicBool::new(false)];

/// An HTTP client that counts the connections it is asked to open.
type Http = Client<MapRequest<HttpConnector, fn(Uri) -> Uri>, Empty<Bytes>>;
static DIALLED: AtomicUsize = AtomicUsize::new(0);

fn count(uri: Uri) -> Uri {
    DIALLED.fetch_add(1, SeqCst);
    uri
}

const WORKERS: usize = 8;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let url = start_server().await?;
    let connector = HttpConnector::new().map_request(count as fn(Uri) -> Uri);
    let http: Http = Client::builder(TokioExecutor::new()).build(connector);

    println!("1. A server at {url} wants a bearer token.");
    let said = get(http.clone(), &url).await?;
    check(said == "401: no token", "a plain client gets 401")?;

    println!("2. The same client under a BearerAuthLayer, with its token from a RotatingToken.");
    let first = BearerToken::new(TOKENS[0])?;
    let source = RotatingToken::new(first.clone());
    let client = ServiceBuilder::new()
        .layer(BearerAuthLayer::new(source.clone()))
        .service(http.clone());
    let said = get(client.clone(), &url).await?;
    check(said == "200: key 1 of 1", "its requests carry the token")?;
    println!("   {source:?}");
    let shown = format!("{source:?}").contains(TOKENS[0]);
    check(!shown, "printing the source shows no token")?;

    println!("3. {WORKERS} workers send without a pause while the token is replaced.");
    let second = BearerToken::new(TOKENS[1])?;
    let mut answers = keep_sending(&client, &url);
    let mut sent = until_all_got("200: key 1 of 1", &mut answers).await?;
    println!("   all use key 1; the server now accepts key 2, too; the client rotates");
    ACCEPTED[1].store(true, SeqCst);
    source.rotate(second.clone());
    sent += until_all_got("200: key 2 of 2", &mut answers).await?;
    println!("   all use key 2; the server stops accepting key 1");
    ACCEPTED[0].store(false, SeqCst);
    sent += until_all_got("200: key 2 of 1", &mut answers).await?;
    drop(answers);
    println!("   ok: {sent} requests, and none failed");

    println!("4. Someone still sends the old token.");
    let late = ServiceBuilder::new()
        .layer(BearerAuthLayer::new(StaticToken::new(first.clone())))
        .service(http.clone());
    let said = get(late, &url).await?;
    check(said == "401: not a valid token", "401")?;
    check(first.is_rejected(), "that token is marked as rejected")?;
    check(!second.is_rejected(), "the new one is not")?;

    println!("5. A request over plaintext http that would leave this machine.");
    let dialled = DIALLED.load(SeqCst);
    let outcome = get(client, "http://api.example.com/").await;
    let error = outcome.err().ok_or("the request was sent")?;
    println!("   {error}");
    let kind = error.downcast_ref::<Error>().map(Error::kind);
    check(kind == Some(ErrorKind::InsecureTransport), "refused")?;
    check(dialled == DIALLED.load(SeqCst), "no connection was opened")?;

    println!("6. A layer for https://api.example.com only, and a request that goes elsewhere.");
    let layer = BearerAuthLayer::new(source).for_origin("https://api.example.com")?;
    let scoped = ServiceBuilder::new().layer(layer).service(http);
    let said = get(scoped, &url).await?;
    check(said == "401: no token", "it went out without the token")?;

    println!("All of it held.");
    Ok(())
}

fn check(holds: bool, what: &str) -> Result<(), BoxError> {
    if !holds {
        return Err(format!("does not hold: {what}").into());
    }
    println!("   ok: {what}");
    Ok(())
}

/// One GET: the status and the text that came back.
async fn get<S>(client: S, url: &str) -> Result<String, BoxError>
where
    S: Service<Request<Empty<Bytes>>, Response = Response<Incoming>, Error: Into<BoxError>>,
{
    let request = Request::get(url).body(Empty::new())?;
    let response = client.oneshot(request).await.map_err(Into::into)?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await?.to_bytes();
    Ok(format!("{status}: {}", String::from_utf8(body.into())?))
}

/// A worker's number, and how its request ended.
type Answers = mpsc::UnboundedReceiver<(usize, Result<String, BoxError>)>;

/// Starts the workers. They stop when the receiver is dropped.
fn keep_sending(client: &BearerAuth<Http, RotatingToken>, url: &str) -> Answers {
    let (report, answers) = mpsc::unbounded();
    for worker in 0..WORKERS {
        let (client, url, report) = (client.clone(), url.to_owned(), report.clone());
        tokio::spawn(async move {
            while !report.is_closed() {
                let said = get(client.clone(), &url).await;
                let _ = report.unbounded_send((worker, said));
            }
        });
    }
    answers
}

/// Waits until each worker got the answer `wanted`. Fails if any request was refused.
async fn until_all_got(wanted: &str, answers: &mut Answers) -> Result<usize, BoxError> {
    let (mut got, mut requests) = ([false; WORKERS], 0);
    while got.contains(&false) {
        let (worker, said) = answers.next().await.ok_or("the workers are gone")?;
        match said? {
            said if said.starts_with("200") => got[worker] |= said == wanted,
            said => return Err(format!("refused during the rotation: {said}").into()),
        }
        requests += 1;
    }
    Ok(requests)
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

/// 200 to a token that is accepted, with which key it was and how many are accepted; else 401.
fn answer(request: &Request<Incoming>) -> http::Result<Response<String>> {
    let sent = request.headers().get(AUTHORIZATION);
    let accepted = |key: &usize| ACCEPTED[*key].load(SeqCst);
    let is_sent =
        |key: &usize| sent.is_some_and(|sent| sent == &format!("Bearer {}", TOKENS[*key]));
    if let Some(key) = (0..2).filter(accepted).find(is_sent) {
        let keys = (0..2).filter(accepted).count();
        return Ok(Response::new(format!("key {} of {keys}", key + 1)));
    }
    let refusal = Response::builder()
        .status(401)
        .header(WWW_AUTHENTICATE, "Bearer");
    refusal.body(sent.map_or("no token", |_| "not a valid token").to_owned())
}
