//! The concurrent parts under shuttle, which runs them in thousands of random orders of their locks
//! and tasks, and finds lost wake-ups as deadlocks.
//!
//! `RUSTFLAGS="--cfg shuttle" cargo test --test shuttle --target-dir target/shuttle`
//!
//! The locks and tasks are shuttle's; the atomic pointer of arc-swap and the channels of futures are
//! not, so no switch happens within them.
#![cfg(shuttle)]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{
    future::{BoxFuture, FutureExt},
    task::noop_waker_ref,
};
use shuttle::{
    check_pct, check_random,
    future::{block_on, spawn, yield_now},
    thread,
};
use tower_bearer::{
    BearerToken, RefreshingToken, RotatingToken, Runtime, SourceError, SourceErrorKind, TokenSource,
};

const ITERATIONS: usize = 3_000;

/// In random orders, and in orders that favour few switches at the worst places.
fn check(test: fn()) {
    check_random(test, ITERATIONS);
    check_pct(test, ITERATIONS, 3);
}

/// Time stands still.
#[derive(Debug)]
struct Still {
    now: Instant,
    background: bool,
}

impl Runtime for Still {
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        if !self.background {
            return Err(task);
        }
        drop(spawn(task));
        Ok(())
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        std::future::pending().boxed()
    }

    fn now(&self) -> Instant {
        self.now
    }

    fn system_now(&self) -> std::time::SystemTime {
        std::time::SystemTime::UNIX_EPOCH
    }
}

/// A source whose tokens are `1`, `2` and so on, and how often it has fetched.
fn source(background: bool) -> (RefreshingToken, Arc<AtomicUsize>) {
    let fetches = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&fetches);
    let fetch = move || {
        let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
        async move {
            yield_now().await;
            yield_now().await;
            BearerToken::new(number.to_string())
        }
    };
    let now = Instant::now();
    let source = RefreshingToken::builder(fetch)
        .runtime(Still { now, background })
        .random_seed(1)
        .build();
    (source, fetches)
}

fn number(token: &BearerToken) -> usize {
    let header = token.header_value();
    let text = header.to_str().unwrap();
    text.strip_prefix("Bearer ").unwrap().parse().unwrap()
}

fn ask(source: &RefreshingToken) -> usize {
    number(&block_on(source.token()).unwrap())
}

fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(noop_waker_ref()))
}

fn in_threads(count: usize, source: &RefreshingToken, each: fn(&RefreshingToken) -> usize) {
    let threads: Vec<_> = (0..count)
        .map(|_| {
            let source = source.clone();
            thread::spawn(move || each(&source))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

fn callers_share_a_fetch(background: bool) {
    let (source, fetches) = source(background);
    in_threads(3, &source, |source| {
        assert_eq!(ask(source), 1);
        0
    });
    assert_eq!(fetches.load(Ordering::SeqCst), 1);
}

#[test]
fn concurrent_callers_cost_one_fetch() {
    check(|| callers_share_a_fetch(true));
    check(|| callers_share_a_fetch(false));
}

fn callers_leave(background: bool) {
    let (source, fetches) = source(background);
    let leaves = {
        let source = source.clone();
        thread::spawn(move || {
            let mut token = source.token();
            let _ = poll_once(&mut token);
            thread::yield_now();
        })
    };
    in_threads(2, &source, ask);
    leaves.join().unwrap();
    assert_eq!(fetches.load(Ordering::SeqCst), 1);
}

#[test]
fn a_caller_who_leaves_takes_nothing_from_the_others() {
    check(|| callers_leave(true));
    check(|| callers_leave(false));
}

fn all_leave(background: bool) {
    let (source, fetches) = source(background);
    in_threads(2, &source, |source| {
        let mut token = source.token();
        let _ = poll_once(&mut token);
        0
    });
    assert_eq!(ask(&source), 1);
    assert_eq!(fetches.load(Ordering::SeqCst), 1);
}

#[test]
fn the_next_caller_resumes_a_fetch_that_all_have_left() {
    check(|| all_leave(true));
    check(|| all_leave(false));
}

fn rejections_race(background: bool) {
    let (source, fetches) = source(background);
    let old = block_on(source.token()).unwrap();
    let late = old.clone();
    old.reject();
    let rejects_late = thread::spawn(move || late.reject());
    in_threads(2, &source, |source| {
        assert_eq!(ask(source), 2);
        0
    });
    rejects_late.join().unwrap();
    assert_eq!(ask(&source), 2, "a late rejection evicts a newer token");
    assert_eq!(fetches.load(Ordering::SeqCst), 2);
}

#[test]
fn rejections_of_one_token_cost_one_fetch_however_late_they_come() {
    check(|| rejections_race(true));
    check(|| rejections_race(false));
}

fn a_push_races(background: bool) {
    let (source, fetches) = source(background);
    ask(&source);
    let refreshes = {
        let source = source.clone();
        thread::spawn(move || number(&block_on(source.refresh_now()).unwrap()))
    };
    let invalidates = {
        let source = source.clone();
        thread::spawn(move || source.invalidate())
    };
    in_threads(2, &source, ask);
    assert!(refreshes.join().unwrap() >= 2);
    invalidates.join().unwrap();
    assert!(
        ask(&source) >= 2,
        "the first token is served after a refresh"
    );
    assert!(fetches.load(Ordering::SeqCst) <= 4);
}

#[test]
fn a_refresh_and_an_invalidation_may_come_at_any_moment() {
    check(|| a_push_races(true));
    check(|| a_push_races(false));
}

#[test]
fn the_last_handle_may_go_at_any_moment() {
    check(|| {
        let (source, _) = source(true);
        let caller = {
            let token = source.token();
            thread::spawn(move || number(&block_on(token).unwrap()))
        };
        drop(source.refresh_now());
        drop(source);
        assert_eq!(caller.join().unwrap(), 1);
    });
}

#[test]
fn every_waiter_hears_of_a_rotation() {
    check(|| {
        let source = RotatingToken::empty();
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let source = source.clone();
                thread::spawn(move || block_on(source.token()).map(|token| number(&token)))
            })
            .collect();
        let leaves = {
            let source = source.clone();
            thread::spawn(move || drop(poll_once(&mut source.token())))
        };
        source.rotate(BearerToken::new("1").unwrap());
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap().unwrap(), 1);
        }
        leaves.join().unwrap();
    });
}

#[test]
fn a_failure_reaches_every_waiter() {
    check(|| {
        let fetch = || async {
            yield_now().await;
            Err::<BearerToken, _>(SourceError::new(SourceErrorKind::Failed, "down"))
        };
        let runtime = Still {
            now: Instant::now(),
            background: false,
        };
        let source = RefreshingToken::builder(fetch).runtime(runtime).build();
        in_threads(3, &source, |source| {
            assert!(block_on(source.token()).is_err());
            0
        });
    });
}
