//! A client that tonic generated, over a channel with the layer.

use std::{
    error::Error,
    iter::successors,
    net::TcpListener,
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures::FutureExt;
use tonic::{
    Code, Request, Status, TimeoutExpired,
    body::Body,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::{Layer, service_fn};
use tower_bearer::{
    BearerAuth, BearerAuthLayer, BearerToken, BoxError, ErrorKind, RefreshingToken, RotatingToken,
    SourceErrorKind, TokenSource, source_fn,
};
use tower_bearer_stacks::{Server, health};

use crate::{fixed, ours, token};

const ALL: HealthCheckRequest = HealthCheckRequest {
    service: String::new(),
};

fn channel(server: &Server) -> Channel {
    let endpoint = Endpoint::from_shared(server.url().to_owned());
    endpoint.unwrap().connect_lazy()
}

type Client<T> = HealthClient<BearerAuth<Channel, T>>;

/// A client whose requests name the server, so that the layer sees where they go.
fn client<T: TokenSource + 'static>(server: &Server, layer: &BearerAuthLayer<T>) -> Client<T> {
    let origin = server.url().parse().unwrap();
    HealthClient::with_origin(layer.layer(channel(server)), origin)
}

async fn check<T: TokenSource + 'static>(client: &mut Client<T>) -> Result<(), Code> {
    let answer = client.check(ALL).await;
    answer.map(drop).map_err(|status| status.code())
}

/// Each fetch gives another token.
fn numbered() -> RefreshingToken {
    let fetches = AtomicUsize::new(0);
    RefreshingToken::new(move || {
        let number = fetches.fetch_add(1, Ordering::SeqCst) + 1;
        async move { BearerToken::new(format!("number-{number}")) }
    })
}

#[tokio::test]
async fn calls_over_a_channel_carry_the_token() {
    let server = health::start("ours").await.unwrap();
    let refused = HealthClient::new(channel(&server)).check(ALL).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);

    let mut client = client(&server, &BearerAuthLayer::new(fixed("ours")));
    assert_eq!(check(&mut client).await, Ok(()));
    let mut updates = client.watch(ALL).await.unwrap().into_inner();
    assert!(updates.message().await.unwrap().is_some());
    assert_eq!(server.seen(), ["", "Bearer ours", "Bearer ours"]);
}

#[tokio::test]
async fn a_refused_call_marks_its_token_so_that_the_next_has_another() {
    let server = health::start("number-2").await.unwrap();
    let mut client = client(&server, &BearerAuthLayer::new(numbered()).grpc_status());
    assert_eq!(check(&mut client).await, Err(Code::Unauthenticated));
    assert_eq!(check(&mut client).await, Ok(()));
    assert_eq!(server.seen(), ["Bearer number-1", "Bearer number-2"]);
}

#[tokio::test]
async fn a_refused_call_marks_nothing_unless_the_layer_is_told_that_it_is_grpc() {
    let server = health::start("number-2").await.unwrap();
    let mut client = client(&server, &BearerAuthLayer::new(numbered()));
    for _ in 0..2 {
        assert_eq!(check(&mut client).await, Err(Code::Unauthenticated));
    }
    assert_eq!(server.seen(), ["Bearer number-1", "Bearer number-1"]);
}

#[tokio::test]
async fn calls_that_go_well_or_fail_for_other_reasons_mark_nothing() {
    let server = health::start("ours").await.unwrap();
    let ours = token("ours");
    let layer = BearerAuthLayer::new(RotatingToken::new(ours.clone())).grpc_status();
    check(&mut client(&server, &layer)).await.unwrap();
    assert!(!ours.is_rejected());

    let denying = service_fn(|_: http::Request<Body>| async {
        let denied = Status::permission_denied("not for you");
        Ok::<_, BoxError>(denied.into_http::<Body>())
    });
    let mut client = HealthClient::new(layer.layer(denying));
    let denied = client.check(ALL).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    assert!(!ours.is_rejected());
}

#[tokio::test]
async fn a_status_in_trailers_marks_nothing_and_the_caller_can() {
    let server = health::start("number-1").await.unwrap();
    let source = numbered();
    let mut client = client(&server, &BearerAuthLayer::new(source.clone()).grpc_status());

    let sent = source.token().await.unwrap();
    let mut updates = client.watch(ALL).await.unwrap().into_inner();
    assert!(updates.message().await.unwrap().is_some());
    let broken = updates.message().await.unwrap_err();
    assert_eq!(broken.code(), Code::Unauthenticated);
    assert!(!sent.is_rejected());

    sent.reject();
    server.accept("number-2");
    assert_eq!(check(&mut client).await, Ok(()));
    assert_eq!(server.seen(), ["Bearer number-1", "Bearer number-2"]);
}

#[tokio::test]
async fn a_client_with_its_origin_is_held_to_the_rules_for_origins() {
    let server = health::start("ours").await.unwrap();
    let layer = BearerAuthLayer::new(fixed("ours"));
    let here = layer.clone().for_origin(server.url()).unwrap();
    let elsewhere = layer.for_origin("https://api.example.com").unwrap();
    assert_eq!(check(&mut client(&server, &here)).await, Ok(()));
    let refused = check(&mut client(&server, &elsewhere)).await;
    assert_eq!(refused, Err(Code::Unauthenticated));

    // The channel adds the host below the layer, so the layer sees no host to compare.
    let mut without = HealthClient::new(here.layer(channel(&server)));
    assert_eq!(check(&mut without).await, Err(Code::Unauthenticated));
    assert_eq!(server.seen(), ["Bearer ours", "", ""]);
}

#[tokio::test]
async fn a_client_with_its_origin_sends_no_token_in_plaintext_to_another_machine() {
    let server = health::start("ours").await.unwrap();
    let layer = BearerAuthLayer::new(fixed("ours"));
    let origin = "http://api.example.com".parse().unwrap();
    let mut client = HealthClient::with_origin(layer.layer(channel(&server)), origin);
    let status = client.check(ALL).await.unwrap_err();
    assert_eq!(ours(&status).kind(), ErrorKind::InsecureTransport);
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn why_there_is_no_token_is_in_the_chain_of_the_status() {
    let server = health::start("ours").await.unwrap();
    let source = source_fn(|| async { Err::<BearerToken, _>("the vault is sealed") });
    let mut client = client(&server, &BearerAuthLayer::new(source));
    let status = client.check(ALL).await.unwrap_err();
    assert_eq!(ours(&status).kind(), ErrorKind::NoToken);
    let of_source = ours(&status).source_error().unwrap();
    assert_eq!(of_source.kind(), SourceErrorKind::Failed);
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_deadline_of_tonic_covers_the_call_and_not_the_wait_for_the_token() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let endpoint = Endpoint::from_shared(url).unwrap();
    let source = RotatingToken::empty();
    let layer = BearerAuthLayer::new(source.clone());
    let stack = layer.layer(endpoint.timeout(Duration::ZERO).connect_lazy());
    let mut client = HealthClient::new(stack);
    let mut request = Request::new(ALL);
    request.set_timeout(Duration::ZERO);

    let mut call = pin!(client.check(request));
    assert!(call.as_mut().now_or_never().is_none(), "it waits");
    source.rotate(token("ours"));
    let status = call.await.unwrap_err();
    let mut chain = successors(Some(&status as &(dyn Error + 'static)), |&error| {
        error.source()
    });
    assert!(chain.any(<dyn Error>::is::<TimeoutExpired>), "{status:?}");
}

#[tokio::test]
async fn a_stack_is_boxed_so_that_its_type_has_no_parameter() {
    type Boxed =
        tower::util::BoxCloneSyncService<http::Request<Body>, http::Response<Body>, BoxError>;

    let server = health::start("ours").await.unwrap();
    let stack = BearerAuthLayer::new(fixed("ours")).layer(channel(&server));
    let mut client: HealthClient<Boxed> = HealthClient::new(Boxed::new(stack));
    client.check(ALL).await.unwrap();
    assert_eq!(server.seen(), ["Bearer ours"]);
}
