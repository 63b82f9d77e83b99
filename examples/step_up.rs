//! A registry wants a scope for each repository, and the source adds one scope after another to its token:
//! `cargo run --example step_up --features retry`.
#![allow(clippy::print_stdout)]

mod support;

use std::{
    collections::BTreeSet,
    future::{Ready, ready},
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use http::{Request, Response, StatusCode, header::WWW_AUTHENTICATE};
use support::check;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, retry::RetryLayer, service_fn};
use tower_bearer::{BearerAuthLayer, BearerToken, InvalidToken, RefreshingToken, RetryRejected};

static FETCHED: AtomicUsize = AtomicUsize::new(0);
static SERVED: AtomicUsize = AtomicUsize::new(0);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // A later token has the scopes of the earlier tokens as well. Otherwise two repositories would take
    // turns: the token for one repository would always be rejected by the other.
    let mut scopes = BTreeSet::new();
    let source = RefreshingToken::renewing_builder(move |previous: Option<BearerToken>| {
        let rejection = previous.and_then(|token| token.rejection());
        scopes.extend(rejection.and_then(|rejection| rejection.parameter("scope")));
        fetch(scopes.clone())
    })
    // Here a rejection is how a program learns a scope, so the next fetch need not wait 10 seconds.
    .rejection_backoff(Duration::from_millis(1), Duration::from_secs(1))
    .build();
    let layer = BearerAuthLayer::new(source)
        .for_origin("https://registry.example")?
        // The default rule keeps a token whose scope is too small.
        .rejected_when(|status, _, _| status == StatusCode::UNAUTHORIZED)
        .retry_rejected();
    let mut client = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryRejected::new()))
        .layer(layer)
        .service(service_fn(registry));

    for (repository, fetched, served) in [
        ("alpine", 2, 2), // a token without a scope, and another token
        ("debian", 3, 4),
        ("alpine", 3, 5), // the same token serves both
        ("debian", 3, 6),
    ] {
        let request = Request::get(format!("https://registry.example/{repository}")).body(())?;
        let status = client.ready().await?.call(request).await?.status();
        let happened = (status.as_u16(), FETCHED.load(SeqCst), SERVED.load(SeqCst));
        let what = format!("{repository}: {fetched} fetches, {served} requests so far");
        check(happened == (200, fetched, served), &what)?;
    }
    Ok(())
}

/// The token endpoint. The text of a token lists the scopes of the token.
fn fetch(scopes: BTreeSet<String>) -> Ready<Result<BearerToken, InvalidToken>> {
    FETCHED.fetch_add(1, SeqCst);
    println!("   a token is fetched: {scopes:?}");
    let scopes = Vec::from_iter(scopes).join("+").replace(':', "/");
    ready(BearerToken::new(format!("token+{scopes}")))
}

async fn registry(request: Request<()>) -> Result<Response<()>, BoxError> {
    SERVED.fetch_add(1, SeqCst);
    let scope = format!("repository:{}:pull", &request.uri().path()[1..]);
    let sent = request.headers()["authorization"].to_str()?;
    let mut response = Response::new(());
    if !sent.contains(&scope.replace(':', "/")) {
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        let challenge = format!(
            r#"Bearer realm="https://auth.example/token",service="registry",scope="{scope}",error="insufficient_scope""#
        );
        response
            .headers_mut()
            .insert(WWW_AUTHENTICATE, challenge.parse()?);
    }
    Ok(response)
}
