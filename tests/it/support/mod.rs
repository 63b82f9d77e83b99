//! Helpers for several files: futures that a test polls by hand, an inner service in place of a server,
//! sources that a test drives, and child processes.

pub(crate) mod allocator;
#[cfg(feature = "tracing")]
pub(crate) mod events;
#[cfg(any(feature = "retry", feature = "reqwest-middleware"))]
pub(crate) mod retrying;
#[cfg(feature = "oauth2")]
pub(crate) mod token_endpoint;
pub(crate) mod virtual_time;

use std::{
    convert::Infallible,
    env,
    future::{Future, Ready, ready},
    pin::Pin,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use futures::{
    FutureExt,
    channel::oneshot,
    future::BoxFuture,
    task::{ArcWake, noop_waker_ref, waker},
};
use http::{Request, Response, StatusCode};
use tower::{Layer, Service};
use tower_bearer::{
    BearerAuthLayer, BearerToken, BoxError, Error, SourceError, StaticToken, TokenFuture,
    TokenSource,
};

pub(crate) const URL: &str = "https://api.example.com/";

pub(crate) type Req = Request<String>;
pub(crate) type Res = Response<String>;
/// A layer with a source of any type.
pub(crate) type AnyLayer = BearerAuthLayer<Arc<dyn TokenSource>>;

pub(crate) fn token(text: &str) -> BearerToken {
    BearerToken::new(text).unwrap()
}

/// The header value of `token`.
pub(crate) fn text(token: &BearerToken) -> String {
    token.header_value().to_str().unwrap().to_owned()
}

pub(crate) fn get(uri: &str) -> Req {
    Request::get(uri).body(String::new()).unwrap()
}

pub(crate) fn status(status: StatusCode) -> Res {
    let mut response = Res::default();
    *response.status_mut() = status;
    response
}

/// The values of a header, in order.
pub(crate) fn values(request: &Req, name: &str) -> Vec<String> {
    let values = request.headers().get_all(name).iter();
    values
        .map(|value| value.to_str().unwrap().to_owned())
        .collect()
}

/// The error of this crate, which `error` has to be.
pub(crate) fn ours(error: &BoxError) -> &Error {
    error
        .downcast_ref()
        .unwrap_or_else(|| panic!("not an error of this crate: {error:?}"))
}

/// Whether a layer with these settings marks the token that it sent, if the server answers with `response`.
pub(crate) fn marks(settings: impl Fn(AnyLayer) -> AnyLayer, response: &Res) -> bool {
    let [at_once, waited_for] = [true, false].map(|at_once| {
        let ours = token("ours");
        let source = ours.clone();
        let source: Arc<dyn TokenSource> = if at_once {
            Arc::new(StaticToken::new(source))
        } else {
            Arc::new(Asking(move || {
                TokenFuture::boxed(ready(Ok(source.clone())))
            }))
        };
        let response = response.clone();
        let server = Server::answering(move |_| response.clone());
        let mut service = settings(AnyLayer::new(source)).layer(server);
        send(&mut service, get("https://api.example.com/v1")).unwrap();
        ours.is_rejected()
    });
    assert_eq!(
        at_once, waited_for,
        "with a token at once and one waited for"
    );
    at_once
}

/// Sends a request. The service has to be ready at once, and has to answer at once.
pub(crate) fn send<S: Service<Req>>(service: &mut S, request: Req) -> Result<S::Response, S::Error>
where
    S::Error: std::fmt::Debug,
{
    make_ready(service);
    service
        .call(request)
        .now_or_never()
        .expect("the response is there at once")
}

/// Polls a service, which has to be ready at once.
pub(crate) fn make_ready<S: Service<Req>>(service: &mut S)
where
    S::Error: std::fmt::Debug,
{
    match service.poll_ready(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result.unwrap(),
        Poll::Pending => panic!("the service is not ready"),
    }
}

/// A future that a test polls by hand. Counts how often the future was woken.
pub(crate) struct Task<F> {
    future: Pin<Box<F>>,
    wakes: Arc<Wakes>,
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl ArcWake for Wakes {
    fn wake_by_ref(wakes: &Arc<Self>) {
        wakes.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl<F: Future> Task<F> {
    pub(crate) fn new(future: F) -> Self {
        Self {
            future: Box::pin(future),
            wakes: Arc::default(),
        }
    }

    /// Polls the future once. The future has to wait.
    pub(crate) fn waiting(future: F) -> Self {
        let mut task = Self::new(future);
        assert!(task.poll().is_pending(), "the future waits");
        task
    }

    pub(crate) fn poll(&mut self) -> Poll<F::Output> {
        let waker = waker(Arc::clone(&self.wakes));
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }

    /// Polls the future, which has to be ready.
    pub(crate) fn finish(&mut self) -> F::Output {
        match self.poll() {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("the future still waits"),
        }
    }

    /// The future itself, for another executor.
    pub(crate) fn into_future(self) -> Pin<Box<F>> {
        self.future
    }

    pub(crate) fn wakes(&self) -> usize {
        self.wakes.0.load(Ordering::SeqCst)
    }
}

/// An inner service that records each request, and answers as the test says.
#[derive(Clone)]
pub(crate) struct Server {
    seen: Arc<Mutex<Vec<Req>>>,
    answer: Arc<dyn Fn(&Req) -> Answer + Send + Sync>,
}

type Outcome = Result<Res, BoxError>;
type Answer = BoxFuture<'static, Outcome>;

impl Server {
    pub(crate) fn ok() -> Self {
        Self::answering(|_| Res::default())
    }

    pub(crate) fn answering(answer: impl Fn(&Req) -> Res + Send + Sync + 'static) -> Self {
        Self::new(move |request| ready(Ok(answer(request))).boxed())
    }

    /// Keeps each request waiting until [`Held::answer`] is called.
    pub(crate) fn held() -> (Self, Held) {
        let held = Held::default();
        let open = Arc::clone(&held.open);
        let server = Self::new(move |_| {
            let (answer, response) = oneshot::channel();
            open.lock().unwrap().push(answer);
            async move { response.await? }.boxed()
        });
        (server, held)
    }

    fn new(answer: impl Fn(&Req) -> Answer + Send + Sync + 'static) -> Self {
        Self {
            seen: Arc::default(),
            answer: Arc::new(answer),
        }
    }

    /// The requests so far, in order.
    pub(crate) fn seen(&self) -> Vec<Req> {
        self.seen.lock().unwrap().clone()
    }

    /// The `Authorization` of each request so far. Empty if the request has no `Authorization`.
    pub(crate) fn authorizations(&self) -> Vec<String> {
        let seen = self.seen();
        seen.iter()
            .map(|request| values(request, "authorization").join(" | "))
            .collect()
    }
}

impl Service<Req> for Server {
    type Response = Res;
    type Error = BoxError;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Answer {
        let answer = (self.answer)(&request);
        self.seen.lock().unwrap().push(request);
        answer
    }
}

/// The requests that a [`Server::held`] has not answered yet.
#[derive(Default)]
pub(crate) struct Held {
    open: Arc<Mutex<Vec<oneshot::Sender<Outcome>>>>,
}

impl Held {
    /// Answers the request that has waited longest.
    pub(crate) fn answer(&self, outcome: Outcome) {
        let longest = self.open.lock().unwrap().remove(0);
        longest
            .send(outcome)
            .expect("somebody waits for the answer");
    }
}

/// Counts how often a source is asked.
#[derive(Clone)]
pub(crate) struct Counting<T> {
    source: T,
    asked: Arc<AtomicUsize>,
}

impl<T> Counting<T> {
    pub(crate) fn new(source: T) -> Self {
        let asked = Arc::default();
        Self { source, asked }
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl<T: TokenSource> TokenSource for Counting<T> {
    fn token(&self) -> TokenFuture {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.source.token()
    }
}

/// A source that is a function.
pub(crate) struct Asking<F>(pub(crate) F);

impl<F: Fn() -> TokenFuture + Send + Sync + 'static> TokenSource for Asking<F> {
    fn token(&self) -> TokenFuture {
        (self.0)()
    }
}

/// A source that waits for the test to give each answer.
#[derive(Clone, Default)]
pub(crate) struct Manual {
    open: Arc<Mutex<Vec<oneshot::Sender<TokenResult>>>>,
}

type TokenResult = Result<BearerToken, SourceError>;

impl Manual {
    /// Answers the call of `token` that has waited longest.
    pub(crate) fn answer(&self, result: TokenResult) {
        let longest = self.open.lock().unwrap().remove(0);
        assert!(longest.send(result).is_ok(), "somebody waits for the token");
    }
}

impl TokenSource for Manual {
    fn token(&self) -> TokenFuture {
        let (answer, token) = oneshot::channel();
        self.open.lock().unwrap().push(answer);
        TokenFuture::boxed(async move { token.await.expect("the test answers") })
    }
}

/// A service that answers each request at once with 200 and drops it.
#[derive(Clone, Debug)]
pub(crate) struct Respond;

impl<B> Service<Request<B>> for Respond {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        ready(Ok(Response::new(())))
    }
}

/// Polls once, with a waker that does nothing.
pub(crate) fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(noop_waker_ref()))
}

const CHILD: &str = "TOWER_BEARER_TEST_CHILD";

/// Runs `body` in a child process with these environment variables. A test cannot set variables in this
/// process, since other tests may read them at the same time. `test` is the path of the calling test.
pub(crate) fn in_child(test: &str, variables: &[(&str, &std::ffi::OsStr)], body: impl FnOnce()) {
    let set = |child: &mut Command| {
        child.envs(variables.iter().copied());
    };
    in_prepared_child(test, set, body);
}

/// Runs `body` in a child process. `prepare` sets up the environment of the child.
pub(crate) fn in_prepared_child(
    test: &str,
    prepare: impl FnOnce(&mut Command),
    body: impl FnOnce(),
) {
    let sentinel = format!("{test} ran in the child");
    if env::var_os(CHILD).is_some_and(|name| name == *test) {
        body();
        println!("{sentinel}");
        return;
    }
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", test, "--nocapture"]);
    prepare(&mut child);
    let output = child.env(CHILD, test).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && stdout.contains(&sentinel),
        "{stdout}\n{stderr}"
    );
}
