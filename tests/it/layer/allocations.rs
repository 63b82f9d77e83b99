//! The heap allocations of a request. A request whose token is at hand has none.

use std::{
    convert::Infallible,
    ffi::OsStr,
    future::{Ready, ready},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::task::noop_waker_ref;
use http::{HeaderName, HeaderValue, Request, Response};
use tower::{Layer, Service};
use tower_bearer::{
    BearerAuthLayer, BearerToken, EnvToken, FileToken, RefreshingToken, RotatingToken, SourceError,
    SourceErrorKind, StaticToken, TokenFuture, TokenSource, first_of,
};

use crate::support::{
    Asking, Respond, allocator::allocations_in, in_child, poll, virtual_time::VirtualTime,
};

fn token() -> BearerToken {
    BearerToken::new("7Fjfp0ZBr1KtDRbnfVdmIw").unwrap()
}

/// A request with eight headers, and room for one more.
fn request(uri: &str) -> Request<()> {
    let mut request = Request::get(uri).body(()).unwrap();
    for index in 0..8 {
        let name = HeaderName::try_from(format!("x-header-{index}")).unwrap();
        request
            .headers_mut()
            .insert(name, HeaderValue::from_static("value"));
    }
    request.headers_mut().reserve(1);
    request
}

/// Counts the allocations of a second request. The first request may fill a cache.
fn count<T: TokenSource + 'static>(layer: &BearerAuthLayer<T>, uri: &str) -> usize {
    let mut service = layer.layer(Respond);
    let mut send = |request| {
        let mut cx = Context::from_waker(noop_waker_ref());
        assert!(Service::<Request<()>>::poll_ready(&mut service, &mut cx).is_ready());
        let mut response = service.call(request);
        assert!(poll(&mut response).is_ready());
    };
    send(request(uri));
    let request = request(uri);
    allocations_in(|| send(request)).0
}

fn assert_none<T: TokenSource + 'static>(name: &str, source: T) {
    let layer = BearerAuthLayer::new(source);
    let scoped = layer.clone().for_origin("https://api.example.com").unwrap();
    let scoped = scoped.for_origin("http://127.0.0.1:8080").unwrap();
    // A name from a `String` is not a static name.
    let own_name = HeaderName::try_from(String::from("x-api-token")).unwrap();
    for uri in [
        "https://api.example.com/v1",
        "http://127.0.0.1:8080/",
        "http://localhost/",
        "/path",
    ] {
        let counts = [
            count(&layer, uri),
            count(&scoped, uri),
            count(&layer.clone().keep_existing(), uri),
            count(&layer.clone().header_name(http::header::COOKIE), uri),
            count(&layer.clone().header_name(own_name.clone()), uri),
            count(&layer.clone().retry_rejected(), uri),
        ];
        assert_eq!(counts, [0; 6], "{name} {uri}");
    }
}

#[test]
fn a_request_whose_token_is_at_hand_allocates_nothing() {
    assert_none("static", StaticToken::new(token()));
    let expires = token().expires_in(Duration::from_secs(3600));
    assert_none("static with an expiry", StaticToken::new(expires));
    assert_none("rotating", RotatingToken::new(token()));
    let shared: Arc<dyn TokenSource> = Arc::new(StaticToken::new(token()));
    assert_none("dyn", shared);
    let boxed: Box<dyn TokenSource> = Box::new(RotatingToken::new(token()));
    assert_none("boxed", boxed);
}

#[test]
fn a_request_whose_token_was_fetched_before_allocates_nothing() {
    let time = VirtualTime::new();
    let hour = Duration::from_secs(3600);
    let fetch = move || async move { Ok::<_, Infallible>(token().expires_in(hour)) };
    let source = RefreshingToken::builder(fetch)
        .runtime(time.clone())
        .build();
    time.block_on(source.token()).unwrap();
    assert_none("refreshing", source);

    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("token");
    std::fs::write(&path, "7Fjfp0ZBr1KtDRbnfVdmIw").unwrap();
    assert_none(
        "file",
        FileToken::builder(path).runtime(time).build().unwrap(),
    );

    let chain = first_of(StaticToken::new(token()));
    assert!(futures::executor::block_on(chain.token()).is_ok());
    assert_none("chain", chain);
}

#[test]
fn a_request_whose_token_is_from_the_environment_allocates_nothing() {
    let variables = [("TOKEN", OsStr::new("7Fjfp0ZBr1KtDRbnfVdmIw"))];
    in_child(
        "layer::allocations::a_request_whose_token_is_from_the_environment_allocates_nothing",
        &variables,
        || assert_none("env", EnvToken::new("TOKEN").unwrap()),
    );
}

/// The source allocates its future, and the service allocates the state of the request.
#[test]
fn a_request_that_has_to_wait_allocates_twice() {
    let token = token();
    let source = Asking(move || TokenFuture::boxed(ready(Ok(token.clone()))));
    let layer = BearerAuthLayer::new(source);
    assert_eq!(count(&layer, "https://api.example.com/"), 2);
}

/// About once in a second of real time, a request allocates because it has to read the wall clock. So of
/// many requests in a row, at least one allocates nothing.
#[cfg(feature = "tokio")]
#[test]
fn a_request_on_the_coarse_clock_allocates_nothing() {
    let source = RefreshingToken::new(|| async { Ok::<_, Infallible>(token()) });
    futures::executor::block_on(source.token()).unwrap();
    let layer = BearerAuthLayer::new(source);
    let counts = (0..100).map(|_| count(&layer, "https://api.example.com/"));
    assert_eq!(counts.min(), Some(0));
}

/// A service that counts its clones.
struct Counted(Arc<AtomicUsize>);

impl Clone for Counted {
    fn clone(&self) -> Self {
        self.0.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(&self.0))
    }
}

impl Service<Request<()>> for Counted {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        ready(Ok(Response::new(())))
    }
}

#[test]
fn the_inner_service_is_cloned_only_for_a_request_that_has_to_wait() {
    let clones = Arc::new(AtomicUsize::new(0));
    let source = RotatingToken::empty();
    let layer = BearerAuthLayer::new(source.clone())
        .for_origin("https://api.example.com")
        .unwrap();
    let mut service = layer.layer(Counted(Arc::clone(&clones)));
    let mut without = service.call(request("https://other.example.com/"));
    assert!(poll(&mut without).is_ready());
    assert_eq!(clones.load(Ordering::SeqCst), 0);
    let mut waiting = service.call(request("https://api.example.com/"));
    assert!(poll(&mut waiting).is_pending());
    // One clone is for this request, the other for the next request. Neither clone holds a reservation.
    assert_eq!(clones.load(Ordering::SeqCst), 2);
    source.rotate(token());
    assert!(poll(&mut waiting).is_ready());
    let mut ready = service.call(request("https://api.example.com/"));
    assert!(poll(&mut ready).is_ready());
    assert_eq!(clones.load(Ordering::SeqCst), 2);
}

#[test]
fn a_clone_of_a_token_and_its_header_value_allocate_nothing() {
    let token = token();
    let (count, _) = allocations_in(|| (token.clone(), token.header_value()));
    assert_eq!(count, 0);
}

#[test]
fn a_clone_of_an_error_allocates_nothing() {
    let error = SourceError::new(SourceErrorKind::Failed, String::from("no answer"));
    assert_eq!(allocations_in(|| error.clone()).0, 0);
}
