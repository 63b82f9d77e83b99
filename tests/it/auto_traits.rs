//! What users may do with the types: send them, share them, clone them, and not print them.

use std::{
    error::Error as StdError,
    fmt::{Debug, Display},
    sync::Arc,
};

use http::Request;
use static_assertions::{assert_impl_all, assert_not_impl_any, assert_obj_safe};
use tower::{Layer, Service};
use tower_bearer::{
    BearerAuth, BearerAuthLayer, BearerToken, CallerDriven, Chain, EnvToken, Error, ErrorKind,
    FileToken, InvalidOrigin, InvalidToken, RefreshingToken, RefreshingTokenBuilder,
    ResponseFuture, RotatingToken, Runtime, SourceError, SourceErrorKind, StaticToken, TokenFuture,
    TokenReplaced, TokenSource,
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

type Dyn = Arc<dyn TokenSource>;

assert_obj_safe!(TokenSource, Runtime);

assert_impl_all!(BearerToken: Clone, Debug, Send, Sync, Unpin);
assert_not_impl_any!(BearerToken: Display, PartialEq, std::hash::Hash, Copy);

assert_impl_all!(StaticToken: TokenSource, Clone, Debug, Unpin);
assert_impl_all!(EnvToken: TokenSource, Clone, Debug, Unpin);
assert_impl_all!(FileToken: TokenSource, Clone, Debug, Unpin);
assert_impl_all!(RotatingToken: TokenSource, Clone, Debug, Unpin);
assert_impl_all!(RefreshingToken: TokenSource, Clone, Debug, Unpin);
assert_impl_all!(Chain: TokenSource, Clone, Debug, Unpin);
assert_impl_all!(Dyn: TokenSource);
assert_impl_all!(Box<dyn TokenSource>: TokenSource);
assert_impl_all!(RefreshingTokenBuilder: Debug, Send, Sync);
assert_impl_all!(CallerDriven: Runtime, Clone, Debug);

assert_impl_all!(TokenFuture: Future, Debug, Send, Unpin);
assert_impl_all!(TokenReplaced: Clone, Debug, Send, Sync);
assert_impl_all!(BearerAuthLayer<Dyn>: Layer<Respond>, Clone, Debug, Send, Sync, Unpin);
assert_impl_all!(BearerAuthLayer<NotClone>: Layer<Respond>, Clone, Debug, Send, Sync, Unpin);
assert_impl_all!(BearerAuth<Respond, Dyn>: Service<Request<()>>, Clone, Debug, Send, Sync, Unpin);
assert_impl_all!(BearerAuth<Respond, NotClone>: Service<Request<()>>, Clone, Debug);
assert_impl_all!(ResponseFuture<Respond, ()>: Future, Debug, Send, Unpin);

assert_impl_all!(Error: StdError, Send, Sync, Unpin);
assert_impl_all!(SourceError: StdError, Clone, Send, Sync, Unpin);
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
