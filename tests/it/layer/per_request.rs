//! A request with its own token, a request without a token, and a request that goes out without a token
//! because the source is absent.

use std::sync::{Arc, OnceLock};

use futures::FutureExt;
use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{AUTHORIZATION, PROXY_AUTHORIZATION},
};
use tower::{
    BoxError, Layer, ServiceExt,
    limit::ConcurrencyLimit,
    util::{BoxCloneService, BoxCloneSyncService},
};
use tower_bearer::{
    BearerAuthLayer, CallerDriven, ErrorKind, RefreshingToken, RotatingToken, SourceError,
    SourceErrorKind, StaticToken, TokenFuture, TokenSource, UseToken,
};

use crate::support::{
    Asking, Counting, Manual, Req, Res, Respond, Server, Task, URL, allocator::allocations_in, get,
    make_ready, ours, send, status, token, values,
};

fn with(chosen: UseToken) -> Req {
    let mut request = get(URL);
    request.extensions_mut().insert(chosen);
    request
}

fn absent() -> impl TokenSource {
    Asking(|| TokenFuture::ready(Err(SourceError::new(SourceErrorKind::Absent, "none"))))
}

fn authorizations(requests: &[Req]) -> Vec<Vec<String>> {
    let all = requests.iter();
    all.map(|request| values(request, "authorization"))
        .collect()
}

#[test]
fn one_request_of_many_goes_without_a_token() {
    let server = Server::ok();
    let source = Arc::new(Counting::new(StaticToken::new(token("ours"))));
    let mut service = BearerAuthLayer::new(Arc::clone(&source)).layer(server.clone());
    for request in [get(URL), with(UseToken::none()), get(URL)] {
        send(&mut service, request).unwrap();
    }
    let ours = vec!["Bearer ours".to_owned()];
    assert_eq!(authorizations(&server.seen()), [ours.clone(), vec![], ours]);
    assert_eq!(source.asked(), 2);
}

#[test]
fn a_request_that_wants_no_token_keeps_its_own_header_and_is_never_refused() {
    let server = Server::answering(|_| status(StatusCode::UNAUTHORIZED));
    let ours = token("ours");
    let mut service = BearerAuthLayer::new(ours.clone()).layer(server.clone());
    let mut request = get("http://api.example.com/");
    request.extensions_mut().insert(UseToken::none());
    let basic = HeaderValue::from_static("Basic dTpw");
    request.headers_mut().insert(AUTHORIZATION, basic);
    send(&mut service, request).unwrap();
    assert_eq!(server.authorizations(), ["Basic dTpw"]);
    assert!(!ours.is_rejected(), "the 401 is not about our token");
}

#[test]
fn a_request_may_bring_its_own_source_under_the_rules_of_the_layer() {
    let server = Server::ok();
    let layer = BearerAuthLayer::new(StaticToken::new(token("ours")))
        .for_origin("https://api.example.com")
        .unwrap()
        .for_origin("http://plain.example.com")
        .unwrap();
    let mut service = layer.layer(server.clone());
    send(&mut service, with(UseToken::new(token("tenant")))).unwrap();
    let mut elsewhere = get("https://other.example.com/");
    elsewhere
        .extensions_mut()
        .insert(UseToken::new(token("tenant")));
    send(&mut service, elsewhere).unwrap();
    assert_eq!(
        authorizations(&server.seen()),
        [vec!["Bearer tenant".to_owned()], vec![]]
    );

    let tenant = Arc::new(Counting::new(token("tenant")));
    let mut plain = get("http://api.example.com/");
    plain
        .extensions_mut()
        .insert(UseToken::new(Arc::clone(&tenant)));
    let mut service = BearerAuthLayer::new(StaticToken::new(token("ours"))).layer(server.clone());
    let error = send(&mut service, plain).unwrap_err();
    assert_eq!(ours(&error).kind(), ErrorKind::InsecureTransport);
    assert_eq!(tenant.asked(), 0);
}

#[test]
fn a_rejected_token_of_a_tenant_is_marked_and_no_other() {
    let server = Server::answering(|_| status(StatusCode::UNAUTHORIZED));
    let (our, tenant) = (token("ours"), token("tenant"));
    let mut service = BearerAuthLayer::new(our.clone()).layer(server);
    send(&mut service, with(UseToken::new(tenant.clone()))).unwrap();
    assert!(tenant.is_rejected());
    assert!(!our.is_rejected());
}

#[test]
fn the_extension_wins_over_keep_existing_and_anonymous_if_absent() {
    let server = Server::ok();
    let layer = BearerAuthLayer::new(StaticToken::new(token("ours")))
        .keep_existing()
        .anonymous_if_absent();
    let mut service = layer.layer(server.clone());
    let mut request = with(UseToken::new(token("tenant")));
    let theirs = HeaderValue::from_static("Bearer theirs");
    request.headers_mut().insert(AUTHORIZATION, theirs);
    send(&mut service, request).unwrap();
    assert_eq!(server.authorizations(), ["Bearer tenant"]);
    let error = send(&mut service, with(UseToken::new(absent()))).unwrap_err();
    assert_eq!(ours(&error).kind(), ErrorKind::NoToken);

    // The same holds if the tenant's source has to wait before it fails.
    let source = Manual::default();
    let request = with(UseToken::new(source.clone()));
    let mut request = Task::new(service.clone().oneshot(request));
    assert!(request.poll().is_pending());
    source.answer(Err(SourceError::new(SourceErrorKind::Absent, "none")));
    let error = request.finish().unwrap_err();
    assert_eq!(ours(&error).kind(), ErrorKind::NoToken);
}

#[test]
fn a_proxys_layer_does_not_take_the_token_of_a_tenant() {
    let server = Server::ok();
    let proxy =
        BearerAuthLayer::new(StaticToken::new(token("proxy"))).header_name(PROXY_AUTHORIZATION);
    let origin = BearerAuthLayer::new(StaticToken::new(token("ours")));
    for proxy_first in [false, true] {
        let service: BoxCloneService<Req, _, BoxError> = if proxy_first {
            proxy.layer(origin.layer(server.clone())).boxed_clone()
        } else {
            origin.layer(proxy.layer(server.clone())).boxed_clone()
        };
        let both = |chosen: UseToken| {
            let request = with(chosen);
            service.clone().oneshot(request).now_or_never();
            let request = server.seen().pop().unwrap();
            (
                values(&request, "authorization"),
                values(&request, "proxy-authorization"),
            )
        };
        let of = |text: &str| vec![format!("Bearer {text}")];
        let tenant = || UseToken::new(token("tenant"));
        assert_eq!(both(tenant()), (of("tenant"), of("proxy")));
        let chosen = tenant().under(PROXY_AUTHORIZATION);
        assert_eq!(both(chosen), (of("ours"), of("tenant")));
        assert_eq!(both(UseToken::none()), (vec![], of("proxy")));
        let chosen = UseToken::none().under(PROXY_AUTHORIZATION);
        assert_eq!(both(chosen), (of("ours"), vec![]));
    }
}

#[test]
fn a_tenants_token_goes_through_a_boxed_service() {
    let server = Server::ok();
    let mut service = BearerAuthLayer::new(StaticToken::new(token("ours")))
        .layer(server.clone())
        .boxed_clone();
    send(&mut service, with(UseToken::new(token("tenant")))).unwrap();
    assert_eq!(server.authorizations(), ["Bearer tenant"]);
}

#[test]
fn a_tenants_source_that_has_to_wait_holds_up_its_request_only() {
    let server = Server::ok();
    let service = BearerAuthLayer::new(StaticToken::new(token("ours"))).layer(server.clone());
    let source = Manual::default();
    let chosen = UseToken::new(source.clone());
    let mut tenant = Task::new(service.clone().oneshot(with(chosen)));
    assert!(tenant.poll().is_pending());
    send(&mut service.clone(), get(URL)).unwrap();
    source.answer(Ok(token("tenant")));
    tenant.finish().unwrap();
    assert_eq!(server.authorizations(), ["Bearer ours", "Bearer tenant"]);
}

#[test]
fn a_request_goes_without_a_token_if_the_source_is_absent_and_the_layer_lets_it() {
    for waits in [false, true] {
        let server = Server::answering(|_| status(StatusCode::UNAUTHORIZED));
        let source = Asking(move || {
            let error = Err(SourceError::new(SourceErrorKind::Absent, "none"));
            if waits {
                TokenFuture::boxed(async { error })
            } else {
                TokenFuture::ready(error)
            }
        });
        let layer = BearerAuthLayer::new(source).anonymous_if_absent();
        let response = send(&mut layer.layer(server.clone()), get(URL)).unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(authorizations(&server.seen()), [Vec::<String>::new()]);
    }
}

#[test]
fn no_other_error_of_the_source_lets_a_request_go_without_a_token() {
    for kind in [SourceErrorKind::Failed, SourceErrorKind::Invalid] {
        for waits in [false, true] {
            let server = Server::ok();
            let source = Asking(move || {
                let error = Err(SourceError::new(kind, "none"));
                if waits {
                    TokenFuture::boxed(async { error })
                } else {
                    TokenFuture::ready(error)
                }
            });
            let layer = BearerAuthLayer::new(source).anonymous_if_absent();
            let error = send(&mut layer.layer(server.clone()), get(URL)).unwrap_err();
            assert_eq!(ours(&error).kind(), ErrorKind::NoToken);
            assert_eq!(server.seen().len(), 0);
        }
    }
}

#[test]
fn a_request_with_a_source_of_its_own_takes_a_mark_off_when_it_succeeds() {
    let tenant = token("tenant");
    tenant.reject();
    let mut service = BearerAuthLayer::new(StaticToken::new(token("ours"))).layer(Server::ok());
    send(&mut service, with(UseToken::new(tenant.clone()))).unwrap();
    assert!(!tenant.is_rejected());
}

#[test]
fn a_request_with_a_source_of_its_own_allocates_only_if_the_layer_retries() {
    let allocations = |layer: BearerAuthLayer<StaticToken>| {
        let mut service = layer.layer(Respond);
        make_ready(&mut service);
        let mut request = with(UseToken::new(token("tenant")));
        request.headers_mut().reserve(1);
        allocations_in(|| tower::Service::call(&mut service, request)).0
    };
    let layer = || BearerAuthLayer::new(StaticToken::new(token("ours")));
    assert_eq!(allocations(layer()), 0);
    assert_eq!(allocations(layer().retry_rejected()), 1);
}

#[test]
fn debug_of_the_extension_shows_no_token() {
    let chosen = UseToken::new(token("tenant")).under(HeaderName::from_static("x-key"));
    let debug = format!("{chosen:?}");
    assert_eq!(debug, r#"UseToken { has_source: true, header: "x-key" }"#);
    assert!(format!("{:?}", UseToken::none()).contains("false"));
}

#[test]
fn a_rotating_source_of_a_tenant_gives_the_token_of_its_time() {
    let server = Server::ok();
    let mut service = BearerAuthLayer::new(StaticToken::new(token("ours"))).layer(server.clone());
    let tenant = RotatingToken::new(token("first"));
    let chosen = UseToken::new(tenant.clone());
    send(&mut service, with(chosen.clone())).unwrap();
    tenant.rotate(token("second"));
    send(&mut service, with(chosen)).unwrap();
    assert_eq!(server.authorizations(), ["Bearer first", "Bearer second"]);
}

#[test]
fn a_fetch_goes_through_the_layers_own_client_if_it_asks_for_no_token() {
    for chosen in [Some(UseToken::none()), None] {
        let asks_for_none = chosen.is_some();
        let server = Server::ok();
        let client = Arc::new(OnceLock::<BoxCloneSyncService<Req, Res, BoxError>>::new());
        let within = Arc::clone(&client);
        let source = RefreshingToken::builder(move || {
            let client = within.get().unwrap().clone();
            let mut request = get("https://id.example.com/token");
            if let Some(chosen) = chosen.clone() {
                request.extensions_mut().insert(chosen);
            }
            async move {
                client.oneshot(request).await?;
                Ok::<_, BoxError>(token("fetched"))
            }
        })
        .runtime(CallerDriven::default())
        .build();
        let layered = BearerAuthLayer::new(source).layer(ConcurrencyLimit::new(server.clone(), 1));
        client
            .set(BoxCloneSyncService::new(layered))
            .expect("it is set once");
        let sent = Task::new(client.get().unwrap().clone().oneshot(get(URL))).finish();
        if asks_for_none {
            assert_eq!(sent.unwrap().status(), StatusCode::OK);
            assert_eq!(server.authorizations(), ["", "Bearer fetched"]);
        } else {
            let error = sent.unwrap_err();
            let error = ours(&error).source_error().unwrap();
            assert_eq!(error.kind(), SourceErrorKind::Recursive);
            let cause = error.cause::<SourceError>().unwrap();
            assert_eq!(cause.kind(), SourceErrorKind::Recursive);
            assert!(server.seen().is_empty());
        }
    }
}

/// A request holds the only permit. Meanwhile another request has its token, and waits for the permit.
#[test]
fn a_tenants_token_that_is_rejected_while_its_request_waits_for_the_server_is_asked_for_anew() {
    let (server, held) = Server::held();
    let layer = BearerAuthLayer::new(StaticToken::new(token("ours")));
    let service = layer.layer(ConcurrencyLimit::new(server.clone(), 1));
    let mut first = Task::waiting(service.clone().oneshot(get(URL)));
    let tenant = RotatingToken::empty();
    let request = with(UseToken::new(tenant.clone()));
    // The permit is free for a moment, so that the second request first waits for its token and then for
    // the permit.
    held.answer(Ok(Res::default()));
    first.finish().unwrap();
    let mut second = Task::waiting(service.clone().oneshot(request));
    let mut third = Task::waiting(service.clone().oneshot(get(URL)));
    let old = token("old");
    tenant.rotate(old.clone());
    assert!(second.poll().is_pending(), "the place is taken");
    old.reject();
    tenant.rotate(token("new"));
    held.answer(Ok(Res::default()));
    third.finish().unwrap();
    drop(third);
    assert!(second.poll().is_pending());
    held.answer(Ok(Res::default()));
    second.finish().unwrap();
    let sent = ["Bearer ours", "Bearer ours", "Bearer new"];
    assert_eq!(server.authorizations(), sent);
}
