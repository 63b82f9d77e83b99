//! A runtime on shuttle's tasks, and a token endpoint. Time passes only when a test says so.

use std::{
    fmt,
    future::{Future, poll_fn},
    mem,
    pin::Pin,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
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

const ITERATIONS: usize = 1_500;

/// Runs a test in random orders, and in orders with few preemptions at random places.
pub(crate) fn check(test: impl Fn() + Clone + Send + Sync + 'static) {
    check_random(test.clone(), ITERATIONS);
    check_pct(test, ITERATIONS, 3);
}

/// Like [`check`], but in fewer orders: for a test that is repeated for many places in the code.
pub(crate) fn check_few(test: impl Fn() + Clone + Send + Sync + 'static) {
    check_random(test.clone(), ITERATIONS / 5);
    check_pct(test, ITERATIONS / 5, 3);
}

/// Who drives a fetch.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Driven {
    InTheBackground,
    ByCallers,
    /// Every second task that is offered runs in the background, as if only some callers were in a
    /// runtime.
    BySomeInTheBackground,
    /// In the background for the threads that called [`World::enter_runtime`], by the caller for other
    /// threads.
    WhereThereIsARuntime,
}

pub(crate) fn check_both(test: fn(Driven)) {
    for driven in [
        Driven::InTheBackground,
        Driven::ByCallers,
        Driven::BySomeInTheBackground,
    ] {
        check(move || test(driven));
    }
}

/// This lock is not shuttle's, so no switch may happen while it is held.
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
    sleepers: Mutex<Vec<Weak<Sleeper>>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    fetches: AtomicUsize,
    /// How many of the first fetches never end.
    hanging: AtomicUsize,
    /// How many of the first fetches fail.
    failing: AtomicUsize,
    lifetime: Option<Duration>,
    /// The number of the user's futures at this moment.
    alive: AtomicUsize,
    /// The largest number of the user's futures at any moment.
    most_alive: AtomicUsize,
    /// How many tasks were offered to this runtime.
    offered: AtomicUsize,
    /// The number of the poll at which the first task is dropped.
    drop_at: Option<usize>,
    has_taken: AtomicBool,
    /// How many tasks were dropped before their end.
    losses: AtomicUsize,
    with_runtime: Mutex<Vec<thread::ThreadId>>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "driven {:?}", self.inner.driven)
    }
}

/// The waker of a timer, which is dropped with the timer.
type Sleeper = Mutex<Option<Waker>>;

struct Alive(World);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.inner.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

impl World {
    pub(crate) fn new(driven: Driven, lifetime: Option<Duration>) -> Self {
        Self::dropping(driven, lifetime, None)
    }

    /// Drops the first task that runs in the background, in place of the poll with the number `drop_at`.
    pub(crate) fn dropping(
        driven: Driven,
        lifetime: Option<Duration>,
        drop_at: Option<usize>,
    ) -> Self {
        let inner = Inner {
            driven,
            start: Instant::now(),
            passed: AtomicU64::new(0),
            sleepers: Mutex::default(),
            tasks: Mutex::default(),
            fetches: AtomicUsize::new(0),
            hanging: AtomicUsize::new(0),
            failing: AtomicUsize::new(0),
            lifetime,
            alive: AtomicUsize::new(0),
            most_alive: AtomicUsize::new(0),
            offered: AtomicUsize::new(0),
            drop_at,
            has_taken: AtomicBool::new(false),
            losses: AtomicUsize::new(0),
            with_runtime: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    pub(crate) fn hang(&self, fetches: usize) {
        self.inner.hanging.store(fetches, Ordering::SeqCst);
    }

    pub(crate) fn fail(&self, fetches: usize) {
        self.inner.failing.store(fetches, Ordering::SeqCst);
    }

    pub(crate) fn fetches(&self) -> usize {
        self.inner.fetches.load(Ordering::SeqCst)
    }

    pub(crate) fn alive(&self) -> usize {
        self.inner.alive.load(Ordering::SeqCst)
    }

    pub(crate) fn losses(&self) -> usize {
        self.inner.losses.load(Ordering::SeqCst)
    }

    /// From now on, the runtime takes the tasks that this thread spawns.
    pub(crate) fn enter_runtime(&self) {
        let thread = thread::current().id();
        lock(&self.inner.with_runtime).push(thread);
    }

    /// Waits until all tasks in the background have ended, and the tasks that come meanwhile as well.
    pub(crate) fn finish_tasks(&self) {
        loop {
            let tasks = self.take_tasks();
            if tasks.is_empty() {
                return;
            }
            for task in tasks {
                block_on(task).unwrap();
            }
        }
    }

    pub(crate) fn most_alive(&self) -> usize {
        self.inner.most_alive.load(Ordering::SeqCst)
    }

    pub(crate) fn pass(&self, duration: Duration) {
        let millis = u64::try_from(duration.as_millis()).unwrap();
        self.inner.passed.fetch_add(millis, Ordering::SeqCst);
        let sleepers = mem::take(&mut *lock(&self.inner.sleepers));
        let wakers = sleepers.iter().filter_map(Weak::upgrade);
        let wakers: Vec<_> = wakers.filter_map(|sleeper| lock(&sleeper).take()).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Two callers that come when the token can no longer be taken without the lock.
    pub(crate) fn later_callers(&self, source: &RefreshingToken) -> [thread::JoinHandle<usize>; 2] {
        [(); 2].map(|()| {
            let world = self.clone();
            go(source, move |source| {
                world.pass(2 * SECOND);
                ask(source)
            })
        })
    }

    /// The tasks that were started in the background.
    pub(crate) fn take_tasks(&self) -> Vec<JoinHandle<()>> {
        mem::take(&mut *lock(&self.inner.tasks))
    }

    /// A source whose tokens are `1`, `2` and so on.
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

    /// A source that starts with a token.
    pub(crate) fn source_from(
        &self,
        first: BearerToken,
        settings: fn(RefreshingTokenBuilder) -> RefreshingTokenBuilder,
    ) -> RefreshingToken {
        let world = self.clone();
        let builder = RefreshingToken::builder(move || world.fetch());
        let builder = settings(builder.runtime(self.clone()).random_seed(1));
        builder.first_token(first).build()
    }

    fn fetch(&self) -> impl Future<Output = Result<BearerToken, SourceError>> + Send + use<> {
        let number = self.inner.fetches.fetch_add(1, Ordering::SeqCst) + 1;
        let others = self.inner.alive.fetch_add(1, Ordering::SeqCst);
        self.inner
            .most_alive
            .fetch_max(others + 1, Ordering::SeqCst);
        let alive = Alive(self.clone());
        async move {
            let inner = &alive.0.inner;
            yield_now().await;
            if number <= inner.hanging.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            yield_now().await;
            if number <= inner.failing.load(Ordering::SeqCst) {
                return Err(SourceError::new(SourceErrorKind::Failed, "down"));
            }
            let token = BearerToken::new(number.to_string())
                .map_err(|_| SourceError::new(SourceErrorKind::Failed, "not a token"))?;
            // Not `expires_in`, which would read another clock.
            let expiry = inner.lifetime.map(|lifetime| alive.0.now() + lifetime);
            Ok(expiry.into_iter().fold(token, BearerToken::expires_at))
        }
    }
}

impl Runtime for World {
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        let offered = self.inner.offered.fetch_add(1, Ordering::SeqCst);
        let takes = match self.inner.driven {
            Driven::ByCallers => false,
            Driven::InTheBackground => true,
            Driven::BySomeInTheBackground => offered % 2 == 1,
            Driven::WhereThereIsARuntime => {
                let thread = thread::current().id();
                lock(&self.inner.with_runtime).contains(&thread)
            }
        };
        if !takes {
            return Err(task);
        }
        let is_first = !self.inner.has_taken.swap(true, Ordering::SeqCst);
        let drop_at = self.inner.drop_at.filter(|_| is_first);
        // Spawn before the lock is taken, since shuttle may switch here.
        let task = spawn(drop_at_poll(self.clone(), task, drop_at));
        lock(&self.inner.tasks).push(task);
        Ok(())
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let (world, end) = (self.clone(), self.now() + duration);
        let sleeper = Arc::new(Sleeper::default());
        poll_fn(move |cx| {
            if world.now() >= end {
                return Poll::Ready(());
            }
            *lock(&sleeper) = Some(cx.waker().clone());
            lock(&world.inner.sleepers).push(Arc::downgrade(&sleeper));
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

/// Starts a thread with a handle of its own.
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

/// The task, which is dropped in place of the poll with the number `at`.
fn drop_at_poll(
    world: World,
    task: BoxFuture<'static, ()>,
    at: Option<usize>,
) -> impl Future<Output = ()> + Send {
    let (mut task, mut polls) = (Some(task), 0);
    poll_fn(move |cx| {
        if at == Some(polls) {
            // Count before the drop, since other callers then begin another fetch.
            world.inner.losses.fetch_add(1, Ordering::SeqCst);
            task = None;
        }
        polls += 1;
        task.as_mut()
            .map_or(Poll::Ready(()), |task| task.as_mut().poll(cx))
    })
}

/// The number of a token, or `None` if the source was invalidated meanwhile.
pub(crate) fn ask_or_invalidated(source: &RefreshingToken) -> Option<usize> {
    match block_on(source.token()) {
        Ok(token) => Some(number(&token)),
        Err(error) => {
            assert_eq!(error.kind(), SourceErrorKind::Invalidated);
            None
        }
    }
}

/// A waker whose references can be counted, and the flag that the waker sets.
#[derive(Default)]
pub(crate) struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Polls at most `polls` times, with a waker that wakes no task.
pub(crate) fn poll_times<F: Future + Unpin>(woken: &Arc<Woken>, future: &mut F, polls: usize) {
    let waker = Waker::from(Arc::clone(woken));
    for _ in 0..polls {
        if Pin::new(&mut *future)
            .poll(&mut Context::from_waker(&waker))
            .is_ready()
        {
            return;
        }
        thread::yield_now();
    }
}
