//! The retry among Tower's layers: what each order of the layers promises.
//!
//! "Above" is above the `Retry`, "between" is between the `Retry` and the `BearerAuthLayer`, and "below" is
//! below both.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};

use futures::{FutureExt, channel::oneshot};
use http::{Request, StatusCode};
use tokio::time::{Instant, sleep};
use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt, load_shed::error::Overloaded,
    retry::RetryLayer, timeout::error::Elapsed,
};
use tower_bearer::{
    BearerAuthLayer, BearerToken, RetryRejected, StaticToken, TokenFuture, TokenSource,
};
use tower_http::follow_redirect::FollowRedirectLayer;

use crate::support::{
    Asking, Counting, Held, Req, Res, Server, Task, get, make_ready,
    retrying::{URL, always_another, answering, old_then_new, takes},
    send, status, token, values,
};

const ELSEWHERE: &str = "https://elsewhere.example/";
const MINUTE: Duration = Duration::from_secs(60);

fn stack() -> ServiceBuilder<tower::layer::util::Identity> {
    ServiceBuilder::new()
}

fn auth<T: TokenSource + 'static>(source: T) -> BearerAuthLayer<T> {
    let layer = BearerAuthLayer::new(source).for_origin(URL).unwrap();
    layer.retry_rejected()
}

fn retry() -> RetryLayer<RetryRejected<String>> {
    RetryLayer::new(RetryRejected::new())
}

fn redirects() -> FollowRedirectLayer {
    FollowRedirectLayer::new()
}

/// Calls `$check!(name, stack)` with each layer in each place.
macro_rules! each_order {
    ($check:ident, $source:expr) => {
        let auth = || auth($source);
        $check!(
            "timeout above",
            stack().timeout(MINUTE).layer(retry()).layer(auth())
        );
        $check!(
            "timeout between",
            stack().layer(retry()).timeout(MINUTE).layer(auth())
        );
        $check!(
            "timeout below",
            stack().layer(retry()).layer(auth()).timeout(MINUTE)
        );
        $check!(
            "buffer above",
            stack().buffer(1).layer(retry()).layer(auth())
        );
        $check!(
            "buffer between",
            stack().layer(retry()).buffer(1).layer(auth())
        );
        $check!(
            "buffer below",
            stack().layer(retry()).layer(auth()).buffer(1)
        );
        $check!(
            "limit above",
            stack().concurrency_limit(1).layer(retry()).layer(auth())
        );
        $check!(
            "limit between",
            stack().layer(retry()).concurrency_limit(1).layer(auth())
        );
        $check!(
            "limit below",
            stack().layer(retry()).layer(auth()).concurrency_limit(1)
        );
        $check!(
            "load shed above",
            stack().load_shed().layer(retry()).layer(auth())
        );
        $check!(
            "load shed between",
            stack().layer(retry()).load_shed().layer(auth())
        );
        $check!(
            "load shed below",
            stack().layer(retry()).layer(auth()).load_shed()
        );
        $check!(
            "redirects above",
            stack().layer(redirects()).layer(retry()).layer(auth())
        );
        $check!(
            "redirects between",
            stack().layer(retry()).layer(redirects()).layer(auth())
        );
        $check!(
            "redirects below",
            stack().layer(retry()).layer(auth()).layer(redirects())
        );
        $check!(
            "all of them",
            stack()
                .layer(redirects())
                .timeout(MINUTE)
                .load_shed()
                .buffer(1)
                .concurrency_limit(1)
                .layer(retry())
                .layer(auth())
        );
    };
}

#[tokio::test(start_paused = true)]
async fn in_every_order_a_rejected_request_is_retried_with_the_other_token() {
    macro_rules! retries {
        ($name:literal, $stack:expr) => {
            let server = takes("new");
            let response = $stack.service(server.clone()).oneshot(get(URL)).await;
            assert_eq!(response.expect($name).status(), StatusCode::OK, $name);
            assert_eq!(server.authorizations(), ["Bearer old", "Bearer new"], $name);
        };
    }
    each_order!(retries, old_then_new());
}

#[tokio::test(start_paused = true)]
async fn in_no_order_a_request_is_retried_twice() {
    macro_rules! retries_once {
        ($name:literal, $stack:expr) => {
            let server = takes("none of them");
            let response = $stack.service(server.clone()).oneshot(get(URL)).await;
            let status = response.expect($name).status();
            assert_eq!(status, StatusCode::UNAUTHORIZED, $name);
            assert_eq!(server.seen().len(), 2, $name);
        };
    }
    each_order!(retries_once, always_another());
}

#[tokio::test(start_paused = true)]
async fn in_no_order_a_request_is_retried_with_the_token_that_was_rejected() {
    macro_rules! retries_nothing {
        ($name:literal, $stack:expr) => {
            let server = takes("new");
            let response = $stack.service(server.clone()).oneshot(get(URL)).await;
            let status = response.expect($name).status();
            assert_eq!(status, StatusCode::UNAUTHORIZED, $name);
            assert_eq!(server.authorizations(), ["Bearer old"], $name);
        };
    }
    each_order!(retries_nothing, StaticToken::new(token("old")));
}

fn redirect(code: StatusCode, to: &str) -> Res {
    let mut response = status(code);
    let location = to.parse().unwrap();
    response.headers_mut().insert("location", location);
    response
}

/// Redirects a request with the good token to another host, from there to another path, and on to a third
/// host.
fn wandering() -> Server {
    Server::answering(|request| match request.uri().to_string().as_str() {
        URL if values(request, "authorization") == ["Bearer new"] => {
            redirect(StatusCode::FOUND, ELSEWHERE)
        }
        URL => status(StatusCode::UNAUTHORIZED),
        ELSEWHERE => redirect(StatusCode::TEMPORARY_REDIRECT, "/2"),
        "https://elsewhere.example/2" => redirect(StatusCode::FOUND, "https://third.example/"),
        _ => Res::default(),
    })
}

#[tokio::test(start_paused = true)]
async fn in_no_order_a_token_goes_to_a_foreign_host() {
    macro_rules! stays_at_home {
        ($name:literal, $stack:expr) => {
            let server = wandering();
            let top = redirects().layer($stack.service(server.clone()));
            let response = top.oneshot(get(URL)).await.expect($name);
            assert_eq!(response.status(), StatusCode::OK, $name);
            let expected = ["Bearer old", "Bearer new", "", "", ""];
            assert_eq!(
                server.authorizations(),
                expected,
                "{}, redirects on top",
                $name
            );

            let server = wandering();
            let bottom = $stack.service(redirects().layer(server.clone()));
            let response = bottom.oneshot(get(URL)).await.expect($name);
            assert_eq!(response.status(), StatusCode::OK, $name);
            assert_eq!(
                server.authorizations(),
                expected,
                "{}, redirects at the bottom",
                $name
            );
        };
    }
    each_order!(stays_at_home, old_then_new());
}

#[test]
fn a_retry_below_the_layer_retries_nothing() {
    let server = takes("new");
    let mut service = stack()
        .layer(auth(old_then_new()))
        .layer(retry())
        .service(server.clone());
    let response = send(&mut service, get(URL)).unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(server.authorizations(), ["Bearer old"]);
}

// Timeout

/// Answers each request after 40 seconds.
fn slow(server: &Server) -> impl Service<Req, Response = Res, Error = BoxError> + Clone {
    let mut server = server.clone();
    tower::service_fn(move |request| {
        let answer = server.call(request);
        async move {
            sleep(Duration::from_secs(40)).await;
            answer.await
        }
    })
}

/// Hands out `old` until `old` is rejected. After that, each caller gets `new`, but has to wait for `wait`.
fn old_then_after(wait: Duration) -> impl TokenSource {
    let (old, new) = (token("old"), token("new"));
    Asking(move || {
        if !old.is_rejected() {
            return old.clone().into();
        }
        let new = new.clone();
        TokenFuture::boxed(sleep(wait).map(|()| Ok(new)))
    })
}

/// Whether a request was answered in time, after how many seconds, and in how many tries.
async fn timed<S>(service: S, server: &Server) -> (bool, u64, usize)
where
    S: Service<Req, Response = Res, Error = BoxError>,
{
    let start = Instant::now();
    let answered = match service.oneshot(get(URL)).await {
        Ok(response) => {
            assert_eq!(response.status(), StatusCode::OK);
            true
        }
        Err(error) => {
            assert!(error.is::<Elapsed>(), "{error:?}");
            false
        }
    };
    (answered, start.elapsed().as_secs(), server.seen().len())
}

#[tokio::test(start_paused = true)]
async fn a_timeout_above_covers_both_tries_one_between_or_below_covers_each() {
    let server = takes("new");
    let above = stack()
        .timeout(MINUTE)
        .layer(retry())
        .layer(auth(old_then_new()));
    let outcome = timed(above.service(slow(&server)), &server).await;
    assert_eq!(outcome, (false, 60, 2));

    let server = takes("new");
    let between = stack()
        .layer(retry())
        .timeout(MINUTE)
        .layer(auth(old_then_new()));
    let outcome = timed(between.service(slow(&server)), &server).await;
    assert_eq!(outcome, (true, 80, 2));

    let server = takes("new");
    let below = stack()
        .layer(retry())
        .layer(auth(old_then_new()))
        .timeout(MINUTE);
    let outcome = timed(below.service(slow(&server)), &server).await;
    assert_eq!(outcome, (true, 80, 2));
}

#[tokio::test(start_paused = true)]
async fn a_timeout_above_or_between_covers_the_wait_for_the_other_token_and_one_below_does_not() {
    let never = Duration::MAX;
    let server = takes("new");
    let above = stack()
        .timeout(MINUTE)
        .layer(retry())
        .layer(auth(old_then_after(never)));
    let outcome = timed(above.service(server.clone()), &server).await;
    assert_eq!(outcome, (false, 60, 1));

    // A try that has timed out is not retried.
    let server = takes("new");
    let between = stack()
        .layer(retry())
        .timeout(MINUTE)
        .layer(auth(old_then_after(never)));
    let outcome = timed(between.service(server.clone()), &server).await;
    assert_eq!(outcome, (false, 60, 1));

    let server = takes("new");
    let source = old_then_after(10 * MINUTE);
    let below = stack().layer(retry()).layer(auth(source)).timeout(MINUTE);
    let outcome = timed(below.service(server.clone()), &server).await;
    // The source is asked twice for `new`: while the response is held back, and for the retry.
    assert_eq!(outcome, (true, 2 * 600, 2));
}

// ConcurrencyLimit and LoadShed

/// Hands out `old` until `old` is rejected. After that, each caller gets `new`, once the sender has sent.
fn old_then_given() -> (oneshot::Sender<()>, impl TokenSource) {
    let (give, given) = oneshot::channel();
    let given = given.shared();
    let (old, new) = (token("old"), token("new"));
    let source = Asking(move || {
        if !old.is_rejected() {
            return old.clone().into();
        }
        let new = new.clone();
        TokenFuture::boxed(given.clone().map(move |given| {
            given.unwrap();
            Ok(new)
        }))
    });
    (give, source)
}

/// Accepts only `new` at `URL`. Needs no token elsewhere.
fn home() -> Server {
    Server::answering(|request| {
        let at_home = request.uri() == URL;
        let is_good = values(request, "authorization") == ["Bearer new"];
        status(if is_good || !at_home {
            StatusCode::OK
        } else {
            StatusCode::UNAUTHORIZED
        })
    })
}

fn is_ready<S: Service<Req>>(service: &mut S) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    service.poll_ready(&mut cx).is_ready()
}

/// Whether a limit of one lets another request through while a response is held back. After the retry, the
/// limit is free in either case.
fn is_free_meanwhile<S>(service: S, give: oneshot::Sender<()>, server: &Server) -> bool
where
    S: Service<Req, Response = Res, Error = BoxError> + Clone,
{
    let (mut first, mut second) = (service.clone(), service);
    make_ready(&mut first);
    let mut request = Task::waiting(first.call(get(URL)));
    assert_eq!(server.seen().len(), 1);
    // Poll a clone: `second` would stay in the queue of the limit, and get its place before the retry.
    let is_free = is_ready(&mut second.clone());
    if is_free {
        make_ready(&mut second);
        let mut other = Task::new(second.call(get(ELSEWHERE)));
        assert_eq!(other.finish().unwrap().status(), StatusCode::OK);
    }
    give.send(()).unwrap();
    assert_eq!(request.finish().unwrap().status(), StatusCode::OK);
    drop(request);
    assert!(is_ready(&mut second));
    is_free
}

#[test]
fn a_limit_below_is_free_while_a_rejected_response_is_held_back_one_above_or_between_is_not() {
    let (server, (give, source)) = (home(), old_then_given());
    let above = stack()
        .concurrency_limit(1)
        .layer(retry())
        .layer(auth(source));
    let above = above.service(server.clone());
    assert!(!is_free_meanwhile(above, give, &server));

    let (server, (give, source)) = (home(), old_then_given());
    let between = stack()
        .layer(retry())
        .concurrency_limit(1)
        .layer(auth(source));
    let between = between.service(server.clone());
    assert!(!is_free_meanwhile(between, give, &server));

    let (server, (give, source)) = (home(), old_then_given());
    let below = stack()
        .layer(retry())
        .layer(auth(source))
        .concurrency_limit(1);
    let below = below.service(server.clone());
    assert!(is_free_meanwhile(below, give, &server));
}

/// How another request ends while a response is held back.
fn meanwhile<S>(mut service: S, server: &Server) -> Result<Res, BoxError>
where
    S: Service<Req, Response = Res, Error = BoxError>,
{
    make_ready(&mut service);
    let _held_back = Task::waiting(service.call(get(URL)));
    assert_eq!(server.seen().len(), 1);
    send(&mut service, get(ELSEWHERE))
}

#[test]
fn a_load_shedder_sheds_for_a_limit_and_not_because_a_response_is_held_back() {
    let (server, (_give, source)) = (home(), old_then_given());
    let limit_above = stack()
        .load_shed()
        .concurrency_limit(1)
        .layer(retry())
        .layer(auth(source));
    let error = meanwhile(limit_above.service(server.clone()), &server).unwrap_err();
    assert!(error.is::<Overloaded>());

    let (server, (_give, source)) = (home(), old_then_given());
    let limit_below = stack()
        .load_shed()
        .layer(retry())
        .layer(auth(source))
        .concurrency_limit(1);
    meanwhile(limit_below.service(server.clone()), &server).unwrap();

    let (server, (_give, source)) = (home(), old_then_given());
    let both_below = stack()
        .layer(retry())
        .layer(auth(source))
        .load_shed()
        .concurrency_limit(1);
    meanwhile(both_below.service(server.clone()), &server).unwrap();
}

#[test]
fn a_load_shedder_between_or_below_may_shed_the_retry_one_above_does_not() {
    let (server, held) = Server::held();
    let (give, source) = old_then_given();
    let between = stack()
        .layer(retry())
        .load_shed()
        .layer(auth(source))
        .concurrency_limit(1);
    let (mut request, _other) = crowded_retry(between.service(server.clone()), give, &held);
    assert!(request.finish().unwrap_err().is::<Overloaded>());
    assert_eq!(server.seen().len(), 2);

    let (server, held) = Server::held();
    let (give, source) = old_then_given();
    let below = stack()
        .layer(retry())
        .layer(auth(source))
        .load_shed()
        .concurrency_limit(1);
    let (mut request, _other) = crowded_retry(below.service(server.clone()), give, &held);
    assert!(request.finish().unwrap_err().is::<Overloaded>());
    assert_eq!(server.seen().len(), 2);

    let (server, held) = Server::held();
    let (give, source) = old_then_given();
    let above = stack()
        .load_shed()
        .layer(retry())
        .layer(auth(source))
        .concurrency_limit(1);
    let (mut request, other) = crowded_retry(above.service(server.clone()), give, &held);
    assert!(request.poll().is_pending());
    assert_eq!(server.seen().len(), 2);
    drop(other);
    assert!(request.poll().is_pending());
    assert_eq!(server.seen().len(), 3);
}

/// A request that is about to be retried, and another request that has just taken the limit's only place.
fn crowded_retry<S>(
    mut service: S,
    give: oneshot::Sender<()>,
    held: &Held,
) -> (Task<S::Future>, Task<S::Future>)
where
    S: Service<Req, Response = Res, Error = BoxError>,
{
    make_ready(&mut service);
    let mut request = Task::waiting(service.call(get(URL)));
    held.answer(Ok(status(StatusCode::UNAUTHORIZED)));
    assert!(request.poll().is_pending());
    make_ready(&mut service);
    let other = Task::waiting(service.call(get(ELSEWHERE)));
    give.send(()).unwrap();
    (request, other)
}

// Buffer

#[tokio::test(start_paused = true)]
async fn a_buffer_serves_others_while_a_rejected_response_is_held_back() {
    // Paused time moves once there is nothing left to do, so a request that waits for ever fails.
    macro_rules! in_time {
        ($name:literal, $future:expr) => {
            tokio::time::timeout(MINUTE, $future).await.expect($name)
        };
    }
    macro_rules! serves_others {
        ($name:literal, $stack:expr) => {
            let (give, source) = old_then_given();
            let source = Counting::new(Arc::new(source));
            let service = $stack(auth(source.clone())).service(home());
            let first = tokio::spawn(service.clone().oneshot(get(URL)));
            // Now the response is held back, and only `give` lets the first request go on.
            sleep(MINUTE).await;
            assert_eq!(source.asked(), 2, $name);
            let second = in_time!($name, service.oneshot(get(ELSEWHERE)));
            assert_eq!(second.expect($name).status(), StatusCode::OK, $name);
            assert!(!first.is_finished(), $name);
            give.send(()).unwrap();
            let first = in_time!($name, first).unwrap().expect($name);
            assert_eq!(first.status(), StatusCode::OK, $name);
        };
    }
    serves_others!("above", |auth| stack().buffer(1).layer(retry()).layer(auth));
    serves_others!("between", |auth| stack()
        .layer(retry())
        .buffer(1)
        .layer(auth));
    serves_others!("below", |auth| stack().layer(retry()).layer(auth).buffer(1));
}

// FollowRedirect

/// The method, the URI and the token of each request.
fn way(server: &Server) -> Vec<String> {
    let seen = server.seen();
    let hop = |request: &Req| {
        let token = values(request, "authorization").concat();
        let token = token.trim_start_matches("Bearer ");
        format!("{} {} {token}", request.method(), request.uri())
    };
    seen.iter().map(hop).collect()
}

fn order() -> Req {
    Request::post("https://api.example.com/orders")
        .body("order".to_owned())
        .unwrap()
}

/// Acts on an order with any token, but accepts only `new` where the outcome is to be read.
fn shop() -> Server {
    Server::answering(|request| match request.uri().path() {
        "/orders" => redirect(StatusCode::SEE_OTHER, "/orders/1"),
        _ if values(request, "authorization") == ["Bearer new"] => Res::default(),
        _ => status(StatusCode::UNAUTHORIZED),
    })
}

#[tokio::test]
async fn a_redirect_follower_above_has_one_hop_retried_one_between_or_below_the_whole_way() {
    let server = shop();
    let above = stack()
        .layer(redirects())
        .layer(retry())
        .layer(auth(old_then_new()));
    let response = above
        .service(server.clone())
        .oneshot(order())
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let ordered_once = [
        "POST https://api.example.com/orders old",
        "GET https://api.example.com/orders/1 old",
        "GET https://api.example.com/orders/1 new",
    ];
    assert_eq!(way(&server), ordered_once);

    let ordered_twice = [
        "POST https://api.example.com/orders old",
        "GET https://api.example.com/orders/1 old",
        "POST https://api.example.com/orders new",
        "GET https://api.example.com/orders/1 new",
    ];
    let server = shop();
    let between = stack()
        .layer(retry())
        .layer(redirects())
        .layer(auth(old_then_new()));
    between
        .service(server.clone())
        .oneshot(order())
        .await
        .unwrap();
    assert_eq!(way(&server), ordered_twice);

    let server = shop();
    let below = stack()
        .layer(retry())
        .layer(auth(old_then_new()))
        .layer(redirects());
    below
        .service(server.clone())
        .oneshot(order())
        .await
        .unwrap();
    assert_eq!(way(&server), ordered_twice);
}

#[tokio::test]
async fn with_a_redirect_follower_above_each_hop_is_retried_once() {
    // Each hop rejects its first request and accepts the second.
    let count = AtomicUsize::new(0);
    let server = Server::answering(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 | 2 | 4 => status(StatusCode::UNAUTHORIZED),
        1 => redirect(StatusCode::FOUND, "/2"),
        3 => redirect(StatusCode::FOUND, "/3"),
        _ => Res::default(),
    });
    let above = stack()
        .layer(redirects())
        .layer(retry())
        .layer(auth(always_another()));
    let response = above
        .service(server.clone())
        .oneshot(get(URL))
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(server.seen().len(), 6);
}

/// Redirects each request to another host, which rejects every token.
fn hostile() -> Server {
    answering(|request| match request.uri().to_string().as_str() {
        URL => redirect(StatusCode::FOUND, ELSEWHERE),
        _ => status(StatusCode::UNAUTHORIZED),
    })
}

#[tokio::test]
async fn the_401_of_a_foreign_host_marks_the_token_only_if_the_redirect_follower_is_below() {
    let handed_out = Arc::new(Mutex::new(Vec::<BearerToken>::new()));
    let source = || {
        let (log, next) = (Arc::clone(&handed_out), always_another());
        log.lock().unwrap().clear();
        Asking(move || {
            let token = next.token().now_or_never().unwrap().unwrap();
            log.lock().unwrap().push(token.clone());
            token.into()
        })
    };
    let rejected = || {
        handed_out
            .lock()
            .unwrap()
            .iter()
            .any(BearerToken::is_rejected)
    };
    let server = hostile();
    let above = stack()
        .layer(redirects())
        .layer(retry())
        .layer(auth(source()));
    above
        .service(server.clone())
        .oneshot(get(URL))
        .await
        .unwrap();
    assert!(!rejected());
    assert_eq!(server.authorizations(), ["Bearer 0", ""]);

    let server = hostile();
    let between = stack()
        .layer(retry())
        .layer(redirects())
        .layer(auth(source()));
    between
        .service(server.clone())
        .oneshot(get(URL))
        .await
        .unwrap();
    assert!(!rejected());
    assert_eq!(server.authorizations(), ["Bearer 0", ""]);

    // The layer sees a 401, but not which host it came from.
    let server = hostile();
    let below = stack()
        .layer(retry())
        .layer(auth(source()))
        .layer(redirects());
    below
        .service(server.clone())
        .oneshot(get(URL))
        .await
        .unwrap();
    assert!(rejected());
    assert_eq!(server.authorizations(), ["Bearer 0", "", "Bearer 2", ""]);
}

#[tokio::test]
async fn without_an_origin_the_401_of_a_foreign_host_marks_the_token_which_it_got() {
    let (server, sent) = (hostile(), token("ours"));
    let unbound = BearerAuthLayer::new(StaticToken::new(sent.clone()));
    let above = stack()
        .layer(redirects())
        .layer(unbound)
        .service(server.clone());
    above.oneshot(get(URL)).await.unwrap();
    assert_eq!(server.authorizations(), ["Bearer ours"; 2]);
    assert!(sent.is_rejected());
}

#[tokio::test]
async fn without_an_origin_a_redirect_follower_above_takes_the_token_to_any_https_host() {
    let server = wandering();
    let unbound = BearerAuthLayer::new(StaticToken::new(token("new")));
    let above = stack()
        .layer(redirects())
        .layer(unbound)
        .service(server.clone());
    above.oneshot(get(URL)).await.unwrap();
    assert_eq!(
        server.authorizations(),
        ["Bearer new"; 4],
        "the docs say that it leaks"
    );
}

#[tokio::test]
async fn a_redirect_follower_below_takes_off_the_two_names_that_it_knows_one_above_has_none_to_take()
 {
    let server = || {
        Server::answering(|request| match request.uri().to_string().as_str() {
            URL => redirect(StatusCode::FOUND, ELSEWHERE),
            _ => Res::default(),
        })
    };
    for (name, below_sends) in [
        ("authorization", ["Bearer t", ""]),
        ("proxy-authorization", ["Bearer t", ""]),
        // The docs say that it leaks.
        ("x-token", ["Bearer t", "Bearer t"]),
    ] {
        let named = auth(StaticToken::new(token("t"))).header_name(name.parse().unwrap());
        let sent = |server: &Server| -> Vec<_> {
            let seen = server.seen();
            let value = |request| values(request, name).concat();
            seen.iter().map(value).collect()
        };
        let below = server();
        let service = stack().layer(named.clone()).layer(redirects());
        let service = service.service(below.clone());
        service.oneshot(get(URL)).await.unwrap();
        assert_eq!(sent(&below), below_sends);

        let above = server();
        let service = stack().layer(redirects()).layer(named);
        let service = service.service(above.clone());
        service.oneshot(get(URL)).await.unwrap();
        assert_eq!(sent(&above), ["Bearer t", ""]);
    }
}

#[tokio::test]
async fn below_the_layer_tower_http_0_6_brings_the_token_back_on_a_second_foreign_hop() {
    use tower_http_06::follow_redirect::FollowRedirectLayer;
    let fixed = || auth(StaticToken::new(token("new")));
    let server = wandering();
    let below = stack().layer(fixed()).layer(FollowRedirectLayer::new());
    below
        .service(server.clone())
        .oneshot(get(URL))
        .await
        .unwrap();
    let way = ["Bearer new", "", "Bearer new", ""];
    assert_eq!(server.authorizations(), way, "the docs say that it leaks");

    let server = wandering();
    let above = stack().layer(FollowRedirectLayer::new()).layer(fixed());
    above
        .service(server.clone())
        .oneshot(get(URL))
        .await
        .unwrap();
    assert_eq!(server.authorizations(), ["Bearer new", "", "", ""]);
}
