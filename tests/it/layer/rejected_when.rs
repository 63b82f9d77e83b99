//! The user's own rule for which responses reject the token.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{PROXY_AUTHORIZATION, WWW_AUTHENTICATE},
};
use tower::{Layer, ServiceBuilder, limit::ConcurrencyLimit, util::MapResponseLayer};
use tower_bearer::{BearerAuthLayer, StaticToken, rejects_token};

use crate::support::{Res, Server, URL, get, marks, send, status, token};

fn code(code: u16) -> Res {
    status(StatusCode::from_u16(code).unwrap())
}

#[test]
fn the_rule_replaces_the_default_rule() {
    for (answer, expected) in [(419, true), (498, true), (401, false), (200, false)] {
        let marked = marks(
            |layer| layer.rejected_when(|status, _, _| [419, 498].contains(&status.as_u16())),
            &code(answer),
        );
        assert_eq!(marked, expected, "{answer}");
    }
}

#[test]
fn the_default_rule_is_there_to_build_on() {
    let mut scope = code(401);
    let value = HeaderValue::from_static(r#"Bearer error="insufficient_scope""#);
    scope.headers_mut().insert(WWW_AUTHENTICATE, value);
    for (answer, expected) in [(code(403), true), (code(401), true), (scope, false)] {
        let marked = marks(
            |layer| {
                layer.rejected_when(|status, headers, _| {
                    status == StatusCode::FORBIDDEN || rejects_token(status, headers)
                })
            },
            &answer,
        );
        assert_eq!(marked, expected, "{answer:?}");
    }
}

#[test]
fn the_rule_sees_what_a_service_below_has_put_into_the_extensions() {
    #[derive(Clone)]
    struct ConfirmAgain;

    for confirm in [false, true] {
        let ours = token("ours");
        let layer = BearerAuthLayer::new(ours.clone()).rejected_when(|status, _, extensions| {
            status == StatusCode::UNAUTHORIZED && extensions.get::<ConfirmAgain>().is_none()
        });
        let mut service = ServiceBuilder::new()
            .layer(layer)
            .layer(MapResponseLayer::new(move |mut response: Res| {
                if confirm {
                    response.extensions_mut().insert(ConfirmAgain);
                }
                response
            }))
            .service(Server::answering(|_| code(401)));
        send(&mut service, get(URL)).unwrap();
        assert_eq!(ours.is_rejected(), !confirm);
    }
}

/// An identity-aware proxy takes `Proxy-Authorization`, and says 401.
#[test]
fn a_proxy_that_says_401_can_reject_its_token() {
    for (answer, expected) in [(401, true), (407, false)] {
        let marked = marks(
            |layer| {
                layer
                    .header_name(PROXY_AUTHORIZATION)
                    .rejected_when(|status, headers, _| rejects_token(status, headers))
            },
            &code(answer),
        );
        assert_eq!(marked, expected, "{answer}");
    }
}

#[test]
fn the_rule_is_asked_once_for_each_response_that_a_token_was_sent_for() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&asked);
    let layer = BearerAuthLayer::new(StaticToken::new(token("ours")))
        .for_origin("https://api.example.com")
        .unwrap()
        .rejected_when(move |_, _, _| {
            counts.fetch_add(1, Ordering::SeqCst);
            false
        });
    let mut service = layer.layer(Server::ok());
    for uri in [URL, "https://other.example.com/", URL] {
        send(&mut service, get(uri)).unwrap();
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[test]
fn a_success_that_the_rule_calls_rejected_takes_no_mark_off() {
    for (rejects, marked) in [(true, true), (false, false)] {
        let ours = token("ours");
        ours.reject();
        let layer = BearerAuthLayer::new(ours.clone()).rejected_when(move |_, _, _| rejects);
        send(&mut layer.layer(Server::ok()), get(URL)).unwrap();
        assert_eq!(ours.is_rejected(), marked);
    }
}

#[test]
fn the_rejection_tells_what_the_server_said_also_under_a_rule_of_the_users() {
    let ours = token("ours");
    let layer = BearerAuthLayer::new(ours.clone())
        .header_name(HeaderName::from_static("x-api-key"))
        .rejected_when(|status, _, _| status == StatusCode::FORBIDDEN);
    let server = Server::answering(|_| {
        let mut response = code(403);
        let value = HeaderValue::from_static(r#"Bearer scope="read""#);
        response.headers_mut().insert(WWW_AUTHENTICATE, value);
        response
    });
    send(&mut layer.layer(server), get(URL)).unwrap();
    let said = ours.rejection().unwrap();
    assert_eq!(said.status(), StatusCode::FORBIDDEN);
    assert_eq!(said.challenges(), [r#"Bearer scope="read""#]);
}

#[test]
fn a_rule_that_panics_harms_its_own_request_only() {
    for retries in [false, true] {
        let ours = token("ours");
        let server = Server::answering(|request| {
            code(if request.uri().path() == "/bad" {
                500
            } else {
                401
            })
        });
        let mut layer = BearerAuthLayer::new(ours.clone()).rejected_when(|status, _, _| {
            assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "no such rule");
            rejects_token(status, &HeaderMap::new())
        });
        if retries {
            layer = layer.retry_rejected();
        }
        let mut service = layer.layer(ConcurrencyLimit::new(server, 1));
        let bad = get("https://api.example.com/bad");
        let sent = AssertUnwindSafe(|| send(&mut service, bad));
        assert!(catch_unwind(sent).is_err());
        assert!(!ours.is_rejected());
        send(&mut service, get(URL)).unwrap();
        assert!(ours.is_rejected());
    }
}
