//! What many callers wait for: one future, whoever of them drives it and whoever goes away.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unchecked_time_subtraction,
    clippy::unwrap_used
)]

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
};

use futures::{channel::oneshot, executor::block_on, future::FutureExt, task::noop_waker_ref};

use super::Flight;

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(noop_waker_ref()))
}

/// A flight that ends when the test says so.
fn flight() -> (oneshot::Sender<u32>, Flight<u32>) {
    let (land, landed) = oneshot::channel();
    (land, Flight::new(landed.map(Result::unwrap).boxed()))
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn poll_with(flight: &mut Flight<u32>, count: &Arc<Count>) -> Poll<u32> {
    let waker = Waker::from(Arc::clone(count));
    Pin::new(flight).poll(&mut Context::from_waker(&waker))
}

#[test]
fn all_are_woken_and_get_the_result() {
    let (land, first) = flight();
    let mut waiters: Vec<_> = (0..100).map(|_| first.clone()).collect();
    let counts: Vec<_> = waiters.iter().map(|_| Arc::new(Count::default())).collect();
    for (waiter, count) in waiters.iter_mut().zip(&counts) {
        assert!(poll_with(waiter, count).is_pending());
    }
    land.send(7).unwrap();
    for (waiter, count) in waiters.iter_mut().zip(&counts) {
        assert_eq!(count.0.load(Ordering::SeqCst), 1, "a waiter is not woken");
        assert_eq!(poll(waiter), Poll::Ready(7));
    }
    assert_eq!(block_on(first), 7, "and so does who comes late");
}

#[test]
fn nobody_depends_on_another_being_polled() {
    for silent in 0..3 {
        let (land, first) = flight();
        let mut waiters = [first.clone(), first.clone(), first.clone()];
        for waiter in &mut waiters {
            assert!(poll(waiter).is_pending());
        }
        land.send(7).unwrap();
        for (index, waiter) in waiters.iter_mut().enumerate() {
            // One is neither polled again nor dropped.
            if index != silent {
                assert_eq!(poll(waiter), Poll::Ready(7));
            }
        }
    }
}

/// A flight that is woken while the first of the two polls it, and another comes in that very poll.
/// How often that other is woken is counted.
fn woken_during_a_poll() -> (Flight<u32>, Flight<u32>, Arc<Count>) {
    let other: Arc<Mutex<Option<Flight<u32>>>> = Arc::default();
    let count = Arc::new(Count::default());
    let (during, seen) = (Arc::clone(&other), Arc::clone(&count));
    let mut first_poll = true;
    // Wakes all who wait, which is the one that polls; then another one comes.
    let future = std::future::poll_fn(move |cx| {
        if !std::mem::take(&mut first_poll) {
            return Poll::Ready(7);
        }
        cx.waker().wake_by_ref();
        let mut other = during.lock().unwrap();
        assert!(poll_with(other.as_mut().unwrap(), &seen).is_pending());
        Poll::Pending
    });
    let mut woken = Flight::new(future.boxed());
    *other.lock().unwrap() = Some(woken.clone());
    assert!(poll(&mut woken).is_pending());
    let other = other.lock().unwrap().take().unwrap();
    (woken, other, count)
}

#[test]
fn one_who_is_woken_and_goes_away_takes_no_wake_up_along() {
    let (woken, mut other, count) = woken_during_a_poll();
    drop(woken);
    assert_eq!(count.0.load(Ordering::SeqCst), 1, "nobody is told");
    assert_eq!(poll(&mut other), Poll::Ready(7));
}

#[test]
fn one_who_is_woken_and_not_polled_holds_up_nobody() {
    let (_stays, mut other, count) = woken_during_a_poll();
    assert_eq!(count.0.load(Ordering::SeqCst), 1, "nobody is told");
    assert_eq!(poll(&mut other), Poll::Ready(7));
}

#[test]
fn one_who_comes_after_all_have_left_resumes_the_future() {
    let (land, first) = flight();
    let mut driver = first.clone();
    assert!(poll(&mut driver).is_pending());
    drop(driver);
    land.send(7).unwrap();
    assert_eq!(block_on(first), 7);
}

/// Polls its flight at once when it is woken, as some executors do.
struct Inline(Mutex<Option<Flight<u32>>>);

impl Wake for Inline {
    fn wake(self: Arc<Self>) {
        let flight = self.0.lock().unwrap().take();
        if let Some(mut flight) = flight {
            assert_eq!(poll(&mut flight), Poll::Ready(7));
        }
    }
}

#[test]
fn a_waker_may_poll_at_once() {
    let (land, mut driver) = flight();
    let mut waiter = driver.clone();
    assert!(poll(&mut driver).is_pending());
    let inline = Arc::new(Inline(Mutex::new(None)));
    let waker = Waker::from(Arc::clone(&inline));
    assert!(
        Pin::new(&mut waiter)
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    *inline.0.lock().unwrap() = Some(waiter);
    land.send(7).unwrap();
    assert_eq!(poll(&mut driver), Poll::Ready(7));
    assert!(
        inline.0.lock().unwrap().is_none(),
        "the waiter is not woken"
    );
}

#[test]
fn dropping_the_last_one_drops_the_future() {
    let alive = Arc::new(());
    let held = Arc::clone(&alive);
    let future = async move {
        std::future::pending::<()>().await;
        drop(held);
        7
    };
    let mut first = Flight::new(future.boxed());
    let second = first.clone();
    assert!(poll(&mut first).is_pending());
    drop(first);
    assert_eq!(Arc::strong_count(&alive), 2);
    drop(second);
    assert_eq!(Arc::strong_count(&alive), 1);
}

/// Real threads, without a sleep: whatever the order, everybody who stays gets the result.
#[test]
fn nobody_is_lost_when_a_driver_leaves_as_others_come() {
    for round in 0..2_000_u32 {
        let (land, first) = flight();
        let mut driver = first.clone();
        assert!(poll(&mut driver).is_pending());
        thread::scope(|scope| {
            let waiters = [first.clone(), first.clone()];
            let joined = waiters.map(|waiter| scope.spawn(move || block_on(waiter)));
            scope.spawn(move || drop(driver));
            scope.spawn(move || land.send(round).unwrap());
            for waiter in joined {
                assert_eq!(waiter.join().unwrap(), round);
            }
        });
    }
}
