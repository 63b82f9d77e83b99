//! The clocks that the crate reads: the monotonic clock, a coarse form of it, and the wall clock.
//!
//! With the feature `test-util`, the monotonic clock is tokio's, which tests can pause and advance. The
//! wall clock is then shifted by as much, so that both tell the same story. Where tokio's clock runs,
//! nothing is shifted.

#[cfg(all(
    any(target_os = "linux", target_os = "android", windows),
    not(feature = "test-util")
))]
use std::time::Duration;
use std::time::{Instant, SystemTime};

/// The monotonic clock. It may stand still while the machine sleeps.
#[cfg(not(feature = "test-util"))]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The wall clock. It may be set, and goes on while the machine sleeps.
#[cfg(not(feature = "test-util"))]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}

#[cfg(feature = "test-util")]
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(feature = "test-util")]
pub(crate) fn wall() -> SystemTime {
    let wall = SystemTime::now();
    shift(wall, Instant::now(), now()).unwrap_or(wall)
}

/// `time`, moved by as much as `to` is after or before `from`, if there is such a time.
pub(crate) fn shift(time: SystemTime, from: Instant, to: Instant) -> Option<SystemTime> {
    match to.checked_duration_since(from) {
        Some(ahead) => time.checked_add(ahead),
        None => time.checked_sub(from.saturating_duration_since(to)),
    }
}

/// The operating system's coarse clock, which it updates at each tick.
///
/// Reading it cost 6 ns where `Instant::now` cost 23 (Linux, x86-64). Elsewhere it is `Instant::now`:
/// the coarse clock of macOS goes on while the machine sleeps, which `Instant` does not, and other
/// systems have no coarse clock that never goes back. Tests may move the clock, so they get it as it is.
#[derive(Clone, Copy)]
pub(crate) struct CoarseClock {
    #[cfg(all(
        any(target_os = "linux", target_os = "android", windows),
        not(feature = "test-util")
    ))]
    start: (Instant, coarsetime::Instant),
}

impl CoarseClock {
    pub(crate) fn new() -> Self {
        Self {
            #[cfg(all(
                any(target_os = "linux", target_os = "android", windows),
                not(feature = "test-util")
            ))]
            start: (Instant::now(), coarsetime::Instant::now()),
        }
    }

    #[cfg(all(
        any(target_os = "linux", target_os = "android", windows),
        not(feature = "test-util")
    ))]
    #[inline]
    pub(crate) fn now(self) -> Instant {
        let (start, coarse_start) = self.start;
        let elapsed = coarsetime::Instant::now().duration_since(coarse_start);
        start + Duration::from(elapsed)
    }

    #[cfg(not(all(
        any(target_os = "linux", target_os = "android", windows),
        not(feature = "test-util")
    )))]
    #[expect(
        clippy::unused_self,
        reason = "called as where there is a coarse clock"
    )]
    #[inline]
    pub(crate) fn now(self) -> Instant {
        now()
    }
}
