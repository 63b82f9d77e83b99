//! What a source that fetches needs of an async runtime: [`Runtime`], and the ones there are.

use std::{
    fmt::{self, Debug},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use futures::future::BoxFuture;
#[cfg(feature = "tokio")]
use tokio::runtime::Handle;

use crate::clock::{self, CoarseClock};

/// Runs work in the background, waits, and tells the time, for sources that fetch.
///
/// `TokioRuntime` (feature `tokio`) is the implementation for tokio, [`CallerDriven`] does without
/// a runtime. Implement it for another executor, or with a virtual clock for tests and simulations.
pub trait Runtime: Debug + Send + Sync + 'static {
    /// Runs `task` in the background.
    ///
    /// # Errors
    ///
    /// Gives the task back if there is nothing to run it on. Then the callers of the source poll the
    /// task. Each of them tries again to spawn it first, since a caller may be where this succeeds.
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>>;

    /// Finishes once `duration` has passed, or never if there is nothing to measure it.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;

    /// Runs `work`, which may block, on a thread for such work. By default, there is no such thread.
    ///
    /// # Errors
    ///
    /// Gives the work back if there is no such thread. Then [`FileToken`](crate::FileToken) starts a
    /// thread of its own.
    fn spawn_blocking(
        &self,
        work: Box<dyn FnOnce() + Send>,
    ) -> Result<(), Box<dyn FnOnce() + Send>> {
        Err(work)
    }

    /// The time on a clock that never goes back.
    fn now(&self) -> Instant;

    /// Like [`now`](Self::now), but called on every request, so it may lag by up to 20 ms where a less
    /// precise clock is cheaper.
    fn coarse_now(&self) -> Instant {
        self.now()
    }

    /// The wall clock, which may be set, and which goes on while the machine sleeps.
    fn system_now(&self) -> SystemTime {
        clock::wall()
    }
}

/// The [`Runtime`] of whichever tokio runtime the caller runs in, or of a runtime that is
/// [named](Self::with_handle).
///
/// Outside a tokio runtime it does as [`CallerDriven`] does.
///
/// The timer of the runtime has to be enabled (`enable_time`). Without a timer nothing measures time: no
/// fetch has a time limit, and no waiter notices that a fetch is lost. tokio tells only by a panic
/// whether there is a timer, so the first sleep in such a runtime panics once and catches that. With
/// `panic = "abort"` the process would end.
#[cfg(feature = "tokio")]
#[derive(Clone)]
pub struct TokioRuntime {
    clock: CoarseClock,
    /// `None`: the runtime that the caller is in.
    handle: Option<Handle>,
}

#[cfg(feature = "tokio")]
impl TokioRuntime {
    /// Looks for a runtime at each use, not here.
    #[must_use]
    pub fn new() -> Self {
        Self {
            clock: CoarseClock::new(),
            handle: None,
        }
    }

    /// Runs everything on one runtime, wherever the callers are: for a program whose callers have
    /// runtimes of their own that come and go, or no runtime at all.
    ///
    /// ```
    /// # use tower_bearer::{BearerToken, InvalidToken, RefreshingToken, TokenSource, TokioRuntime};
    /// # async fn fetch() -> Result<BearerToken, InvalidToken> { BearerToken::new("t") }
    /// let kept = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    /// let source = RefreshingToken::builder(fetch)
    ///     .runtime(TokioRuntime::with_handle(kept.handle().clone()))
    ///     .build();
    /// // On a plain thread:
    /// let token = futures::executor::block_on(source.token())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_handle(handle: Handle) -> Self {
        Self {
            clock: CoarseClock::new(),
            handle: Some(handle),
        }
    }

    fn handle(&self) -> Option<Handle> {
        match &self.handle {
            Some(handle) => Some(handle.clone()),
            None => Handle::try_current().ok(),
        }
    }
}

#[cfg(feature = "tokio")]
impl Default for TokioRuntime {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(feature = "tokio")]
impl Debug for TokioRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokioRuntime")
    }
}

#[cfg(feature = "tokio")]
impl Runtime for TokioRuntime {
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        match self.handle() {
            Some(handle) => {
                handle.spawn(task);
                Ok(())
            }
            None => Err(task),
        }
    }

    fn spawn_blocking(
        &self,
        work: Box<dyn FnOnce() + Send>,
    ) -> Result<(), Box<dyn FnOnce() + Send>> {
        match self.handle() {
            Some(handle) => {
                handle.spawn_blocking(work);
                Ok(())
            }
            None => Err(work),
        }
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let sleep = self
            .handle()
            .and_then(|handle| timers::sleep(&handle, duration));
        match sleep {
            Some(sleep) => Box::pin(sleep),
            None => Box::pin(std::future::pending()),
        }
    }

    fn now(&self) -> Instant {
        clock::now()
    }

    fn coarse_now(&self) -> Instant {
        self.clock.now()
    }
}

/// Which tokio runtimes have no timer.
#[cfg(feature = "tokio")]
mod timers {
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        sync::{Mutex, PoisonError},
        time::Duration,
    };

    use tokio::{
        runtime::{Handle, Id},
        time::Sleep,
    };

    /// More are forgotten, and probed again.
    const MOST: usize = 64;
    static WITHOUT: Mutex<Vec<Id>> = Mutex::new(Vec::new());

    /// `None` if the runtime has no timer.
    pub(super) fn sleep(handle: &Handle, duration: Duration) -> Option<Sleep> {
        let id = handle.id();
        let without = || WITHOUT.lock().unwrap_or_else(PoisonError::into_inner);
        if without().contains(&id) {
            return None;
        }
        let sleep = catch_unwind(AssertUnwindSafe(|| {
            let _within = handle.enter();
            tokio::time::sleep(duration)
        }));
        if let Ok(sleep) = sleep {
            return Some(sleep);
        }
        let mut without = without();
        if without.len() == MOST {
            without.clear();
        }
        without.push(id);
        None
    }

    #[cfg(test)]
    #[allow(clippy::unwrap_used)]
    mod tests {
        use std::time::Duration;

        use tokio::runtime::{Builder, Runtime};

        use super::{MOST, WITHOUT, sleep};

        fn has_timer(runtime: &Runtime) -> bool {
            sleep(runtime.handle(), Duration::ZERO).is_some()
        }

        #[test]
        fn runtimes_without_a_timer_are_known_after_one_probe_and_few_are_kept() {
            let current_thread = Builder::new_current_thread;
            let timed = current_thread().enable_time().build().unwrap();
            for number in 1..=2 * MOST {
                let without = current_thread().build().unwrap();
                assert!(!has_timer(&without) && !has_timer(&without));
                assert!(has_timer(&timed));
                let known = WITHOUT.lock().unwrap();
                assert_eq!(known.len(), (number - 1) % MOST + 1);
                assert!(known.contains(&without.handle().id()));
            }
        }
    }
}

/// No runtime: callers drive the fetch.
///
/// While a token is replaced ahead of its expiry, one caller waits for the new token and the other
/// callers are served the old token. A fetch that takes too long is given up when the next caller
/// comes.
#[derive(Clone, Copy)]
pub struct CallerDriven {
    clock: CoarseClock,
}

impl CallerDriven {
    /// Callers drive the fetch.
    #[must_use]
    pub fn new() -> Self {
        let clock = CoarseClock::new();
        Self { clock }
    }
}

impl Default for CallerDriven {
    fn default() -> Self {
        Self::new()
    }
}

impl Debug for CallerDriven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallerDriven")
    }
}

impl Runtime for CallerDriven {
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        Err(task)
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }

    fn now(&self) -> Instant {
        clock::now()
    }

    fn coarse_now(&self) -> Instant {
        self.clock.now()
    }
}

/// What a source that fetches runs on if it is given nothing else.
pub(crate) fn default_runtime() -> Arc<dyn Runtime> {
    #[cfg(feature = "tokio")]
    return Arc::new(TokioRuntime::new());
    #[cfg(not(feature = "tokio"))]
    return Arc::new(CallerDriven::new());
}
