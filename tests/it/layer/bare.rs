//! The token without `Bearer `, for headers such as `PRIVATE-TOKEN`.

use http::{HeaderName, StatusCode, header::AUTHORIZATION};
use tower::Layer;
use tower_bearer::{BearerAuthLayer, StaticToken};

use crate::support::{
    Respond, Server, URL, allocator::allocations_in, get, make_ready, send, status, token, values,
};

const PRIVATE_TOKEN: HeaderName = HeaderName::from_static("private-token");

#[test]
fn a_bare_token_goes_without_its_scheme_and_stays_sensitive() {
    let server = Server::ok();
    let layer = BearerAuthLayer::new(StaticToken::new(token("glpat")))
        .header_name(PRIVATE_TOKEN)
        .bare();
    let mut service = layer.layer(server.clone());
    for _ in 0..2 {
        send(&mut service, get(URL)).unwrap();
        let seen = server.seen().pop().unwrap();
        assert_eq!(values(&seen, "private-token"), ["glpat"]);
        assert!(seen.headers()[PRIVATE_TOKEN].is_sensitive());
        assert!(!seen.headers().contains_key("authorization"));
    }
}

#[test]
fn a_bare_token_goes_under_authorization_if_no_other_header_is_named() {
    let server = Server::ok();
    let layer = BearerAuthLayer::new(StaticToken::new(token("glpat"))).bare();
    send(&mut layer.layer(server.clone()), get(URL)).unwrap();
    assert_eq!(server.authorizations(), ["glpat"]);
}

#[test]
fn a_bare_token_goes_without_its_scheme_in_whichever_order_the_settings_come() {
    for header in [PRIVATE_TOKEN, AUTHORIZATION] {
        for bare_first in [false, true] {
            let server = Server::ok();
            let layer = BearerAuthLayer::new(StaticToken::new(token("glpat")));
            let layer = if bare_first {
                layer.bare().header_name(header.clone())
            } else {
                layer.header_name(header.clone()).bare()
            };
            send(&mut layer.layer(server.clone()), get(URL)).unwrap();
            assert_eq!(values(&server.seen()[0], header.as_str()), ["glpat"]);
        }
    }
}

#[test]
fn one_token_may_go_bare_and_with_its_scheme() {
    let both = token("both");
    let server = Server::ok();
    let bare = BearerAuthLayer::new(both.clone())
        .header_name(PRIVATE_TOKEN)
        .bare();
    let mut service = BearerAuthLayer::new(both).layer(bare.layer(server.clone()));
    send(&mut service, get(URL)).unwrap();
    let seen = &server.seen()[0];
    assert_eq!(values(seen, "private-token"), ["both"]);
    assert_eq!(values(seen, "authorization"), ["Bearer both"]);
}

#[test]
fn a_401_marks_a_bare_token() {
    let ours = token("glpat");
    let layer = BearerAuthLayer::new(ours.clone())
        .header_name(PRIVATE_TOKEN)
        .bare();
    let server = Server::answering(|_| status(StatusCode::UNAUTHORIZED));
    send(&mut layer.layer(server), get(URL)).unwrap();
    assert!(ours.is_rejected());
}

#[test]
fn a_bare_token_allocates_nothing_for_a_request_that_has_room_for_a_header() {
    let layer = BearerAuthLayer::new(StaticToken::new(token("glpat")))
        .header_name(PRIVATE_TOKEN)
        .bare();
    let mut service = layer.layer(Respond);
    make_ready(&mut service);
    let send = |service: &mut _| {
        let mut request = get(URL);
        request.headers_mut().reserve(4);
        allocations_in(|| tower::Service::call(service, request)).0
    };
    send(&mut service);
    assert_eq!(send(&mut service), 0);
}
