//! When a token has expired, by each clock alone.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant, SystemTime};

use super::{
    BearerToken,
    expiry::{Expiry, Given},
};
use crate::clock;

const HOUR: Duration = Duration::from_secs(3600);

fn expiry(monotonic: Instant, wall: Option<SystemTime>) -> Expiry {
    Expiry {
        monotonic,
        wall,
        given: Given::In,
    }
}

fn token() -> BearerToken {
    BearerToken::new("t").unwrap()
}

#[test]
fn an_expiry_has_passed_when_either_clock_says_so() {
    let (now, wall) = (clock::now(), clock::wall());
    let (past, future) = (now, now + HOUR);
    let (wall_past, wall_future) = (wall - HOUR, wall + HOUR);
    for (monotonic, wall, has_passed) in [
        (future, Some(wall_future), false),
        // The machine slept, and the monotonic clock stood still.
        (future, Some(wall_past), true),
        (future, Some(wall), true),
        // The wall clock was set back.
        (past, Some(wall_future), true),
        (past, Some(wall_past), true),
        // Past the end of the wall clock.
        (future, None, false),
        (past, None, true),
    ] {
        let expiry = expiry(monotonic, wall);
        assert_eq!(expiry.has_passed(), has_passed, "{monotonic:?}, {wall:?}");
        let token = token().with_expiry(Some(expiry));
        assert_eq!(token.is_expired(), has_passed);
    }
}

/// The time until the token expires, at `now` and `wall`.
fn left(token: &BearerToken, now: Instant, wall: SystemTime) -> Duration {
    token.lifetime(now, wall).unwrap()
}

#[test]
fn a_moment_is_judged_by_the_clock_it_was_given_by() {
    let (now, wall) = (clock::now(), clock::wall());
    let day = 24 * HOUR;
    let at = token().expires_at(now + HOUR);
    assert_eq!(left(&at, now, wall), HOUR);
    assert_eq!(left(&at, now, wall + day), HOUR, "whatever the wall clock");
    assert_eq!(left(&at, now + day, wall), Duration::ZERO);

    let at_time = token().expires_at_time(wall + HOUR);
    assert_eq!(left(&at_time, now, wall), HOUR);
    assert_eq!(
        left(&at_time, now + day, wall),
        HOUR,
        "whatever the monotonic clock"
    );
    assert_eq!(left(&at_time, now, wall + day), Duration::ZERO);
}

/// A token that is fetched on another clock, as in a simulation, has its whole lifetime left.
#[test]
fn a_lifetime_counts_from_when_the_token_was_made_by_the_clocks_of_the_crate() {
    let token = token().expires_in(HOUR);
    let year = 365 * 24 * HOUR;
    let left = left(&token, clock::now() + year, clock::wall() + year);
    assert!(left <= HOUR && left > HOUR / 2, "{left:?}");
    let slept = Expiry {
        wall: Some(clock::wall() + HOUR / 4),
        ..token.inner.expiry.unwrap()
    };
    let token = token.with_expiry(Some(slept));
    let left = token.lifetime(clock::now(), clock::wall()).unwrap();
    assert!(left <= HOUR / 4, "the machine slept: {left:?}");
    assert!(left > Duration::ZERO);
}

#[test]
fn a_lifetime_past_the_end_of_the_wall_clock_alone_is_one_by_the_monotonic_clock() {
    let now = clock::now();
    let token = token().with_expiry(Some(expiry(now + HOUR, None)));
    let left = left(&token, now, clock::wall());
    assert!(left <= HOUR && left > HOUR / 2, "{left:?}");
}

#[test]
fn a_time_in_the_past_is_an_expiry_that_has_passed() {
    for passed in [
        Duration::ZERO,
        Duration::from_secs(1),
        HOUR,
        // Longer than the machine has been up.
        100 * 365 * 24 * HOUR,
    ] {
        let time = clock::wall()
            .checked_sub(passed)
            .unwrap_or(SystemTime::UNIX_EPOCH);
        let token = token().expires_at_time(time);
        assert!(token.is_expired(), "{passed:?}");
        assert!(token.expiry().unwrap() <= clock::now(), "{passed:?}");
        let left = token.lifetime(clock::now(), clock::wall());
        assert_eq!(left, Some(Duration::ZERO), "{passed:?}");
    }
}
