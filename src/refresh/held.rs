//! The token that a source holds, and when its refresh is due and its service ends: [`Held`].

use std::time::{Duration, Instant, SystemTime};

use super::{
    answer::{Now, WentBack},
    policy::Schedule,
};

/// A moment on both clocks. It has come when either clock says so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) monotonic: Option<Instant>,
    wall: Option<SystemTime>,
}

impl Moment {
    /// The moment `length` after `now`. It never comes if there is no `length`, or if it is past
    /// the end of the clocks.
    pub(super) fn after(now: Now, length: Option<Duration>) -> Self {
        Self {
            monotonic: length.and_then(|length| now.monotonic.checked_add(length)),
            wall: length.and_then(|length| now.wall.checked_add(length)),
        }
    }

    pub(super) fn has_come(&self, now: Now) -> bool {
        self.monotonic.is_some_and(|at| at <= now.monotonic)
            || self.wall.is_some_and(|at| at <= now.wall)
    }
}

/// How long a token was good before a server first rejected it, and the token's lifetime.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lasted {
    pub(super) time: Duration,
    pub(super) lifetime: Option<Duration>,
}

/// The token that is held.
#[derive(Clone, Debug)]
pub(super) struct Held<T> {
    pub(super) token: T,
    pub(super) since: Instant,
    /// The time to expiry when the token came. `None` if the token does not expire, or had expired
    /// by our clock.
    pub(super) lifetime: Option<Duration>,
    /// `false` if the token had expired by our clock when it came. Then our clock is wrong, and
    /// cannot judge the token.
    pub(super) is_judged: bool,
    pub(super) refresh: Moment,
    /// From this moment on, requests wait for the refresh.
    pub(super) wait: Moment,
    pub(super) end: Moment,
    /// When the token was last seen without a mark, before its first rejection.
    good_at: Instant,
    was_rejected: bool,
}

impl<T> Held<T> {
    pub(super) fn new(
        now: Now,
        token: T,
        lifetime: Option<Duration>,
        schedule: Schedule,
        wait_after: Option<Duration>,
    ) -> Self {
        let is_judged = lifetime != Some(Duration::ZERO);
        Self {
            token,
            since: now.monotonic,
            lifetime: lifetime.filter(|_| is_judged),
            is_judged,
            refresh: Moment::after(now, schedule.refresh_after),
            wait: Moment::after(now, wait_after),
            end: Moment::after(now, schedule.serve_for),
            good_at: now.monotonic,
            was_rejected: false,
        }
    }

    /// Notes whether a server has rejected the token.
    pub(super) fn see(&mut self, is_rejected: bool, now: Now) {
        self.was_rejected |= is_rejected;
        if !self.was_rejected {
            self.good_at = now.monotonic;
        }
    }

    /// How long the token was good before a server first rejected it.
    pub(super) fn lasted(&self) -> Lasted {
        Lasted {
            time: self.good_at.saturating_duration_since(self.since),
            lifetime: self.lifetime,
        }
    }

    pub(super) fn keep_age(&mut self, back: WentBack) {
        back.keep_age([&mut self.since, &mut self.good_at]);
        for moment in [&mut self.refresh, &mut self.wait, &mut self.end] {
            back.keep_age(&mut moment.monotonic);
        }
    }
}
