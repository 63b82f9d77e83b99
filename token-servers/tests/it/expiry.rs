//! Minutes of requests with tokens that expire after 5 s.

use std::time::{Duration, Instant};

use tower::Layer;
use tower_bearer::RefreshingToken;

use crate::{
    Kind, Ledger, Server, for_both_servers, machine,
    traffic::{Traffic, http_client, stack},
};

/// When a token of 5 s is refreshed, without jitter. Its service ends 1 s later, and it expires 2 s later.
pub(crate) const REFRESH: Duration = Duration::from_secs(3);

/// How late a refresh may be. After that, the token's service has ended, and requests have to wait.
pub(crate) const LATE: Duration = Duration::from_secs(1);

/// How long a test of this kind runs: `TOKEN_SERVERS_SECONDS`, or long enough for a few refreshes.
pub(crate) fn duration() -> Duration {
    let seconds = std::env::var("TOKEN_SERVERS_SECONDS").map(|text| text.parse().unwrap());
    Duration::from_secs(seconds.unwrap_or(12))
}

/// Checks the number of token requests: at most one in 3 s, and at least one in 4 s, as if each were late.
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
