//! Refresh tokens that the server rotates: each may be used once.

use std::{
    convert::Infallible,
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Instant,
};

use tower::Layer;
use tower_bearer::{RefreshingToken, TokenRequest};

use crate::{
    Kind, Ledger, SECRET, Server,
    expiry::{LATE, REFRESH, assert_count, duration},
    for_both_servers,
    traffic::{Traffic, http_client, stack},
};

const CLIENT: &str = "brief user";

fn user(server: &Server, refresh_token: String) -> TokenRequest {
    TokenRequest::refresh_token(&server.url("/token"), CLIENT, refresh_token)
        .unwrap()
        .client_secret(SECRET)
}

async fn rotated_refresh_tokens_are_spent_once_each(kind: Kind) {
    let server = Server::start(kind).await;
    let ledger = Ledger::default();
    let rotations = Arc::new(AtomicUsize::new(0));
    let counter = rotations.clone();
    let fetch = user(&server, server.sign_in(CLIENT).await)
        .on_rotation(move |_| {
            counter.fetch_add(1, SeqCst);
            ready(Ok::<_, Infallible>(()))
        })
        .over(ledger.layer(http_client()));
    let source = RefreshingToken::builder(fetch)
        .refresh_jitter(0.0)
        .startup_jitter(0.0)
        .build();
    let begun = Instant::now();
    let traffic = Traffic::start(&stack(source), &server.url("/api"));
    tokio::time::sleep(duration()).await;
    let outcomes = traffic.stop().await;
    let stopped = Instant::now();

    // Both servers revoke everything if a refresh token is used twice, so no refresh token was.
    outcomes.assert_failures_within(None);
    ledger.assert_one_request_each(REFRESH, LATE, stopped);
    assert_count(ledger.len(), stopped - begun);
    assert_eq!(server.token_requests().await, ledger.len());
    assert_eq!(rotations.load(SeqCst), ledger.len());
    println!(
        "{kind:?}: {} requests, {} for tokens",
        outcomes.0.len(),
        ledger.len()
    );
}
for_both_servers!(rotated_refresh_tokens_are_spent_once_each);

async fn a_stolen_refresh_token_ends_in_one_permanent_error(kind: Kind) {
    let server = Server::start(kind).await;
    let ledger = Ledger::default();
    let refresh_token = server.sign_in(CLIENT).await;
    let request = user(&server, refresh_token.clone());
    let source = RefreshingToken::new(request.over(ledger.layer(http_client())));
    let traffic = Traffic::start(&stack(source), &server.url("/api"));
    traffic.succeed(20).await;

    let from = Instant::now();
    let form = [
        ("grant_type", "refresh_token"),
        ("refresh_token", &*refresh_token),
    ];
    let thief = server.post("/token", CLIENT, &form).await;
    assert_eq!(thief.status(), 400);
    // There is no other token: the layer sends the rejected token until its service ends, after 4 s.
    traffic.refuse(100).await;
    let outcomes = traffic.stop().await;

    outcomes.assert_failures_within(Some((from, Instant::now())));
    let text = outcomes.only_refusal();
    assert!(text.contains("invalid_grant"), "{text}");
    println!("{kind:?}: {text}");
    assert_eq!(ledger.len(), 1 + ledger.permanent_failures());
    // The ledger lacks the thief's request.
    assert_eq!(server.token_requests().await, ledger.len() + 1);
}
for_both_servers!(a_stolen_refresh_token_ends_in_one_permanent_error);
