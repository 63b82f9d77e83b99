//! Tests the state machine behind `RefreshingToken` against a plain reference.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unchecked_time_subtraction,
    clippy::unwrap_used
)]

mod decisions;
mod events;
mod failures;
mod losses;
mod reference;
mod rejections;
mod world;

use std::{cmp::Ordering, time::Duration};

use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};

use self::{
    events::{HOUR, KINDS, MINUTE, POLICIES, SECOND, event, policy},
    world::{Seen, World, start},
};
use super::Machine;
use crate::refresh::{
    answer::Failure,
    policy::{Outage, Policy},
};

type Step = (u8, u32, f64);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..KINDS, any::<u32>(), 0.0..=1.0);
    proptest::collection::vec(step, 1..120)
}

fn run(settings: u8, steps: Vec<Step>) -> World {
    let mut world = World::new(policy(settings));
    for (kind, amount, random) in steps {
        world.step(event(kind, amount), random);
    }
    world
}

fn config(cases: u32) -> Config {
    Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    }
}

proptest! {
    #![proptest_config(config(3_000))]

    #[test]
    fn whatever_happens_the_machine_keeps_its_promises(
        settings in 0..POLICIES,
        steps in steps(),
    ) {
        run(settings, steps);
    }
}

/// Without these events, the test above would prove little.
#[test]
fn the_random_events_lead_to_every_kind_of_answer() {
    let mut runner = TestRunner::deterministic();
    let mut worlds = Vec::new();
    for number in 0..3_000_u32 {
        let steps = steps().new_tree(&mut runner).unwrap().current();
        let settings = number % u32::from(POLICIES);
        worlds.push(run(u8::try_from(settings).unwrap(), steps).seen);
    }
    let total = |count: fn(&Seen) -> u32| worlds.iter().map(count).sum::<u32>();
    for (what, count) in [
        ("a good token", total(|seen| seen.good)),
        ("a refresh ahead of time", total(|seen| seen.ahead)),
        (
            "no refresh, because of the back-off",
            total(|seen| seen.due_but_backing_off),
        ),
        (
            "a rejected token, because of the throttle",
            total(|seen| seen.despite_throttle),
        ),
        (
            "a rejected token, because of the back-off",
            total(|seen| seen.despite_backoff),
        ),
        (
            "a rejected token, because no request waits any more",
            total(|seen| seen.despite_patience),
        ),
        ("a wait without a token", total(|seen| seen.first)),
        (
            "a replacement of a rejected token",
            total(|seen| seen.replaced),
        ),
        (
            "a wait with a good token",
            total(|seen| seen.waits_with_a_good_token),
        ),
        ("an error", total(|seen| seen.backoff)),
        (
            "an expired token, with a good token",
            total(|seen| seen.expired),
        ),
        ("an expired token, without", total(|seen| seen.unjudged)),
        ("a token after a sign-out", total(|seen| seen.void)),
        ("a late token", total(|seen| seen.late)),
        (
            "a late token that is held",
            total(|seen| seen.late_and_held),
        ),
        (
            "a token over by the wall clock alone",
            total(|seen| seen.over_by_wall),
        ),
        (
            "a monotonic clock that went back",
            total(|seen| seen.went_back),
        ),
    ] {
        println!("{what}: {count}");
        assert!(count >= 40, "{what}: {count}");
    }
    let longest = worlds.iter().map(|seen| seen.longest_throttle).max();
    println!("longest throttle: {longest:?}");
    assert!(longest.unwrap() > 30 * SECOND, "{longest:?}");
}

/// Durations, with the extremes among them.
fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::ZERO),
        Just(Duration::from_nanos(1)),
        Just(Duration::MAX),
        any::<u32>().prop_map(|seconds| SECOND * seconds),
        any::<u64>().prop_map(Duration::from_millis),
        any::<(u64, u32)>().prop_map(|(seconds, nanos)| {
            Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos.into()))
        }),
    ]
}

fn fraction() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(-1.0),
        Just(2.0),
        Just(f64::MIN_POSITIVE),
        0.0..=1.0,
        any::<f64>(),
    ]
}

prop_compose! {
    fn any_policy()(
        durations in proptest::array::uniform9(duration()),
        refresh_every in proptest::option::of(duration()),
        refresh_jitter in fraction(),
        startup_jitter in fraction(),
        backoff_is_users in any::<bool>(),
    ) -> Policy {
        let [
            refresh_ahead,
            expiry_margin,
            backoff_first,
            backoff_max,
            fetch_timeout,
            rejection_backoff_first,
            rejection_backoff_max,
            replacement_wait,
            wait_after,
        ] = durations;
        Policy {
            refresh_ahead,
            refresh_jitter,
            startup_jitter,
            expiry_margin,
            refresh_every,
            backoff_first,
            backoff_max,
            backoff_is_users,
            fetch_timeout,
            replacement_wait,
            wait_after: Some(wait_after),
            rejection_backoff_first,
            rejection_backoff_max,
        }
    }
}

proptest! {
    #![proptest_config(config(5_000))]

    #[test]
    fn no_setting_and_no_lifetime_panics(
        policy in any_policy(),
        lifetime in proptest::option::of(duration()),
        random in fraction(),
        failures in any::<u32>(),
        lasted in duration(),
        retry_after in proptest::option::of(duration()),
        waits in proptest::collection::vec((0..1_000_000_u32, any::<bool>()), 12),
    ) {
        let schedule = policy.schedule(lifetime, policy.refresh_jitter * random);
        if let (Some(lifetime), Some(serve_for)) = (lifetime, schedule.serve_for) {
            prop_assert!(serve_for <= lifetime.max(SECOND));
            prop_assert!(schedule.refresh_after.unwrap() <= serve_for);
        }
        let outage = Outage { failures, permanent: 0, lasted, retry_after, random };
        for has_token in [true, false] {
            let backoff = policy.backoff(outage, has_token);
            let floor = retry_after.unwrap_or_default();
            prop_assert!(backoff <= policy.backoff_max.max(floor));
            // NaN counts as a negative part as well.
            if !matches!(random.partial_cmp(&0.0), Some(Ordering::Greater)) {
                prop_assert_eq!(backoff, floor, "a negative part");
            }
            policy.backoff(Outage { permanent: failures, ..outage }, has_token);
        }

        let mut machine = Machine::<u32, u32>::new(policy);
        let mut now = start();
        for (number, (wait, is_back)) in waits.into_iter().enumerate() {
            if is_back {
                now.monotonic -= SECOND * (wait / 2);
            } else {
                now.monotonic += SECOND * wait;
                now.wall += SECOND * wait;
            }
            let _ = machine.ask(now, |_| number % 2 == 0);
            machine.overdue(now);
            let (fetch, _) = machine.refresh(now);
            match number % 4 {
                0 => machine.lost(fetch),
                1 => {
                    let failure = Failure { error: 1, retry_after, permanent: wait % 2 == 0 };
                    let _ = machine.failed(now, fetch, failure, random);
                }
                _ => {
                    let _ = machine.fetched(now, fetch, 1, lifetime, |_| false, random);
                }
            }
            let _ = machine.ask(now, |_| number % 2 == 0);
            let _ = machine.usable(now);
            machine.status(now);
        }
    }

    /// The times of the default settings, written as in the documentation.
    #[test]
    fn a_refresh_falls_in_its_window_and_service_ends_at_the_margin(
        lifetime in (1..1_000_000_000_u64).prop_map(Duration::from_millis),
        random in 0.0..=1.0,
    ) {
        let policy = Policy::default();
        let schedule = policy.schedule(Some(lifetime), policy.refresh_jitter * random);
        let margin = (10 * SECOND).min(lifetime / 20).max(SECOND.min(lifetime / 4));
        let serve_for = (lifetime - margin).max(SECOND);
        prop_assert_eq!(schedule.serve_for, Some(serve_for));
        let latest = serve_for.saturating_sub((15 * MINUTE).min(lifetime / 5)).max(SECOND);
        let refresh_after = schedule.refresh_after.unwrap();
        prop_assert!(refresh_after <= latest);
        prop_assert!(refresh_after >= latest.saturating_sub(lifetime / 10));
        prop_assert!(refresh_after >= SECOND);
    }

    #[test]
    fn the_back_off_is_any_part_of_a_ceiling_that_doubles_to_its_limit(
        failures in 1..100_u32,
        random in 0.0..=1.0,
    ) {
        let policy = Policy::default();
        let ceiling = (1..failures).fold(Duration::from_millis(100), |ceiling, _| {
            (ceiling * 2).min(30 * SECOND)
        });
        let backoff = |random| {
            let outage = Outage {
                failures,
                permanent: 0,
                lasted: HOUR,
                retry_after: None,
                random,
            };
            policy.backoff(outage, true)
        };
        prop_assert_eq!(backoff(1.0), ceiling);
        prop_assert_eq!(backoff(0.0), Duration::ZERO);
        prop_assert_eq!(backoff(random), ceiling.mul_f64(random));
    }
}
