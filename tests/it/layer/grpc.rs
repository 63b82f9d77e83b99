//! Which gRPC responses mark a token, with `grpc_status`. A gRPC response has the HTTP status 200.

use std::{convert::Infallible, future::ready};

use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, PROXY_AUTHORIZATION, WWW_AUTHENTICATE},
};
use tower::{Layer, service_fn};
use tower_bearer::{BearerAuthLayer, StaticToken, TokenReplaced};

use crate::support::{
    AnyLayer, Asking, Req, Res, Server, allocator::allocations_in, get, marks, send, status, token,
};

const URI: &str = "https://api.example.com/grpc.health.v1.Health/Check";

/// The response of a gRPC server that rejects a call at once: the trailers are in the headers, without a
/// body.
fn trailers_only(content_type: &str, grpc_status: &str) -> Res {
    Response::builder()
        .header(CONTENT_TYPE, content_type)
        .header("grpc-status", grpc_status)
        .header("grpc-message", "the token has expired")
        .body(String::new())
        .unwrap()
}

type Settings = fn(AnyLayer) -> AnyLayer;

fn unauthenticated() -> Res {
    trailers_only("application/grpc", "16")
}

#[test]
fn of_the_grpc_statuses_only_unauthenticated_marks_the_token() {
    for code in 0..100 {
        let response = trailers_only("application/grpc", &code.to_string());
        assert_eq!(
            marks(BearerAuthLayer::grpc_status, &response),
            code == 16,
            "{code}"
        );
    }
    for text in ["", "-16", "1", "160", "116", "1 6", "sixteen"] {
        let response = trailers_only("application/grpc", text);
        assert!(!marks(BearerAuthLayer::grpc_status, &response), "{text:?}");
    }
}

#[test]
fn unless_it_is_told_to_the_layer_does_not_look_at_grpc_statuses() {
    assert!(!marks(|layer| layer, &unauthenticated()));
}

#[test]
fn a_status_counts_only_in_a_response_that_is_grpc() {
    for (content_type, expected) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("application/grpc+json", true),
        ("application/grpc;charset=utf-8", true),
        ("application/grpc-web+proto", true),
        ("Application/GRPC", true),
        ("application/json", false),
        ("application/grp", false),
        ("text/application/grpc", false),
        ("", false),
    ] {
        let response = trailers_only(content_type, "16");
        let marked = marks(BearerAuthLayer::grpc_status, &response);
        assert_eq!(marked, expected, "{content_type:?}");
    }
    let mut response = unauthenticated();
    response.headers_mut().remove(CONTENT_TYPE);
    assert!(!marks(BearerAuthLayer::grpc_status, &response), "no type");
}

#[test]
fn a_grpc_response_is_one_with_http_200() {
    for code in 201..600 {
        let mut response = unauthenticated();
        *response.status_mut() = StatusCode::from_u16(code).unwrap();
        let marked = marks(BearerAuthLayer::grpc_status, &response);
        // Any other HTTP status comes from a proxy or a gateway. The setting does not change how it is
        // read.
        assert_eq!(marked, code == 401, "{code}");
    }
}

#[test]
fn a_challenge_that_blames_something_else_speaks_for_the_token_over_grpc_as_well() {
    for (challenge, expected) in [
        (r#"Bearer error="invalid_token""#, true),
        (r#"Bearer realm="api""#, true),
        (r#"Bearer error="insufficient_scope""#, false),
    ] {
        let mut response = unauthenticated();
        let value = HeaderValue::from_static(challenge);
        response.headers_mut().insert(WWW_AUTHENTICATE, value);
        let marked = marks(BearerAuthLayer::grpc_status, &response);
        assert_eq!(marked, expected, "{challenge}");
    }
}

#[test]
fn the_setting_and_the_headers_name_come_in_either_order() {
    const CUSTOM: HeaderName = HeaderName::from_static("x-api-authorization");
    let first: Settings = |layer| layer.grpc_status().header_name(CUSTOM);
    let last: Settings = |layer| layer.header_name(CUSTOM).grpc_status();
    let twice: Settings = |layer| {
        let layer = layer.header_name(PROXY_AUTHORIZATION).grpc_status();
        layer.header_name(AUTHORIZATION)
    };
    for settings in [first, last, twice] {
        assert!(marks(settings, &unauthenticated()));
    }
}

#[test]
fn a_grpc_status_says_nothing_about_a_token_for_the_proxy() {
    let settings: Settings = |layer| layer.grpc_status().header_name(PROXY_AUTHORIZATION);
    assert!(!marks(settings, &unauthenticated()));
    let refused = status(StatusCode::PROXY_AUTHENTICATION_REQUIRED);
    assert!(marks(settings, &refused));
}

#[test]
fn the_source_gives_another_token_after_a_refusal_over_grpc() {
    let [old, new] = ["old", "new"].map(token);
    let (first, second) = (old.clone(), new.clone());
    let source = Asking(move || {
        let token = if first.is_rejected() { &second } else { &first };
        token.clone().into()
    });
    let server = Server::answering(|_| unauthenticated());
    let mut service = BearerAuthLayer::new(source)
        .grpc_status()
        .retry_rejected()
        .layer(server.clone());

    let response = send(&mut service, get(URI)).unwrap();
    assert!(response.extensions().get::<TokenReplaced>().is_some());
    assert_eq!(response.headers()["grpc-status"], "16", "handed on");
    assert!(!new.is_rejected());
    send(&mut service, get(URI)).unwrap();
    assert_eq!(server.authorizations(), ["Bearer old", "Bearer new"]);
    assert!(new.is_rejected());
}

#[test]
fn the_look_at_the_grpc_status_allocates_nothing() {
    // A rejected token keeps what the server said, in a single allocation.
    for (code, allocations) in [("0", 0), ("16", 1)] {
        let mut response = Some(trailers_only("application/grpc", code));
        let server = service_fn(move |_: Req| ready(Ok::<_, Infallible>(response.take().unwrap())));
        let ours = token("ours");
        let layer = BearerAuthLayer::new(StaticToken::new(ours.clone())).grpc_status();
        let (mut service, mut request) = (layer.layer(server), get(URI));
        request.headers_mut().reserve(1);
        let (count, _) = allocations_in(|| send(&mut service, request).unwrap());
        assert_eq!(count, allocations, "{code}");
        assert_eq!(ours.is_rejected(), code == "16");
    }
}
