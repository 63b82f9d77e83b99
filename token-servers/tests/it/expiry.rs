//! Tokens that last for 5 s, for two minutes.

use std::time::{Duration, Instant};

use tower::Layer;
use tower_bearer::RefreshingToken;

use crate::{
    Kind, Ledger, Server, for_both_servers, machine,
    traffic::{Traffic, http_client, stack},
};

/// With tokens of 5 s and no jitter: service ends 1 s before a token does, and a refresh begins 1 s before that.
pub(crate) const REFRESH: Duration = Duration::from_secs(3);

/// What a machine may be late before a request fails: then the token's service has ended.
pub(crate) const LATE: Duration = Duration::from_secs(1);

/// How long the tests of this kind last: `TOKEN_SERVERS_SECONDS`, or a few refreshes.
pub(crate) fn duration() -> Duration {
    let seconds = std::env::var("TOKEN_SERVERS_SECONDS").map(|text| text.parse().unwrap());
    Duration::from_secs(seconds.unwrap_or(12))
}

/// At most as many token requests as fit into that time, and not fewer than there are if each is late.
pub(crate) fn assert_count(count: usize, lasted: Duration) {
    let most = 1 + usize::try_from(lasted.as_millis() / 2_980).unwrap();
    let least = 1 + usize::try_from(lasted.as_millis() / 4_000).unwrap();
    assert!((least..=most).contains(&count), "{count} in {lasted:?}");
}

async fn tokens_that_expire_are_replaced_in_time_by_one_request_each(kind: Kind) {
    let server = Server::start(kind).await;
    let ledger = Ledger::default();
    let fetch = machine(&server, "brief machine").over(ledger.layer(http_client()));
    let source = RefreshingToken::builder(fetch)
        .refresh_jitter(0.0)
        .startup_jitter(0.0)
        .build();
    let begun = Instant::now();
    let traffic = Traffic::start(&stack(source), &server.url("/api"));
    tokio::time::sleep(duration()).await;
    let outcomes = traffic.stop().await;
    let stopped = Instant::now();

    outcomes.assert_failures_within(None);
    ledger.assert_one_request_each(REFRESH, LATE, stopped);
    assert_count(ledger.len(), stopped - begun);
    assert_eq!(server.token_requests().await, ledger.len());
    println!(
        "{kind:?}: {} requests, {} for tokens",
        outcomes.0.len(),
        ledger.len()
    );
}
for_both_servers!(tokens_that_expire_are_replaced_in_time_by_one_request_each);
