//! The traits of the public types: which types can be sent, shared, cloned and debug-printed.

use std::{
    convert::Infallible,
    error::Error as StdError,
    fmt::{Debug, Display},
    future::Ready,
    marker::{PhantomData, PhantomPinned},
    ops::Deref,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use static_assertions::{assert_impl_all, assert_not_impl_any, assert_obj_safe};
use tower::{Layer, Service};
use tower_bearer::{
    BearerAuth, BearerAuthLayer, BearerToken, CallerDriven, Chain, EnvToken, Error, ErrorKind,
    FileToken, FileTokenBuilder, InvalidOrigin, InvalidToken, InvalidTokenKind, RefreshingToken,
    RefreshingTokenBuilder, ResponseFuture, RotatingToken, Runtime, SourceError, SourceErrorKind,
    SourceFn, StaticToken, TokenFuture, TokenReplaced, TokenSource,
};

use crate::support::Respond;

/// A source that cannot be cloned.
#[derive(Debug)]
struct NotClone;

impl TokenSource for NotClone {
    fn token(&self) -> TokenFuture {
        TokenFuture::ready(BearerToken::new("abc").map_err(SourceError::from))
    }
}

/// A service that is neither `Send`, `Sync` nor `Clone`, with a future that is not `Unpin` either. The
/// tests only use these types, and call nothing.
#[allow(dead_code)]
struct OfOneThread(PhantomData<Rc<()>>);

struct Never(PhantomData<Rc<()>>, PhantomPinned);

impl Future for Never {
    type Output = Result<Response<()>, Infallible>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Pending
    }
}

impl Service<Request<()>> for OfOneThread {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Never;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Never {
        Never(PhantomData, PhantomPinned)
    }
}

type Dyn = Arc<dyn TokenSource>;

assert_obj_safe!(TokenSource, Runtime);

assert_impl_all!(BearerToken: Clone, Debug, Send, Sync, Unpin);
assert_not_impl_any!(BearerToken: Display, PartialEq, std::hash::Hash, Copy);
assert_not_impl_any!(BearerToken: AsRef<str>, AsRef<[u8]>, Deref, Into<String>, Default);

assert_impl_all!(StaticToken: TokenSource, Clone, Debug, Unpin);
assert_impl_all!(EnvToken: TokenSource, Clone, Debug, Unpin);
assert_impl_all!(FileToken: TokenSource, Clone, Debug, Unpin);
assert_impl_all!(RotatingToken: TokenSource, Clone, Debug, Unpin);
assert_impl_all!(RefreshingToken: TokenSource, Clone, Debug, Unpin);
assert_impl_all!(Chain: TokenSource, Clone, Debug, Unpin);
assert_impl_all!(Dyn: TokenSource);
assert_impl_all!(Box<dyn TokenSource>: TokenSource);
assert_impl_all!(SourceFn<fn() -> Ready<Result<BearerToken, SourceError>>>: TokenSource, Copy, Debug, Unpin);
assert_impl_all!(RefreshingTokenBuilder: Debug, Send, Sync);
assert_impl_all!(FileTokenBuilder: Debug, Send, Sync);
assert_impl_all!(CallerDriven: Runtime, Clone, Debug, Default);
#[cfg(feature = "tokio")]
assert_impl_all!(tower_bearer::TokioRuntime: Runtime, Clone, Debug, Default);
#[cfg(feature = "retry")]
assert_impl_all!(tower_bearer::RetryRejected<String>: Clone, Debug, Default, Send, Sync, Unpin);
#[cfg(feature = "dnanexus")]
assert_impl_all!(tower_bearer::Dnanexus: TokenSource, Clone, Debug, Unpin);

assert_impl_all!(TokenFuture: Future, Debug, Send, Unpin);
assert_impl_all!(TokenReplaced: Clone, Debug, Send, Sync);
assert_impl_all!(BearerAuthLayer<Dyn>: Layer<Respond>, Clone, Debug, Send, Sync, Unpin);
assert_impl_all!(BearerAuthLayer<NotClone>: Layer<Respond>, Clone, Debug, Send, Sync, Unpin);
assert_impl_all!(BearerAuth<Respond, Dyn>: Service<Request<()>>, Clone, Debug, Send, Sync, Unpin);
assert_impl_all!(BearerAuth<Respond, NotClone>: Service<Request<()>>, Clone, Debug);
assert_not_impl_any!(BearerAuth<OfOneThread, Dyn>: Clone, Send, Sync);
assert_impl_all!(ResponseFuture<Respond, ()>: Future, Debug, Send, Unpin);
// The future is `Send`, `Sync` and `Unpin` only if the inner service and its future are.
assert_impl_all!(ResponseFuture<OfOneThread, ()>: Future, Debug);
assert_not_impl_any!(ResponseFuture<OfOneThread, ()>: Send, Sync, Unpin);

assert_impl_all!(Error: StdError, Send, Sync, Unpin);
assert_impl_all!(SourceError: StdError, Clone, Send, Sync, Unpin);
assert_impl_all!(InvalidTokenKind: Copy, Debug, Eq);
assert_impl_all!(InvalidToken: StdError, Clone, PartialEq, Send, Sync, Unpin);
assert_impl_all!(InvalidOrigin: StdError, Clone, PartialEq, Send, Sync, Unpin);
assert_impl_all!(ErrorKind: Copy, Debug, Eq, std::hash::Hash);
assert_impl_all!(SourceErrorKind: Copy, Debug, Eq, std::hash::Hash);

fn is_static<T: 'static>() {}

#[test]
fn what_a_user_holds_may_be_held_forever() {
    is_static::<BearerToken>();
    is_static::<TokenFuture>();
    is_static::<BearerAuth<Respond, Dyn>>();
    is_static::<ResponseFuture<Respond, ()>>();
    is_static::<Error>();
    is_static::<SourceError>();
}

#[test]
fn a_source_that_cannot_be_cloned_makes_a_service_that_can() {
    let service = BearerAuthLayer::new(NotClone).layer(Respond);
    let mut clone = service.clone();
    let request = Request::get("https://api.example.com/").body(()).unwrap();
    assert!(crate::support::poll(&mut clone.call(request)).is_ready());
}
