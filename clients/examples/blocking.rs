//! A source without Tower and without a runtime: ureq, against a server that the program starts on loopback.
//!
//! The source is all that a blocking client needs of this crate. `block_on` waits for a token. If the source
//! has its token at hand, as `EnvToken` does, `now_or_never` is enough.
//!
//! `cargo run --example blocking`
#![allow(clippy::print_stdout)]

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicU32, Ordering::SeqCst},
    thread,
};

use futures::{FutureExt, executor::block_on};
use tower_bearer::{
    BearerToken, BoxError, CallerDriven, InvalidToken, RefreshingToken, StaticToken, TokenSource,
};
use ureq::Agent;

static FETCHED: AtomicU32 = AtomicU32::new(0);

/// Yours: ask the token endpoint. This function may block, since nothing else runs on the thread.
async fn fetch() -> Result<BearerToken, InvalidToken> {
    BearerToken::new(format!("token-{}", FETCHED.fetch_add(1, SeqCst) + 1))
}

/// Sends a GET with the current token, and again with another token if the server rejects the first.
fn get(agent: &Agent, source: &dyn TokenSource, url: &str) -> Result<u16, BoxError> {
    let send = |token: &BearerToken| {
        // Marked sensitive, and wiped when ureq drops it.
        let request = agent.get(url).header("authorization", token.header_value());
        request.call().map(|response| response.status().as_u16())
    };
    let token = block_on(source.token())?;
    let status = send(&token)?;
    if status != 401 {
        return Ok(status);
    }
    // The layer would do this. The source then fetches another token.
    token.reject();
    Ok(send(&block_on(source.token())?)?)
}

fn main() -> Result<(), BoxError> {
    let url = start_server()?;
    // By default a status such as 401 is an error of ureq. A redirect must not take the token along.
    let agent: Agent = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .build()
        .into();
    let source = RefreshingToken::builder(fetch)
        .runtime(CallerDriven::new())
        .build();
    // The server has revoked the first token.
    for expected in [200, 200] {
        let status = get(&agent, &source, &url)?;
        println!(
            "GET {url}: {status}, after {} fetches",
            FETCHED.load(SeqCst)
        );
        if status != expected || FETCHED.load(SeqCst) != 2 {
            return Err(format!("expected {expected} and two fetches").into());
        }
    }

    let at_hand = StaticToken::new(BearerToken::new("token-2")?);
    let token = at_hand.token().now_or_never().ok_or("it has to wait")??;
    println!("A token at hand needs no executor: {token:?}");
    Ok(())
}

fn start_server() -> Result<String, BoxError> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let url = format!("http://{}/", listener.local_addr()?);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream));
        }
    });
    Ok(url)
}

/// Takes `token-2` only. Answers one request for each connection.
fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut status = "401 Unauthorized";
    for line in BufReader::new(stream.try_clone()?).lines() {
        match line?.as_str() {
            "" => break,
            "authorization: Bearer token-2" => status = "200 OK",
            _ => {}
        }
    }
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )
}
