//! A server that is killed, and started again with an empty memory.

use std::time::{Duration, Instant};

use tower::Layer;
use tower_bearer::RefreshingToken;

use crate::{
    Kind, Ledger, Server,
    expiry::{LATE, REFRESH},
    for_both_servers, machine,
    traffic::{Traffic, http_client, retrying_stack},
};

async fn a_restart_costs_no_request_outside_of_it_and_one_token_request(kind: Kind) {
    let mut server = Server::start(kind).await;
    let ledger = Ledger::default();
    let fetch = machine(&server, "long machine").over(ledger.layer(http_client()));
    let source = RefreshingToken::new(fetch);
    let traffic = Traffic::start(&retrying_stack(source), &server.url("/api"));
    traffic.succeed(50).await;
    let from = Instant::now();
    server.kill().await;
    traffic.fail(20).await;
    server.restart().await;
    let to = Instant::now();
    traffic.succeed(50).await;
    let outcomes = traffic.stop().await;

    // The server does not know the token any more: a 401, which the retry answers.
    outcomes.assert_failures_within(Some((from, to)));
    assert!(outcomes.failures() >= 20);
    assert_eq!(ledger.len(), 2);
    assert_eq!(server.token_requests().await, 1);
}
for_both_servers!(a_restart_costs_no_request_outside_of_it_and_one_token_request);

async fn an_outage_that_outlives_the_token_ends_with_the_first_token_after_it(kind: Kind) {
    let mut server = Server::start(kind).await;
    let ledger = Ledger::default();
    let fetch = machine(&server, "brief machine").over(ledger.layer(http_client()));
    let source = RefreshingToken::builder(fetch)
        .refresh_jitter(0.0)
        .startup_jitter(0.0)
        .build();
    let traffic = Traffic::start(&retrying_stack(source), &server.url("/api"));
    traffic.succeed(50).await;
    let before = ledger.len();
    let from = Instant::now();
    server.kill().await;
    // The token's service ends after 4 s.
    tokio::time::sleep(Duration::from_secs(6)).await;
    server.restart().await;
    // The source waits for at most 5 s between two tries (the jitter is full).
    traffic.succeed(1).await;
    let to = Instant::now();
    // Long enough for two more refreshes.
    tokio::time::sleep(Duration::from_secs(7)).await;
    let outcomes = traffic.stop().await;
    let stopped = Instant::now();

    outcomes.assert_failures_within(Some((from, to)));
    // The number of failed tries is random, since the jitter is full. All other tries brought a token.
    let entries = ledger.entries();
    let failed = entries.iter().filter(|entry| entry.answer.is_none());
    let failed = failed.count();
    assert!(failed >= 1, "none was tried in 6 s");
    let after = Ledger::of(&entries[before + failed..]);
    after.assert_one_request_each(REFRESH, LATE, stopped);
    assert_eq!(server.token_requests().await, after.len());
    println!(
        "{kind:?}: {failed} tries in the outage, {} after it",
        after.len()
    );
}
for_both_servers!(an_outage_that_outlives_the_token_ends_with_the_first_token_after_it);
