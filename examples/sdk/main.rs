//! An API client, such as an SDK. Its users choose where the token comes from:
//! `cargo run --example sdk`.
//!
//! The authors of the SDK write the module `acme`, and a user of the SDK writes `main`. No type of
//! the SDK has a parameter: the source is an `Arc<dyn TokenSource>`, and the stack is in a
//! `BoxCloneSyncService`. This costs a request two allocations: its future, and the clone of the
//! stack. `examples/retry.rs` shows how a rejected request is sent again at once.
#![allow(clippy::print_stdout)]

mod acme;
#[path = "../support/mod.rs"]
mod support;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use http::Request;
use hyper::body::Incoming;
use support::{check, serve};
use tower_bearer::{
    BearerToken, BoxError, FileToken, RefreshingToken, RotatingToken, SourceErrorKind, TokenSource,
    source_fn,
};

/// A program that uses the SDK. The client is a plain field.
struct App {
    api: acme::Client,
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let url = serve(answer).await?;

    println!("1. The source is a setting, read at run time.");
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("token");
    std::fs::write(&path, "good-of-a-file\n")?;
    let file = format!("file:{}", path.display());
    for (setting, user) in [
        ("text:good-of-a-text", "good-of-a-text"),
        (&file, "good-of-a-file"),
    ] {
        let app = App {
            api: acme::Client::new(&url, source(setting)?)?,
        };
        // A call can be made in any task.
        let answer = tokio::spawn(async move { app.api.whoami().await });
        check(answer.await?? == user, user)?;
    }
    let answer = acme::Client::new(&url, source("login")?)?.whoami().await;
    let kind = match answer {
        Err(acme::Error::NoToken(error)) => Some(error.kind()),
        _ => None,
    };
    check(
        kind == Some(SourceErrorKind::Failed),
        "an error that says why",
    )?;

    println!("2. A user who keeps the source can push a token to all clones.");
    let source = RotatingToken::new(BearerToken::new("good-before")?);
    let api = acme::Client::new(&url, source.clone())?;
    let clone = api.clone();
    check(clone.whoami().await? == "good-before", "the first token")?;
    source.rotate(BearerToken::new("good-after")?);
    check(clone.whoami().await? == "good-after", "the second token")?;

    println!("3. A token that the server has revoked is replaced for the next call.");
    let fetches = AtomicUsize::new(0);
    let source = RefreshingToken::new(move || {
        let revoked = fetches.fetch_add(1, SeqCst) == 0;
        let name = if revoked { "revoked" } else { "good-again" };
        async move { BearerToken::new(name) }
    });
    let api = acme::Client::new(&url, source)?;
    let rejected = matches!(api.whoami().await, Err(acme::Error::Unauthorized));
    check(rejected, "an error that says so")?;
    check(api.whoami().await? == "good-again", "and another token")?;

    println!("All checks passed.");
    Ok(())
}

/// Makes a source, of a type that is known only at run time.
fn source(setting: &str) -> Result<Arc<dyn TokenSource>, BoxError> {
    Ok(match setting.split_once(':') {
        Some(("text", text)) => Arc::new(BearerToken::new(text)?),
        Some(("file", path)) => Arc::new(FileToken::new(path)?),
        _ => Arc::new(source_fn(|| async { Err("nobody is logged in") })),
    })
}

/// Accepts each token that begins with `good`. A real server should send no token back.
fn answer(_: &Request<Incoming>, token: Option<&str>) -> (u16, String) {
    let token = token.unwrap_or_default();
    let status = if token.starts_with("good") { 200 } else { 401 };
    (status, token.to_owned())
}
