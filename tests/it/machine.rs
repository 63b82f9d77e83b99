//! The pure state machine behind `RefreshingToken`, against a reference that is as plain as can be.

use std::time::{Duration, Instant, SystemTime};

use proptest::prelude::*;

use crate::{
    policy::Policy,
    refreshing::{HOUR, MINUTE, SECOND},
    state_machine::{Answer, FetchId, Machine, Now, Refusal},
};

const MILLI: Duration = Duration::from_millis(1);

/// What can happen to a source.
#[derive(Clone, Copy, Debug)]
enum Event {
    Ask,
    /// The server rejects the token that is held.
    Reject,
    Pass(Duration),
    /// Until the token that is held is due to be refreshed.
    Ripen,
    /// The machine sleeps: only the clock on the wall goes on.
    Sleep(Duration),
    /// The clock on the wall is set back.
    SetBack(Duration),
    /// The fetch under way gives a token. `None`: one that does not expire.
    Fetched(Option<Duration>),
    Failed,
    Refresh,
    Invalidate,
    Overdue,
}

/// An event from plain numbers, which cost proptest little to make and to shrink.
fn event(kind: u8, amount: u32) -> Event {
    let duration = match amount % 3 {
        0 => MILLI * (amount / 3 % 2_000),
        1 => SECOND * (amount / 3 % 4_000),
        _ => 24 * HOUR * (amount / 3 % 3),
    };
    let lifetime = match amount % 10 {
        0 => None,
        1 => Some(Duration::ZERO),
        2 | 3 => Some(MILLI * (amount / 10 % 1_000 + 1)),
        _ => Some(SECOND * (amount / 10 % 90_000 + 1)),
    };
    match kind {
        0..8 => Event::Ask,
        8 | 9 => Event::Reject,
        10..16 => Event::Pass(duration),
        16 => Event::Sleep(duration),
        17 => Event::SetBack(duration),
        18..23 => Event::Fetched(lifetime),
        23..26 => Event::Failed,
        26 => Event::Refresh,
        27 => Event::Invalidate,
        28 => Event::Overdue,
        _ => Event::Ripen,
    }
}

/// The reference: every fact that ever was, and no decision kept but what the promises speak of.
struct World {
    now: Now,
    machine: Machine<u32, u32>,
    policy: Policy,
    /// The token held: number, when it came, its lifetime by either clock, and whether it is
    /// rejected.
    token: Option<Token>,
    tokens: u32,
    fetching: Option<(FetchId, Instant)>,
    failures: u32,
    failed_at: Option<Instant>,
    backoff_random: f64,
    /// Starts of fetches that replaced a rejected token, and after which the token was taken.
    replaced_at: Option<Instant>,
    replacing: bool,
}

#[derive(Clone, Copy, Debug)]
struct Token {
    number: u32,
    came: Now,
    lifetime: Option<Duration>,
    rejected: bool,
}

impl Token {
    fn age(&self, now: Now) -> Duration {
        let by_monotonic = now.monotonic.duration_since(self.came.monotonic);
        let by_wall = now.wall.duration_since(self.came.wall).unwrap_or_default();
        by_monotonic.max(by_wall)
    }

    /// Past the point where it is no longer handed out.
    fn is_spent(&self, now: Now) -> bool {
        self.lifetime.is_some_and(|lifetime| {
            let margin = (10 * SECOND).min(lifetime / 20);
            self.age(now) >= lifetime - margin
        })
    }

    /// At which age a refresh may begin, and at which it must.
    fn refresh_window(&self) -> Option<(Duration, Duration)> {
        let lifetime = self.lifetime?;
        let latest = lifetime - (5 * MINUTE).min(lifetime / 5);
        let earliest = latest.saturating_sub(lifetime / 10);
        Some((earliest, latest))
    }
}

impl World {
    fn new() -> Self {
        let policy = Policy::default();
        Self {
            now: Now {
                monotonic: Instant::now(),
                wall: SystemTime::UNIX_EPOCH + 400 * 24 * HOUR,
            },
            machine: Machine::new(policy.clone()),
            policy,
            token: None,
            tokens: 0,
            fetching: None,
            failures: 0,
            failed_at: None,
            backoff_random: 0.0,
            replaced_at: None,
            replacing: false,
        }
    }

    /// The longest that the back-off may last.
    fn backoff_ceiling(&self) -> Duration {
        let doubled = 100 * MILLI * 2_u32.pow(self.failures.saturating_sub(1).min(20));
        doubled.min(30 * SECOND)
    }

    fn ask(&mut self) -> Answer<u32, u32> {
        let rejected = self.token.is_some_and(|token| token.rejected);
        self.machine.ask(self.now, |_| rejected)
    }

    /// Notes the fetch that an answer names. One that is under way must be the one that is named.
    fn note(&mut self, named: Option<FetchId>) -> bool {
        match (self.fetching, named) {
            (Some((under_way, _)), Some(named)) => {
                assert_eq!(under_way, named, "two fetches at a time");
                false
            }
            (None, Some(named)) => {
                self.fetching = Some((named, self.now.monotonic));
                true
            }
            (_, None) => false,
        }
    }

    fn step(&mut self, event: Event, random: f64) {
        match event {
            Event::Pass(duration) => {
                self.now.monotonic += duration;
                self.now.wall += duration;
            }
            Event::Ripen => {
                let token = self.token.filter(|token| token.lifetime.is_some());
                if let Some((token, (_, latest))) =
                    token.zip(token.and_then(|t| t.refresh_window()))
                {
                    let wait = latest.saturating_sub(token.age(self.now));
                    self.now.monotonic += wait;
                    self.now.wall += wait;
                }
            }
            Event::Sleep(duration) => self.now.wall += duration,
            Event::SetBack(duration) => self.now.wall -= duration.min(HOUR),
            Event::Reject => {
                if let Some(token) = &mut self.token {
                    token.rejected = true;
                }
            }
            Event::Refresh => {
                let id = self.machine.refresh(self.now);
                self.note(Some(id));
            }
            Event::Invalidate => {
                self.machine.invalidate();
                self.token = None;
                self.failed_at = None;
            }
            Event::Overdue => {
                let expected = self
                    .fetching
                    .filter(|(_, since)| self.now.monotonic >= *since + 30 * SECOND);
                let overdue = self.machine.overdue(self.now);
                assert_eq!(overdue, expected.map(|(id, _)| id));
                if overdue.is_some() {
                    self.machine.abandon();
                    self.fetching = None;
                    self.replacing = false;
                }
            }
            Event::Fetched(lifetime) => self.fetched(lifetime, random),
            Event::Failed => self.failed(random),
            Event::Ask => self.check_ask(),
        }
    }

    fn fetched(&mut self, lifetime: Option<Duration>, random: f64) {
        let Some((id, since)) = self.fetching else {
            return;
        };
        self.tokens += 1;
        let expiry = lifetime.map(|lifetime| self.now.monotonic + lifetime);
        let taken = self
            .machine
            .fetched(self.now, id, self.tokens, expiry, random);
        if lifetime == Some(Duration::ZERO) {
            assert_eq!(taken, Err(Refusal::Expired));
            self.failed(random);
            return;
        }
        assert_eq!(taken, Ok(()));
        self.token = Some(Token {
            number: self.tokens,
            came: self.now,
            lifetime,
            rejected: false,
        });
        self.fetching = None;
        self.failures = 0;
        self.failed_at = None;
        if std::mem::take(&mut self.replacing) {
            self.replaced_at = Some(since);
        }
        // A second answer of the same fetch changes nothing.
        let late = self.machine.fetched(self.now, id, 0, None, random);
        assert_eq!(late, Err(Refusal::GivenUp));
    }

    fn failed(&mut self, random: f64) {
        let Some((id, _)) = self.fetching.take() else {
            return;
        };
        self.machine.failed(self.now, id, self.failures + 1, random);
        self.failures += 1;
        self.failed_at = Some(self.now.monotonic);
        self.backoff_random = random;
        self.replacing = false;
    }

    fn check_ask(&mut self) {
        if self.token.is_some_and(|token| token.is_spent(self.now)) {
            self.token = None;
        }
        let was_fetching = self.fetching.is_some();
        match self.ask() {
            Answer::Serve {
                token,
                until,
                despite_rejection,
                fetch,
            } => {
                let began = self.note(fetch);
                let held = self
                    .token
                    .expect("a token is served that is spent or invalidated");
                assert_eq!(token, held.number, "not the token that came last");
                assert_eq!(despite_rejection, held.rejected);
                assert!(
                    !held.rejected || !was_fetching,
                    "sent again while another is on its way"
                );
                assert!(until > self.now.monotonic && until <= self.now.monotonic + SECOND);
                self.check_refresh(held, began);
                self.check_until(held, until);
            }
            Answer::Wait { fetch } => {
                let began = self.note(Some(fetch));
                if began {
                    self.check_no_backoff();
                }
                if let Some(held) = self.token {
                    assert!(held.rejected, "a request waits although a token is good");
                    if began {
                        self.check_spacing(held);
                    }
                    self.replacing = true;
                }
            }
            Answer::BackOff { error, retry_in } => {
                assert!(self.token.is_none(), "an error although there is a token");
                assert!(!was_fetching, "an error although a fetch is under way");
                assert_eq!(error, self.failures, "not the last error");
                let failed_at = self.failed_at.expect("a back-off without a failure");
                let end = self.now.monotonic + retry_in;
                assert!(
                    end <= failed_at + self.backoff_ceiling(),
                    "too long a back-off"
                );
            }
        }
    }

    fn check_refresh(&self, held: Token, began: bool) {
        let Some((earliest, latest)) = held.refresh_window() else {
            assert!(!began, "a token that does not expire is refreshed");
            return;
        };
        let age = held.age(self.now);
        if began {
            assert!(age >= earliest, "a refresh before its time");
            self.check_no_backoff();
            assert!(!held.rejected);
        }
        let may_back_off = self.failed_at.is_some();
        if age >= latest && !may_back_off {
            assert!(self.fetching.is_some(), "no refresh although it is time");
        }
    }

    /// Until then, asking again changes nothing.
    fn check_until(&mut self, held: Token, until: Instant) {
        let before = self.machine.clone();
        let last = until - MILLI.min(until.duration_since(self.now.monotonic));
        let later = Now {
            monotonic: last,
            wall: self.now.wall,
        };
        let fetching = self.fetching.map(|(id, _)| id);
        match self.machine.ask(later, |_| held.rejected) {
            Answer::Serve { token, fetch, .. } => {
                assert_eq!(token, held.number);
                assert_eq!(fetch, fetching, "a fetch was due before `until`");
            }
            other => panic!("{other:?} before `until`"),
        }
        self.machine = before;
    }

    /// Full jitter: a random part of a ceiling that doubles.
    fn check_no_backoff(&self) {
        if let Some(failed_at) = self.failed_at {
            let backoff = self.backoff_ceiling().mul_f64(self.backoff_random);
            let waited = self.now.monotonic.duration_since(failed_at);
            assert!(
                waited + MILLI >= backoff,
                "a fetch {waited:?} after a failure"
            );
        }
    }

    /// Fetches that replace rejected tokens are apart, unless the token was due anyway.
    fn check_spacing(&self, held: Token) {
        let due = held
            .refresh_window()
            .is_some_and(|(earliest, _)| held.age(self.now) >= earliest);
        if let (Some(last), false) = (self.replaced_at, due) {
            let gap = self.now.monotonic.duration_since(last);
            assert!(gap >= self.policy.min_refresh_interval, "{gap:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_happens_the_machine_keeps_its_promises(
        steps in proptest::collection::vec((0..32_u8, any::<u32>(), 0.0..1.0), 1..120),
    ) {
        let mut world = World::new();
        for (kind, amount, random) in steps {
            world.step(event(kind, amount), random);
        }
    }

    #[test]
    fn no_setting_and_no_lifetime_panics(
        seconds in any::<u32>(),
        long in any::<bool>(),
        jitter in any::<f64>(),
        random in any::<f64>(),
        millis in any::<u64>(),
        failures in any::<u32>(),
    ) {
        let lifetime = Some(if long { Duration::MAX } else { SECOND * seconds });
        let setting = Duration::from_millis(millis);
        let policy = Policy {
            refresh_ahead: setting,
            refresh_jitter: jitter,
            startup_jitter: -jitter,
            expiry_margin: setting,
            refresh_every: Some(setting),
            backoff_first: setting,
            backoff_max: Duration::MAX,
            fetch_timeout: setting,
            min_refresh_interval: setting,
            max_refresh_interval: Duration::MAX,
        };
        let schedule = policy.schedule(lifetime, jitter * random);
        if let (Some(lifetime), Some(serve_for)) = (lifetime, schedule.serve_for) {
            prop_assert!(serve_for <= lifetime);
        }
        policy.backoff(failures, random);
        let mut machine = Machine::<u32, u32>::new(policy);
        let now = World::new().now;
        let id = machine.refresh(now);
        machine.failed(now, id, 1, random);
        machine.ask(now, |_| false);
        let id = machine.refresh(now);
        let expiry = lifetime.and_then(|lifetime| now.monotonic.checked_add(lifetime));
        let _ = machine.fetched(now, id, 1, expiry, random);
        machine.ask(now, |_| true);
    }
}

/// A machine that holds a token of an hour, in the middle of its life.
fn with_token() -> (Machine<u32, u32>, Now) {
    let mut now = World::new().now;
    let mut machine = Machine::new(Policy::default());
    machine.hold(now, 1, Some(now.monotonic + HOUR), 0.0);
    now.monotonic += 30 * MINUTE;
    now.wall += 30 * MINUTE;
    (machine, now)
}

#[test]
fn a_good_token_is_served_for_a_second_before_the_wall_clock_is_looked_at_again() {
    let (mut machine, now) = with_token();
    let answer = machine.ask(now, |_| false);
    assert_eq!(
        answer,
        Answer::Serve {
            token: 1,
            until: now.monotonic + SECOND,
            despite_rejection: false,
            fetch: None,
        }
    );
}

#[test]
fn a_rejected_token_waits_for_one_fetch() {
    let (mut machine, now) = with_token();
    let Answer::Wait { fetch } = machine.ask(now, |_| true) else {
        panic!("the rejected token is served");
    };
    assert_eq!(machine.ask(now, |_| true), Answer::Wait { fetch });
}

#[test]
fn a_fetch_that_was_given_up_does_not_count() {
    let (mut machine, now) = with_token();
    let id = machine.refresh(now);
    machine.abandon();
    machine.failed(now, id, 7, 1.0);
    assert_eq!(
        machine.fetched(now, id, 2, None, 0.0),
        Err(Refusal::GivenUp)
    );
    assert_eq!(machine.usable(now), Some(&1));
}

#[test]
fn a_wall_clock_that_is_set_back_does_not_lengthen_a_tokens_life() {
    let (mut machine, mut now) = with_token();
    now.wall -= HOUR;
    now.monotonic += 30 * MINUTE;
    assert_eq!(machine.usable(now), None);
}
