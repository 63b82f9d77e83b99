//! A request waits for its token in its response future. Meanwhile the request holds no reservation of the
//! inner service, and may be dropped at any point.

use std::{
    future::ready,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use tokio::sync::Semaphore;
use tower::{
    Layer, Service, ServiceBuilder, ServiceExt, limit::GlobalConcurrencyLimitLayer,
    load_shed::error::Overloaded, timeout::error::Elapsed,
};
use tower_bearer::{
    BearerAuthLayer, BoxError, ErrorKind, RotatingToken, SourceError, SourceErrorKind, StaticToken,
    TokenFuture, TokenSource,
};

use crate::support::{
    Asking, Manual, Req, Res, Server, Task, get, make_ready, ours, send, token, values,
};

const URI: &str = "https://api.example.com/v1";

fn fixed() -> StaticToken {
    StaticToken::new(token("ours"))
}

fn absent() -> SourceError {
    SourceError::new(SourceErrorKind::Absent, "no token today")
}

/// A service that makes a reservation in `poll_ready` and uses it in `call`. A clone holds no reservation.
struct Reserving {
    inner: Server,
    reserved: Option<Reservation>,
    book: Arc<Book>,
}

#[derive(Default)]
struct Book {
    reserved: AtomicUsize,
    called_without: AtomicUsize,
    clones: AtomicUsize,
}

/// A reservation. Dropping it gives it back.
struct Reservation(Arc<Book>);

impl Drop for Reservation {
    fn drop(&mut self) {
        self.0.reserved.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Reserving {
    fn new(inner: Server) -> (Self, Arc<Book>) {
        let book = Arc::<Book>::default();
        let service = Self {
            inner,
            reserved: None,
            book: Arc::clone(&book),
        };
        (service, book)
    }
}

impl Clone for Reserving {
    fn clone(&self) -> Self {
        self.book.clones.fetch_add(1, Ordering::SeqCst);
        Self {
            inner: self.inner.clone(),
            reserved: None,
            book: Arc::clone(&self.book),
        }
    }
}

impl Service<Req> for Reserving {
    type Response = Res;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Res, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.reserved.is_none() {
            self.book.reserved.fetch_add(1, Ordering::SeqCst);
            self.reserved = Some(Reservation(Arc::clone(&self.book)));
        }
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let reserved = self.reserved.take();
        if reserved.is_none() {
            self.book.called_without.fetch_add(1, Ordering::SeqCst);
        }
        let response = self.inner.call(request);
        async move {
            let _reserved = reserved;
            response.await
        }
        .boxed()
    }
}

#[test]
fn a_request_that_waits_reserves_nothing_until_its_token_is_there() {
    let manual = Manual::default();
    let (inner, book) = Reserving::new(Server::ok());
    let mut service = BearerAuthLayer::new(manual.clone()).layer(inner);
    let reserved = || book.reserved.load(Ordering::SeqCst);
    let mut requests = [(); 3].map(|()| {
        make_ready(&mut service);
        assert_eq!(reserved(), 1, "the service is ready");
        let request = Task::waiting(service.call(get(URI)));
        assert_eq!(reserved(), 0, "a request that waits holds nothing");
        request
    });
    assert_eq!(book.clones.load(Ordering::SeqCst), 2 * requests.len());
    for request in &mut requests {
        manual.answer(Ok(token("ours")));
        assert_eq!(request.wakes(), 1);
        request.finish().unwrap();
    }
    assert_eq!(book.called_without.load(Ordering::SeqCst), 0);
    assert_eq!(reserved(), 0);
}

#[test]
fn a_request_with_its_token_at_hand_does_not_clone_the_inner_service() {
    let (inner, book) = Reserving::new(Server::ok());
    let mut service = BearerAuthLayer::new(fixed()).layer(inner);
    send(&mut service, get(URI)).unwrap();
    send(&mut service, get(URI)).unwrap();
    assert_eq!(book.clones.load(Ordering::SeqCst), 0);
    assert_eq!(book.called_without.load(Ordering::SeqCst), 0);
}

#[test]
fn the_wait_is_not_in_poll_ready() {
    let source = RotatingToken::empty();
    let server = Server::ok();
    let mut service = BearerAuthLayer::new(source.clone())
        .for_origin("https://api.example.com")
        .unwrap()
        .layer(server.clone());
    make_ready(&mut service);
    let mut request = Task::waiting(service.call(get(URI)));

    // A request that needs no token overtakes the request that waits.
    send(&mut service, get("https://other.example.com/")).unwrap();
    source.rotate(token("ours"));
    request.finish().unwrap();
    assert_eq!(server.authorizations(), ["", "Bearer ours"]);
}

/// How far a request has come when it is dropped.
#[derive(Clone, Copy, Debug)]
enum Stage {
    NotPolled,
    WaitingForTheToken,
    TokenIsThere,
    WaitingForTheResponse,
}

const STAGES: [Stage; 4] = [
    Stage::NotPolled,
    Stage::WaitingForTheToken,
    Stage::TokenIsThere,
    Stage::WaitingForTheResponse,
];

/// Drives a request as far as `stage`. `give` lets the source hand out the token.
fn reach<F>(stage: Stage, future: F, give: impl FnOnce()) -> Task<F>
where
    F: Future,
{
    let mut request = Task::new(future);
    if !matches!(stage, Stage::NotPolled) {
        assert!(request.poll().is_pending());
    }
    if matches!(stage, Stage::TokenIsThere | Stage::WaitingForTheResponse) {
        give();
    }
    if matches!(stage, Stage::WaitingForTheResponse) {
        assert!(request.poll().is_pending());
    }
    request
}

#[test]
fn a_request_holds_a_permit_once_it_is_sent_and_not_before_and_gives_it_back_if_it_is_dropped() {
    for stage in STAGES {
        let manual = Manual::default();
        let (server, _held) = Server::held();
        let permits = Arc::new(Semaphore::new(1));
        let mut service = ServiceBuilder::new()
            .layer(BearerAuthLayer::new(manual.clone()))
            .layer(GlobalConcurrencyLimitLayer::with_semaphore(permits.clone()))
            .service(server);

        make_ready(&mut service);
        assert_eq!(permits.available_permits(), 0, "{stage:?}");
        let request = reach(stage, service.call(get(URI)), || {
            manual.answer(Ok(token("ours")));
        });
        let is_sent = matches!(stage, Stage::WaitingForTheResponse);
        let expected = usize::from(!is_sent);
        assert_eq!(permits.available_permits(), expected, "{stage:?}");
        drop(request);
        assert_eq!(permits.available_permits(), 1, "{stage:?}");
    }
}

#[test]
fn a_request_that_is_not_sent_gives_back_what_it_has_reserved() {
    type Source = Arc<dyn TokenSource>;
    let later = || TokenFuture::boxed(ready(Err(absent())));
    let cases: [(&str, Source, &str); 3] = [
        ("plaintext", Arc::new(fixed()), "http://api.example.com/v1"),
        (
            "no token",
            Arc::new(Asking(|| TokenFuture::ready(Err(absent())))),
            URI,
        ),
        ("no token after a wait", Arc::new(Asking(later)), URI),
    ];
    for (case, source, uri) in cases {
        let stack = ServiceBuilder::new()
            .layer(BearerAuthLayer::new(source))
            .concurrency_limit(1)
            .service(Server::ok());
        // The program keeps this service, but may not use it again for a long time.
        let mut service = stack.clone();
        let mut other = stack;
        let error = send(&mut service, get(uri)).unwrap_err();
        ours(&error);
        assert!(Task::new(other.ready()).poll().is_ready(), "{case}");
    }
}

#[test]
fn dropping_a_request_does_not_take_anothers_wake_up() {
    for stage in STAGES {
        for dropped in 0..3 {
            let case = format!("{stage:?}, number {dropped} is dropped");
            let source = RotatingToken::empty();
            let (server, held) = Server::held();
            let mut service = BearerAuthLayer::new(source.clone()).layer(server.clone());
            let mut call = || {
                make_ready(&mut service);
                service.call(get(URI))
            };

            let mut requests: Vec<_> = (0..3)
                .map(|number| match stage {
                    Stage::NotPolled if number == dropped => Task::new(call()),
                    _ => Task::waiting(call()),
                })
                .collect();
            let mut gone = requests.remove(dropped);
            match stage {
                Stage::NotPolled | Stage::WaitingForTheToken => {
                    drop(gone);
                    source.rotate(token("ours"));
                }
                Stage::TokenIsThere => {
                    source.rotate(token("ours"));
                    drop(gone);
                }
                Stage::WaitingForTheResponse => {
                    source.rotate(token("ours"));
                    assert!(gone.poll().is_pending(), "{case}");
                    held.answer(Ok(Res::default()));
                    drop(gone);
                }
            }
            for request in &mut requests {
                assert_eq!(request.wakes(), 1, "{case}");
                assert!(request.poll().is_pending(), "{case}");
                held.answer(Ok(Res::default()));
                request.finish().expect(&case);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_above_covers_the_wait() {
    let limit = Duration::from_secs(30);
    let source = RotatingToken::empty();
    let server = Server::ok();
    let stack = ServiceBuilder::new()
        .timeout(limit)
        .layer(BearerAuthLayer::new(source.clone()))
        .service(server.clone());
    let start = tokio::time::Instant::now();
    let error = stack.oneshot(get(URI)).await.unwrap_err();
    assert!(error.is::<Elapsed>(), "{error:?}");
    // The clock is paused, so the test itself does not take that long.
    assert!(start.elapsed() >= limit);
    assert!(server.seen().is_empty());
}

#[test]
fn a_load_shedder_above_sheds_for_a_limit_above_the_layer_and_not_for_requests_that_wait() {
    let source = RotatingToken::empty();
    let mut limit_below = ServiceBuilder::new()
        .load_shed()
        .layer(BearerAuthLayer::new(source.clone()))
        .concurrency_limit(2)
        .service(Server::ok());
    let mut limit_above = ServiceBuilder::new()
        .load_shed()
        .concurrency_limit(2)
        .layer(BearerAuthLayer::new(source.clone()))
        .service(Server::ok());
    let many = [(); 10].map(|()| {
        make_ready(&mut limit_below);
        Task::waiting(limit_below.call(get(URI)))
    });
    let two = [(); 2].map(|()| {
        make_ready(&mut limit_above);
        Task::waiting(limit_above.call(get(URI)))
    });
    let error = send(&mut limit_above, get(URI)).unwrap_err();
    assert!(error.is::<Overloaded>(), "{error:?}");

    source.rotate(token("ours"));
    for mut request in many {
        request.finish().unwrap();
    }
    for mut request in two {
        request.finish().unwrap();
    }
    send(&mut limit_above, get(URI)).unwrap();
    send(&mut limit_below, get(URI)).unwrap();
}

#[tokio::test]
async fn a_buffer_above_goes_on_while_a_request_waits() {
    let source = RotatingToken::empty();
    let server = Server::ok();
    let bearer = BearerAuthLayer::new(source.clone())
        .for_origin("https://api.example.com")
        .unwrap();
    let stack = ServiceBuilder::new()
        .buffer::<Req>(1)
        .layer(bearer)
        .service(server.clone());
    let waiting = tokio::spawn(stack.clone().oneshot(get(URI)));
    let other = get("https://other.example.com/");
    stack.clone().oneshot(other.clone()).await.unwrap();
    stack.oneshot(other).await.unwrap();

    source.rotate(token("ours"));
    waiting.await.unwrap().unwrap();
    let mut sent = server.authorizations();
    sent.sort();
    assert_eq!(sent, ["", "", "Bearer ours"]);
}

/// An inner service that is not `Clone`.
struct Single(Server);

impl Service<Req> for Single {
    type Response = Res;
    type Error = BoxError;
    type Future = <Server as Service<Req>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        self.0.call(request)
    }
}

#[tokio::test]
async fn a_buffer_below_takes_a_service_that_is_not_clone() {
    let source = RotatingToken::empty();
    let server = Server::ok();
    let mut stack = ServiceBuilder::new()
        .layer(BearerAuthLayer::new(source.clone()))
        .buffer::<Req>(1)
        .service(Single(server.clone()));
    let request = stack.ready().await.unwrap().call(get(URI));
    let waiting = Task::waiting(request);
    source.rotate(token("ours"));
    assert_eq!(waiting.wakes(), 1);
    waiting.into_future().await.unwrap();
    stack.oneshot(get(URI)).await.unwrap();
    assert_eq!(server.authorizations(), ["Bearer ours"; 2]);
}

#[test]
fn a_request_that_was_not_sent_gives_an_error_if_it_is_polled_after_its_end() {
    type Source = Arc<dyn TokenSource>;
    let at_once = || TokenFuture::ready(Err(absent()));
    let later = || TokenFuture::boxed(ready(Err(absent())));
    let cases: [(&str, Source, &str, ErrorKind); 3] = [
        (
            "plaintext",
            Arc::new(fixed()),
            "http://api.example.com/v1",
            ErrorKind::InsecureTransport,
        ),
        (
            "no token",
            Arc::new(Asking(at_once)),
            URI,
            ErrorKind::NoToken,
        ),
        (
            "no token after a wait",
            Arc::new(Asking(later)),
            URI,
            ErrorKind::NoToken,
        ),
    ];
    for (case, source, uri, kind) in cases {
        let mut service = BearerAuthLayer::new(source).layer(Server::ok());
        make_ready(&mut service);
        let mut request = Task::new(service.call(get(uri)));
        for kind in [kind, ErrorKind::Finished, ErrorKind::Finished] {
            let error = request.finish().expect_err(case);
            assert_eq!(ours(&error).kind(), kind, "{case}");
        }
    }
}

#[test]
fn a_token_future_that_is_polled_after_its_end_gives_an_error() {
    let cases = [
        ("at once", TokenFuture::ready(Ok(token("ours")))),
        ("later", TokenFuture::boxed(ready(Ok(token("ours"))))),
        ("an error", TokenFuture::ready(Err(absent()))),
    ];
    for (case, future) in cases {
        let mut future = Task::new(future);
        let _ = future.finish();
        for _ in 0..2 {
            let error = future.finish().expect_err(case);
            assert_eq!(error.kind(), SourceErrorKind::Closed, "{case}");
        }
    }
}

#[test]
fn a_token_that_does_not_come_fails_its_request_and_no_other() {
    let manual = Manual::default();
    let server = Server::ok();
    let mut service = BearerAuthLayer::new(manual.clone()).layer(server.clone());
    let [mut first, mut second] = [(); 2].map(|()| {
        make_ready(&mut service);
        Task::waiting(service.call(get(URI)))
    });

    manual.answer(Err(absent()));
    assert_eq!((first.wakes(), second.wakes()), (1, 0));
    let error = first.finish().unwrap_err();
    let reason = ours(&error).source_error().unwrap();
    assert_eq!(reason.kind(), SourceErrorKind::Absent);
    assert!(server.seen().is_empty());

    manual.answer(Ok(token("ours")));
    second.finish().unwrap();
    assert_eq!(server.authorizations(), ["Bearer ours"]);
}

#[test]
fn a_source_that_panics_leaves_the_service_usable() {
    #[derive(Clone, Copy, Debug)]
    enum Where {
        InToken,
        InItsFuture,
    }
    for place in [Where::InToken, Where::InItsFuture] {
        let panicking = Arc::new(AtomicBool::new(true));
        let armed = Arc::clone(&panicking);
        let source = Asking(move || match place {
            _ if !armed.load(Ordering::SeqCst) => token("ours").into(),
            Where::InToken => panic!("the source's own panic"),
            Where::InItsFuture => TokenFuture::boxed(async { panic!("the source's own panic") }),
        });
        let (inner, book) = Reserving::new(Server::ok());
        let mut service = BearerAuthLayer::new(source).layer(inner);

        let panicked = catch_unwind(AssertUnwindSafe(|| send(&mut service, get(URI))));
        assert!(panicked.is_err(), "{place:?}");
        panicking.store(false, Ordering::SeqCst);
        send(&mut service, get(URI)).unwrap();
        assert_eq!(book.called_without.load(Ordering::SeqCst), 0, "{place:?}");
        assert_eq!(book.reserved.load(Ordering::SeqCst), 0, "{place:?}");
    }
}

#[test]
fn a_request_that_waited_goes_out_whole() {
    let manual = Manual::default();
    let server = Server::ok();
    let mut service = BearerAuthLayer::new(manual.clone()).layer(server.clone());
    let mut request = http::Request::post(URI)
        .header("authorization", "Basic b3du")
        .header("x-trace", "4711")
        .extension("kept")
        .body("the body".to_owned())
        .unwrap();
    *request.version_mut() = http::Version::HTTP_2;
    make_ready(&mut service);
    let mut task = Task::waiting(service.call(request));
    manual.answer(Ok(token("ours")));
    task.finish().unwrap();

    let sent = server.seen().remove(0);
    assert_eq!(values(&sent, "authorization"), ["Bearer ours"]);
    assert_eq!(values(&sent, "x-trace"), ["4711"]);
    assert_eq!(sent.extensions().get(), Some(&"kept"));
    assert_eq!(sent.version(), http::Version::HTTP_2);
    assert_eq!(sent.method(), http::Method::POST);
    assert_eq!(sent.body(), "the body");
}
