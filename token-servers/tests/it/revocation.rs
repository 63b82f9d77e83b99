//! A server that revokes a token in the middle of traffic (RFC 7009).

use tower::Layer;
use tower_bearer::{RefreshingToken, TokenSource};

use crate::{
    Kind, Ledger, Server, for_both_servers, machine,
    traffic::{Traffic, http_client, retrying_stack, stack},
};

const CLIENT: &str = "long machine";

/// The token that requests carry now.
async fn text(source: &RefreshingToken) -> String {
    let value = source.token().await.unwrap().header_value();
    let text = value.to_str().unwrap().strip_prefix("Bearer ");
    text.unwrap().to_owned()
}

async fn a_revoked_token_costs_one_token_request_and_no_failure(kind: Kind) {
    let server = Server::start(kind).await;
    let ledger = Ledger::default();
    let source = RefreshingToken::new(machine(&server, CLIENT).over(ledger.layer(http_client())));
    let traffic = Traffic::start(&retrying_stack(source.clone()), &server.url("/api"));
    // The first two replacements are immediate.
    for revocation in 1..=2 {
        traffic.succeed(50).await;
        assert_eq!(ledger.len(), revocation);
        let token = text(&source).await;
        if let Kind::OidcProvider = kind {
            assert!(server.introspect(CLIENT, &token).await);
        }
        server.revoke(CLIENT, &token).await;
        if let Kind::OidcProvider = kind {
            assert!(!server.introspect(CLIENT, &token).await);
        }
    }
    traffic.succeed(50).await;
    let outcomes = traffic.stop().await;

    outcomes.assert_failures_within(None);
    assert_eq!(ledger.len(), 3);
    assert_eq!(server.token_requests().await, 3);
}
for_both_servers!(a_revoked_token_costs_one_token_request_and_no_failure);

async fn without_a_retry_each_task_fails_at_most_once(kind: Kind) {
    let server = Server::start(kind).await;
    let ledger = Ledger::default();
    let source = RefreshingToken::new(machine(&server, CLIENT).over(ledger.layer(http_client())));
    let traffic = Traffic::start(&stack(source.clone()), &server.url("/api"));
    traffic.succeed(50).await;
    let token = text(&source).await;
    server.revoke(CLIENT, &token).await;
    // More requests than were under way at the revocation.
    traffic.succeed(50).await;
    let outcomes = traffic.stop().await;

    let failures = outcomes.failures();
    assert!((1..=4).contains(&failures), "{failures} in 4 tasks");
    assert_eq!(ledger.len(), 2);
    assert_eq!(server.token_requests().await, 2);
}
for_both_servers!(without_a_retry_each_task_fails_at_most_once);
