//! Fetches and runtimes: there may be many runtimes, and a runtime may be dropped, idle, kept elsewhere, or
//! absent.
//!
//! The waits have a limit only so that a test that would wait for ever fails. No result depends on speed.

use std::{
    future::{Future, pending},
    panic::panic_any,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    thread,
    time::Duration,
};

use futures::{executor::block_on, future::join_all, task::noop_waker_ref};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime as Tokio},
    sync::Notify,
    time::{sleep, timeout},
};
use tower_bearer::{
    BearerToken, BoxError, RefreshingToken, SourceError, SourceErrorKind, TokenFuture, TokenSource,
    TokioRuntime,
};

use crate::support::{text, token};

/// A limit for waits. It is longer than any successful wait.
const LONG: Duration = Duration::from_secs(60);
const MOMENT: Duration = Duration::from_millis(5);

fn current_thread() -> Tokio {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// A runtime that its own thread drives.
fn driven() -> Tokio {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap()
}

fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(noop_waker_ref()))
}

/// The result of `future`. Panics if `future` takes too long.
fn within<T>(runtime: &Tokio, future: impl Future<Output = T>) -> T {
    runtime.block_on(async { timeout(LONG, future).await.expect("it hangs") })
}

/// Counts fetches. Each fetch takes a while, on a timer of the runtime in which it began.
struct Slow {
    begun: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
}

impl Slow {
    fn new() -> Self {
        Self {
            begun: Arc::default(),
            ended: Arc::default(),
        }
    }

    fn fetch(
        &self,
        takes: Duration,
        lifetime: Duration,
    ) -> impl FnMut() -> futures::future::BoxFuture<'static, Result<BearerToken, BoxError>>
    + Send
    + 'static {
        let (begun, ended) = (Arc::clone(&self.begun), Arc::clone(&self.ended));
        move || {
            let (number, ended) = (begun.fetch_add(1, Ordering::SeqCst) + 1, Arc::clone(&ended));
            Box::pin(async move {
                sleep(takes).await;
                ended.fetch_add(1, Ordering::SeqCst);
                Ok(BearerToken::new(format!("token-{number}"))?.expires_in(lifetime))
            })
        }
    }

    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    fn ended(&self) -> usize {
        self.ended.load(Ordering::SeqCst)
    }
}

#[test]
fn a_fetch_whose_runtime_is_dropped_is_begun_anew_where_the_next_request_runs() {
    for first in [current_thread, driven] {
        let slow = Slow::new();
        let source = RefreshingToken::new(slow.fetch(MOMENT, LONG));

        let runtime = first();
        runtime.block_on(async {
            assert!(poll_once(source.token()).is_pending());
        });
        drop(runtime);

        let given = within(&current_thread(), source.token()).unwrap();
        assert_eq!(text(&given), format!("Bearer token-{}", slow.begun()));
        assert!(slow.begun() <= 2);
    }
}

#[test]
fn waiters_in_other_runtimes_go_on_when_the_runtime_of_the_fetch_is_dropped() {
    let slow = Slow::new();
    // The first fetch never ends.
    let mut later = slow.fetch(MOMENT, LONG);
    let begun = Arc::clone(&slow.begun);
    let source = RefreshingToken::new(move || {
        let hangs = begun.load(Ordering::SeqCst) == 0;
        let fetch = later();
        async move {
            if hangs {
                pending::<()>().await;
            }
            fetch.await
        }
    });

    let first = driven();
    first.block_on(async {
        assert!(poll_once(source.token()).is_pending());
        while slow.begun() == 0 {
            tokio::task::yield_now().await;
        }
    });
    let waiters: Vec<_> = (0..4)
        .map(|_| {
            let source = source.clone();
            thread::spawn(move || {
                let runtime = current_thread();
                within(&runtime, async {
                    join_all((0..3).map(|_| source.token())).await
                })
            })
        })
        .collect();
    drop(first);

    for waiter in waiters {
        for result in waiter.join().unwrap() {
            assert!(result.is_ok(), "{result:?}");
        }
    }
    assert!(slow.begun() >= 2);
}

#[test]
fn a_runtime_for_each_call_costs_no_failed_request() {
    let slow = Slow::new();
    // The lifetimes are so short that most calls find a refresh due.
    let source = RefreshingToken::builder(slow.fetch(MOMENT, Duration::from_secs(2)))
        .startup_jitter(0.0)
        .refresh_jitter(0.0)
        .build();
    let until = std::time::Instant::now() + Duration::from_secs(5);
    let mut requests = 0;
    while std::time::Instant::now() < until {
        let runtime = current_thread();
        let result = within(&runtime, source.token());
        assert!(result.is_ok(), "request {requests}: {result:?}");
        requests += 1;
    }
    assert!(slow.ended() >= 2, "no refresh ended in {requests} requests");
    println!(
        "{requests} requests, {} fetches, {} ended",
        slow.begun(),
        slow.ended()
    );
}

#[test]
fn a_fetch_in_a_runtime_that_nobody_drives_is_begun_anew_by_a_waiter_elsewhere() {
    let slow = Slow::new();
    let source = RefreshingToken::builder(slow.fetch(MOMENT, LONG))
        .fetch_timeout(Duration::from_secs(1))
        .build();

    let idle = current_thread();
    idle.block_on(async { assert!(poll_once(source.token()).is_pending()) });

    let given = within(&current_thread(), source.token()).unwrap();
    assert_eq!(text(&given), format!("Bearer token-{}", slow.begun()));

    // The idle runtime goes on. Its late token does not displace the good token.
    idle.block_on(async { sleep(MOMENT * 4).await });
    let still = within(&idle, source.token()).unwrap();
    assert!(still.is_same(&given));
}

#[test]
fn a_fetch_over_a_socket_goes_on_when_a_runtime_that_joined_it_stands_still_or_is_dropped() {
    let server = driven();
    let (address, total) = server.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&answers);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let count = Arc::clone(&count);
                tokio::spawn(async move {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).await.unwrap();
                    sleep(MOMENT).await;
                    let number = count.fetch_add(1, Ordering::SeqCst);
                    stream
                        .write_all(format!("t{number}").as_bytes())
                        .await
                        .unwrap();
                });
            }
        });
        (address, answers)
    });
    for stands_still in [true, false] {
        for round in 0..20 {
            let source = RefreshingToken::new(move || async move {
                let mut stream = TcpStream::connect(address).await?;
                stream.write_all(b"?").await?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await?;
                Ok::<_, BoxError>(BearerToken::new(answer)?)
            });
            let first = driven();
            let mut waiter = source.token();
            // The fetch begins in the first runtime.
            first.block_on(async { assert!(poll_once(&mut waiter).is_pending()) });
            let waiter = first.spawn(waiter);
            let joined = current_thread();
            let mut future = source.token();
            joined.block_on(async {
                // The fetch may have ended by now.
                let _ = poll_once(&mut future);
            });
            if !stands_still {
                drop(future);
                drop(joined);
            }
            let result = within(&first, waiter).unwrap();
            assert!(result.is_ok(), "round {round}: {result:?}");
        }
    }
    assert_eq!(total.load(Ordering::SeqCst), 40, "one fetch each");
}

#[test]
fn a_plain_thread_waits_for_a_fetch_on_a_kept_runtime() {
    let kept = driven();
    for _ in 0..20 {
        let slow = Slow::new();
        let source = RefreshingToken::builder(slow.fetch(MOMENT, LONG))
            .runtime(TokioRuntime::with_handle(kept.handle().clone()))
            .build();
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let source = source.clone();
                thread::spawn(move || block_on(source.token()))
            })
            .collect();
        for thread in threads {
            assert_eq!(text(&thread.join().unwrap().unwrap()), "Bearer token-1");
        }
        assert_eq!(slow.begun(), 1);
    }
}

/// The runtime of the waiter measures the time of the waiter.
#[test]
fn a_waiter_in_a_runtime_of_its_own_does_not_depend_on_the_timers_of_a_kept_runtime() {
    let kept_and_idle = current_thread();
    let slow = Slow::new();
    let source = RefreshingToken::builder(slow.fetch(MOMENT, LONG))
        .runtime(TokioRuntime::with_handle(kept_and_idle.handle().clone()))
        .fetch_timeout(Duration::from_secs(1))
        .build();
    let error = within(&current_thread(), source.token()).unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Closed);
    assert_eq!(slow.begun(), 0);
}

#[test]
fn a_token_asked_for_outside_the_runtime_is_fetched_inside() {
    let slow = Slow::new();
    let source = RefreshingToken::new(slow.fetch(MOMENT, LONG));
    let runtime = current_thread();
    // `token` is called before the runtime is entered.
    let future = source.token();
    let given = within(&runtime, future).unwrap();
    assert_eq!(text(&given), "Bearer token-1");
}

#[test]
fn a_fetch_in_the_background_is_finished_after_the_last_handle_is_gone() {
    let slow = Slow::new();
    let source = RefreshingToken::new(slow.fetch(MOMENT, LONG));
    let runtime = current_thread();
    runtime.block_on(async {
        assert!(poll_once(source.token()).is_pending());
        drop(source);
        while slow.ended() == 0 {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_source_whose_runtime_loses_every_fetch_says_that_no_token_can_come() {
    /// A runtime that takes every task and drops it.
    #[derive(Debug)]
    struct Shut;

    impl tower_bearer::Runtime for Shut {
        fn spawn(
            &self,
            task: futures::future::BoxFuture<'static, ()>,
        ) -> Result<(), futures::future::BoxFuture<'static, ()>> {
            drop(task);
            Ok(())
        }

        fn sleep(&self, _: Duration) -> futures::future::BoxFuture<'static, ()> {
            Box::pin(pending())
        }

        fn now(&self) -> std::time::Instant {
            std::time::Instant::now()
        }
    }

    let source = RefreshingToken::builder(|| async { Ok::<_, SourceError>(token("never")) })
        .runtime(Shut)
        .build();
    let error = block_on(source.token()).unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Closed);
}

#[test]
fn a_source_on_a_runtime_that_was_shut_down_says_that_no_token_can_come() {
    let gone = current_thread();
    let handle = gone.handle().clone();
    drop(gone);
    let source = RefreshingToken::builder(|| async { Ok::<_, SourceError>(token("never")) })
        .runtime(TokioRuntime::with_handle(handle))
        .build();
    let error = within(&current_thread(), source.token()).unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Closed);
}

/// The sign-out comes while a fetch runs.
#[test]
fn an_invalidated_source_never_serves_what_the_fetch_before_brings() {
    let runtime = current_thread();
    let go = Arc::new(Notify::new());
    let begun = Arc::new(AtomicUsize::new(0));
    let source = {
        let (go, begun) = (Arc::clone(&go), Arc::clone(&begun));
        RefreshingToken::new(move || {
            let (go, number) = (Arc::clone(&go), begun.fetch_add(1, Ordering::SeqCst));
            async move {
                if number == 0 {
                    go.notified().await;
                }
                Ok::<_, SourceError>(token(&format!("account-{number}")))
            }
        })
    };
    within(&runtime, async {
        let mut before = tokio::spawn(source.token());
        tokio::task::yield_now().await;
        source.invalidate();
        let mut after = tokio::spawn(source.token());
        let error = (&mut before).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::Invalidated);
        // The first fetch may still run, so the next fetch waits for its end.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(poll_once(&mut after).is_pending());
        assert_eq!(begun.load(Ordering::SeqCst), 1);
        go.notify_one();
        let given = after.await.unwrap().unwrap();
        assert_eq!(text(&given), "Bearer account-1");
        assert!(source.token().await.unwrap().is_same(&given));
    });
}

#[test]
fn a_fetch_that_asks_its_own_source_hears_at_once_that_it_waits_for_itself() {
    let cell: Arc<Mutex<Option<RefreshingToken>>> = Arc::default();
    let own = Arc::clone(&cell);
    let source = RefreshingToken::new(move || {
        let source = own.lock().unwrap().clone().unwrap();
        async move { source.token().await }
    });
    *cell.lock().unwrap() = Some(source.clone());
    for result in [
        block_on(source.token()),
        within(&current_thread(), source.token()),
    ] {
        assert_eq!(result.unwrap_err().kind(), SourceErrorKind::Recursive);
    }
    for result in [
        block_on(source.refresh_now()),
        within(&driven(), source.refresh_now()),
    ] {
        assert_eq!(result.unwrap_err().kind(), SourceErrorKind::Recursive);
    }
    cell.lock().unwrap().take();
}

/// A payload that, when it is dropped, counts the drop and panics.
struct Payload(Arc<AtomicUsize>, u8);

impl Drop for Payload {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
        if self.1 > 0 {
            panic_any(Payload(Arc::clone(&self.0), self.1 - 1));
        }
    }
}

#[test]
fn a_panic_s_payload_is_dropped_even_if_that_panics_in_turn() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let source = {
        let dropped = Arc::clone(&dropped);
        RefreshingToken::new(move || {
            let payload = Payload(Arc::clone(&dropped), 3);
            async move {
                let payload = payload;
                let fetched: Result<BearerToken, SourceError> = match payload.1 {
                    0 => Ok(token("never")),
                    _ => panic_any(payload),
                };
                fetched
            }
        })
    };
    let error = block_on(source.token()).unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Panicked);
    assert_eq!(dropped.load(Ordering::SeqCst), 4);
}

#[test]
fn a_fetch_that_panics_when_it_is_dropped_harms_nobody() {
    struct Fetch(Arc<AtomicUsize>);

    impl Future for Fetch {
        type Output = Result<BearerToken, SourceError>;

        fn poll(self: std::pin::Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
            Poll::Ready(Ok(token("good")))
        }
    }

    impl Drop for Fetch {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
            panic!("in the drop of the fetch");
        }
    }

    let dropped = Arc::new(AtomicUsize::new(0));
    let source = {
        let dropped = Arc::clone(&dropped);
        RefreshingToken::new(move || Fetch(Arc::clone(&dropped)))
    };
    let results = within(&driven(), async {
        join_all((0..10).map(|_| source.token())).await
    });
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
}

#[test]
fn where_nothing_measures_time_a_fetch_goes_on_without_a_limit() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let go = Arc::new(Notify::new());
    let source = {
        let go = Arc::clone(&go);
        RefreshingToken::builder(move || {
            let go = Arc::clone(&go);
            async move {
                go.notified().await;
                Ok::<_, SourceError>(token("good"))
            }
        })
        .fetch_timeout(MOMENT)
        .build()
    };
    let given = runtime.block_on(async {
        let waiting = tokio::spawn(source.token());
        tokio::task::yield_now().await;
        go.notify_one();
        waiting.await.unwrap()
    });
    assert_eq!(text(&given.unwrap()), "Bearer good");
}

#[test]
fn keep_fresh_fetches_without_a_request_and_ends_with_the_last_handle() {
    let slow = Slow::new();
    let source = RefreshingToken::builder(slow.fetch(MOMENT, Duration::from_secs(2)))
        .startup_jitter(0.0)
        .refresh_jitter(0.0)
        .build();
    within(&current_thread(), async {
        let kept = tokio::spawn(source.keep_fresh());
        while slow.ended() < 2 {
            sleep(MOMENT).await;
        }
        drop(source);
        kept.await.unwrap();
    });
}

/// A waiter that was dropped is not polled any more, and does not hold up the fetch.
#[test]
fn a_waiter_that_is_dropped_leaves_the_fetch_to_the_others() {
    let slow = Slow::new();
    let source = RefreshingToken::new(slow.fetch(MOMENT, LONG));
    let runtime = current_thread();
    within(&runtime, async {
        let mut futures: Vec<TokenFuture> = (0..10).map(|_| source.token()).collect();
        for future in &mut futures {
            assert!(poll_once(future).is_pending());
        }
        futures.truncate(1);
        futures.remove(0).await.unwrap();
    });
    assert_eq!(slow.begun(), 1);
}
