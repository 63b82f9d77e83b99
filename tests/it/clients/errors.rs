//! The texts of errors, and how a user finds the error of this crate within another error.

use std::{error::Error as StdError, fmt, io, sync::Arc, time::Duration};

use futures::{FutureExt, executor::block_on};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_bearer::{
    BearerAuthLayer, BearerToken, BoxError, Error, ErrorKind, InvalidToken, SourceError,
    SourceErrorKind, StaticToken, TokenFuture, TokenSource,
};

use crate::support::{Asking, Respond, get, ours, token};

const PLAIN: &str = "http://api.example.com/";
const REFUSED: &str =
    "refused to send a bearer token over plaintext http to api.example.com: use https";

fn refused() -> BoxError {
    let service = BearerAuthLayer::new(StaticToken::new(token("abc"))).layer(Respond);
    block_on(service.oneshot(get(PLAIN))).unwrap_err()
}

fn without_token() -> BoxError {
    let cause = io::Error::other("connection refused");
    let error = SourceError::with_source(SourceErrorKind::Failed, "no token today", cause);
    let source = Asking(move || TokenFuture::ready(Err(error.clone())));
    let service = BearerAuthLayer::new(source).layer(Respond);
    block_on(service.oneshot(get("https://api.example.com/"))).unwrap_err()
}

/// A user's error type, which wraps any error.
#[derive(Debug)]
struct Wrapped(BoxError);

impl fmt::Display for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("wrapped")
    }
}

impl StdError for Wrapped {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.0)
    }
}

#[test]
fn the_error_of_this_crate_is_found_at_any_depth() {
    let error = refused();
    assert!(std::ptr::eq(Error::find(&*error).unwrap(), ours(&error)));
    let once = Wrapped(error);
    let twice = Wrapped(Box::new(once));
    let found = Error::find(&twice).unwrap();
    assert_eq!(found.kind(), ErrorKind::InsecureTransport);
    assert_eq!(found.to_string(), REFUSED);
}

#[test]
fn the_error_of_this_crate_is_found_within_an_io_error() {
    let error = Wrapped(Box::new(io::Error::other(Wrapped(Box::new(
        io::Error::other(refused()),
    )))));
    assert_eq!(Error::find(&error).unwrap().to_string(), REFUSED);
    let error = SourceError::with_source(SourceErrorKind::Failed, "failed", error);
    assert_eq!(error.cause::<Error>().unwrap().to_string(), REFUSED);
}

/// The standard library implements `Error` for an `Arc` and a `Box` of an error. Their `source()` passes
/// over the error itself.
#[test]
fn the_error_of_this_crate_is_found_within_a_shared_or_boxed_error() {
    let own = || refused().downcast::<Error>().unwrap();
    let shared: Arc<dyn StdError + Send + Sync> = Arc::from(refused());
    let errors: [BoxError; 5] = [
        own(),
        Box::new(own()),
        Box::new(Arc::new(*own())),
        Box::new(shared),
        Box::new(Wrapped(Box::new(Arc::new(*own())))),
    ];
    for error in errors {
        let found = Error::find(&*error).expect("it is in there");
        assert_eq!(found.to_string(), REFUSED);
        let error = SourceError::with_source(SourceErrorKind::Failed, "failed", error);
        assert_eq!(error.cause::<Error>().unwrap().to_string(), REFUSED);
    }
}

#[test]
fn in_an_error_of_another_crate_nothing_is_found() {
    let os = io::Error::from_raw_os_error(2);
    let simple = io::Error::from(io::ErrorKind::NotFound);
    let errors: [BoxError; 4] = [
        "no token".into(),
        Box::new(Wrapped(Box::new(os))),
        Box::new(simple),
        Box::new(SourceError::new(SourceErrorKind::Absent, "none")),
    ];
    for error in errors {
        assert!(Error::find(&*error).is_none(), "{error:?}");
    }
}

#[test]
fn the_outermost_of_two_is_found() {
    let fetch_failed = SourceError::with_source(SourceErrorKind::Failed, "fetch", refused());
    let source = Asking(move || TokenFuture::ready(Err(fetch_failed.clone())));
    let service = BearerAuthLayer::new(source).layer(Respond);
    let error = block_on(service.oneshot(get("https://api.example.com/"))).unwrap_err();
    let found = Error::find(&*error).unwrap();
    assert_eq!(found.kind(), ErrorKind::NoToken);
    let cause = found.source_error().unwrap().cause::<Error>();
    assert_eq!(cause.unwrap().kind(), ErrorKind::InsecureTransport);
}

#[tokio::test]
async fn the_error_of_this_crate_is_found_above_towers_layers() {
    let auth = BearerAuthLayer::new(StaticToken::new(token("abc")));
    let stack = ServiceBuilder::new()
        .buffer(4)
        .load_shed()
        .concurrency_limit(4)
        .timeout(Duration::from_secs(60))
        .layer(auth)
        .service(Respond);
    let error = stack.oneshot(get(PLAIN)).await.unwrap_err();
    assert_eq!(Error::find(&*error).unwrap().to_string(), REFUSED);
}

/// After its service has failed for good, a buffer fails every request with a clone of the same error.
#[tokio::test]
async fn the_error_of_this_crate_is_found_in_what_a_broken_buffer_says() {
    #[derive(Clone)]
    struct Broken;

    impl Service<crate::support::Req> for Broken {
        type Response = ();
        type Error = BoxError;
        type Future = std::future::Ready<Result<(), BoxError>>;

        fn poll_ready(
            &mut self,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Result<(), BoxError>> {
            std::task::Poll::Ready(Err(refused_in_a_thread()))
        }

        fn call(&mut self, _: crate::support::Req) -> Self::Future {
            unreachable!("it is never ready")
        }
    }

    fn refused_in_a_thread() -> BoxError {
        std::thread::spawn(refused).join().unwrap()
    }

    let buffer = ServiceBuilder::new().buffer(4).service(Broken);
    let error = buffer.oneshot(get(PLAIN)).await.unwrap_err();
    assert!(error.downcast_ref::<Error>().is_none(), "it is wrapped");
    assert_eq!(Error::find(&*error).unwrap().to_string(), REFUSED);
}

#[test]
fn debug_carries_the_text_that_a_user_needs() {
    let cases: [(&dyn StdError, &str); 4] = [
        (
            &*refused(),
            "Error { kind: InsecureTransport, message: \"refused to send a bearer token over plaintext \
             http to api.example.com: use https\" }",
        ),
        (
            &*without_token(),
            "Error { kind: NoToken, message: \"no bearer token for the request\", source: SourceError { \
             kind: Failed, message: \"no token today\", source: \"connection refused\" } }",
        ),
        (
            &SourceError::from(BearerToken::new("a b").unwrap_err()),
            "SourceError { kind: Invalid, message: \"the source's text is not a token\", source: \"token \
             has a forbidden byte at offset 1 (space)\" }",
        ),
        (
            &BearerToken::new("id:4711").unwrap_err(),
            "InvalidToken { kind: ForbiddenByte, message: \"token has a forbidden byte at offset 2 (not in \
             the b64token alphabet of RFC 6750): `BearerToken::nonstandard` takes this byte\" }",
        ),
    ];
    for (error, expected) in cases {
        assert_eq!(format!("{error:?}"), expected);
        assert!(expected.contains(&error.to_string()));
    }
}

#[test]
fn debug_of_a_source_error_carries_the_text_of_every_cause() {
    let deepest = BearerToken::new("").unwrap_err();
    let middle = SourceError::with_source(SourceErrorKind::Invalid, "middle", deepest);
    let error = SourceError::with_source(SourceErrorKind::Failed, "a \"quoted\" text", middle);
    assert_eq!(
        format!("{error:?}"),
        "SourceError { kind: Failed, message: \"a \"quoted\" text\", source: \"middle: token is empty\" }"
    );
    assert!(error.cause::<InvalidToken>().is_some());
}

#[test]
fn a_source_of_any_type_is_debug() {
    #[derive(Debug)]
    #[expect(dead_code, reason = "only shown")]
    struct Sdk {
        plain: Arc<dyn TokenSource>,
        marked: Box<dyn TokenSource + Send + Sync>,
    }

    fn shown(source: &(dyn TokenSource + '_)) -> String {
        format!("{source:?}")
    }

    let sdk = Sdk {
        plain: Arc::new(StaticToken::new(token("7Fjfp0ZBr1KtDRbnfVdmIw"))),
        marked: Box::new(StaticToken::new(token("7Fjfp0ZBr1KtDRbnfVdmIw"))),
    };
    assert_eq!(
        format!("{sdk:?}"),
        "Sdk { plain: dyn TokenSource, marked: dyn TokenSource }"
    );
    assert_eq!(shown(&token("abc")), "dyn TokenSource");
    let _ = sdk.marked.token().now_or_never();
}
