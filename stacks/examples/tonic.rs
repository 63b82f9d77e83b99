//! A gRPC client that tonic generated, over a channel with the layer:
//! `cargo run -p tower-bearer-stacks --example tonic`.
//!
//! The program prints what it does, checks each statement, and fails if a statement is not true.
#![allow(clippy::print_stdout)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tonic::{Code, transport::Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::{BoxError, ServiceBuilder};
use tower_bearer::{BearerAuthLayer, BearerToken, RefreshingToken, TokenSource};
use tower_bearer_stacks::health;

const ALL: HealthCheckRequest = HealthCheckRequest {
    service: String::new(),
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let server = health::start("token-1").await?;
    let fetches = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&fetches);
    // A real program asks its identity provider.
    let fetch = move || {
        let number = counter.fetch_add(1, SeqCst) + 1;
        async move { BearerToken::new(format!("token-{number}")) }
    };
    let source = RefreshingToken::builder(fetch)
        // By default, the third fetch that replaces a rejected token waits for ten seconds, and later
        // fetches wait longer. This server never rejects a good token, so no fetch has to wait.
        .rejection_backoff(Duration::ZERO, Duration::ZERO)
        .build();

    let channel = Endpoint::from_shared(server.url().to_owned())?.connect_lazy();
    let stack = ServiceBuilder::new()
        .layer(
            BearerAuthLayer::new(source.clone())
                .for_origin(server.url())?
                .grpc_status(),
        )
        .service(channel);
    // With `new`, the requests would name no host, and the layer would send them without the token.
    let mut client = HealthClient::with_origin(stack, server.url().parse()?);

    println!("1. The server at {} takes the first token.", server.url());
    client.check(ALL).await?;
    check(server.seen() == ["Bearer token-1"], "the call carries it")?;

    println!("2. The server takes the second token only.");
    server.accept("token-2");
    let refused = client.check(ALL).await.err().map(|status| status.code());
    let unauthenticated = Some(Code::Unauthenticated);
    check(refused == unauthenticated, "the server rejects it")?;
    // The bodies of tonic cannot be sent again, so the caller makes the call again.
    client.check(ALL).await?;
    check(fetches.load(SeqCst) == 2, "the next call fetches another")?;

    println!("3. A stream breaks off, with a status that the layer cannot see.");
    let sent = source.token().await?;
    let mut updates = client.watch(ALL).await?.into_inner();
    check(updates.message().await?.is_some(), "a message comes")?;
    let broken = updates.message().await.err().map(|status| status.code());
    check(broken == unauthenticated, "then UNAUTHENTICATED")?;
    check(!sent.is_rejected(), "the layer did not mark the token")?;
    sent.reject();
    server.accept("token-3");
    client.check(ALL).await?;
    check(fetches.load(SeqCst) == 3, "the marked token is replaced")?;

    println!("All checks passed.");
    Ok(())
}

fn check(holds: bool, what: &str) -> Result<(), BoxError> {
    if !holds {
        return Err(format!("does not hold: {what}").into());
    }
    println!("   ok: {what}");
    Ok(())
}
