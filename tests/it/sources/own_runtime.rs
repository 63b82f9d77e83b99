//! Runtimes of users: a runtime with a coarse clock that lags, a runtime that takes tasks only at some
//! times, and a runtime that does something else before it takes a task.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use futures::{FutureExt, channel::oneshot, future::BoxFuture};
use tower_bearer::{RefreshingToken, Runtime, SourceErrorKind, TokenSource};

use crate::{
    sources::refreshing::{Endpoint, HOUR, MINUTE, SECOND, Script, number_of, one_hour, waiting},
    support::virtual_time::VirtualTime,
};

const MILLI: Duration = Duration::from_millis(1);
const NANO: Duration = Duration::from_nanos(1);
/// The most by which `Runtime::coarse_now` may lag.
const LAG: Duration = Duration::from_millis(20);

/// Virtual time, with a coarse clock that lags as much as it may.
#[derive(Clone, Debug)]
struct Lagging(VirtualTime);

impl Runtime for Lagging {
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        self.0.spawn(task)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.0.sleep(duration)
    }

    fn now(&self) -> Instant {
        self.0.now()
    }

    fn coarse_now(&self) -> Instant {
        self.0.now() - LAG
    }

    fn system_now(&self) -> SystemTime {
        self.0.system_now()
    }
}

fn on_a_lagging_clock(endpoint: &Endpoint) -> RefreshingToken {
    endpoint
        .builder()
        .refresh_jitter(0.0)
        .startup_jitter(0.0)
        .runtime(Lagging(endpoint.time.clone()))
        .build()
}

#[test]
fn a_coarse_clock_that_lags_serves_no_token_past_its_end() {
    // The token was published for the fast path at this time before the end of its service.
    for before in [NANO, MILLI, LAG, 21 * MILLI, 500 * MILLI] {
        let endpoint = Endpoint::new(|| Script::Hang);
        endpoint.script([one_hour()]);
        let source = on_a_lagging_clock(&endpoint);
        endpoint.time.block_on(source.token()).unwrap();
        // Service ends ten seconds before the token expires.
        endpoint.time.advance(HOUR - 10 * SECOND - before);
        for _ in 0..2 {
            let token = source.token().now_or_never().expect("it is good");
            assert_eq!(number_of(&token.unwrap()), 1, "{before:?}");
        }
        endpoint.time.advance(before);
        assert!(source.token().now_or_never().is_none(), "{before:?}");
    }
}

#[test]
fn a_coarse_clock_that_lags_notices_that_a_refresh_is_due() {
    let endpoint = Endpoint::new(one_hour);
    let source = on_a_lagging_clock(&endpoint);
    endpoint.time.block_on(source.token()).unwrap();
    let due = HOUR - 10 * SECOND - 12 * MINUTE;
    endpoint.time.advance(due - NANO);
    source.token().now_or_never().unwrap().unwrap();
    endpoint.time.run();
    assert_eq!(endpoint.fetches(), 1);
    endpoint.time.advance(NANO);
    source.token().now_or_never().unwrap().unwrap();
    endpoint.time.run();
    assert_eq!(endpoint.fetches(), 2);
}

/// Takes tasks and has timers only while it is open, as tokio does only within a runtime.
#[derive(Clone, Debug)]
struct Opened {
    time: VirtualTime,
    open: Arc<AtomicBool>,
    /// Whether there are timers even while the runtime is not open.
    timers: bool,
}

impl Opened {
    fn new(time: &VirtualTime) -> Self {
        Self {
            time: time.clone(),
            open: Arc::default(),
            timers: false,
        }
    }

    fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
    }

    fn is_open(&self) -> bool {
        self.open.load(Ordering::SeqCst)
    }
}

impl Runtime for Opened {
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        if self.is_open() {
            self.time.spawn(task)
        } else {
            Err(task)
        }
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        if self.timers || self.is_open() {
            self.time.sleep(duration)
        } else {
            std::future::pending().boxed()
        }
    }

    fn now(&self) -> Instant {
        self.time.now()
    }

    fn system_now(&self) -> SystemTime {
        self.time.system_now()
    }
}

/// Inside the runtime, the fetch makes its timers anew. Without them it would show no signs of life, so a
/// waiter would take the fetch for lost and begin a second fetch.
#[test]
fn a_fetch_begun_outside_the_runtime_goes_on_inside_and_shows_signs_of_life() {
    let endpoint = Endpoint::new(one_hour);
    endpoint.script([Script::Slow(25 * SECOND)]);
    let runtime = Opened::new(&endpoint.time);
    let source = endpoint.builder().runtime(runtime.clone()).build();
    let outside = waiting(&source);
    assert_eq!(endpoint.fetches(), 1, "a caller polls it");
    runtime.open();
    let inside = waiting(&source);
    assert_eq!(endpoint.time.tasks(), 1, "the runtime has it");
    let inside = run_to_end(&endpoint.time, inside, 25 * SECOND);
    assert_eq!(number_of(&inside.unwrap()), 1);
    assert_eq!(number_of(&endpoint.time.block_on(outside).unwrap()), 1);
    assert_eq!(endpoint.fetches(), 1);
}

#[test]
fn a_fetch_begun_outside_the_runtime_has_its_time_limit_from_its_beginning() {
    let endpoint = Endpoint::new(one_hour);
    endpoint.script([Script::Hang]);
    let runtime = Opened::new(&endpoint.time);
    let source = endpoint.builder().runtime(runtime.clone()).build();
    let outside = waiting(&source);
    endpoint.time.advance(20 * SECOND);
    runtime.open();
    let inside = waiting(&source);
    assert_eq!(endpoint.time.tasks(), 1, "the runtime has it");
    // Nobody waits any more. The task still ends.
    drop((inside, outside));
    endpoint.time.advance(10 * SECOND - NANO);
    assert_eq!(endpoint.time.tasks(), 1);
    endpoint.time.advance(NANO);
    endpoint.time.run();
    assert_eq!(endpoint.time.tasks(), 0, "a task that never ends");
    assert_eq!(source.status().failures(), 1);
}

/// Polls a caller once a second until it has its result.
fn run_to_end<F: Future + Unpin>(time: &VirtualTime, mut future: F, most: Duration) -> F::Output {
    let end = time.now() + most;
    while time.now() < end {
        time.advance(SECOND);
        if let Some(output) = (&mut future).now_or_never() {
            return output;
        }
    }
    panic!("it still waits");
}

/// The runtime has timers, but takes no tasks.
#[test]
fn a_fetch_that_its_waiters_poll_is_not_lost_however_often_and_however_rarely_they_do() {
    for every in [100 * MILLI, SECOND, 5 * SECOND] {
        let endpoint = Endpoint::new(one_hour);
        endpoint.script([Script::Slow(25 * SECOND)]);
        let runtime = Opened {
            timers: true,
            ..Opened::new(&endpoint.time)
        };
        let source = endpoint.builder().runtime(runtime).build();
        let mut caller = waiting(&source);
        let end = endpoint.time.now() + 25 * SECOND;
        while endpoint.time.now() < end {
            assert!((&mut caller).now_or_never().is_none(), "{every:?}");
            endpoint.time.advance(every);
        }
        let token = (&mut caller).now_or_never().expect("the fetch has ended");
        assert_eq!(number_of(&token.unwrap()), 1, "{every:?}");
        assert_eq!(endpoint.fetches(), 1, "{every:?}");
    }
}

/// Virtual time. Once, something else happens before a task is taken, as if another thread came between.
#[derive(Clone)]
struct Interrupted {
    time: VirtualTime,
    first: Arc<Mutex<Option<First>>>,
}

type First = Box<dyn FnOnce() + Send>;

impl Interrupted {
    fn new(time: &VirtualTime) -> Self {
        Self {
            time: time.clone(),
            first: Arc::default(),
        }
    }

    fn by(&self, first: impl FnOnce() + Send + 'static) {
        *self.first.lock().unwrap() = Some(Box::new(first));
    }
}

impl fmt::Debug for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interrupted")
    }
}

impl Runtime for Interrupted {
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        let first = self.first.lock().unwrap().take();
        if let Some(first) = first {
            first();
        }
        self.time.spawn(task)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.time.sleep(duration)
    }

    fn now(&self) -> Instant {
        self.time.now()
    }

    fn system_now(&self) -> SystemTime {
        self.time.system_now()
    }
}

/// The sign-out comes when the caller has begun the fetch, but does not listen yet.
#[test]
fn a_caller_hears_of_a_sign_out_that_comes_before_it_listens() {
    let endpoint = Endpoint::new(|| Script::Hang);
    let runtime = Interrupted::new(&endpoint.time);
    let source = endpoint.builder().runtime(runtime.clone()).build();
    let signs_out = source.clone();
    runtime.by(move || signs_out.invalidate());
    let error = endpoint.time.block_on(source.token()).unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Invalidated);
}

/// The fetch before this fetch was past its time limit. Its token comes when the caller has begun the next
/// fetch, but does not listen yet.
#[test]
fn a_caller_gets_a_late_token_that_comes_before_it_listens() {
    let endpoint = Endpoint::new(|| Script::Hang);
    let (go, signal) = oneshot::channel();
    endpoint.script([Script::When(signal)]);
    let runtime = Interrupted::new(&endpoint.time);
    let builder = endpoint.builder().backoff(Duration::ZERO, Duration::ZERO);
    let source = builder.runtime(runtime.clone()).build();
    drop(waiting(&source));
    endpoint.time.stall(30 * SECOND);
    let time = endpoint.time.clone();
    runtime.by(move || {
        go.send(()).unwrap();
        time.run();
    });
    let token = endpoint.time.block_on(source.token()).unwrap();
    assert_eq!(number_of(&token), 1);
}
