//! Responses that take the mark off a rejected token, since they show that the server accepts the token.

use std::{future::ready, sync::Arc};

use http::{
    HeaderValue, StatusCode,
    header::{AUTHORIZATION, PROXY_AUTHORIZATION},
};
use tower::{Layer, Service};
use tower_bearer::{
    BearerAuthLayer, BearerToken, RotatingToken, StaticToken, TokenFuture, TokenReplaced,
    TokenSource,
};

use crate::support::{
    AnyLayer, Asking, Req, Res, Server, Task, allocator::allocations_in, get, make_ready, send,
    status, token,
};

const URI: &str = "https://api.example.com/v1";

fn rejected(text: &str) -> BearerToken {
    let token = token(text);
    token.reject();
    token
}

fn code(code: u16) -> Res {
    status(StatusCode::from_u16(code).unwrap())
}

/// Whether `response` takes the mark off the token of its request, in a layer with these settings.
fn accepts(settings: impl Fn(AnyLayer) -> AnyLayer, response: &Res) -> bool {
    let [at_once, waited_for] = [true, false].map(|at_once| {
        let ours = rejected("ours");
        let source = ours.clone();
        let source: Arc<dyn TokenSource> = if at_once {
            Arc::new(StaticToken::new(source))
        } else {
            Arc::new(Asking(move || {
                TokenFuture::boxed(ready(Ok(source.clone())))
            }))
        };
        let response = response.clone();
        let server = Server::answering(move |_| response.clone());
        send(&mut settings(AnyLayer::new(source)).layer(server), get(URI)).unwrap();
        !ours.is_rejected()
    });
    assert_eq!(
        at_once, waited_for,
        "with a token at once and after a wait for the token"
    );
    at_once
}

#[test]
fn a_success_takes_the_mark_off_and_no_other_response_does() {
    for number in 100..600 {
        let expected = matches!(number, 101 | 200..=299 | 304);
        let response = code(number);
        assert_eq!(accepts(|layer| layer, &response), expected, "{number}");
        let retries = BearerAuthLayer::retry_rejected;
        assert_eq!(accepts(retries, &response), expected, "{number}, retried");
        let proxy = |layer: AnyLayer| layer.header_name(PROXY_AUTHORIZATION);
        assert_eq!(accepts(proxy, &response), expected, "{number}, proxy");
    }
}

fn grpc(code: u16, grpc_status: Option<&'static str>) -> Res {
    let mut response = self::code(code);
    let content_type = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", content_type);
    if let Some(grpc_status) = grpc_status {
        let grpc_status = HeaderValue::from_static(grpc_status);
        response.headers_mut().insert("grpc-status", grpc_status);
    }
    response
}

/// The status of most calls comes in trailers, which the layer does not see.
#[test]
fn over_grpc_only_a_status_of_0_in_the_headers_takes_the_mark_off() {
    for (response, expected) in [
        (grpc(200, Some("0")), true),
        (grpc(200, None), false),
        (grpc(200, Some("00")), false),
        (grpc(200, Some("")), false),
        (grpc(200, Some("7")), false),
        (grpc(200, Some("16")), false),
        (grpc(500, Some("0")), false),
    ] {
        let accepted = accepts(BearerAuthLayer::grpc_status, &response);
        assert_eq!(accepted, expected, "{response:?}");
    }
    assert!(
        accepts(|layer| layer, &grpc(200, None)),
        "without the setting, the status of HTTP counts"
    );
}

#[test]
fn a_success_of_a_request_that_was_sent_before_the_rejection_says_nothing() {
    let ours = token("ours");
    let (server, held) = Server::held();
    let mut service = BearerAuthLayer::new(StaticToken::new(ours.clone())).layer(server);
    make_ready(&mut service);
    let mut request = Task::waiting(service.call(get(URI)));
    ours.reject();
    held.answer(Ok(Res::default()));
    request.finish().unwrap();
    assert!(ours.is_rejected());
}

#[test]
fn a_success_does_not_take_off_a_later_mark() {
    let ours = rejected("ours");
    let (server, held) = Server::held();
    let mut service = BearerAuthLayer::new(StaticToken::new(ours.clone())).layer(server);
    let [mut first, mut second] = [(); 2].map(|()| {
        make_ready(&mut service);
        Task::waiting(service.call(get(URI)))
    });
    held.answer(Ok(Res::default()));
    first.finish().unwrap();
    assert!(!ours.is_rejected());
    ours.reject();
    held.answer(Ok(Res::default()));
    second.finish().unwrap();
    assert!(ours.is_rejected(), "the token was marked after the request");
}

#[test]
fn a_token_that_is_marked_while_its_request_waits_to_be_sent_counts_as_marked() {
    let source = RotatingToken::empty();
    let ours = token("ours");
    let mut service = BearerAuthLayer::new(source.clone()).layer(Server::ok());
    make_ready(&mut service);
    let mut request = Task::waiting(service.call(get(URI)));
    source.rotate(ours.clone());
    ours.reject();
    request.finish().unwrap();
    assert!(!ours.is_rejected());
}

#[test]
fn a_success_of_a_request_without_our_token_says_nothing() {
    let ours = rejected("ours");
    let layer = BearerAuthLayer::new(StaticToken::new(ours.clone()));
    let foreign = layer
        .clone()
        .for_origin("https://other.example.com")
        .unwrap();
    send(&mut foreign.layer(Server::ok()), get(URI)).unwrap();
    let mut request: Req = get(URI);
    let own = HeaderValue::from_static("Bearer own");
    request.headers_mut().insert(AUTHORIZATION, own);
    send(&mut layer.keep_existing().layer(Server::ok()), request).unwrap();
    assert!(ours.is_rejected());
}

#[test]
fn an_error_of_the_inner_service_takes_no_mark_off() {
    let ours = rejected("ours");
    let (server, held) = Server::held();
    let mut service = BearerAuthLayer::new(StaticToken::new(ours.clone())).layer(server);
    make_ready(&mut service);
    let mut request = Task::waiting(service.call(get(URI)));
    held.answer(Err("connection reset, HTTP 200".into()));
    request.finish().unwrap_err();
    assert!(ours.is_rejected());
}

/// The settings of the layer also apply to a token that was rejected before.
#[test]
fn a_request_with_a_rejected_token_is_retried_as_any_other() {
    let old = rejected("old");
    let count = std::sync::atomic::AtomicUsize::new(0);
    let source = Asking(move || {
        match count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => old.clone(),
            _ => token("new"),
        }
        .into()
    });
    let server = Server::answering(|_| code(401));
    let mut service = BearerAuthLayer::new(source).retry_rejected().layer(server);
    let response = send(&mut service, get(URI)).unwrap();
    assert!(response.extensions().get::<TokenReplaced>().is_some());
}

#[test]
fn a_success_with_a_rejected_token_is_no_reason_to_ask_for_another() {
    let old = rejected("old");
    let count = std::sync::atomic::AtomicUsize::new(0);
    let source = Asking(move || {
        match count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => old.clone(),
            _ => token("new"),
        }
        .into()
    });
    let mut service = BearerAuthLayer::new(source)
        .retry_rejected()
        .layer(Server::ok());
    let response = send(&mut service, get(URI)).unwrap();
    assert!(response.extensions().get::<TokenReplaced>().is_none());
}

/// Only such a request needs response rules of its own, so they are on the heap.
#[test]
fn a_request_with_a_rejected_token_allocates_once_more() {
    let ours = token("ours");
    let layer = BearerAuthLayer::new(StaticToken::new(ours.clone()));
    let mut service = layer.layer(crate::support::Respond);
    let mut count = || {
        let mut request = get(URI);
        request.headers_mut().reserve(1);
        allocations_in(|| send(&mut service, request)).0
    };
    let usual = count();
    ours.reject();
    assert_eq!(count(), usual + 1);
    assert_eq!(count(), usual, "the success took the mark off");
}
