//! A client library can hold a stack without a type parameter, as the example `sdk` does.

use std::{convert::Infallible, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use http::{Response, StatusCode};
use static_assertions::assert_impl_all;
use tower::{Layer, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_bearer::{
    BearerAuthLayer, BearerToken, BoxError, ErrorKind, RotatingToken, SourceErrorKind, StaticToken,
    TokenSource, source_fn,
};

use crate::support::{
    Asking, Req, Res, Server, allocator::allocations_in, get, ours, send, status, text, token,
};

const URI: &str = "https://api.example.com/";

type Stack = BoxCloneSyncService<Req, Res, BoxError>;

/// The type that such a library gives to its users.
#[derive(Clone, Debug)]
struct Sdk {
    stack: Stack,
}

impl Sdk {
    fn new(server: &Server, source: Arc<dyn TokenSource>) -> Self {
        let stack = BearerAuthLayer::new(source).layer(server.clone());
        Self {
            stack: Stack::new(stack),
        }
    }

    fn call(&self) -> Result<Res, BoxError> {
        let mut stack = self.stack.clone();
        send(&mut stack, get(URI))
    }

    /// A request that a user may spawn.
    fn later(&self) -> BoxFuture<'static, Result<Res, BoxError>> {
        self.stack.clone().oneshot(get(URI)).boxed()
    }
}

assert_impl_all!(Sdk: Clone, std::fmt::Debug, Send, Sync, Unpin);

#[test]
fn one_type_holds_stacks_with_any_source() {
    let server = Server::ok();
    let sources: [Arc<dyn TokenSource>; 4] = [
        Arc::new(StaticToken::new(token("fixed"))),
        Arc::new(RotatingToken::new(token("rotating"))),
        Arc::new(source_fn(|| async { BearerToken::new("made") })),
        Arc::new(Asking(|| token("asked").into())),
    ];
    for source in sources {
        Sdk::new(&server, source).call().unwrap();
    }
    let expected = ["fixed", "rotating", "made", "asked"].map(|name| format!("Bearer {name}"));
    assert_eq!(server.authorizations(), expected);
}

#[test]
fn clones_of_a_boxed_stack_share_the_source() {
    let server = Server::answering(|request| {
        let old = request.headers()["authorization"] == "Bearer old";
        status(if old {
            StatusCode::UNAUTHORIZED
        } else {
            StatusCode::OK
        })
    });
    let [old, new] = ["old", "new"].map(token);
    let (first, second) = (old.clone(), new.clone());
    let source = Asking(move || {
        let token = if first.is_rejected() { &second } else { &first };
        token.clone().into()
    });
    let sdk = Sdk::new(&server, Arc::new(source));
    let clone = sdk.clone();
    let later = clone.later();
    assert_eq!(sdk.call().unwrap().status(), StatusCode::UNAUTHORIZED);
    let later = later.now_or_never().unwrap().unwrap();
    assert_eq!(later.status(), StatusCode::OK, "the mark is seen");
    assert_eq!(server.authorizations(), [text(&old), text(&new)]);
}

#[test]
fn the_error_of_a_boxed_stack_can_be_told_from_the_clients() {
    let server = Server::ok();
    let source = source_fn(|| async { Err::<BearerToken, _>("nobody is logged in") });
    let error = Sdk::new(&server, Arc::new(source)).call().unwrap_err();
    assert_eq!(ours(&error).kind(), ErrorKind::NoToken);
    let of_source = ours(&error).source_error().unwrap();
    assert_eq!(of_source.kind(), SourceErrorKind::Failed);
    assert!(server.seen().is_empty());
}

#[test]
fn a_request_through_a_boxed_stack_allocates_its_future_and_a_clone_of_the_stack() {
    let inner = service_fn(|_: Req| async { Ok::<_, Infallible>(Response::<String>::default()) });
    let source: Arc<dyn TokenSource> = Arc::new(StaticToken::new(token("ours")));
    let stack = Stack::new(BearerAuthLayer::new(source).layer(inner));
    let mut request = get(URI);
    request.headers_mut().reserve(1);
    let (count, _) = allocations_in(|| {
        let mut stack = stack.clone();
        send(&mut stack, request).unwrap()
    });
    assert_eq!(count, 2);
}
