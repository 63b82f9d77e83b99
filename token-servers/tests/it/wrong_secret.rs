//! A client with a wrong secret.

use tower::Layer;
use tower_bearer::{RefreshingToken, TokenRequest};

use crate::{
    Kind, Ledger, Server, for_both_servers,
    traffic::{Traffic, http_client, stack},
};

async fn a_wrong_secret_is_one_permanent_error_that_names_it(kind: Kind) {
    let server = Server::start(kind).await;
    let ledger = Ledger::default();
    let url = server.url("/token");
    let request = TokenRequest::client_credentials(&url, "long machine", "not the secret").unwrap();
    let source = RefreshingToken::new(request.over(ledger.layer(http_client())));
    let traffic = Traffic::start(&stack(source), &server.url("/api"));
    traffic.fail(200).await;
    let outcomes = traffic.stop().await;

    assert_eq!(outcomes.failures(), outcomes.0.len());
    let text = outcomes.only_refusal();
    assert!(text.contains("invalid_client"), "{text}");
    assert!(!text.contains("not the secret"), "{text}");
    println!("{kind:?}: {text}");
    assert_eq!(ledger.len(), ledger.permanent_failures());
    assert_eq!(server.token_requests().await, ledger.len());
}
for_both_servers!(a_wrong_secret_is_one_permanent_error_that_names_it);
