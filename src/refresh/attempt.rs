//! A fetch: the user's future, with a time limit and with signs of life. A panic of the future ends
//! here.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use futures::future::BoxFuture;

use super::{
    contain::{Contained, Panicked, contain},
    recursion::{self, SourceId},
    waiters::Waiters,
};
use crate::{
    error::{BoxError, SourceError},
    runtime::Runtime,
    sync::Mutex,
    token::BearerToken,
    trace,
};

/// The user's function, wrapped so that every function has the same type.
type Call =
    dyn FnMut(Option<BearerToken>) -> BoxFuture<'static, Result<BearerToken, SourceError>> + Send;

/// The user's function that fetches a token. It need not be `Sync`, and it may have state.
pub(crate) struct FetchFn {
    /// `None` while the function is called: no lock is held across a foreign call.
    function: Mutex<Option<Box<Call>>>,
    /// The fetches that found the function in use: a fetch that was given up may still run.
    waiters: Waiters,
}

impl FetchFn {
    pub(crate) fn new<F, Fut, E>(mut fetch: F) -> Self
    where
        F: FnMut(Option<BearerToken>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<BearerToken, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let function = move |previous| -> BoxFuture<'static, _> {
            let mut fetch = Some(Box::pin(fetch(previous)));
            Box::pin(poll_fn(move |cx| {
                let Some(running) = &mut fetch else {
                    return Poll::Pending;
                };
                let result = ready!(running.as_mut().poll(cx));
                // A panic in the future's `Drop` must not lose the token that the future gave.
                let ended = fetch.take();
                let _ = contain(|| drop(ended));
                Poll::Ready(result.map_err(SourceError::failed))
            }))
        };
        Self {
            function: Mutex::new(Some(Box::new(function))),
            waiters: Waiters::default(),
        }
    }

    async fn call(
        self: Arc<Self>,
        previous: Option<BearerToken>,
    ) -> Result<BearerToken, SourceError> {
        let function = self.take().await;
        // The guard puts the function back even if the function panics.
        let mut borrowed = Borrowed {
            function: Some(function),
            owner: &self,
        };
        let fetched = match &mut borrowed.function {
            Some(function) => function(previous),
            // Not reached.
            None => return Err(SourceError::panicked()),
        };
        drop(borrowed);
        fetched.await
    }

    async fn take(&self) -> Box<Call> {
        let mut place = None;
        let function = poll_fn(|cx| {
            // Enter before looking: a function that is put back from here on wakes this fetch.
            self.waiters.enter(&mut place, cx.waker());
            match self.function.lock().take() {
                Some(function) => Poll::Ready(function),
                None => Poll::Pending,
            }
        })
        .await;
        if let Some(place) = place {
            self.waiters.leave(place);
        }
        function
    }
}

struct Borrowed<'a> {
    function: Option<Box<Call>>,
    owner: &'a FetchFn,
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        *self.owner.function.lock() = self.function.take();
        self.owner.waiters.wake_all();
    }
}

/// The signs of life of a fetch that a runtime has taken.
#[derive(Default)]
pub(super) struct Life {
    beats: AtomicU32,
    /// The user's future is being polled. If the poll blocks the thread, that is a sign of life as well: a
    /// second fetch beside this fetch could spend a refresh token twice.
    is_polled: AtomicBool,
    /// The fetch is being offered to a runtime. If the runtime takes the fetch, the timers have to
    /// come from that runtime.
    moves: AtomicBool,
}

impl Life {
    pub(super) fn beats(&self) -> u32 {
        self.beats.load(Ordering::Relaxed)
    }

    pub(super) fn is_polled(&self) -> bool {
        self.is_polled.load(Ordering::Relaxed)
    }

    /// Makes the next poll take its timers from the runtime that polls.
    pub(super) fn will_move(&self) {
        self.moves.store(true, Ordering::Release);
    }
}

/// How often a fetch shows a sign of life.
pub(super) fn beat(timeout: Duration) -> Duration {
    Duration::from_secs(1).min(timeout / 10)
}

/// What a fetch needs.
pub(super) struct Attempt {
    pub(super) fetch_fn: Arc<FetchFn>,
    pub(super) previous: Option<BearerToken>,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) timeout: Duration,
    pub(super) source: SourceId,
    pub(super) life: Arc<Life>,
}

impl Attempt {
    /// Ends at the time limit at the latest, if the runtime has a timer.
    pub(super) async fn run(self) -> Result<BearerToken, SourceError> {
        let Self {
            fetch_fn,
            previous,
            runtime,
            timeout,
            source,
            life,
        } = self;
        let _ = contain(trace::fetch_started);
        let mut timers = Timers::new(&*runtime, timeout);
        let mut fetched = Fetched {
            future: Contained::new(Box::pin(fetch_fn.call(previous))),
            source,
        };
        poll_fn(|cx| {
            if life.moves.swap(false, Ordering::Acquire) {
                timers.renew(&*runtime);
            }
            life.is_polled.store(true, Ordering::Relaxed);
            let polled = fetched.poll(cx);
            life.is_polled.store(false, Ordering::Relaxed);
            // Look at the result before the limit: a token that came while the process was frozen
            // is good.
            if let Poll::Ready(result) = polled {
                return Poll::Ready(result.unwrap_or_else(|_| Err(SourceError::panicked())));
            }
            if timers.poll_beat(cx, &*runtime) {
                life.beats.fetch_add(1, Ordering::Relaxed);
            }
            match timers.poll_limit(cx) {
                Poll::Ready(()) => Poll::Ready(Err(SourceError::timed_out(timeout))),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}

/// The user's future. Its `poll` and its `Drop` may ask the very source that the future fetches
/// for.
struct Fetched {
    future: Contained<Result<BearerToken, SourceError>>,
    source: SourceId,
}

impl Fetched {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Result<BearerToken, SourceError>, Panicked>> {
        let _within = recursion::enter(self.source);
        Pin::new(&mut self.future).poll(cx)
    }
}

impl Drop for Fetched {
    fn drop(&mut self) {
        let _within = recursion::enter(self.source);
        self.future.end();
    }
}

/// The timers of a fetch. They are made where the fetch is polled, since a timer belongs to a
/// runtime.
struct Timers {
    begun: Instant,
    timeout: Duration,
    limit: Contained<()>,
    beat: Contained<()>,
}

impl Timers {
    fn new(runtime: &dyn Runtime, timeout: Duration) -> Self {
        Self {
            begun: runtime.now(),
            timeout,
            limit: timer(runtime, timeout),
            beat: timer(runtime, beat(timeout)),
        }
    }

    fn renew(&mut self, runtime: &dyn Runtime) {
        let passed = runtime.now().saturating_duration_since(self.begun);
        let left = self.timeout.saturating_sub(passed);
        self.limit = timer(runtime, left);
        self.beat = timer(runtime, beat(self.timeout));
    }

    fn poll_limit(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        poll_timer(&mut self.limit, cx)
    }

    /// Whether a sign of life is due. If so, sets the timer for the next sign.
    fn poll_beat(&mut self, cx: &mut Context<'_>, runtime: &dyn Runtime) -> bool {
        if poll_timer(&mut self.beat, cx).is_pending() {
            return false;
        }
        self.beat = timer(runtime, beat(self.timeout));
        if poll_timer(&mut self.beat, cx).is_ready() {
            // The new timer has fired at once, since the runtime's time jumps. Yield, so that other
            // tasks run, and go on at the next poll.
            self.beat = timer(runtime, beat(self.timeout));
            cx.waker().wake_by_ref();
        }
        true
    }
}

/// A timer of the runtime. If `sleep` panics, as in a runtime without timers, this timer never
/// fires.
pub(super) fn timer(runtime: &dyn Runtime, duration: Duration) -> Contained<()> {
    contain(|| runtime.sleep(duration)).map_or_else(|_| Contained::pending(), Contained::new)
}

pub(super) fn poll_timer(timer: &mut Contained<()>, cx: &mut Context<'_>) -> Poll<()> {
    match Pin::new(timer).poll(cx) {
        Poll::Ready(Ok(())) => Poll::Ready(()),
        _ => Poll::Pending,
    }
}
