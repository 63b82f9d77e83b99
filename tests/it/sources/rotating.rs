//! A token that other code pushes: each request gets the newest token, and no request waits for ever.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    thread,
    time::{Duration, Instant},
};

use futures::task::{ArcWake, waker};
use tower::{Layer, Service};
use tower_bearer::{BearerAuthLayer, RotatingToken, SourceErrorKind, TokenFuture, TokenSource};

use crate::support::{Held, Res, Server, Task, get, make_ready, send, text, token};

const URI: &str = "https://api.example.com/v1";

type Waiter = Task<TokenFuture>;

fn waiters(source: &RotatingToken, number: usize) -> Vec<Waiter> {
    (0..number).map(|_| Task::waiting(source.token())).collect()
}

/// The header value of the token that a waiter gets.
fn given(waiter: &mut Waiter) -> String {
    text(&waiter.finish().unwrap())
}

/// The header value of the token that a request gets without a wait.
fn at_hand(source: &RotatingToken) -> String {
    given(&mut Task::new(source.token()))
}

#[test]
fn the_next_request_carries_the_token_that_was_rotated_in() {
    let source = RotatingToken::new(token("first"));
    let server = Server::ok();
    let mut service = BearerAuthLayer::new(source.clone()).layer(server.clone());
    let mut clone = service.clone();

    send(&mut service, get(URI)).unwrap();
    source.rotate(token("second"));
    send(&mut service, get(URI)).unwrap();
    // Any handle can rotate, and every service sees the new token.
    source.clone().rotate(token("third"));
    send(&mut clone, get(URI)).unwrap();
    assert_eq!(
        server.authorizations(),
        ["Bearer first", "Bearer second", "Bearer third"]
    );
}

#[test]
fn requests_wait_for_the_first_token() {
    let source = RotatingToken::empty();
    let server = Server::ok();
    let mut service = BearerAuthLayer::new(source.clone()).layer(server.clone());
    make_ready(&mut service);
    let mut request = Task::waiting(service.call(get(URI)));
    assert!(server.seen().is_empty());

    source.rotate(token("first"));
    assert_eq!(request.wakes(), 1);
    request.finish().unwrap();
    send(&mut service, get(URI)).unwrap();
    assert_eq!(server.authorizations(), ["Bearer first", "Bearer first"]);
}

#[test]
fn one_rotation_wakes_every_waiter_once() {
    let source = RotatingToken::empty();
    let mut waiters = waiters(&source, 1_000);
    assert!(waiters.iter().all(|waiter| waiter.wakes() == 0));
    source.rotate(token("first"));
    for (number, waiter) in waiters.iter_mut().enumerate() {
        assert_eq!(waiter.wakes(), 1, "waiter {number}");
        assert_eq!(given(waiter), "Bearer first", "waiter {number}");
    }
}

#[test]
fn no_waiter_is_lost_whichever_others_are_cancelled() {
    const WAITERS: usize = 6;
    #[derive(Clone, Copy, Debug)]
    enum When {
        BeforeTheRotation,
        /// The cancelled waiters were woken, but not polled. The other waiters must be woken as well.
        AfterTheRotation,
    }
    for when in [When::BeforeTheRotation, When::AfterTheRotation] {
        for cancelled in 0..1_u32 << WAITERS {
            let case = format!("{when:?}, cancelled: {cancelled:06b}");
            let source = RotatingToken::empty();
            let mut waiters: Vec<_> = waiters(&source, WAITERS).into_iter().map(Some).collect();
            let cancel = |waiters: &mut Vec<Option<Waiter>>| {
                for (number, waiter) in waiters.iter_mut().enumerate() {
                    if cancelled & (1 << number) != 0 {
                        *waiter = None;
                    }
                }
            };
            match when {
                When::BeforeTheRotation => {
                    cancel(&mut waiters);
                    source.rotate(token("first"));
                }
                When::AfterTheRotation => {
                    source.rotate(token("first"));
                    cancel(&mut waiters);
                }
            }
            for (number, waiter) in waiters.iter_mut().enumerate() {
                if let Some(waiter) = waiter {
                    assert_eq!(waiter.wakes(), 1, "waiter {number} of {case}");
                    assert_eq!(given(waiter), "Bearer first", "waiter {number} of {case}");
                }
            }
        }
    }
}

#[test]
fn a_waiter_that_comes_after_cancelled_ones_is_woken() {
    let source = RotatingToken::empty();
    drop(waiters(&source, 100));
    let mut waiter = Task::waiting(source.token());
    source.rotate(token("first"));
    assert_eq!(waiter.wakes(), 1);
    assert_eq!(given(&mut waiter), "Bearer first");
}

#[test]
fn a_waiter_that_moves_to_another_task_is_woken_there() {
    let source = RotatingToken::empty();
    let mut moved = source.token();
    let (before, after) = (Arc::new(Count::default()), Arc::new(Count::default()));
    for task in [&before, &after] {
        let waker = waker(Arc::clone(task));
        let polled = Pin::new(&mut moved).poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
    }
    source.rotate(token("first"));
    assert_eq!(after.0.load(Ordering::SeqCst), 1);
}

#[derive(Default)]
struct Count(AtomicUsize);

impl ArcWake for Count {
    fn wake_by_ref(count: &Arc<Self>) {
        count.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Otherwise, each request that times out while there is no token would leave its task behind.
#[test]
fn a_waiter_that_is_cancelled_leaves_nothing_behind() {
    let source = RotatingToken::empty();
    let staying = Arc::new(Count::default());
    let mut stays = source.token();
    let polled = Pin::new(&mut stays).poll(&mut Context::from_waker(&waker(Arc::clone(&staying))));
    assert!(polled.is_pending());
    assert_eq!(Arc::strong_count(&staying), 2, "its waker is kept");
    for _ in 0..1_000 {
        let leaving = Arc::new(Count::default());
        let mut leaves = source.token();
        let polled =
            Pin::new(&mut leaves).poll(&mut Context::from_waker(&waker(Arc::clone(&leaving))));
        assert!(polled.is_pending());
        assert_eq!(Arc::strong_count(&leaving), 2, "its waker is kept");
        drop(leaves);
        assert_eq!(Arc::strong_count(&leaving), 1, "its waker is dropped");
    }
    source.rotate(token("first"));
    assert_eq!(staying.0.load(Ordering::SeqCst), 1);
    assert_eq!(Arc::strong_count(&staying), 1, "woken, its waker is gone");
}

#[test]
fn a_rotation_between_the_ask_and_the_first_poll_is_seen() {
    let source = RotatingToken::empty();
    let mut early = Task::new(source.token());
    source.rotate(token("first"));
    assert_eq!(given(&mut early), "Bearer first");

    // The same holds if other waiters have waited before.
    let source = RotatingToken::empty();
    let others = waiters(&source, 2);
    let mut early = Task::new(source.token());
    source.rotate(token("first"));
    assert_eq!(given(&mut early), "Bearer first");
    drop(others);
}

#[test]
fn a_waiter_gets_the_newest_token_even_if_it_was_woken_for_an_older_one() {
    let source = RotatingToken::empty();
    let mut waiter = Task::waiting(source.token());
    source.rotate(token("first"));
    source.rotate(token("second"));
    assert_eq!(given(&mut waiter), "Bearer second");
}

#[test]
fn an_expired_token_is_not_sent_but_waits_for_the_next_rotation() {
    let expired = token("expired").expires_at(Instant::now());
    let source = RotatingToken::new(expired);
    let mut waiter = Task::waiting(source.token());
    source.rotate(token("valid").expires_in(Duration::from_secs(24 * 60 * 60)));
    assert_eq!(waiter.wakes(), 1);
    assert_eq!(given(&mut waiter), "Bearer valid");
    assert_eq!(at_hand(&source), "Bearer valid");
}

#[test]
fn a_panic_in_the_data_of_the_token_before_harms_no_waiter() {
    struct Panics;

    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("the data has a bug");
        }
    }

    let expired = token("expired").expires_at(Instant::now());
    let source = RotatingToken::new(expired.with_data(Panics));
    let mut waiter = Task::waiting(source.token());
    let rotation = AssertUnwindSafe(|| source.rotate(token("valid")));
    catch_unwind(rotation).unwrap_err();
    assert_eq!(waiter.wakes(), 1);
    assert_eq!(given(&mut waiter), "Bearer valid");
}

#[test]
fn a_waiter_that_is_woken_for_an_expired_token_goes_on_waiting() {
    let source = RotatingToken::empty();
    let mut waiter = Task::waiting(source.token());
    for number in 1..=3 {
        let wakes = waiter.wakes();
        source.rotate(token("expired").expires_at(Instant::now()));
        assert!(waiter.wakes() > wakes, "expired token {number}");
        assert!(waiter.poll().is_pending(), "expired token {number}");
    }
    let wakes = waiter.wakes();
    source.rotate(token("valid"));
    assert!(waiter.wakes() > wakes);
    assert_eq!(given(&mut waiter), "Bearer valid");
}

#[test]
fn a_rejected_token_is_handed_out_since_there_is_no_other() {
    let first = token("first");
    let source = RotatingToken::new(first.clone());
    first.reject();
    assert_eq!(at_hand(&source), "Bearer first");
}

#[test]
fn waiters_are_told_when_every_handle_is_gone() {
    let source = RotatingToken::empty();
    let other = source.clone();
    let mut waiter = Task::waiting(source.token());
    let mut early = Task::new(source.token());
    drop(source);
    assert_eq!(waiter.wakes(), 0, "a token may still come");
    drop(other);
    assert_eq!(waiter.wakes(), 1);
    for waiter in [&mut waiter, &mut early] {
        let error = waiter.finish().unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::Closed);
    }
}

#[test]
fn a_token_is_not_lost_if_the_last_handle_is_dropped_right_after_it_came() {
    let source = RotatingToken::empty();
    let mut waiter = Task::waiting(source.token());
    let mut early = Task::new(source.token());
    source.rotate(token("first"));
    drop(source);
    assert_eq!(given(&mut waiter), "Bearer first");
    assert_eq!(given(&mut early), "Bearer first", "not polled before");
}

#[test]
fn a_waiter_gets_the_newest_token_even_if_the_last_handle_is_gone() {
    let expired = token("expired").expires_at(Instant::now());
    for older in [token("first"), expired] {
        let source = RotatingToken::empty();
        let mut waiter = Task::waiting(source.token());
        source.rotate(older);
        source.rotate(token("second"));
        drop(source);
        assert_eq!(given(&mut waiter), "Bearer second");
    }
}

#[test]
fn an_expired_token_is_not_sent_even_if_the_last_handle_is_gone() {
    let source = RotatingToken::empty();
    let mut waiter = Task::waiting(source.token());
    source.rotate(token("expired").expires_at(Instant::now()));
    drop(source);
    assert_eq!(waiter.finish().unwrap_err().kind(), SourceErrorKind::Closed);
}

#[test]
fn a_rotation_does_not_disturb_requests_in_flight() {
    let source = RotatingToken::new(token("first"));
    let (server, held): (Server, Held) = Server::held();
    let mut service = BearerAuthLayer::new(source.clone()).layer(server.clone());
    make_ready(&mut service);
    let mut request = Task::waiting(service.call(get(URI)));
    source.rotate(token("second"));
    assert_eq!(request.wakes(), 0);
    assert!(request.poll().is_pending());
    held.answer(Ok(Res::default()));
    request.finish().unwrap();
    assert_eq!(server.authorizations(), ["Bearer first"], "it is sent once");
}

/// A waker that polls its future at once, on the stack of the code that wakes it.
struct Eager {
    future: Mutex<TokenFuture>,
    given: Mutex<Option<String>>,
}

impl Eager {
    fn poll(self: &Arc<Self>) {
        let waker = waker(Arc::clone(self));
        let mut future = self.future.lock().unwrap();
        let polled = Pin::new(&mut *future).poll(&mut Context::from_waker(&waker));
        if let Poll::Ready(token) = polled {
            *self.given.lock().unwrap() = Some(text(&token.unwrap()));
        }
    }
}

impl ArcWake for Eager {
    fn wake_by_ref(eager: &Arc<Self>) {
        eager.poll();
    }
}

/// This test hangs if the source wakes a waker under a lock.
#[test]
fn waking_may_poll_at_once() {
    let source = RotatingToken::empty();
    let eager = [(); 3].map(|()| {
        Arc::new(Eager {
            future: Mutex::new(source.token()),
            given: Mutex::default(),
        })
    });
    eager.iter().for_each(Eager::poll);
    source.rotate(token("first"));
    for task in eager {
        assert_eq!(task.given.lock().unwrap().as_deref(), Some("Bearer first"));
    }
}

#[test]
fn no_waiter_is_lost_when_it_races_with_a_rotation() {
    for round in 0..2_000 {
        let source = RotatingToken::empty();
        // With so many polls, the rotation falls between two polls or into a poll.
        let mut racers: Vec<_> = (0..64).map(|_| Task::new(source.token())).collect();
        let polled = AtomicUsize::new(0);
        let waits: Vec<bool> = thread::scope(|scope| {
            let racing = scope.spawn(|| {
                let poll = |racer: &mut Waiter| {
                    polled.fetch_add(1, Ordering::SeqCst);
                    racer.poll().is_pending()
                };
                racers.iter_mut().map(poll).collect()
            });
            while polled.load(Ordering::SeqCst) < 1 + round % 64 {
                thread::yield_now();
            }
            source.rotate(token("first"));
            racing.join().unwrap()
        });
        for (racer, waits) in racers.iter_mut().zip(waits) {
            // An executor does not poll a waiter again if nobody has woken the waiter.
            if waits {
                assert_eq!(racer.wakes(), 1, "round {round}");
                assert_eq!(given(racer), "Bearer first", "round {round}");
            }
        }
    }
}

#[test]
fn no_waiter_is_lost_when_another_one_is_cancelled_during_the_rotation() {
    for round in 0..2_000 {
        let source = RotatingToken::empty();
        let mut racers = waiters(&source, 64);
        let mut staying = waiters(&source, 64);
        let polled = AtomicUsize::new(0);
        thread::scope(|scope| {
            scope.spawn(|| {
                for mut racer in racers.drain(..) {
                    polled.fetch_add(1, Ordering::SeqCst);
                    let _ = racer.poll();
                }
            });
            while polled.load(Ordering::SeqCst) < 1 + round % 64 {
                thread::yield_now();
            }
            source.rotate(token("first"));
            // Meanwhile other waiters are polled and dropped.
            for waiter in &mut staying {
                assert_eq!(waiter.wakes(), 1, "round {round}");
                assert_eq!(given(waiter), "Bearer first", "round {round}");
            }
        });
    }
}
