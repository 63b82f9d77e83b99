//! The events of a source, and the settings under which they come.

use std::time::Duration;

use crate::refresh::{answer::LATE_READING, policy::Policy};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(3600);

pub(super) const NANO: Duration = Duration::from_nanos(1);
pub(super) const MILLI: Duration = Duration::from_millis(1);
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

/// The arguments of [`event`] and of [`policy`] are below these numbers.
pub(super) const KINDS: u8 = 44;
pub(super) const POLICIES: u8 = 6;

/// An event of a source.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    Ask,
    /// The server rejects the token that is held.
    Reject,
    /// A request that was sent with the rejected token succeeds.
    Accept,
    /// Whether the server, from now on, rejects every token as soon as the token is served.
    Hostile(bool),
    Pass(Duration),
    /// Time passes to a moment at which something changes, or to the nanosecond before or after it.
    Edge(usize, i8),
    /// The computer sleeps: only the wall clock goes on.
    Sleep(Duration),
    /// Only the monotonic clock goes on, as while the wall clock is slewed.
    Slew(Duration),
    SetBack(Duration),
    /// The monotonic clock goes back, as between two tests with paused time.
    GoBack(Duration),
    /// The fetch under way gives a token.
    Fetched(Lifetime),
    Failed {
        permanent: bool,
        retry_after: Option<Duration>,
    },
    /// A fetch that has already ended for its waiters fails, and then gives a token.
    Late(usize, Lifetime),
    /// The engine looks for a fetch past its time limit.
    Overdue,
    Lost,
    Refresh,
    Invalidate,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Lifetime {
    Endless,
    Of(Duration),
    Past,
}

/// Makes an event from plain numbers, which proptest makes and shrinks quickly.
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
        0 if number % 2 == 0 => Lifetime::Past,
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
        31..35 => Event::Failed {
            permanent: number % 5 == 0,
            retry_after: (number % 7 == 0).then_some(duration),
        },
        35 => Event::Late(number as usize, lifetime),
        36 => Event::Overdue,
        37 | 38 => Event::Lost,
        39 => Event::Refresh,
        40 | 41 => Event::Accept,
        42 => Event::GoBack(LATE_READING + duration + NANO),
        _ => Event::Invalidate,
    }
}

/// Settings. In each, the moments at which something changes come in another order.
pub(super) fn policy(number: u8) -> Policy {
    let default = Policy::default();
    match number {
        0 => default,
        1 => Policy {
            refresh_ahead: 5 * MINUTE,
            startup_jitter: 0.1,
            backoff_is_users: true,
            ..default
        },
        2 => Policy {
            refresh_every: Some(MINUTE),
            wait_after: Some(2 * MINUTE),
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
            replacement_wait: Duration::ZERO,
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
