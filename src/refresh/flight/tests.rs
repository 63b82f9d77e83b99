//! Many requests wait for a fetch. A runtime polls the fetch, or any of the requests does.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use futures::{channel::oneshot, future::BoxFuture, task::noop_waker_ref};

use super::{End, Flight, Listener};
use crate::{error::SourceErrorKind, runtime::Runtime, token::BearerToken};

/// A runtime that takes every task, and keeps it for the test to poll, or that takes no task.
#[derive(Default)]
struct Tasks {
    takes: bool,
    taken: Mutex<Vec<BoxFuture<'static, ()>>>,
    asked: AtomicUsize,
}

impl std::fmt::Debug for Tasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tasks")
    }
}

impl Runtime for Tasks {
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if !self.takes {
            return Err(task);
        }
        self.taken.lock().unwrap().push(task);
        Ok(())
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }

    fn now(&self) -> Instant {
        Instant::now()
    }
}

fn taking() -> Tasks {
    Tasks {
        takes: true,
        ..Tasks::default()
    }
}

fn token() -> BearerToken {
    BearerToken::new("landed").unwrap()
}

/// A fetch that lands when the test says so.
fn flight() -> (oneshot::Sender<()>, Flight) {
    let (land, landed) = oneshot::channel();
    let flight = Arc::new(Mutex::new(None::<Flight>));
    let own = Arc::clone(&flight);
    let task = async move {
        let end = match landed.await {
            Ok(()) => End::Landed(Ok(token())),
            Err(_) => End::Lost,
        };
        let flight = own.lock().unwrap().take();
        flight.unwrap().land(end);
    };
    let made = Flight::new(Arc::default(), Box::pin(task));
    *flight.lock().unwrap() = Some(made.clone());
    (land, made)
}

fn poll_with(listener: &mut Listener, runtime: &Tasks, waker: &Waker) -> Poll<End> {
    listener.poll(&mut Context::from_waker(waker), runtime)
}

fn poll(listener: &mut Listener, runtime: &Tasks) -> Poll<End> {
    poll_with(listener, runtime, noop_waker_ref())
}

fn has_token(end: &Poll<End>) -> bool {
    matches!(end, Poll::Ready(End::Landed(Ok(_))))
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Count {
    fn waker() -> (Arc<Self>, Waker) {
        let count = Arc::new(Self::default());
        (Arc::clone(&count), Waker::from(count))
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

#[test]
fn all_listeners_are_woken_and_get_the_end() {
    for runtime in [taking(), Tasks::default()] {
        let (land, flight) = flight();
        flight.launch(&runtime);
        let mut listeners: Vec<_> = (0..5)
            .map(|_| (flight.listen(flight.told()), Count::waker()))
            .collect();
        for (listener, (_, waker)) in &mut listeners {
            assert!(poll_with(listener, &runtime, waker).is_pending());
        }
        land.send(()).unwrap();
        for mut task in runtime.taken.lock().unwrap().drain(..) {
            let _ = task
                .as_mut()
                .poll(&mut Context::from_waker(noop_waker_ref()));
        }
        for (listener, (count, _)) in &mut listeners {
            assert!(count.get() > 0);
            assert!(has_token(&poll(listener, &runtime)));
        }
        assert!(
            has_token(&poll(&mut flight.listen(flight.told()), &runtime)),
            "a later listener gets the end as well"
        );
    }
}

#[test]
fn a_fetch_that_a_runtime_has_taken_is_polled_by_no_listener() {
    let runtime = taking();
    let (land, flight) = flight();
    flight.launch(&runtime);
    assert!(flight.is_away() && !flight.is_unattended());
    land.send(()).unwrap();
    let mut listener = flight.listen(flight.told());
    assert!(poll(&mut listener, &runtime).is_pending());
    assert_eq!(runtime.asked.load(Ordering::SeqCst), 1);
}

#[test]
fn a_listener_gives_a_parked_fetch_to_the_runtime_that_it_is_polled_in() {
    let (refusing, runtime) = (Tasks::default(), taking());
    let (_land, flight) = flight();
    flight.launch(&refusing);
    assert!(flight.is_unattended());
    let mut listener = flight.listen(flight.told());
    assert!(!flight.is_unattended(), "it is about to be polled");
    assert!(poll(&mut listener, &runtime).is_pending());
    assert!(flight.is_away());
    assert_eq!(runtime.taken.lock().unwrap().len(), 1);
}

#[test]
fn a_listener_that_is_polled_drives_a_parked_fetch_and_its_drop_stops_nothing() {
    let runtime = Tasks::default();
    let (land, flight) = flight();
    let mut first = flight.listen(flight.told());
    let mut other = flight.listen(flight.told());
    assert!(poll(&mut first, &runtime).is_pending());
    let (count, waker) = Count::waker();
    assert!(poll_with(&mut other, &runtime, &waker).is_pending());
    drop(first);
    land.send(()).unwrap();
    assert_eq!(count.get(), 1);
    assert!(has_token(&poll(&mut other, &runtime)));
}

#[test]
fn a_fetch_is_unattended_once_its_last_listener_is_gone() {
    let (_land, flight) = flight();
    let listeners = [(); 2].map(|()| flight.listen(flight.told()));
    assert!(!flight.is_unattended());
    drop(listeners);
    assert!(flight.is_unattended());
}

#[test]
fn the_first_end_of_a_flight_stays() {
    let (_land, flight) = flight();
    flight.land(End::Lost);
    flight.land(End::Void);
    let end = poll(&mut flight.listen(flight.told()), &Tasks::default());
    assert!(matches!(end, Poll::Ready(End::Lost)));
}

#[test]
fn a_parked_fetch_is_dropped_when_the_flight_ends() {
    let (land, flight) = flight();
    flight.land(End::Void);
    assert!(land.is_canceled());
}

#[test]
fn an_invalidation_gives_an_error_to_present_listeners_and_to_no_later_listener() {
    let runtime = Tasks::default();
    let (land, flight) = flight();
    let mut before = flight.listen(flight.told());
    let (count, waker) = Count::waker();
    assert!(poll_with(&mut before, &runtime, &waker).is_pending());
    flight.invalidate();
    assert_eq!(count.get(), 1);
    let mut after = flight.listen(flight.told());
    assert!(poll(&mut after, &runtime).is_pending());
    land.send(()).unwrap();
    let Poll::Ready(End::Landed(Err(error))) = poll(&mut before, &runtime) else {
        panic!("it goes out as another account");
    };
    assert_eq!(error.kind(), SourceErrorKind::Invalidated);
    assert!(has_token(&poll(&mut after, &runtime)));
}

/// A waker that polls a listener at once, as the wakers of some executors do.
struct PollsAtOnce {
    listener: Mutex<Option<Listener>>,
    runtime: Tasks,
    got: AtomicUsize,
}

impl Wake for PollsAtOnce {
    fn wake(self: Arc<Self>) {
        let listener = self.listener.lock().unwrap().take();
        if let Some(mut listener) = listener {
            let got = has_token(&poll(&mut listener, &self.runtime));
            self.got.fetch_add(usize::from(got), Ordering::SeqCst);
        }
    }
}

#[test]
fn a_waker_that_polls_at_once_does_not_hang() {
    let (_land, flight) = flight();
    let mut listener = flight.listen(flight.told());
    let at_once = Arc::new(PollsAtOnce {
        listener: Mutex::new(None),
        runtime: Tasks::default(),
        got: AtomicUsize::new(0),
    });
    let waker = Waker::from(Arc::clone(&at_once));
    assert!(poll_with(&mut listener, &at_once.runtime, &waker).is_pending());
    *at_once.listener.lock().unwrap() = Some(listener);
    flight.land(End::Landed(Ok(token())));
    assert_eq!(at_once.got.load(Ordering::SeqCst), 1);
}

/// A future that wakes itself in each poll but the last.
struct WakesItself(u32);

impl Future for WakesItself {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0 -= 1;
        if self.0 == 0 {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[test]
fn a_parked_fetch_that_was_woken_while_it_was_polled_wakes_its_listeners() {
    let flight = Flight::new(Arc::default(), Box::pin(WakesItself(3)));
    let mut listener = flight.listen(flight.told());
    let (count, waker) = Count::waker();
    assert!(poll_with(&mut listener, &Tasks::default(), &waker).is_pending());
    assert!(count.get() > 0, "no other wake-up may come");
}

/// A runtime that panics in `spawn`, and so drops the task.
#[derive(Debug)]
struct Panics;

impl Runtime for Panics {
    fn spawn(&self, _: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        panic!("the runtime has a bug")
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }

    fn now(&self) -> Instant {
        Instant::now()
    }
}

#[test]
fn a_runtime_that_panics_harms_no_waiter() {
    let (land, flight) = flight();
    flight.launch(&Panics);
    assert!(flight.is_away());
    assert!(land.is_canceled(), "the task is gone");
    flight.land(End::Lost);
    let end = poll(&mut flight.listen(flight.told()), &Tasks::default());
    assert!(matches!(end, Poll::Ready(End::Lost)));
}
