//! When a token expires: [`Expiry`].

use std::time::{Duration, Instant, SystemTime};

use crate::clock;

/// When a token expires, on both clocks. The monotonic clock may stand still while the machine sleeps;
/// the wall clock may be set.
#[derive(Clone, Copy)]
pub(super) struct Expiry {
    pub(super) monotonic: Instant,
    /// `None` past the end of the clock.
    pub(super) wall: Option<SystemTime>,
    pub(super) given: Given,
}

/// The setter that the user called. The setter decides by which clock the expiry is exact.
#[derive(Clone, Copy)]
pub(super) enum Given {
    In,
    At,
    AtTime,
}

impl Expiry {
    pub(super) fn at(at: Instant) -> Self {
        Self {
            monotonic: at,
            wall: clock::shift(clock::wall(), clock::now(), at),
            given: Given::At,
        }
    }

    /// `None` past the end of the clock.
    pub(super) fn at_time(time: SystemTime) -> Option<Self> {
        let (now, wall) = (clock::now(), clock::wall());
        let monotonic = match time.duration_since(wall) {
            Ok(left) => now.checked_add(left)?,
            // The monotonic clock may not reach back so far. Any time in the past says that the token
            // has expired.
            Err(passed) => now.checked_sub(passed.duration()).unwrap_or(now),
        };
        Some(Self {
            monotonic,
            wall: Some(time),
            given: Given::AtTime,
        })
    }

    /// `None` past the end of the clock.
    pub(super) fn after(lifetime: Duration) -> Option<Self> {
        Some(Self {
            monotonic: clock::now().checked_add(lifetime)?,
            wall: clock::wall().checked_add(lifetime),
            given: Given::In,
        })
    }

    /// Not inlined: this reads two clocks, and the sources that call it mostly hold tokens without an expiry.
    #[inline(never)]
    pub(super) fn has_passed(&self) -> bool {
        self.monotonic <= clock::now() || self.wall.is_some_and(|at| at <= clock::wall())
    }

    /// The time until the expiry. `now` and `wall` come from a runtime, whose clocks need not be the clocks of
    /// this crate.
    pub(super) fn left(&self, now: Instant, wall: SystemTime) -> Duration {
        match (self.given, self.wall) {
            // The lifetime counts from the call of `expires_in`, by the clocks of this crate.
            (Given::In, at) => {
                let left = self.monotonic.saturating_duration_since(clock::now());
                at.map_or(left, |at| left.min(until(at, clock::wall())))
            }
            (Given::AtTime, Some(at)) => until(at, wall),
            (Given::At | Given::AtTime, _) => self.monotonic.saturating_duration_since(now),
        }
    }
}

fn until(at: SystemTime, now: SystemTime) -> Duration {
    at.duration_since(now).unwrap_or_default()
}
