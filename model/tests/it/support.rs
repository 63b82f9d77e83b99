//! A runtime on shuttle's tasks, in which time goes on when a test says so, and a token endpoint.

use std::{
    fmt,
    future::{Future, poll_fn},
    mem,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant, SystemTime},
};

use futures::{
    future::{BoxFuture, FutureExt},
    task::noop_waker_ref,
};
use shuttle::{
    check_pct, check_random,
    future::{JoinHandle, block_on, spawn, yield_now},
    thread,
};
use tower_bearer::{
    BearerToken, RefreshingToken, RefreshingTokenBuilder, Runtime, SourceError, SourceErrorKind,
    TokenSource,
};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

const ITERATIONS: usize = 3_000;

/// In random orders, and in orders that favour few switches at the worst places.
pub(crate) fn check(test: impl Fn() + Clone + Send + Sync + 'static) {
    check_random(test.clone(), ITERATIONS);
    check_pct(test, ITERATIONS, 3);
}

/// Who drives a fetch.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Driven {
    InTheBackground,
    ByCallers,
}

pub(crate) fn check_both(test: fn(Driven)) {
    for driven in [Driven::InTheBackground, Driven::ByCallers] {
        check(move || test(driven));
    }
}

/// What is not shuttle's is locked for a moment only, in which no switch happens.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

#[derive(Clone)]
pub(crate) struct World {
    inner: Arc<Inner>,
}

struct Inner {
    driven: Driven,
    start: Instant,
    passed: AtomicU64,
    sleepers: Mutex<Vec<Waker>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    fetches: AtomicUsize,
    /// How many of the first fetches never end.
    hanging: AtomicUsize,
    lifetime: Option<Duration>,
    /// Futures of the user there are at this moment.
    alive: AtomicUsize,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "driven {:?}", self.inner.driven)
    }
}

struct Alive(World);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.inner.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

impl World {
    pub(crate) fn new(driven: Driven, lifetime: Option<Duration>) -> Self {
        let inner = Inner {
            driven,
            start: Instant::now(),
            passed: AtomicU64::new(0),
            sleepers: Mutex::default(),
            tasks: Mutex::default(),
            fetches: AtomicUsize::new(0),
            hanging: AtomicUsize::new(0),
            lifetime,
            alive: AtomicUsize::new(0),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    pub(crate) fn hang(&self, fetches: usize) {
        self.inner.hanging.store(fetches, Ordering::SeqCst);
    }

    pub(crate) fn fetches(&self) -> usize {
        self.inner.fetches.load(Ordering::SeqCst)
    }

    pub(crate) fn alive(&self) -> usize {
        self.inner.alive.load(Ordering::SeqCst)
    }

    pub(crate) fn pass(&self, duration: Duration) {
        let millis = u64::try_from(duration.as_millis()).unwrap();
        self.inner.passed.fetch_add(millis, Ordering::SeqCst);
        let sleepers = mem::take(&mut *lock(&self.inner.sleepers));
        sleepers.into_iter().for_each(Waker::wake);
    }

    /// Two callers who come when the token may no longer be taken without the lock.
    pub(crate) fn later_callers(&self, source: &RefreshingToken) -> [thread::JoinHandle<usize>; 2] {
        [(); 2].map(|()| {
            let world = self.clone();
            go(source, move |source| {
                world.pass(2 * SECOND);
                ask(source)
            })
        })
    }

    /// What has been started in the background.
    pub(crate) fn take_tasks(&self) -> Vec<JoinHandle<()>> {
        mem::take(&mut *lock(&self.inner.tasks))
    }

    /// Its tokens are `1`, `2` and so on.
    pub(crate) fn source(&self) -> RefreshingToken {
        self.source_with(|builder| builder)
    }

    pub(crate) fn source_with(
        &self,
        settings: fn(RefreshingTokenBuilder) -> RefreshingTokenBuilder,
    ) -> RefreshingToken {
        let world = self.clone();
        let builder = RefreshingToken::builder(move || world.fetch());
        settings(builder.runtime(self.clone()).random_seed(1)).build()
    }

    fn fetch(&self) -> impl Future<Output = Result<BearerToken, SourceError>> + Send + use<> {
        let number = self.inner.fetches.fetch_add(1, Ordering::SeqCst) + 1;
        self.inner.alive.fetch_add(1, Ordering::SeqCst);
        let alive = Alive(self.clone());
        async move {
            let inner = &alive.0.inner;
            yield_now().await;
            if number <= inner.hanging.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            yield_now().await;
            let token = BearerToken::new(number.to_string())
                .map_err(|_| SourceError::new(SourceErrorKind::Failed, "not a token"))?;
            // Not `expires_in`, which reads another clock.
            let expiry = inner.lifetime.map(|lifetime| alive.0.now() + lifetime);
            Ok(expiry.into_iter().fold(token, BearerToken::expires_at))
        }
    }
}

impl Runtime for World {
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        match self.inner.driven {
            Driven::ByCallers => Err(task),
            Driven::InTheBackground => {
                let task = spawn(task);
                lock(&self.inner.tasks).push(task);
                Ok(())
            }
        }
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let (world, end) = (self.clone(), self.now() + duration);
        poll_fn(move |cx| {
            if world.now() >= end {
                return Poll::Ready(());
            }
            lock(&world.inner.sleepers).push(cx.waker().clone());
            Poll::Pending
        })
        .boxed()
    }

    fn now(&self) -> Instant {
        let passed = self.inner.passed.load(Ordering::SeqCst);
        self.inner.start + Duration::from_millis(passed)
    }

    fn system_now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.now().duration_since(self.inner.start)
    }
}

pub(crate) fn number(token: &BearerToken) -> usize {
    let header = token.header_value();
    let text = header.to_str().unwrap();
    text.strip_prefix("Bearer ").unwrap().parse().unwrap()
}

pub(crate) fn ask(source: &RefreshingToken) -> usize {
    number(&block_on(source.token()).unwrap())
}

pub(crate) fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(noop_waker_ref()))
}

/// A thread of its own for a handle of its own.
pub(crate) fn go<T: Send + 'static>(
    source: &RefreshingToken,
    work: impl FnOnce(&RefreshingToken) -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let source = source.clone();
    thread::spawn(move || work(&source))
}

pub(crate) fn join<T>(threads: impl IntoIterator<Item = thread::JoinHandle<T>>) -> Vec<T> {
    let results = threads.into_iter().map(|thread| thread.join().unwrap());
    results.collect()
}
