//! What can happen to a source, and under which settings.

use std::time::Duration;

use crate::refresh::policy::Policy;

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(3600);

pub(super) const NANO: Duration = Duration::from_nanos(1);
pub(super) const MILLI: Duration = Duration::from_millis(1);
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

/// What there is to give to [`event`] and to [`policy`].
pub(super) const KINDS: u8 = 40;
pub(super) const POLICIES: u8 = 6;

/// What can happen to a source.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    Ask,
    /// The server rejects the token that is held.
    Reject,
    /// From now on, or no longer, the server rejects every token as soon as it is served.
    Hostile(bool),
    Pass(Duration),
    /// To a moment at which something changes, or to the nanosecond before or after.
    Edge(usize, i8),
    /// The computer sleeps: only the clock on the wall goes on.
    Sleep(Duration),
    /// The monotonic clock goes on alone, as while the one on the wall is slewed.
    Slew(Duration),
    SetBack(Duration),
    /// The fetch under way gives a token.
    Fetched(Lifetime),
    Failed,
    /// A fetch that is over already ends again.
    Late(usize),
    /// Whoever drove the fetch is gone or not: an overdue one fails or is forgotten.
    Overdue {
        driven: bool,
    },
    Abandoned,
    Refresh,
    Invalidate,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Lifetime {
    Endless,
    Of(Duration),
    Past(Duration),
}

/// An event from plain numbers, which cost proptest little to make and to shrink.
pub(super) fn event(kind: u8, amount: u32) -> Event {
    let number = amount / 6;
    let duration = match amount % 6 {
        0 => NANO * (number % 1_000),
        1 => MILLI * (number % 2_000),
        2 | 3 => SECOND * (number % 60),
        4 => SECOND * (number % 4_000),
        _ => DAY * (number % 3),
    };
    let lifetime = match amount % 6 {
        0 if number % 2 == 0 => Lifetime::Past(duration),
        0 | 1 => Lifetime::Of(duration),
        2 => Lifetime::Endless,
        3 => Lifetime::Of(HOUR),
        _ => Lifetime::Of(duration + SECOND),
    };
    match kind {
        0..10 => Event::Ask,
        10 => Event::Reject,
        11 => Event::Hostile(number % 3 > 0),
        12..14 => Event::Pass(duration),
        14..21 => Event::Edge(number as usize, [-1, 0, 1][amount as usize % 3]),
        21 => Event::Sleep(duration),
        22 => Event::Slew(duration),
        23 => Event::SetBack(duration),
        24..31 => Event::Fetched(lifetime),
        31..35 => Event::Failed,
        35 => Event::Late(number as usize),
        36 => Event::Overdue { driven: true },
        37 => Event::Overdue { driven: false },
        38 if number % 4 == 0 => Event::Abandoned,
        38 => Event::Refresh,
        _ => Event::Invalidate,
    }
}

/// Settings that lead to other orders of the moments at which something changes.
pub(super) fn policy(number: u8) -> Policy {
    let default = Policy::default();
    match number {
        0 => default,
        1 => Policy {
            refresh_ahead: 15 * MINUTE,
            startup_jitter: 0.75,
            ..default
        },
        2 => Policy {
            refresh_every: Some(MINUTE),
            ..default
        },
        3 => Policy {
            refresh_ahead: Duration::ZERO,
            refresh_jitter: 0.0,
            startup_jitter: 0.0,
            expiry_margin: HOUR,
            ..default
        },
        4 => Policy {
            backoff_first: Duration::ZERO,
            fetch_timeout: Duration::ZERO,
            rejection_backoff_first: Duration::ZERO,
            ..default
        },
        _ => Policy {
            refresh_jitter: 0.5,
            startup_jitter: 1.0,
            backoff_first: SECOND,
            backoff_max: 5 * SECOND,
            rejection_backoff_first: SECOND,
            rejection_backoff_max: 5 * SECOND,
            ..default
        },
    }
}
