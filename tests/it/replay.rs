//! A request whose token was rejected is replayed once, if there is another token.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures::{
    channel::oneshot,
    executor::block_on,
    future::{FutureExt, ready},
};
use http::{Response, StatusCode};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, retry::RetryLayer};
use tower_bearer::{
    BearerAuthLayer, ReplayRejected, RotatingToken, SourceError, SourceErrorKind, StaticToken,
    TokenFuture, TokenReplaced, TokenSource,
};
use tower_http::follow_redirect::{FollowRedirectLayer, policy::Limited};

use crate::support::{Asking, Req, Res, Server, Task, get, send, status, token, values};

const URL: &str = "https://api.example.com/";

/// Takes one token only.
fn takes(good: &'static str) -> Server {
    Server::answering(move |request| {
        let is_good = values(request, "authorization") == [format!("Bearer {good}")];
        status(if is_good {
            StatusCode::OK
        } else {
            StatusCode::UNAUTHORIZED
        })
    })
}

/// Hands out `old` until it is rejected, then `new`.
fn old_then_new() -> impl TokenSource {
    let (old, new) = (token("old"), token("new"));
    Asking(move || {
        let token = if old.is_rejected() { &new } else { &old };
        token.clone().into()
    })
}

fn replaying<T: TokenSource>(
    source: T,
    server: &Server,
) -> impl Service<Req, Response = Res, Error = BoxError> + Clone {
    ServiceBuilder::new()
        .layer(RetryLayer::new(ReplayRejected::new()))
        .layer(BearerAuthLayer::new(source).replay_rejected())
        .service(server.clone())
}

#[test]
fn a_rejected_request_is_replayed_with_the_other_token() {
    let server = takes("new");
    let response = send(&mut replaying(old_then_new(), &server), get(URL)).unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(server.authorizations(), ["Bearer old", "Bearer new"]);
}

#[test]
fn a_request_is_replayed_once_and_no_more() {
    let server = takes("none of them");
    let source = Asking({
        let count = AtomicUsize::new(0);
        move || token(&count.fetch_add(1, Ordering::SeqCst).to_string()).into()
    });
    let response = send(&mut replaying(source, &server), get(URL)).unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn without_another_token_the_response_is_handed_on_and_nothing_is_replayed() {
    let unavailable = || SourceError::new(SourceErrorKind::Failed, "none");
    let old = token("old");
    let fails = Asking(move || {
        if old.is_rejected() {
            return TokenFuture::pending(ready(Err(unavailable())));
        }
        old.clone().into()
    });
    let server = takes("new");
    let response = send(&mut replaying(fails, &server), get(URL)).unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(server.seen().len(), 1);

    let server = takes("new");
    let only = StaticToken::new(token("old"));
    let response = send(&mut replaying(only, &server), get(URL)).unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn a_response_that_blames_something_else_is_not_replayed() {
    let server = Server::answering(|_| {
        let mut response = status(StatusCode::UNAUTHORIZED);
        let challenge = "Bearer error=\"insufficient_scope\"".parse().unwrap();
        response.headers_mut().insert("www-authenticate", challenge);
        response
    });
    send(&mut replaying(old_then_new(), &server), get(URL)).unwrap();
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn a_request_whose_body_cannot_be_cloned_is_not_replayed() {
    let server = takes("new");
    let mut service = ServiceBuilder::new()
        .layer(RetryLayer::new(ReplayRejected::with_clone(|_: &Req| None)))
        .layer(BearerAuthLayer::new(old_then_new()).replay_rejected())
        .service(server.clone());
    let response = send(&mut service, get(URL)).unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn without_the_setting_the_response_is_not_held_back_and_nothing_is_replayed() {
    let server = takes("new");
    let mut service = ServiceBuilder::new()
        .layer(RetryLayer::new(ReplayRejected::new()))
        .layer(BearerAuthLayer::new(old_then_new()))
        .service(server.clone());
    let response = send(&mut service, get(URL)).unwrap();
    assert!(response.extensions().get::<TokenReplaced>().is_none());
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn the_replay_waits_for_the_fetch_of_the_other_token() {
    let (come, comes) = oneshot::channel();
    let comes = comes.shared();
    let old = token("old");
    let source = Asking(move || {
        if !old.is_rejected() {
            return old.clone().into();
        }
        TokenFuture::pending(comes.clone().map(|came: Result<(), _>| {
            came.unwrap();
            Ok(token("new"))
        }))
    });
    let server = takes("new");
    let mut service = replaying(source, &server);
    let mut request = Task::waiting(service.call(get(URL)));
    assert_eq!(server.seen().len(), 1);
    come.send(()).unwrap();
    assert_eq!(request.finish().unwrap().status(), StatusCode::OK);
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn a_caller_who_leaves_while_the_response_is_held_back_loses_nothing_for_others() {
    let server = takes("new");
    let source = RotatingToken::new(token("old"));
    let mut service = BearerAuthLayer::new(source.clone())
        .replay_rejected()
        .layer(server);
    drop(service.call(get(URL)));
    source.rotate(token("new"));
    let response = send(&mut service, get(URL)).unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

/// Through a stack with the layer and a replay in it go two requests, and the caller sees a success.
macro_rules! assert_replays {
    ($name:literal, $stack:expr) => {{
        let server = takes("new");
        let service = $stack.service(server.clone());
        let response = service.oneshot(get(URL)).await.expect($name);
        assert_eq!(response.status(), StatusCode::OK, $name);
        assert_eq!(server.seen().len(), 2, $name);
    }};
}

#[tokio::test(start_paused = true)]
async fn the_replay_composes_with_towers_layers_in_either_order() {
    let auth = || BearerAuthLayer::new(old_then_new()).replay_rejected();
    let retry = || RetryLayer::new(ReplayRejected::new());
    let redirects = || FollowRedirectLayer::with_policy(Limited::default());
    let minute = Duration::from_secs(60);
    let stack = ServiceBuilder::new;
    assert_replays!(
        "timeout above",
        stack().timeout(minute).layer(retry()).layer(auth())
    );
    assert_replays!(
        "timeout between",
        stack().layer(retry()).timeout(minute).layer(auth())
    );
    assert_replays!(
        "timeout below",
        stack().layer(retry()).layer(auth()).timeout(minute)
    );
    assert_replays!(
        "limit above",
        stack().concurrency_limit(1).layer(retry()).layer(auth())
    );
    assert_replays!(
        "load shed above",
        stack().load_shed().layer(retry()).layer(auth())
    );
    assert_replays!(
        "load shed below",
        stack().layer(retry()).layer(auth()).load_shed()
    );
    assert_replays!(
        "buffer above",
        stack().buffer(8).layer(retry()).layer(auth())
    );
    assert_replays!(
        "buffer below",
        stack().layer(retry()).layer(auth()).buffer(8)
    );
    assert_replays!(
        "redirects above",
        stack().layer(redirects()).layer(retry()).layer(auth())
    );
    assert_replays!(
        "redirects below",
        stack().layer(retry()).layer(auth()).layer(redirects())
    );
}

/// A limit of one that each try has to pass: the first has to give its permit back before the
/// replay can have it.
#[tokio::test]
async fn a_replay_under_a_limit_of_one_does_not_wait_for_itself() {
    let server = takes("new");
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(ReplayRejected::new()))
        .layer(BearerAuthLayer::new(old_then_new()).replay_rejected())
        .concurrency_limit(1)
        .service(server.clone());
    let response = service.oneshot(get(URL)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

/// Sends whoever has the good token to another host.
fn redirects(good: &'static str) -> Server {
    Server::answering(move |request| {
        if request.uri().host() == Some("elsewhere.example") {
            return Res::default();
        }
        let mut response = status(StatusCode::FOUND);
        if values(request, "authorization") != [format!("Bearer {good}")] {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        let location = "https://elsewhere.example/".parse().unwrap();
        response.headers_mut().insert("location", location);
        response
    })
}

#[test]
fn no_foreign_hop_gets_the_token_whatever_is_replayed() {
    let auth = || {
        BearerAuthLayer::new(old_then_new())
            .for_origin(URL)
            .unwrap()
            .replay_rejected()
    };
    let server = redirects("new");
    let above = ServiceBuilder::new()
        .layer(FollowRedirectLayer::new())
        .layer(RetryLayer::new(ReplayRejected::new()))
        .layer(auth())
        .service(server.clone());
    block_on(above.oneshot(get(URL))).unwrap();
    assert_eq!(server.authorizations(), ["Bearer old", "Bearer new", ""]);

    let server = redirects("new");
    let below = ServiceBuilder::new()
        .layer(RetryLayer::new(ReplayRejected::new()))
        .layer(auth())
        .layer(FollowRedirectLayer::new())
        .service(server.clone());
    block_on(below.oneshot(get(URL))).unwrap();
    assert_eq!(server.authorizations(), ["Bearer old", "Bearer new", ""]);
}

#[test]
fn a_policy_of_ones_own_can_look_at_the_extension() {
    let server = takes("new");
    let layer = BearerAuthLayer::new(old_then_new()).replay_rejected();
    let mut service = layer.layer(server);
    let response: Response<String> = send(&mut service, get(URL)).unwrap();
    assert!(response.extensions().get::<TokenReplaced>().is_some());
}

#[test]
fn the_same_text_in_a_new_token_is_no_other_token() {
    let server = takes("new");
    let source = Asking(|| token("old").into());
    let response = send(&mut replaying(source, &server), get(URL)).unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(server.seen().len(), 1);
}
