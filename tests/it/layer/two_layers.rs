//! Several layers in a stack: a response says something only about the token that was sent.

use http::{HeaderName, StatusCode, header::PROXY_AUTHORIZATION};
use tower::{Layer, ServiceBuilder};
use tower_bearer::{BearerAuthLayer, BearerToken, TokenReplaced, UseToken};

use crate::support::{
    AnyLayer, Counting, Req, Server, URL, get, marks, send, status, token, values,
};

struct Two {
    outer: BearerToken,
    inner: BearerToken,
}

impl Two {
    fn new() -> Self {
        Self {
            outer: token("outer"),
            inner: token("inner"),
        }
    }

    /// Which of the two tokens are marked after a response with this status, and which token the server
    /// saw.
    fn after(
        &self,
        code: StatusCode,
        outer: impl FnOnce(BearerAuthLayer<BearerToken>) -> BearerAuthLayer<BearerToken>,
        inner: impl FnOnce(BearerAuthLayer<BearerToken>) -> BearerAuthLayer<BearerToken>,
    ) -> (bool, bool, Server) {
        let server = Server::answering(move |_| status(code));
        let inner = inner(BearerAuthLayer::new(self.inner.clone()));
        let outer = outer(BearerAuthLayer::new(self.outer.clone()));
        send(&mut outer.layer(inner.layer(server.clone())), get(URL)).unwrap();
        (self.outer.is_rejected(), self.inner.is_rejected(), server)
    }
}

#[test]
fn the_inner_layers_token_is_sent_and_the_only_one_that_is_marked() {
    let two = Two::new();
    let (outer, inner, server) = two.after(StatusCode::UNAUTHORIZED, |l| l, |l| l);
    assert_eq!(server.authorizations(), ["Bearer inner"]);
    assert_eq!((outer, inner), (false, true));
}

#[test]
fn with_keep_existing_on_the_inner_layer_the_outer_layers_token_is_sent_and_marked() {
    let two = Two::new();
    let keep = BearerAuthLayer::keep_existing;
    let (outer, inner, server) = two.after(StatusCode::UNAUTHORIZED, |l| l, keep);
    assert_eq!(server.authorizations(), ["Bearer outer"]);
    assert_eq!((outer, inner), (true, false));
}

#[test]
fn a_success_takes_off_no_mark_of_a_token_that_was_overwritten() {
    let two = Two::new();
    two.outer.reject();
    two.inner.reject();
    let (outer, inner, _) = two.after(StatusCode::OK, |l| l, |l| l);
    assert_eq!((outer, inner), (true, false));
}

#[test]
fn layers_on_two_headers_each_judge_their_own_token() {
    for header in [PROXY_AUTHORIZATION, HeaderName::from_static("x-api-key")] {
        for inner_is_other in [false, true] {
            let two = Two::new();
            let other = |layer: BearerAuthLayer<BearerToken>| layer.header_name(header.clone());
            let (outer, inner, server) = if inner_is_other {
                two.after(StatusCode::UNAUTHORIZED, |l| l, other)
            } else {
                two.after(StatusCode::UNAUTHORIZED, other, |l| l)
            };
            let seen = &server.seen()[0];
            assert_eq!(values(seen, "authorization").len(), 1);
            assert_eq!(values(seen, header.as_str()).len(), 1);
            let is_proxy = header == PROXY_AUTHORIZATION;
            let expected = match (is_proxy, inner_is_other) {
                (true, true) => (true, false),
                (true, false) => (false, true),
                (false, _) => (true, true),
            };
            assert_eq!((outer, inner), expected, "{header} {inner_is_other}");
        }
    }
}

#[test]
fn a_rule_of_the_outer_layer_does_not_hit_a_token_that_was_overwritten() {
    let two = Two::new();
    let any = |layer: BearerAuthLayer<BearerToken>| layer.rejected_when(|_, _, _| true);
    let (outer, inner, _) = two.after(StatusCode::IM_A_TEAPOT, any, |l| l);
    assert_eq!((outer, inner), (false, false));
    let (outer, inner, _) = two.after(StatusCode::IM_A_TEAPOT, |l| l, any);
    assert_eq!((outer, inner), (false, true));
}

#[test]
fn two_pairs_of_layers_on_two_headers_mark_the_inner_tokens_only() {
    let tokens = ["a", "b", "c", "d"].map(token);
    let [a, b, c, d] = tokens.clone();
    let key = HeaderName::from_static("x-api-key");
    let server = Server::answering(|_| status(StatusCode::UNAUTHORIZED));
    let inner = BearerAuthLayer::new(b)
        .header_name(key.clone())
        .layer(BearerAuthLayer::new(a).layer(server));
    let mut service = BearerAuthLayer::new(d)
        .header_name(key)
        .layer(BearerAuthLayer::new(c).layer(inner));
    send(&mut service, get(URL)).unwrap();
    let marked = tokens.map(|token| token.is_rejected());
    assert_eq!(marked, [true, true, false, false]);
}

#[test]
fn a_layer_on_another_header_looks_only_at_who_overwrote_that_header() {
    let key = HeaderName::from_static("x-api-key");
    let [above, outer, inner] = ["above", "outer", "inner"].map(token);
    let server = Server::answering(|_| status(StatusCode::UNAUTHORIZED));
    let inner_layer = BearerAuthLayer::new(inner.clone()).layer(server);
    let mut service = BearerAuthLayer::new(above.clone()).layer(
        BearerAuthLayer::new(outer.clone())
            .header_name(key)
            .layer(inner_layer),
    );
    send(&mut service, get(URL)).unwrap();
    // The innermost layer overwrote the token of the outermost layer. The token of the layer between was
    // sent.
    let marked = [above, outer, inner].map(|token| token.is_rejected());
    assert_eq!(marked, [false, true, true]);
}

#[test]
fn a_token_that_was_overwritten_is_not_replaced() {
    let source = Counting::new(token("outer"));
    let server = Server::answering(|_| status(StatusCode::UNAUTHORIZED));
    let inner = BearerAuthLayer::new(token("inner")).layer(server);
    let outer = BearerAuthLayer::new(source.clone()).retry_rejected();
    let response = send(&mut outer.layer(inner), get(URL)).unwrap();
    assert!(response.extensions().get::<TokenReplaced>().is_none());
    assert_eq!(source.asked(), 1);
}

#[test]
fn a_requests_own_token_tells_a_layer_above_that_it_overwrote() {
    for retries in [false, true] {
        let (outer, tenant) = (token("outer"), token("tenant"));
        let chosen = UseToken::new(tenant.clone());
        let server = Server::answering(|_| status(StatusCode::UNAUTHORIZED));
        let mut inner = BearerAuthLayer::new(token("unused"));
        if retries {
            inner = inner.retry_rejected();
        }
        let mut service = ServiceBuilder::new()
            .layer(BearerAuthLayer::new(outer.clone()))
            .map_request(move |mut request: Req| {
                request.extensions_mut().insert(chosen.clone());
                request
            })
            .layer(inner)
            .service(server.clone());
        send(&mut service, get(URL)).unwrap();
        assert_eq!(server.authorizations(), ["Bearer tenant"]);
        let marked = (outer.is_rejected(), tenant.is_rejected());
        assert_eq!(marked, (false, true), "retries: {retries}");
    }
}

#[test]
fn a_header_that_the_caller_had_set_changes_nothing() {
    let response = status(StatusCode::UNAUTHORIZED);
    assert!(marks(AnyLayer::from, &response));
    let ours = token("ours");
    let server = Server::answering(|_| status(StatusCode::UNAUTHORIZED));
    let mut service = BearerAuthLayer::new(ours.clone()).layer(server);
    let mut request = get(URL);
    request
        .headers_mut()
        .insert("authorization", http::HeaderValue::from_static("Basic x"));
    send(&mut service, request).unwrap();
    assert!(ours.is_rejected());
}
