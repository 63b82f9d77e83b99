//! A source that fetches, with runtimes, clocks, wakers and fetch functions that do the worst they can.
//!
//! A test that fails here may wait or loop for ever.

use std::{
    cell::RefCell,
    future::{Future, pending, poll_fn, ready},
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, RawWaker, RawWakerVTable, Waker},
    thread,
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture, task::noop_waker_ref};
use tower_bearer::{
    BearerToken, BoxError, CallerDriven, RefreshingToken, Runtime, SourceErrorKind, TokenSource,
};

use super::refreshing::{Endpoint, HOUR, MINUTE, SECOND, Script};
use crate::support::{Task, in_child, text, token, virtual_time::VirtualTime};

/// Behaves like `time`, except for `spawn` and `sleep`, which a test can change.
#[derive(Debug)]
struct Odd {
    time: VirtualTime,
    spawn: Spawn,
    sleep: Sleep,
}

#[derive(Debug)]
enum Spawn {
    Takes,
    Drops,
}

#[derive(Debug)]
enum Sleep {
    Sleeps,
    Returns,
}

impl Runtime for Odd {
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        match self.spawn {
            Spawn::Takes => self.time.spawn(task),
            Spawn::Drops => {
                drop(task);
                Ok(())
            }
        }
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        match self.sleep {
            Sleep::Sleeps => self.time.sleep(duration),
            Sleep::Returns => ready(()).boxed(),
        }
    }

    fn now(&self) -> Instant {
        self.time.now()
    }
}

#[test]
fn keep_fresh_does_not_spin_where_every_fetch_is_lost() {
    let runtime = Odd {
        time: VirtualTime::new(),
        spawn: Spawn::Drops,
        sleep: Sleep::Sleeps,
    };
    let source = RefreshingToken::builder(|| async { Ok::<_, BoxError>(token("t")) })
        .runtime(runtime)
        .build();
    let mut kept = Task::new(source.keep_fresh());
    assert!(kept.poll().is_pending());
}

#[test]
fn keep_fresh_gives_others_a_turn_where_no_sleep_takes_time() {
    let runtime = Odd {
        time: VirtualTime::new(),
        spawn: Spawn::Takes,
        sleep: Sleep::Returns,
    };
    let source = RefreshingToken::builder(|| async { Ok::<_, BoxError>(token("t")) })
        .runtime(runtime)
        .build();
    let mut kept = Task::new(source.keep_fresh());
    assert!(kept.poll().is_pending());
}

#[test]
fn keep_fresh_sleeps_while_a_fetch_without_a_time_limit_is_under_way() {
    let endpoint = Endpoint::new(|| Script::Hang);
    endpoint.script([Script::Token(Some(HOUR))]);
    let source = endpoint
        .builder()
        .fetch_timeout(Duration::MAX)
        .startup_jitter(0.0)
        .build();
    let polls = Arc::new(AtomicUsize::new(0));
    let mut kept = Box::pin(source.keep_fresh());
    let counted = Arc::clone(&polls);
    endpoint
        .time
        .spawn(Box::pin(poll_fn(move |cx| {
            counted.fetch_add(1, Ordering::SeqCst);
            kept.as_mut().poll(cx)
        })))
        .ok()
        .unwrap();
    endpoint.time.advance(50 * MINUTE);
    assert_eq!(endpoint.fetches(), 2, "the refresh is under way");
    let before = polls.load(Ordering::SeqCst);
    endpoint.time.advance(MINUTE);
    let polls = polls.load(Ordering::SeqCst) - before;
    assert!(polls <= 120, "{polls} polls in a minute");
}

#[test]
fn without_a_runtime_one_request_waits_for_a_refresh_that_has_no_time_limit() {
    for timeout in [30 * SECOND, Duration::MAX] {
        let endpoint = Endpoint::on(VirtualTime::caller_driven(), || Script::Hang);
        endpoint.script([Script::Token(Some(HOUR))]);
        let source = endpoint
            .builder()
            .fetch_timeout(timeout)
            .startup_jitter(0.0)
            .build();
        source.token().now_or_never().unwrap().unwrap();
        endpoint.time.stall(50 * MINUTE);
        let mut one = Task::new(source.token());
        assert!(one.poll().is_pending(), "limit {timeout:?}");
        assert!(source.token().now_or_never().unwrap().is_ok());
    }
}

#[test]
fn a_waiter_is_told_of_an_invalidation_also_when_the_fetch_has_just_ended_or_been_lost() {
    for end in [VirtualTime::run, VirtualTime::drop_tasks] {
        let endpoint = Endpoint::new(|| Script::Token(Some(HOUR)));
        let source = endpoint.source();
        let mut waiter = Task::waiting(source.token());
        end(&endpoint.time);
        source.invalidate();
        let result = waiter.poll();
        endpoint.time.run();
        let result = match result {
            Poll::Ready(result) => result,
            Poll::Pending => waiter.finish(),
        };
        let kind = result
            .map(|token| text(&token))
            .map_err(|error| error.kind());
        assert_eq!(kind, Err(SourceErrorKind::Invalidated));
    }
}

/// A waker. Each clone of the waker holds a reference to `count`.
fn counted(count: &Arc<()>) -> Waker {
    struct Count(#[allow(dead_code)] Arc<()>);
    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {}
    }
    Waker::from(Arc::new(Count(Arc::clone(count))))
}

/// Asks the source in its `Drop`, polls once, and records the answer.
struct AsksWhenDropped(Arc<Mutex<Option<RefreshingToken>>>, Arc<Mutex<Vec<String>>>);

impl Drop for AsksWhenDropped {
    fn drop(&mut self) {
        let source = self.0.lock().unwrap().clone();
        if let Some(source) = source {
            let mut future = source.token();
            let polled = pin!(&mut future).poll(&mut Context::from_waker(noop_waker_ref()));
            self.1.lock().unwrap().push(match polled {
                Poll::Pending => "it would wait for ever".into(),
                Poll::Ready(result) => format!("{:?}", result.map_err(|error| error.kind())),
            });
        }
    }
}

#[test]
fn a_fetch_that_asks_its_own_source_as_it_is_dropped_gets_an_error_at_once() {
    // If the fetch reaches its time limit, it has failed before it is dropped, so the source backs off.
    for (runtime_dies, expected) in [(false, "Err(TimedOut)"), (true, "Err(Recursive)")] {
        let time = VirtualTime::new();
        let handle: Arc<Mutex<Option<RefreshingToken>>> = Arc::default();
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let (of_fetch, of_said) = (Arc::clone(&handle), Arc::clone(&said));
        let source = RefreshingToken::builder(move || {
            let asks = AsksWhenDropped(Arc::clone(&of_fetch), Arc::clone(&of_said));
            async move {
                let _asks = asks;
                pending::<Result<BearerToken, BoxError>>().await
            }
        })
        .runtime(time.clone())
        .build();
        *handle.lock().unwrap() = Some(source.clone());
        let mut waiter = Task::waiting(source.token());
        time.run();
        if runtime_dies {
            time.drop_tasks();
        } else {
            time.advance(31 * SECOND);
        }
        let _ = waiter.poll();
        handle.lock().unwrap().take();
        let said = said.lock().unwrap().clone();
        assert_eq!(said, [expected], "runtime dies: {runtime_dies}");
    }
}

/// Runs in a child process. If another test in this process has paused tokio's clock, the clock panics
/// while a thread ends.
#[test]
fn a_source_can_be_asked_while_the_thread_ends() {
    let test = "sources::hostile::a_source_can_be_asked_while_the_thread_ends";
    in_child(test, &[], || {
        struct Asks(RefreshingToken, std::sync::mpsc::Sender<bool>);
        impl Drop for Asks {
            fn drop(&mut self) {
                let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    futures::executor::block_on(self.0.token())
                }));
                self.1.send(result.is_ok()).unwrap();
            }
        }
        thread_local! {
            static LAST: RefCell<Option<Asks>> = const { RefCell::new(None) };
        }

        let source = RefreshingToken::builder(|| async { Ok::<_, BoxError>(token("t")) })
            .runtime(CallerDriven::new())
            .build();
        let (say, said) = std::sync::mpsc::channel();
        thread::spawn(move || {
            LAST.with_borrow_mut(|last| *last = Some(Asks(source.clone(), say)));
            source.refresh_now().now_or_never();
            source.invalidate();
        })
        .join()
        .unwrap();
        assert!(said.recv().unwrap(), "it panicked");
    });
}

#[test]
fn a_waker_may_ask_the_source_as_it_is_cloned() {
    thread_local! {
        static ASKED: RefCell<Option<RefreshingToken>> = const { RefCell::new(None) };
    }
    fn clone(_: *const ()) -> RawWaker {
        let source = ASKED.with_borrow_mut(Option::take);
        if let Some(source) = source {
            let _ = source.token().now_or_never();
        }
        RawWaker::new(std::ptr::null(), &VTABLE)
    }
    fn nothing(_: *const ()) {}
    static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, nothing, nothing, nothing);

    let endpoint = Endpoint::new(|| Script::Hang);
    let source = endpoint.source();
    ASKED.with_borrow_mut(|asked| *asked = Some(source.clone()));
    let mut waiter = Box::pin(source.token());
    #[allow(unsafe_code)]
    let waker = unsafe { Waker::from_raw(RawWaker::new(std::ptr::null(), &VTABLE)) };
    assert!(
        waiter
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
}

#[test]
fn a_fetch_that_gives_up_its_turn_leaves_no_waker_behind() {
    // The first call of the fetch function blocks its thread until the end of the test.
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    let (say, begun) = std::sync::mpsc::channel::<()>();
    let mut calls = 0;
    let source = RefreshingToken::builder(move || {
        calls += 1;
        if calls == 1 {
            say.send(()).unwrap();
            let _ = blocked.recv();
        }
        async { Ok::<_, BoxError>(token("t")) }
    })
    .runtime(NoTimer::default())
    .backoff(Duration::ZERO, Duration::ZERO)
    .build();
    let first = thread::spawn({
        let mut waiter = source.token();
        move || {
            let _ = pin!(&mut waiter).poll(&mut Context::from_waker(noop_waker_ref()));
        }
    });
    begun.recv().unwrap();
    let clones = Arc::new(());
    let waker = counted(&clones);
    for _ in 0..100 {
        let mut one = source.refresh_now();
        let _ = pin!(&mut one).poll(&mut Context::from_waker(&waker));
        drop(one);
    }
    drop(waker);
    let left = Arc::strong_count(&clones) - 1;
    release.send(()).unwrap();
    first.join().unwrap();
    assert_eq!(left, 0, "wakers left behind");
}

/// A runtime without tasks and timers, but with a clock.
#[derive(Debug, Default)]
struct NoTimer(AtomicUsize);

impl Runtime for NoTimer {
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        Err(task)
    }
    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        pending().boxed()
    }
    /// Each call is a minute later than the call before.
    fn now(&self) -> Instant {
        static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        let minutes = self.0.fetch_add(1, Ordering::SeqCst);
        *START + MINUTE * u32::try_from(minutes).unwrap()
    }
}

#[derive(Debug, Clone)]
struct GoesBack(Arc<Mutex<Instant>>);

impl Runtime for GoesBack {
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        Err(task)
    }
    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        pending().boxed()
    }
    fn now(&self) -> Instant {
        *self.0.lock().unwrap()
    }
}

#[test]
fn a_token_is_refreshed_on_time_by_a_clock_that_went_back() {
    let begin = Instant::now() + 10 * HOUR;
    let clock = GoesBack(Arc::new(Mutex::new(begin)));
    let ours = clock.clone();
    let mut number = 0;
    let source = RefreshingToken::builder(move || {
        number += 1;
        let token = token(&format!("token-{number}")).expires_at(ours.now() + MINUTE);
        ready(Ok::<_, BoxError>(token))
    })
    .runtime(clock.clone())
    .build();
    for _ in 0..2 {
        source.token().now_or_never().unwrap().unwrap();
    }
    *clock.0.lock().unwrap() = begin - 5 * HOUR;
    source.token().now_or_never().unwrap().unwrap();
    *clock.0.lock().unwrap() += 2 * MINUTE;
    let token = source.token().now_or_never().unwrap().unwrap();
    assert_ne!(text(&token), "Bearer token-1");
}
