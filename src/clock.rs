//! The clocks that the crate reads: the monotonic clock, a coarse form of it, and the wall clock.
//!
//! With the feature `test-util`, the monotonic clock is tokio's, which tests can pause and advance.
//! The wall clock is then shifted by the distance between tokio's clock and the real clock, so that
//! both clocks agree. While tokio's clock is neither paused nor advanced, that distance is zero.

use std::time::{Instant, SystemTime};

#[cfg(not(feature = "test-util"))]
pub(crate) use self::production::{CoarseClock, now, wall};
#[cfg(feature = "test-util")]
pub(crate) use self::test_util::{CoarseClock, now, wall};

/// `time`, moved by the distance from `from` to `to`, forward or back. `None` past the ends of the
/// clock.
pub(crate) fn shift(time: SystemTime, from: Instant, to: Instant) -> Option<SystemTime> {
    match to.checked_duration_since(from) {
        Some(ahead) => time.checked_add(ahead),
        None => time.checked_sub(from.saturating_duration_since(to)),
    }
}

/// The crate's own tests always compile this module, so that they cover it with any features.
#[cfg(any(test, not(feature = "test-util")))]
mod production {
    #[cfg(any(target_os = "linux", target_os = "android", windows))]
    use std::time::Duration;
    use std::time::{Instant, SystemTime};

    /// The monotonic clock. It may stand still while the computer sleeps.
    pub(crate) fn now() -> Instant {
        Instant::now()
    }

    /// The wall clock. It may be set, and it goes on while the computer sleeps.
    pub(crate) fn wall() -> SystemTime {
        SystemTime::now()
    }

    /// The coarse clock of the operating system, which the system updates at each tick.
    ///
    /// A read takes 6 ns, and a read of `Instant::now` 23 ns (measured on Linux, x86-64). On
    /// systems other than Linux, Android and Windows, this clock is `Instant::now`: the coarse
    /// clock of macOS goes on while the computer sleeps, which `Instant` does not, and on most
    /// other Unix systems, `coarsetime` reads a clock that may go back.
    #[derive(Clone, Copy)]
    pub(crate) struct CoarseClock {
        #[cfg(any(target_os = "linux", target_os = "android", windows))]
        start: (Instant, coarsetime::Instant),
    }

    impl CoarseClock {
        pub(crate) fn new() -> Self {
            Self {
                #[cfg(any(target_os = "linux", target_os = "android", windows))]
                start: (Instant::now(), coarsetime::Instant::now()),
            }
        }

        #[cfg(any(target_os = "linux", target_os = "android", windows))]
        #[inline]
        pub(crate) fn now(self) -> Instant {
            let (start, coarse_start) = self.start;
            let elapsed = coarsetime::Instant::now().duration_since(coarse_start);
            start + Duration::from(elapsed)
        }

        #[cfg(not(any(target_os = "linux", target_os = "android", windows)))]
        #[expect(
            clippy::unused_self,
            reason = "called as where there is a coarse clock"
        )]
        #[inline]
        pub(crate) fn now(self) -> Instant {
            now()
        }
    }
}

#[cfg(feature = "test-util")]
mod test_util {
    use std::time::{Instant, SystemTime};

    pub(crate) fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    pub(crate) fn wall() -> SystemTime {
        let wall = SystemTime::now();
        super::shift(wall, Instant::now(), now()).unwrap_or(wall)
    }

    /// Tests may move the clock, so there is no coarse form of it.
    #[derive(Clone, Copy)]
    pub(crate) struct CoarseClock;

    impl CoarseClock {
        pub(crate) fn new() -> Self {
            Self
        }

        #[expect(clippy::unused_self, reason = "called as in production")]
        #[inline]
        pub(crate) fn now(self) -> Instant {
            now()
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::{Duration, Instant, SystemTime};

    use super::{production, shift};
    use crate::refresh::COARSE_CLOCK_LAG;

    #[test]
    fn the_coarse_clock_is_never_ahead_and_lags_by_no_more_than_a_tick() {
        let clock = production::CoarseClock::new();
        let end = Instant::now() + Duration::from_millis(200);
        let mut last = clock.now();
        loop {
            let before = production::now();
            let coarse = clock.now();
            let after = production::now();
            assert!(
                coarse <= after + COARSE_CLOCK_LAG,
                "ahead by more than a tick"
            );
            assert!(coarse + COARSE_CLOCK_LAG >= before, "{:?}", before - coarse);
            assert!(coarse >= last, "it went back");
            last = coarse;
            if before >= end {
                break;
            }
        }
    }

    #[test]
    fn the_wall_clock_is_the_systems() {
        let before = SystemTime::now();
        let wall = production::wall();
        assert!(before <= wall && wall <= SystemTime::now());
    }

    #[test]
    fn a_time_is_shifted_both_ways_and_never_past_the_ends_of_the_clock() {
        let (now, wall) = (
            Instant::now(),
            SystemTime::UNIX_EPOCH + Duration::from_secs(100),
        );
        let hour = Duration::from_secs(3600);
        assert_eq!(shift(wall, now, now + hour), Some(wall + hour));
        assert_eq!(shift(wall, now + hour, now), wall.checked_sub(hour));
        assert_eq!(shift(wall, now, now), Some(wall));
    }
}
