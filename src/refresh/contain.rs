//! Calls foreign code that may panic: the user's fetch, a timer, a subscriber of `tracing`. A panic
//! ends here and harms no other caller.

use std::{
    any::Any,
    future::Future,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use futures::future::BoxFuture;

/// Foreign code panicked. The panic's message is dropped, since it may hold a secret.
#[derive(Debug)]
pub(crate) struct Panicked;

/// Runs foreign code. The code changes only foreign state, so a panic leaves no state of this crate
/// half-changed.
pub(crate) fn contain<R>(code: impl FnOnce() -> R) -> Result<R, Panicked> {
    catch_unwind(AssertUnwindSafe(code)).map_err(discard)
}

/// Drops the payload of a panic. A payload is foreign: its `Drop` may panic with another payload.
fn discard(mut payload: Box<dyn Any + Send>) -> Panicked {
    const TRIES: usize = 16;

    for _ in 0..TRIES {
        match catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            Ok(()) => return Panicked,
            Err(next) => payload = next,
        }
    }
    // The chain of payloads may have no end. A leak of the rest is the lesser harm.
    mem::forget(payload);
    Panicked
}

/// A foreign future whose panics end here, in its `poll` as well as in its `Drop`.
pub(crate) struct Contained<T> {
    /// `None` once the future has ended.
    future: Option<BoxFuture<'static, T>>,
}

impl<T> Contained<T> {
    pub(crate) fn new(future: BoxFuture<'static, T>) -> Self {
        let future = Some(future);
        Self { future }
    }

    /// A future that never ends.
    pub(crate) fn pending() -> Self {
        Self { future: None }
    }

    /// Drops the future now.
    pub(crate) fn end(&mut self) {
        if let Some(future) = self.future.take() {
            // Nobody needs the panic: the future has given its result, or the result is not wanted
            // any more.
            let _ = contain(|| drop(future));
        }
    }
}

/// After the future has ended or panicked, every poll is pending.
impl<T> Future for Contained<T> {
    type Output = Result<T, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(future) = &mut self.future else {
            return Poll::Pending;
        };
        let polled = match contain(|| future.as_mut().poll(cx)) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(output)) => Ok(output),
            Err(panicked) => Err(panicked),
        };
        self.end();
        Poll::Ready(polled)
    }
}

impl<T> Drop for Contained<T> {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
#[allow(clippy::panic, clippy::unwrap_used)]
mod tests {
    use std::{
        future::Future,
        panic::panic_any,
        pin::Pin,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::{Context, Poll},
    };

    use futures::task::noop_waker_ref;

    use super::{Contained, Panicked, contain};

    /// Foreign code: a future that counts its polls and its drops, and panics where the test says.
    struct Foreign {
        polls: Arc<AtomicUsize>,
        drops: Arc<AtomicUsize>,
        pending: bool,
        panics_in_poll: bool,
        panics_in_drop: bool,
    }

    impl Foreign {
        fn new() -> Self {
            Self {
                polls: Arc::default(),
                drops: Arc::default(),
                pending: false,
                panics_in_poll: false,
                panics_in_drop: false,
            }
        }
    }

    impl Future for Foreign {
        type Output = u32;

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<u32> {
            self.polls.fetch_add(1, Ordering::SeqCst);
            assert!(!self.panics_in_poll, "the future has a bug");
            if self.pending {
                Poll::Pending
            } else {
                Poll::Ready(7)
            }
        }
    }

    impl Drop for Foreign {
        fn drop(&mut self) {
            self.drops.fetch_add(1, Ordering::SeqCst);
            assert!(!self.panics_in_drop, "its drop has a bug");
        }
    }

    fn poll<T>(contained: &mut Contained<T>) -> Poll<Result<T, Panicked>> {
        Pin::new(contained).poll(&mut Context::from_waker(noop_waker_ref()))
    }

    #[test]
    fn a_future_that_has_ended_is_dropped_at_once_and_never_polled_again() {
        for panics_in_poll in [false, true] {
            for panics_in_drop in [false, true] {
                let mut foreign = Foreign::new();
                foreign.panics_in_poll = panics_in_poll;
                foreign.panics_in_drop = panics_in_drop;
                let (polls, drops) = (Arc::clone(&foreign.polls), Arc::clone(&foreign.drops));
                let mut contained = Contained::new(Box::pin(foreign));
                match poll(&mut contained) {
                    Poll::Ready(Ok(7)) => assert!(!panics_in_poll),
                    Poll::Ready(Err(Panicked)) => assert!(panics_in_poll),
                    other => panic!("{other:?}"),
                }
                assert_eq!(drops.load(Ordering::SeqCst), 1, "what it holds is free");
                assert!(poll(&mut contained).is_pending());
                drop(contained);
                assert_eq!(polls.load(Ordering::SeqCst), 1);
                assert_eq!(drops.load(Ordering::SeqCst), 1);
            }
        }
    }

    #[test]
    fn a_future_that_panics_when_it_is_dropped_before_its_end_harms_nobody() {
        let mut foreign = Foreign::new();
        foreign.pending = true;
        foreign.panics_in_drop = true;
        let drops = Arc::clone(&foreign.drops);
        let mut contained = Contained::new(Box::pin(foreign));
        assert!(poll(&mut contained).is_pending());
        assert_eq!(drops.load(Ordering::SeqCst), 0);
        drop(contained);
        assert_eq!(drops.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_future_that_never_ends_is_pending() {
        assert!(poll(&mut Contained::<u32>::pending()).is_pending());
    }

    /// A payload that panics when it is dropped, with another such payload, and so on.
    struct Payload {
        left: usize,
        dropped: Arc<AtomicUsize>,
    }

    impl Drop for Payload {
        fn drop(&mut self) {
            self.dropped.fetch_add(1, Ordering::SeqCst);
            if let Some(left) = self.left.checked_sub(1) {
                let dropped = Arc::clone(&self.dropped);
                panic_any(Self { left, dropped });
            }
        }
    }

    #[test]
    fn payloads_that_panic_in_turn_end_here_and_a_chain_of_them_is_not_followed_for_ever() {
        for (left, dropped) in [(0, 1), (3, 4), (15, 16), (16, 16), (1_000_000, 16)] {
            let count = Arc::new(AtomicUsize::new(0));
            let payload = Payload {
                left,
                dropped: Arc::clone(&count),
            };
            assert!(contain(|| panic_any(payload)).is_err());
            assert_eq!(count.load(Ordering::SeqCst), dropped, "{left}");
        }
        assert_eq!(contain(|| 7).unwrap(), 7);
    }
}
