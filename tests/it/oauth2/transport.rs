//! Token requests over an HTTP client that is slow, broken or not ready, or has an endless response.

use std::{
    convert::Infallible,
    future::{pending, ready},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Body, Frame};
use tower::{Service, service_fn};
use tower_bearer::{
    BearerToken, BoxError, RefreshingToken, SourceError, SourceErrorKind, TokenRequest, TokenSource,
};

use crate::support::{
    Task, text,
    token_endpoint::{TOKEN, URL},
    virtual_time::VirtualTime,
};

fn request() -> TokenRequest {
    TokenRequest::client_credentials(URL, "id", "s3cret").unwrap()
}

/// A body with frames from a function. While the function gives `None`, the body is pending.
struct Frames<F>(F);

type OneFrame = Option<Result<Frame<Bytes>, BoxError>>;

impl<F: FnMut() -> Option<OneFrame> + Unpin> Body for Frames<F> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<OneFrame> {
        match (self.0)() {
            Some(frame) => Poll::Ready(frame),
            None => Poll::Pending,
        }
    }
}

fn data(bytes: &'static [u8]) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(bytes))
}

/// The result of a fetch whose response has this body. `None` if the fetch does not end.
fn fetched<F>(status: u16, frames: F) -> Option<Result<BearerToken, SourceError>>
where
    F: FnMut() -> Option<OneFrame> + Unpin + Send + 'static,
{
    let mut response = Some(Response::new(Frames(frames)));
    let http = service_fn(move |_: Request<Full<Bytes>>| {
        let mut response = response.take().unwrap();
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        ready(Ok::<_, Infallible>(response))
    });
    request().fetch(http).now_or_never()
}

#[test]
fn a_body_may_come_in_pieces_with_trailers() {
    let mut pieces = TOKEN.as_bytes().chunks(1);
    let mut trailers = Some(Frame::trailers(http::HeaderMap::new()));
    let fetched = fetched(200, move || match pieces.next() {
        Some(piece) => Some(Some(Ok(data(piece)))),
        None => Some(trailers.take().map(Ok)),
    });
    assert_eq!(text(&fetched.unwrap().unwrap()), "Bearer access");
}

#[test]
fn a_body_of_64_kib_is_read_and_one_byte_more_is_an_error() {
    for (extra, is_read) in [(0, true), (1, false)] {
        let mut body = Vec::from(TOKEN);
        body.resize(64 * 1024 + extra, b' ');
        let mut body = Some(Bytes::from(body));
        let fetched = fetched(200, move || {
            Some(body.take().map(|body| Ok(Frame::data(body))))
        });
        match fetched.unwrap() {
            Ok(_) => assert!(is_read),
            Err(error) => {
                assert!(!is_read, "{error}");
                assert_eq!(error.kind(), SourceErrorKind::Invalid);
                assert!(error.to_string().ends_with("over 64 KiB long"), "{error}");
            }
        }
    }
}

#[test]
fn a_body_that_never_ends_ends_the_fetch_if_it_is_quick() {
    for frame in [&b"{\"x\":1,  "[..], b"x", b""] {
        let error = fetched(200, move || Some(Some(Ok(data(frame)))))
            .unwrap()
            .unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::Invalid, "{error}");
    }
    let trailers = || Some(Some(Ok(Frame::trailers(http::HeaderMap::new()))));
    assert!(fetched(200, trailers).unwrap().is_err());
}

#[test]
fn a_body_that_never_ends_is_cut_off_by_the_source_s_limit_if_it_is_slow() {
    let http = service_fn(|_: Request<Full<Bytes>>| {
        let mut first = Some(Some(Ok(data(b"{"))));
        let once = move || first.take();
        ready(Ok::<_, Infallible>(Response::new(Frames(once))))
    });
    let time = VirtualTime::new();
    let source = RefreshingToken::builder(request().over(http))
        .runtime(time.clone())
        .fetch_timeout(Duration::from_secs(7))
        .build();
    let mut waiting = Task::waiting(source.token());
    time.advance(Duration::from_secs(6));
    assert!(waiting.poll().is_pending());
    time.advance(Duration::from_secs(1));
    let error = waiting.finish().unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::TimedOut);
}

#[test]
fn the_status_of_a_failure_counts_more_than_its_broken_body() {
    let broken = || Some(Some(Err("reset".into())));
    let error = fetched(429, broken).unwrap().unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(30)));
    let error = fetched(503, || Some(Some(Ok(data(b"<html>")))))
        .unwrap()
        .unwrap_err();
    assert!(error.to_string().contains("503"), "{error}");
    let error = fetched(200, broken).unwrap().unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Failed);
    assert_eq!(error.to_string(), "the token endpoint's answer was cut off");
    assert_eq!(
        std::error::Error::source(&error).unwrap().to_string(),
        "reset"
    );
}

/// The point at which a fetch waits.
#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    Ready,
    Response,
    Body,
}

/// A client that waits or fails at a single point. The references to `held` count its clones and futures.
#[derive(Clone)]
struct Stuck {
    at: At,
    fails: bool,
    held: Arc<()>,
    called: Arc<AtomicUsize>,
}

impl Service<Request<Bytes>> for Stuck {
    type Response = Response<Frames<Box<dyn FnMut() -> Option<OneFrame> + Send>>>;
    type Error = BoxError;
    type Future = futures::future::BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match (self.at, self.fails) {
            (At::Ready, true) => Poll::Ready(Err("not ready".into())),
            (At::Ready, false) => Poll::Pending,
            _ => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        self.called.fetch_add(1, Ordering::SeqCst);
        let held = Arc::clone(&self.held);
        match (self.at, self.fails) {
            (At::Response, true) => ready(Err("no route".into())).boxed(),
            (At::Response, false) => async move {
                let _held = (held, request);
                pending().await
            }
            .boxed(),
            _ => {
                let frames = Box::new(move || {
                    let clones = Arc::strong_count(&held);
                    assert!(clones > 0);
                    None
                });
                ready(Ok(Response::new(Frames(frames as Box<_>)))).boxed()
            }
        }
    }
}

fn stuck(at: At, fails: bool) -> Stuck {
    Stuck {
        at,
        fails,
        held: Arc::default(),
        called: Arc::default(),
    }
}

#[test]
fn a_fetch_that_is_dropped_drops_what_it_holds() {
    for at in [At::Ready, At::Response, At::Body] {
        let http = stuck(at, false);
        let fetch = request().over(http.clone());
        let before = Arc::strong_count(&http.held);
        let waiting = Task::waiting(fetch());
        assert!(Arc::strong_count(&http.held) > before);
        drop(waiting);
        assert_eq!(Arc::strong_count(&http.held), before, "{at:?}");
        let expected = usize::from(at != At::Ready);
        assert_eq!(http.called.load(Ordering::SeqCst), expected);
    }
}

#[test]
fn the_client_s_error_is_the_cause() {
    for (at, message, cause) in [
        (At::Ready, "the token request cannot be sent", "not ready"),
        (
            At::Response,
            "the token endpoint cannot be reached",
            "no route",
        ),
    ] {
        let fetched = request().fetch(stuck(at, true)).now_or_never().unwrap();
        let error = fetched.unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::Failed);
        assert_eq!(error.to_string(), message);
        assert_eq!(
            std::error::Error::source(&error).unwrap().to_string(),
            cause
        );
        assert!(!error.is_permanent());
    }
}
