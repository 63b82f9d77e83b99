//! A request first waits for its token, and then for the inner service. A fetch may therefore go through
//! every service below the layer, whatever their limits are. If the token ends before the inner service is
//! ready, the request asks for another token.

use std::{
    fmt,
    future::ready,
    hint::spin_loop,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::{
    executor::block_on,
    future::{BoxFuture, join_all},
};
use http::StatusCode;
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};
use tower::{
    Layer, Service, ServiceBuilder, ServiceExt, limit::GlobalConcurrencyLimitLayer,
    load_shed::error::Overloaded, service_fn, util::BoxCloneSyncService,
};
use tower_bearer::{
    BearerAuth, BearerAuthLayer, BearerToken, BoxError, CallerDriven, ErrorKind, RefreshingToken,
    RotatingToken, SourceError, SourceErrorKind, TokenFuture, TokenSource, source_fn,
};

use crate::support::{
    Asking, Counting, Manual, Req, Res, Server, Task, get, make_ready, ours, send, status, token,
    values,
};

const URI: &str = "https://api.example.com/v1";
const OTHER: &str = "https://other.example.com/";
const DISCOVERY: &str = "https://login.example.com/.well-known/openid-configuration";
const TOKEN: &str = "https://login.example.com/token";

// A fetch through the stack below the layer

type Below = BoxCloneSyncService<Req, Res, BoxError>;

/// An API that takes a while for each request. It needs a token for the requests to `URI`.
fn api() -> impl Service<Req, Response = Res, Error = BoxError, Future: Send> + Clone + Sync {
    service_fn(|request: Req| async move {
        sleep(Duration::from_millis(1)).await;
        let wants_token = request.uri() == URI;
        let has_token = values(&request, "authorization") == ["Bearer ours"];
        Ok(status(if wants_token && !has_token {
            StatusCode::UNAUTHORIZED
        } else {
            StatusCode::OK
        }))
    })
}

async fn fetch(below: Below) -> Result<BearerToken, BoxError> {
    below.clone().oneshot(get(DISCOVERY)).await?;
    below.oneshot(get(TOKEN)).await?;
    Ok(token("ours"))
}

/// Sends 100 requests at once through a layer over `below`. The fetches of `source` also go through
/// `below`.
async fn all_succeed<T: TokenSource + 'static>(case: &str, below: Below, source: T) {
    let service = BearerAuthLayer::new(source).layer(below);
    let requests = (0..100).map(|_| service.clone().oneshot(get(URI)));
    // The clock is paused. If a request waits for ever, the clock moves on to the end of this timeout.
    let responses = timeout(Duration::from_secs(20), join_all(requests)).await;
    for response in responses.expect(case) {
        assert_eq!(response.expect(case).status(), StatusCode::OK, "{case}");
    }
}

async fn all_succeed_with_each_source(case: &str, below: impl Fn() -> Below) {
    let inner = below();
    let fetches = inner.clone();
    let refreshing = RefreshingToken::new(move || fetch(fetches.clone()));
    all_succeed(&format!("{case}, refreshing"), inner, refreshing).await;

    let inner = below();
    let fetches = inner.clone();
    let function = source_fn(move || fetch(fetches.clone()));
    all_succeed(&format!("{case}, for each request"), inner, function).await;
}

#[tokio::test(start_paused = true)]
async fn a_fetch_goes_through_the_limit_that_the_requests_wait_for() {
    for places in [32, 1] {
        let permits = Arc::new(Semaphore::new(places));
        let limit = GlobalConcurrencyLimitLayer::with_semaphore(permits.clone());
        let below = || BoxCloneSyncService::new(limit.layer(api()));
        all_succeed_with_each_source(&format!("{places} places"), below).await;
        assert_eq!(permits.available_permits(), places);
    }
}

#[tokio::test(start_paused = true)]
async fn a_fetch_goes_through_the_buffer_that_the_requests_wait_for() {
    for places in [32, 1] {
        let buffer = ServiceBuilder::new()
            .buffer::<Req>(places)
            .concurrency_limit(places);
        let below = || BoxCloneSyncService::new(buffer.service(api()));
        all_succeed_with_each_source(&format!("a buffer of {places}"), below).await;
    }
}

/// The documentation says that a fetch must not go through such a limit.
#[test]
fn a_fetch_waits_for_a_limit_above_the_layer_whose_places_the_requests_hold() {
    let permits = Arc::new(Semaphore::new(1));
    let limit = GlobalConcurrencyLimitLayer::with_semaphore(permits.clone());
    let fetches = limit.layer(Server::ok());
    let source = source_fn(move || {
        let fetches = fetches.clone();
        async move {
            fetches.oneshot(get(TOKEN)).await?;
            Ok::<_, BoxError>(token("ours"))
        }
    });
    let server = Server::ok();
    let mut service = limit.layer(BearerAuthLayer::new(source).layer(server.clone()));
    make_ready(&mut service);
    let mut request = Task::waiting(service.call(get(URI)));
    assert_eq!(permits.available_permits(), 0);
    assert!(request.poll().is_pending());
    assert_eq!(request.wakes(), 0);
    assert!(server.seen().is_empty());
}

#[test]
fn a_load_shedder_below_the_layer_may_shed_requests_whose_token_has_come() {
    let source = RotatingToken::empty();
    let (server, held) = Server::held();
    let mut service = ServiceBuilder::new()
        .layer(BearerAuthLayer::new(source.clone()))
        .load_shed()
        .concurrency_limit(1)
        .service(server);
    let [mut first, mut second] = [(); 2].map(|()| {
        make_ready(&mut service);
        Task::waiting(service.call(get(URI)))
    });
    source.rotate(token("ours"));
    assert!(first.poll().is_pending());
    let error = second.finish().unwrap_err();
    assert!(error.is::<Overloaded>(), "{error:?}");
    held.answer(Ok(Res::default()));
    first.finish().unwrap();
}

#[test]
fn requests_that_need_no_token_pass_the_limit_while_others_wait_for_theirs() {
    let source = RotatingToken::empty();
    let permits = Arc::new(Semaphore::new(1));
    let server = Server::ok();
    let mut service = ServiceBuilder::new()
        .layer(
            BearerAuthLayer::new(source.clone())
                .for_origin("https://api.example.com")
                .unwrap(),
        )
        .layer(GlobalConcurrencyLimitLayer::with_semaphore(permits.clone()))
        .service(server.clone());
    let waiting = [(); 5].map(|()| {
        make_ready(&mut service);
        let request = Task::waiting(service.call(get(URI)));
        assert_eq!(permits.available_permits(), 1);
        send(&mut service, get(OTHER)).unwrap();
        request
    });
    assert_eq!(server.authorizations(), [""; 5]);

    source.rotate(token("ours"));
    for mut request in waiting {
        request.finish().unwrap();
    }
    assert_eq!(server.authorizations()[5..], ["Bearer ours"; 5]);
    assert_eq!(permits.available_permits(), 1);
}

#[test]
fn a_request_waits_its_turn_at_the_limit_and_is_woken_for_it() {
    let source = RotatingToken::empty();
    let (server, held) = Server::held();
    let mut service = ServiceBuilder::new()
        .layer(BearerAuthLayer::new(source.clone()))
        .concurrency_limit(1)
        .service(server.clone());
    let [mut first, mut second] = [(); 2].map(|()| {
        make_ready(&mut service);
        Task::waiting(service.call(get(URI)))
    });
    source.rotate(token("ours"));
    assert!(first.poll().is_pending());
    assert!(second.poll().is_pending());
    assert_eq!(server.seen().len(), 1);

    held.answer(Ok(Res::default()));
    let before = second.wakes();
    first.finish().unwrap();
    // Tower's limit gives the permit back when the future is dropped.
    drop(first);
    assert_eq!(second.wakes(), before + 1);
    assert!(second.poll().is_pending());
    held.answer(Ok(Res::default()));
    second.finish().unwrap();
    assert_eq!(server.authorizations(), ["Bearer ours"; 2]);
}

// An inner service that is ready when the test says so

#[derive(Clone, Copy, Debug, Default)]
enum Gate {
    #[default]
    Open,
    Shut,
    Broken,
}

#[derive(Default)]
struct Shared {
    gate: Mutex<(Gate, Vec<Waker>)>,
    reserved: AtomicUsize,
}

impl Shared {
    fn set(&self, gate: Gate) {
        let mut state = self.gate.lock().unwrap();
        state.0 = gate;
        state.1.drain(..).for_each(Waker::wake);
    }

    fn reserved(&self) -> usize {
        self.reserved.load(Ordering::SeqCst)
    }
}

/// A service that makes a reservation in `poll_ready` once the gate is open. A clone holds no reservation.
struct Gated {
    inner: Server,
    shared: Arc<Shared>,
    reserved: bool,
}

impl Gated {
    fn new(inner: Server) -> (Self, Arc<Shared>) {
        let shared = Arc::<Shared>::default();
        let service = Self {
            inner,
            shared: Arc::clone(&shared),
            reserved: false,
        };
        (service, shared)
    }

    fn release(&mut self) -> bool {
        let reserved = std::mem::take(&mut self.reserved);
        let count = usize::from(reserved);
        self.shared.reserved.fetch_sub(count, Ordering::SeqCst);
        reserved
    }
}

impl Clone for Gated {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            shared: Arc::clone(&self.shared),
            reserved: false,
        }
    }
}

impl Drop for Gated {
    fn drop(&mut self) {
        self.release();
    }
}

#[derive(Debug)]
struct GateBroken;

impl fmt::Display for GateBroken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the gate is broken")
    }
}

impl std::error::Error for GateBroken {}

impl Service<Req> for Gated {
    type Response = Res;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Res, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let mut gate = self.shared.gate.lock().unwrap();
        match gate.0 {
            Gate::Open => {
                if !self.reserved {
                    self.reserved = true;
                    self.shared.reserved.fetch_add(1, Ordering::SeqCst);
                }
                Poll::Ready(Ok(()))
            }
            Gate::Shut => {
                gate.1.push(cx.waker().clone());
                Poll::Pending
            }
            Gate::Broken => Poll::Ready(Err(GateBroken.into())),
        }
    }

    fn call(&mut self, request: Req) -> Self::Future {
        assert!(self.release(), "called without having been polled ready");
        self.inner.call(request)
    }
}

type Request<T> = Task<<BearerAuth<Gated, T> as Service<Req>>::Future>;

/// A request that waits for its token. `source` must not have its token at hand.
fn waiting<T: TokenSource + 'static>(source: T) -> (Request<T>, Arc<Shared>, Server) {
    let server = Server::ok();
    let (inner, gate) = Gated::new(server.clone());
    let mut service = BearerAuthLayer::new(source).layer(inner);
    make_ready(&mut service);
    let request = Task::new(service.call(get(URI)));
    assert_eq!(gate.reserved(), 0);
    (request, gate, server)
}

/// Hands out these tokens in turn. Each token has to be waited for.
fn in_turn(tokens: &[BearerToken]) -> Counting<Arc<dyn TokenSource>> {
    let tokens = Mutex::new(tokens.to_vec());
    Counting::new(Arc::new(Asking(move || {
        let token = tokens.lock().unwrap().remove(0);
        TokenFuture::boxed(ready(Ok(token)))
    })))
}

#[test]
fn a_request_with_its_token_waits_for_the_service_and_is_woken() {
    let manual = Manual::default();
    let (mut request, gate, server) = waiting(manual.clone());
    assert!(request.poll().is_pending());
    gate.set(Gate::Shut);
    manual.answer(Ok(token("ours")));
    for _ in 0..2 {
        assert!(request.poll().is_pending());
        assert!(server.seen().is_empty());
    }
    let before = request.wakes();
    gate.set(Gate::Open);
    assert!(request.wakes() > before);
    request.finish().unwrap();
    assert_eq!(server.authorizations(), ["Bearer ours"]);
    assert_eq!(gate.reserved(), 0);
}

#[test]
fn an_error_of_the_service_that_is_polled_ready_is_its_own() {
    for waits_first in [false, true] {
        let (mut request, gate, server) = waiting(in_turn(&[token("ours")]));
        if waits_first {
            gate.set(Gate::Shut);
            assert!(request.poll().is_pending());
        }
        gate.set(Gate::Broken);
        let error = request.finish().unwrap_err();
        assert!(error.is::<GateBroken>(), "{error:?}");
        assert!(server.seen().is_empty());
        for _ in 0..2 {
            let error = request.finish().unwrap_err();
            assert_eq!(ours(&error).kind(), ErrorKind::Finished);
        }
    }
}

#[test]
fn a_request_that_is_dropped_while_it_waits_for_the_service_leaves_nothing_behind() {
    let server = Server::ok();
    let permits = Arc::new(Semaphore::new(1));
    let stack = ServiceBuilder::new()
        .layer(BearerAuthLayer::new(in_turn(&["1", "2", "3"].map(token))))
        .layer(GlobalConcurrencyLimitLayer::with_semaphore(permits.clone()))
        .service(server.clone());
    let mut requests = [(); 3].map(|()| {
        let mut service = stack.clone();
        make_ready(&mut service);
        Some(Task::new(service.call(get(URI))))
    });
    let permit = permits.clone().try_acquire_owned().unwrap();
    for request in requests.iter_mut().flatten() {
        assert!(request.poll().is_pending());
    }
    let wakes = |request: &Option<Task<_>>| request.as_ref().unwrap().wakes();
    // Drop a request that waits in the queue, and then a request that has got the permit but was not
    // polled.
    requests[0] = None;
    drop(permit);
    assert_eq!([wakes(&requests[1]), wakes(&requests[2])], [1, 0]);
    requests[1] = None;
    assert_eq!(wakes(&requests[2]), 1);
    requests[2].take().unwrap().finish().unwrap();
    assert_eq!(server.authorizations(), ["Bearer 3"]);
    assert_eq!(permits.available_permits(), 1);
}

/// How a token ends while its request waits for the inner service.
#[derive(Clone, Copy, Debug)]
enum End {
    Rejected,
    Expired,
}

const ENDS: [End; 2] = [End::Rejected, End::Expired];

impl End {
    /// A token that is good for now, and a function that ends it.
    fn token(self, text: &str) -> (BearerToken, impl Fn() + use<>) {
        let token = token(text).expires_in(match self {
            Self::Rejected => Duration::from_secs(3600),
            Self::Expired => Duration::from_millis(50),
        });
        let ending = token.clone();
        let end = move || match self {
            Self::Rejected => ending.reject(),
            Self::Expired => {
                while !ending.is_expired() {
                    spin_loop();
                }
            }
        };
        (token, end)
    }
}

#[test]
fn a_token_that_ends_while_its_request_waits_for_the_service_is_replaced() {
    for how in ENDS {
        let (old, end) = how.token("old");
        let source = in_turn(&[old, token("new")]);
        let (mut request, gate, server) = waiting(source.clone());
        gate.set(Gate::Shut);
        assert!(request.poll().is_pending());
        end();
        assert!(request.poll().is_pending());
        assert_eq!(source.asked(), 1, "{how:?}: before the service is ready");
        gate.set(Gate::Open);
        request.finish().unwrap();
        assert_eq!(server.authorizations(), ["Bearer new"], "{how:?}");
        assert_eq!(source.asked(), 2, "{how:?}");
    }
}

#[test]
fn a_token_is_replaced_once_and_no_more() {
    for how in ENDS {
        let ((first, end_first), (second, end_second)) = (how.token("1"), how.token("2"));
        let source = in_turn(&[first, second, token("3")]);
        let (mut request, gate, server) = waiting(source.clone());
        gate.set(Gate::Shut);
        assert!(request.poll().is_pending());
        end_first();
        end_second();
        gate.set(Gate::Open);
        request.finish().unwrap();
        assert_eq!(server.authorizations(), ["Bearer 2"], "{how:?}");
        assert_eq!(source.asked(), 2, "{how:?}");
    }
}

/// A source serves a rejected token if it has no other token.
#[test]
fn a_rejected_token_that_its_source_serves_at_once_is_sent() {
    let rejected = token("rejected");
    rejected.reject();
    let first = AtomicUsize::new(0);
    let source = Counting::new(Arc::new(Asking(move || {
        let token = rejected.clone();
        match first.fetch_add(1, Ordering::SeqCst) {
            0 => TokenFuture::boxed(ready(Ok(token))),
            _ => token.into(),
        }
    })));
    let (mut request, gate, server) = waiting(source.clone());
    gate.set(Gate::Shut);
    assert!(request.poll().is_pending());
    gate.set(Gate::Open);
    request.finish().unwrap();
    assert_eq!(server.authorizations(), ["Bearer rejected"]);
    assert_eq!(source.asked(), 2);
}

#[test]
fn a_token_is_not_asked_for_anew_if_it_is_good_or_the_service_is_ready_at_once() {
    for (is_rejected, has_to_wait) in [(true, false), (false, true)] {
        let ours = token("ours");
        if is_rejected {
            ours.reject();
        }
        let source = in_turn(&[ours, token("another")]);
        let (mut request, gate, server) = waiting(source.clone());
        if has_to_wait {
            gate.set(Gate::Shut);
            assert!(request.poll().is_pending());
            gate.set(Gate::Open);
        }
        request.finish().unwrap();
        assert_eq!(server.authorizations(), ["Bearer ours"]);
        assert_eq!(source.asked(), 1);
    }
}

#[test]
fn a_request_that_waits_for_another_token_holds_nothing_again() {
    let manual = Manual::default();
    let (mut request, gate, server) = waiting(manual.clone());
    gate.set(Gate::Shut);
    let [old, new] = ["old", "new"].map(token);
    manual.answer(Ok(old.clone()));
    assert!(request.poll().is_pending());
    old.reject();
    gate.set(Gate::Open);
    assert!(request.poll().is_pending());
    assert_eq!(gate.reserved(), 0);

    // The clone waits for the gate once more. The request does not ask for a third token.
    gate.set(Gate::Shut);
    manual.answer(Ok(new.clone()));
    assert!(request.poll().is_pending());
    new.reject();
    gate.set(Gate::Open);
    request.finish().unwrap();
    assert_eq!(server.authorizations(), ["Bearer new"]);
    assert_eq!(gate.reserved(), 0);
}

/// A request that was made for one account must not go out as another account.
#[test]
fn a_request_whose_account_is_signed_out_while_it_waits_for_the_service_is_not_sent() {
    let accounts = Mutex::new(["alice", "bob"].into_iter());
    let source = RefreshingToken::builder(move || {
        let account = accounts.lock().unwrap().next().unwrap();
        async move { BearerToken::new(account) }
    })
    .runtime(CallerDriven::new())
    .build();
    let counting = Counting::new(source.clone());
    let (mut request, gate, server) = waiting(counting.clone());
    gate.set(Gate::Shut);
    assert!(request.poll().is_pending());
    source.invalidate();
    gate.set(Gate::Open);
    let error = request.finish().unwrap_err();
    let error = ours(&error).source_error().unwrap();
    assert_eq!(error.kind(), SourceErrorKind::Invalidated);
    assert_eq!(gate.reserved(), 0);
    assert!(server.seen().is_empty());
    assert_eq!(counting.asked(), 1, "nobody asks for another token");
}

/// As above, but the sign-out comes while the source looks for another token. The source of a program may wait
/// for something else before it asks the source that was signed out.
#[test]
fn a_request_whose_account_is_signed_out_while_it_asks_for_another_token_is_not_sent() {
    let account = RefreshingToken::builder(|| ready(BearerToken::new("alice")))
        .runtime(CallerDriven::new())
        .build();
    let alice = block_on(account.token()).unwrap();
    let manual = Manual::default();
    let (mut request, gate, server) = waiting(manual.clone());
    gate.set(Gate::Shut);
    manual.answer(Ok(alice.clone()));
    assert!(request.poll().is_pending());
    alice.reject();
    gate.set(Gate::Open);
    assert!(request.poll().is_pending());
    account.invalidate();
    manual.answer(Ok(token("bob")));
    let error = request.finish().unwrap_err();
    let error = ours(&error).source_error().unwrap();
    assert_eq!(error.kind(), SourceErrorKind::Invalidated);
    assert_eq!(gate.reserved(), 0);
    assert!(server.seen().is_empty());
}

#[test]
fn a_request_fails_and_holds_nothing_if_there_is_no_other_token() {
    for at_once in [true, false] {
        let old = token("old");
        let handed_out = old.clone();
        let source = Asking(move || {
            let result = if handed_out.is_rejected() {
                let error = SourceError::new(SourceErrorKind::Failed, "no answer");
                if at_once {
                    return TokenFuture::ready(Err(error));
                }
                Err(error)
            } else {
                Ok(handed_out.clone())
            };
            TokenFuture::boxed(ready(result))
        });
        let (mut request, gate, server) = waiting(source);
        gate.set(Gate::Shut);
        assert!(request.poll().is_pending());
        old.reject();
        gate.set(Gate::Open);
        let error = request.finish().unwrap_err();
        assert_eq!(ours(&error).kind(), ErrorKind::NoToken);
        assert_eq!(gate.reserved(), 0);
        assert!(server.seen().is_empty());
    }
}

#[test]
fn debug_tells_what_a_request_waits_for() {
    let manual = Manual::default();
    let (server, _held) = Server::held();
    let (inner, gate) = Gated::new(server);
    let mut service = BearerAuthLayer::new(manual.clone()).layer(inner);
    make_ready(&mut service);
    let mut request = service.call(get(URI));
    let mut poll = |then: &str| {
        assert!(crate::support::poll(&mut request).is_pending());
        assert_eq!(format!("{request:?}"), format!("ResponseFuture({then})"));
    };
    poll("waiting for a token");
    gate.set(Gate::Shut);
    manual.answer(Ok(token("ours")));
    poll("waiting for the inner service");
    gate.set(Gate::Open);
    poll("waiting for the response");
}
