//! Foreign code that may panic: the user's fetch, a timer, a subscriber of `tracing`. A panic in one
//! of them ends here and harms no other caller.

use std::{
    any::Any,
    future::Future,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use futures::future::BoxFuture;

/// Foreign code panicked. The message is gone: it may hold anything.
#[derive(Debug)]
pub(crate) struct Panicked;

/// Runs foreign code. What the code was about to change is foreign as well, so nothing of ours is
/// left half-changed.
pub(crate) fn contain<R>(code: impl FnOnce() -> R) -> Result<R, Panicked> {
    catch_unwind(AssertUnwindSafe(code)).map_err(discard)
}

/// A payload is foreign, and its `Drop` may panic in turn, with a payload of its own.
fn discard(mut payload: Box<dyn Any + Send>) -> Panicked {
    const TRIES: usize = 16;

    for _ in 0..TRIES {
        match catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            Ok(()) => return Panicked,
            Err(next) => payload = next,
        }
    }
    // Such a chain of payloads may have no end. To leak the rest of the chain is the lesser harm.
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
            // There is nobody to tell: the result of the future is known, or of no interest.
            let _ = contain(|| drop(future));
        }
    }
}

/// After its end, or after a panic, it is pending for ever.
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
