//! What a source that fetches needs of an async runtime: [`Runtime`], and the ones there are.

use std::{
    fmt::{self, Debug},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use futures::future::BoxFuture;

/// Runs work in the background, waits, and tells the time, for sources that fetch.
///
/// `TokioRuntime` (feature `tokio`) is the implementation for tokio, [`CallerDriven`] does without
/// a runtime. Implement it for another executor, or with a virtual clock for tests and simulations.
pub trait Runtime: Debug + Send + Sync + 'static {
    /// Runs `task` in the background.
    ///
    /// # Errors
    ///
    /// Gives the task back if there is nothing to run it on. Then the callers of the source drive
    /// it.
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>>;

    /// Finishes once `duration` has passed, or never if there is nothing to measure it.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;

    /// The time on a clock that never goes back.
    fn now(&self) -> Instant;

    /// As [`now`](Self::now), but read for each request: may be up to 20 ms behind if that is
    /// cheaper.
    fn coarse_now(&self) -> Instant {
        self.now()
    }

    /// The time of day, on a clock that may be set and that goes on while the machine sleeps.
    fn system_now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// The operating system's coarse clock, which it updates at each tick.
///
/// Reading it cost 6 ns where `Instant::now` cost 23 (Linux, x86-64). Elsewhere it is `Instant::now`:
/// the coarse clock of macOS goes on while the machine sleeps, which that of `Instant` does not, and
/// other systems have none that never goes back.
#[derive(Clone, Copy)]
struct CoarseClock {
    #[cfg(any(target_os = "linux", target_os = "android", windows))]
    start: (Instant, coarsetime::Instant),
}

impl CoarseClock {
    fn new() -> Self {
        Self {
            #[cfg(any(target_os = "linux", target_os = "android", windows))]
            start: (Instant::now(), coarsetime::Instant::now()),
        }
    }

    #[cfg(any(target_os = "linux", target_os = "android", windows))]
    #[inline]
    fn now(self) -> Instant {
        let (start, coarse_start) = self.start;
        let elapsed = coarsetime::Instant::now().duration_since(coarse_start);
        start + Duration::from(elapsed)
    }

    #[cfg(not(any(target_os = "linux", target_os = "android", windows)))]
    #[expect(clippy::unused_self, reason = "called as the other one is")]
    #[inline]
    fn now(self) -> Instant {
        Instant::now()
    }
}

/// The [`Runtime`] of whichever tokio runtime the caller runs in. Its timer must be enabled.
///
/// Outside a tokio runtime it does as [`CallerDriven`] does.
#[cfg(feature = "tokio")]
#[derive(Clone, Copy)]
pub struct TokioRuntime {
    clock: CoarseClock,
}

#[cfg(feature = "tokio")]
impl TokioRuntime {
    /// Looks for a runtime at each use, not here.
    #[must_use]
    pub fn new() -> Self {
        let clock = CoarseClock::new();
        Self { clock }
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
        match tokio::runtime::Handle::try_current() {
            Ok(handle) => {
                handle.spawn(task);
                Ok(())
            }
            Err(_) => Err(task),
        }
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        match tokio::runtime::Handle::try_current() {
            Ok(_) => Box::pin(tokio::time::sleep(duration)),
            Err(_) => Box::pin(std::future::pending()),
        }
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn coarse_now(&self) -> Instant {
        self.clock.now()
    }
}

/// No runtime: callers drive the fetch.
///
/// While a token is replaced ahead of its expiry, one caller waits for the new one and the others
/// are served the old one. A fetch that takes too long is given up when the next caller comes.
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
        Instant::now()
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
