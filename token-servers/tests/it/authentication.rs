//! How a client authenticates, other than by a Basic header.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use tower::Layer;
use tower_bearer::{BearerToken, BoxError, RefreshingToken, TokenRequest, source_fn};

use crate::{
    Kind, Ledger, Server, for_both_servers, machine,
    traffic::{Traffic, http_client, stack},
};

async fn a_secret_in_the_form_is_taken(kind: Kind) {
    let server = Server::start(kind).await;
    let ledger = Ledger::default();
    let fetch = machine(&server, "post").secret_in_body();
    let source = RefreshingToken::new(fetch.over(ledger.layer(http_client())));
    let traffic = Traffic::start(&stack(source), &server.url("/api"));
    traffic.succeed(20).await;
    traffic.stop().await.assert_failures_within(None);
    assert_eq!(ledger.len(), 1);
    assert_eq!(server.token_requests().await, 1);
}
for_both_servers!(a_secret_in_the_form_is_taken);

/// oidc-provider rejects an assertion that is used twice. The Authlib server takes no assertions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_assertion_is_asked_for_anew_for_each_token_request() {
    let server = Server::start(Kind::OidcProvider).await;
    let ledger = Ledger::default();
    let asked = Arc::new(AtomicUsize::new(0));
    let (counter, url) = (asked.clone(), server.url("/test/assertion"));
    let assertion = source_fn(move || {
        counter.fetch_add(1, SeqCst);
        let url = url.clone();
        async move { Ok::<_, BoxError>(BearerToken::new(crate::server::text(&url).await)?) }
    });
    let url = server.url("/token");
    let request = TokenRequest::client_credentials_by_assertion(&url, "key", assertion).unwrap();
    let source = RefreshingToken::new(request.over(ledger.layer(http_client())));
    let traffic = Traffic::start(&stack(source.clone()), &server.url("/api"));
    for number in 1..=3 {
        traffic.succeed(20).await;
        assert_eq!((asked.load(SeqCst), ledger.len()), (number, number));
        source.refresh_now().await.unwrap();
    }
    traffic.succeed(20).await;
    traffic.stop().await.assert_failures_within(None);
    assert_eq!(asked.load(SeqCst), 4);
    assert_eq!(server.token_requests().await, 4);
}
