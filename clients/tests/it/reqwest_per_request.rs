//! What a request may choose for itself in a reqwest-middleware stack, and the user's own rule for
//! rejections.

use http::{HeaderName, StatusCode};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use tower_bearer::{
    BearerAuthLayer, SourceError, SourceErrorKind, StaticToken, TokenFuture, TokenSource, UseToken,
};

use crate::{
    reqwest_server::{Server, carries, direct, status},
    support::{Asking, retrying::old_then_new, token},
};

fn client<T: TokenSource + 'static>(layer: BearerAuthLayer<T>) -> ClientWithMiddleware {
    let client = direct().build().unwrap();
    ClientBuilder::new(client).with(layer).build()
}

#[tokio::test]
async fn a_request_may_bring_its_own_token_or_none_at_all() {
    let server = Server::ok().await;
    let client = client(BearerAuthLayer::new(StaticToken::new(token("ours"))));
    for chosen in [
        None,
        Some(UseToken::none()),
        Some(UseToken::new(token("tenant"))),
        Some(UseToken::new(token("proxy")).under(HeaderName::from_static("x-proxy"))),
    ] {
        let mut request = client.get(&server.url);
        if let Some(chosen) = chosen {
            request = request.with_extension(chosen);
        }
        request.send().await.unwrap();
    }
    assert_eq!(
        server.fields("authorization"),
        ["Bearer ours", "", "Bearer tenant", "Bearer ours"]
    );
}

#[tokio::test]
async fn the_extension_wins_over_a_header_that_the_layer_would_keep() {
    let server = Server::ok().await;
    let client = client(BearerAuthLayer::new(StaticToken::new(token("ours"))).keep_existing());
    for chosen in [None, Some(UseToken::new(token("tenant")))] {
        let mut request = client
            .get(&server.url)
            .header("authorization", "Bearer own");
        if let Some(chosen) = chosen {
            request = request.with_extension(chosen);
        }
        request.send().await.unwrap();
    }
    let sent = server.fields("authorization");
    assert_eq!(sent, ["Bearer own", "Bearer tenant"]);
}

#[tokio::test]
async fn a_rejected_request_of_a_tenant_is_retried_with_the_tenants_other_token() {
    let server = Server::taking("new").await;
    let ours = token("ours");
    let client = client(BearerAuthLayer::new(ours.clone()).retry_rejected());
    let request = client.get(&server.url);
    let request = request.with_extension(UseToken::new(old_then_new()));
    assert_eq!(request.send().await.unwrap().status().as_u16(), 200);
    assert_eq!(server.fields("authorization"), ["Bearer old", "Bearer new"]);
    assert!(!ours.is_rejected());
}

#[tokio::test]
async fn a_request_that_wants_no_token_is_not_refused_and_marks_nothing() {
    let server = Server::start(|_| status(401)).await;
    let ours = token("ours");
    let layer = BearerAuthLayer::new(ours.clone()).for_origin("https://api.example.com");
    let client = client(layer.unwrap());
    let request = client.get(&server.url).with_extension(UseToken::none());
    assert_eq!(request.send().await.unwrap().status().as_u16(), 401);
    assert!(!ours.is_rejected());
}

#[tokio::test]
async fn the_users_rule_decides_what_is_rejected_and_retried() {
    let server =
        Server::start(|request| status(if carries(request, "new") { 200 } else { 419 })).await;
    let layer = BearerAuthLayer::new(old_then_new())
        .retry_rejected()
        .rejected_when(|status, _, _| status.as_u16() == 419);
    let response = client(layer).get(&server.url).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    assert_eq!(server.fields("authorization"), ["Bearer old", "Bearer new"]);
}

#[tokio::test]
async fn the_users_rule_may_acquit_a_401() {
    let server = Server::start(|_| status(401)).await;
    let ours = token("ours");
    let layer = BearerAuthLayer::new(ours.clone())
        .rejected_when(|status, _, _| status == StatusCode::FORBIDDEN);
    client(layer).get(&server.url).send().await.unwrap();
    assert!(!ours.is_rejected());
}

#[tokio::test]
async fn a_request_goes_without_a_token_if_the_source_is_absent_and_the_layer_lets_it() {
    let server = Server::ok().await;
    for waits in [false, true] {
        let absent = Asking(move || {
            let error = Err(SourceError::new(SourceErrorKind::Absent, "none"));
            if waits {
                TokenFuture::boxed(async { error })
            } else {
                TokenFuture::ready(error)
            }
        });
        let client = client(BearerAuthLayer::new(absent).anonymous_if_absent());
        client.get(&server.url).send().await.unwrap();
    }
    assert_eq!(server.fields("authorization"), ["", ""]);
}

#[tokio::test]
async fn a_bare_token_goes_without_its_scheme() {
    let server = Server::ok().await;
    let layer = BearerAuthLayer::new(token("glpat"))
        .header_name(HeaderName::from_static("private-token"))
        .bare();
    client(layer).get(&server.url).send().await.unwrap();
    assert_eq!(server.fields("private-token"), ["glpat"]);
}

#[tokio::test]
async fn of_two_middlewares_the_inner_token_is_sent_and_the_only_one_that_is_marked() {
    let server = Server::start(|_| status(401)).await;
    let (outer, inner) = (token("outer"), token("inner"));
    let client = ClientBuilder::new(direct().build().unwrap())
        .with(BearerAuthLayer::new(outer.clone()))
        .with(BearerAuthLayer::new(inner.clone()))
        .build();
    client.get(&server.url).send().await.unwrap();
    assert_eq!(server.fields("authorization"), ["Bearer inner"]);
    assert_eq!((outer.is_rejected(), inner.is_rejected()), (false, true));
}
