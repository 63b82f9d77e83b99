//! What a source that fetches needs from an async runtime: [`Runtime`], and its implementations.

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
/// `TokioRuntime` (feature `tokio`) is the implementation for tokio, and [`CallerDriven`] does
/// without a runtime. Implement this trait for another executor, or with a virtual clock for tests
/// and simulations.
///
/// ```
/// use std::{thread, time::{Duration, Instant}};
///
/// use futures::{channel::oneshot, executor::block_on, future::BoxFuture};
/// use tower_bearer::{BearerToken, InvalidToken, RefreshingToken, Runtime, TokenSource};
///
/// /// Starts a thread for each fetch and for each timer.
/// #[derive(Debug)]
/// struct Threads;
///
/// impl Runtime for Threads {
///     fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
///         thread::spawn(|| block_on(task));
///         Ok(())
///     }
///
///     fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
///         let (done, sleep) = oneshot::channel();
///         thread::spawn(move || {
///             thread::sleep(duration);
///             done.send(())
///         });
///         Box::pin(async { sleep.await.unwrap_or_default() })
///     }
///
///     fn now(&self) -> Instant {
///         Instant::now()
///     }
/// }
///
/// # async fn fetch() -> Result<BearerToken, InvalidToken> { BearerToken::new("t") }
/// let source = RefreshingToken::builder(fetch).runtime(Threads).build();
/// let token = block_on(source.token())?;
/// # Ok::<(), tower_bearer::SourceError>(())
/// ```
pub trait Runtime: Debug + Send + Sync + 'static {
    /// Runs `task` in the background.
    ///
    /// # Errors
    ///
    /// Gives the task back if there is no executor to run it. Then the callers of the source poll
    /// the task. Before each poll, a caller tries again to spawn the task, since the caller may run
    /// in an executor that takes it.
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>>;

    /// Finishes once `duration` has passed, or never if there is no timer.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;

    /// Runs `work`, which may block, on a thread for blocking work. The default implementation has
    /// no such thread.
    ///
    /// # Errors
    ///
    /// Gives the work back if there is no such thread. Then [`FileToken`](crate::FileToken) starts
    /// a thread.
    fn spawn_blocking(
        &self,
        work: Box<dyn FnOnce() + Send>,
    ) -> Result<(), Box<dyn FnOnce() + Send>> {
        Err(work)
    }

    /// The time of a monotonic clock. The sources compare only times of the same `Runtime`.
    fn now(&self) -> Instant;

    /// The same time as [`now`](Self::now), but it may lag by up to 20 ms, so that a cheaper clock
    /// may be used: sources read this clock on every request.
    fn coarse_now(&self) -> Instant {
        self.now()
    }

    /// The time of the wall clock, which may be set, and which goes on while the computer sleeps.
    fn system_now(&self) -> SystemTime {
        clock::wall()
    }
}

/// The [`Runtime`] for tokio. It uses the tokio runtime that the caller runs in, or a runtime that
/// the program [names](Self::with_handle).
///
/// Outside a tokio runtime, and without a named runtime, it behaves as [`CallerDriven`].
///
/// The timer of the runtime has to be enabled (`enable_time`). Without a timer, a fetch past its time
/// limit ends only when the next request comes, and no waiter notices that a fetch shows no sign of
/// life. tokio tells only by a panic that there is no timer, so the first sleep in a runtime without
/// a timer panics, and this type catches the panic. With `panic = "abort"` the panic ends the process.
#[cfg(feature = "tokio")]
#[derive(Clone)]
pub struct TokioRuntime {
    clock: CoarseClock,
    /// `None`: the runtime that the caller is in.
    handle: Option<Handle>,
}

#[cfg(feature = "tokio")]
impl TokioRuntime {
    /// Uses the tokio runtime that the caller runs in. The runtime is looked up at each use, and not
    /// at the call of `new`.
    #[must_use]
    pub fn new() -> Self {
        Self {
            clock: CoarseClock::new(),
            handle: None,
        }
    }

    /// Runs every fetch on this runtime, wherever the callers run. Use `with_handle` if the callers run in
    /// short-lived runtimes, or in no runtime at all. A caller waits by the timers of its own runtime, and a
    /// caller in no runtime by the timers of this runtime.
    ///
    /// The runtime has to live as long as the source. Once the runtime has shut down, each token that has
    /// to be fetched is an error of kind [`Closed`](crate::SourceErrorKind::Closed). The runtime also has to
    /// be driven: while a current-thread runtime is not in `block_on`, it runs no fetch. A caller in no
    /// runtime then waits without a time limit.
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
        // The runtime that polls comes first: a waiter must not depend on the timers of another runtime, which
        // may stand idle.
        let polling = Handle::try_current().ok();
        let mut handles = polling.iter().chain(&self.handle);
        match handles.find_map(|handle| timers::sleep(handle, duration)) {
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

/// Remembers the tokio runtimes that have no timer.
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

    /// At most this many runtimes are remembered. After that all are forgotten, and each is probed
    /// again.
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

/// A [`Runtime`] without an executor and without timers: callers drive each fetch.
///
/// While a token is refreshed ahead of its expiry, a single caller waits for the new token, and the
/// other callers get the old token. If a fetch is past its time limit, the next caller ends the fetch.
///
/// ```
/// # use tower_bearer::{BearerToken, CallerDriven, InvalidToken, RefreshingToken, TokenSource};
/// # async fn fetch() -> Result<BearerToken, InvalidToken> { BearerToken::new("t") }
/// let source = RefreshingToken::builder(fetch).runtime(CallerDriven::new()).build();
/// let token = futures::executor::block_on(source.token())?; // runs the fetch
/// # Ok::<(), tower_bearer::SourceError>(())
/// ```
#[derive(Clone, Copy)]
pub struct CallerDriven {
    clock: CoarseClock,
}

impl CallerDriven {
    /// Makes the runtime that leaves every fetch to the callers of the source.
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

/// The runtime of a source that fetches, unless the program sets another runtime.
pub(crate) fn default_runtime() -> Arc<dyn Runtime> {
    #[cfg(feature = "tokio")]
    return Arc::new(TokioRuntime::new());
    #[cfg(not(feature = "tokio"))]
    return Arc::new(CallerDriven::new());
}
