//! What a source that fetches needs of an async runtime: [`Runtime`], and [`TokioRuntime`].

use std::{
    fmt::Debug,
    time::{Duration, Instant, SystemTime},
};

use futures::future::BoxFuture;

/// Runs work in the background, waits, and tells the time, for sources that fetch.
///
/// `TokioRuntime` (feature `tokio`) is the implementation for tokio. Implement it for another
/// executor, or with a virtual clock for tests and simulations.
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

    /// The time of day, on a clock that may be set and that goes on while the machine sleeps.
    fn system_now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// The [`Runtime`] of the tokio runtime that the caller runs in, which must have its timer enabled.
///
/// Outside a tokio runtime it runs nothing in the background and no sleep ends.
#[cfg(feature = "tokio")]
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct TokioRuntime;

#[cfg(feature = "tokio")]
impl TokioRuntime {
    /// The runtime of whoever calls.
    #[must_use]
    pub fn new() -> Self {
        Self
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
}
