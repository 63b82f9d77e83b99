//! Gives events to the machine and to the reference, and compares the answers.

use std::time::{Duration, Instant, SystemTime};

use super::{
    super::Machine,
    events::{DAY, Event, Lifetime, NANO, SECOND},
    reference::{Expected, Fetch, Need, Reference, Token, has_passed},
};
use crate::refresh::answer::{Answer, Arrival, Failure, FetchId, Now};
use crate::refresh::policy::Policy;

/// How often each kind of answer or event was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) good: u32,
    pub(super) ahead: u32,
    pub(super) due_but_backing_off: u32,
    pub(super) despite_throttle: u32,
    pub(super) despite_backoff: u32,
    pub(super) despite_patience: u32,
    pub(super) first: u32,
    pub(super) replaced: u32,
    pub(super) waits_with_a_good_token: u32,
    pub(super) backoff: u32,
    pub(super) expired: u32,
    pub(super) unjudged: u32,
    pub(super) void: u32,
    pub(super) late: u32,
    pub(super) late_and_held: u32,
    /// The service of a token had ended by the wall clock alone.
    pub(super) over_by_wall: u32,
    pub(super) went_back: u32,
    pub(super) longest_throttle: Duration,
}

pub(super) struct World {
    now: Now,
    /// How far the machine's monotonic clock went back. The reference has a clock that did not go
    /// back, and the machine has to give the same answers.
    behind: Duration,
    machine: Machine<u32, u32>,
    reference: Reference,
    policy: Policy,
    /// All fetches so far. If a fetch is under way, it is the last.
    fetches: Vec<FetchId>,
    /// How many fetches had begun when the user last signed out.
    void: usize,
    tokens: u32,
    errors: u32,
    hostile: bool,
    pub(super) seen: Seen,
}

pub(super) fn start() -> Now {
    Now {
        // Long after the start of the clock, so that the clock can go back.
        monotonic: Instant::now() + 1_000 * DAY,
        wall: SystemTime::UNIX_EPOCH + 20_000 * DAY,
    }
}

impl World {
    pub(super) fn new(policy: Policy) -> Self {
        Self {
            now: start(),
            behind: Duration::ZERO,
            machine: Machine::new(policy.clone()),
            reference: Reference::new(policy.clone()),
            policy,
            fetches: Vec::new(),
            void: 0,
            tokens: 0,
            errors: 0,
            hostile: false,
            seen: Seen::default(),
        }
    }

    fn under_way(&self) -> Option<FetchId> {
        self.reference.under_way()?;
        self.fetches.last().copied()
    }

    /// The time that the machine reads.
    fn told(&self, now: Now) -> Now {
        Now {
            monotonic: now.monotonic - self.behind,
            ..now
        }
    }

    fn pass(&mut self, duration: Duration) {
        self.now.monotonic += duration;
        self.now.wall += duration;
    }

    pub(super) fn step(&mut self, event: Event, random: f64) {
        match event {
            Event::Ask => self.ask(),
            Event::Reject => self.reject(),
            Event::Hostile(hostile) => self.hostile = hostile,
            Event::Pass(duration) => self.pass(duration),
            Event::Edge(which, side) => self.pass_to_edge(which, side),
            Event::Sleep(duration) => self.now.wall += duration,
            Event::Slew(duration) => self.now.monotonic += duration,
            Event::SetBack(duration) => self.now.wall -= duration,
            Event::GoBack(duration) => {
                // The machine reads the time before the jump, since it cannot know how much time
                // passed since its last reading.
                let (_usable, _displaced) = self.machine.usable(self.told(self.now));
                self.reference.looked(self.now);
                self.behind += duration;
                let (_usable, _displaced) = self.machine.usable(self.told(self.now));
                self.seen.went_back += 1;
            }
            Event::Accept => {
                if let Some(token) = self.reference.token(self.now) {
                    self.reference.accepted(self.now, token.number);
                }
            }
            Event::Fetched(lifetime) => self.fetched(lifetime, random),
            Event::Failed {
                permanent,
                retry_after,
            } => self.failed(random, permanent, retry_after),
            Event::Late(which, lifetime) => self.late(which, lifetime, random),
            Event::Overdue => self.overdue(random),
            Event::Lost => {
                if let Some(fetch) = self.under_way() {
                    self.machine.lost(fetch);
                    self.reference.lost(self.now);
                }
            }
            Event::Refresh => {
                let (fetch, until) = self.machine.refresh(self.told(self.now));
                let began = self.reference.under_way().map(|fetch| fetch.began);
                let began = began.unwrap_or(self.now.monotonic);
                assert_eq!(until + self.behind, began + self.policy.fetch_timeout);
                match self.under_way() {
                    Some(under_way) => assert_eq!(fetch, under_way, "two fetches at a time"),
                    None => self.begin(fetch),
                }
                self.reference.refreshed(self.now);
            }
            Event::Invalidate => {
                let held = self.reference.held();
                let (forgotten, _displaced) = self.machine.invalidate();
                assert!(forgotten.is_none() || forgotten == held);
                assert_eq!(self.machine.previous(), None);
                self.void = self.fetches.len();
                self.reference.invalidated(self.now);
            }
        }
        self.look();
    }

    fn reject(&mut self) {
        if let Some(token) = self.reference.token(self.now) {
            self.reference.rejected(self.now, token.number);
        }
    }

    fn pass_to_edge(&mut self, which: usize, side: i8) {
        let mut moments = self.reference.changes(self.now);
        moments.retain(|&moment| moment > self.now.monotonic);
        if moments.is_empty() {
            return;
        }
        let wait = moments[which % moments.len()] - self.now.monotonic;
        self.pass(match side {
            -1 => wait - NANO,
            0 => wait,
            _ => wait + NANO,
        });
    }

    fn arrive(
        &mut self,
        fetch: FetchId,
        lifetime: Lifetime,
        random: f64,
    ) -> (Arrival, Option<Duration>) {
        self.tokens += 1;
        let lifetime = match lifetime {
            Lifetime::Endless => None,
            Lifetime::Of(lifetime) => Some(lifetime),
            Lifetime::Past => Some(Duration::ZERO),
        };
        let mut machine = self.machine.clone();
        let rejected = |&token: &u32| self.reference.is_rejected(token);
        let (arrival, _displaced) = machine.fetched(
            self.told(self.now),
            fetch,
            self.tokens,
            lifetime,
            rejected,
            random,
        );
        self.machine = machine;
        if arrival != Arrival::Void {
            assert_eq!(self.machine.previous(), Some(self.tokens));
        }
        (arrival, lifetime)
    }

    fn holds_good(&self) -> bool {
        let token = self.reference.token(self.now);
        token.is_some_and(|token| token.judged && !token.rejected)
    }

    fn fetched(&mut self, lifetime: Lifetime, random: f64) {
        let Some(fetch) = self.under_way() else {
            return;
        };
        let is_void = self.reference.under_way().is_some_and(|fetch| fetch.void);
        let holds_good = self.holds_good();
        let (arrival, lifetime) = self.arrive(fetch, lifetime, random);
        if is_void {
            assert_eq!(arrival, Arrival::Void);
            self.reference.void_ended(self.now);
            self.seen.void += 1;
            return;
        }
        let is_expired = lifetime == Some(Duration::ZERO);
        if is_expired && holds_good {
            assert_eq!(arrival, Arrival::Expired);
            self.seen.expired += 1;
            self.reference.looked(self.now);
            self.look();
            self.failed(random, false, None);
            return;
        }
        assert_eq!(arrival, Arrival::Held);
        self.seen.unjudged += u32::from(is_expired);
        self.reference
            .came(self.now, self.tokens, lifetime, random, false);
        let throttle = self.reference.throttle();
        let wait = throttle.map(|end| end.saturating_duration_since(self.now.monotonic));
        let longest = &mut self.seen.longest_throttle;
        *longest = wait.unwrap_or_default().max(*longest);
    }

    fn fail(
        &mut self,
        fetch: FetchId,
        random: f64,
        permanent: bool,
        retry_after: Option<Duration>,
    ) {
        self.errors += 1;
        let failure = Failure {
            error: self.errors,
            retry_after,
            permanent,
        };
        let _displaced = self
            .machine
            .failed(self.told(self.now), fetch, failure, random);
    }

    fn failed(&mut self, random: f64, permanent: bool, retry_after: Option<Duration>) {
        let Some((fetch, Fetch { void, .. })) = self.under_way().zip(self.reference.under_way())
        else {
            return;
        };
        self.fail(fetch, random, permanent, retry_after);
        if void {
            self.reference.void_ended(self.now);
        } else {
            let error = self.errors;
            self.reference
                .failed(self.now, error, random, permanent, retry_after);
        }
    }

    fn late(&mut self, which: usize, lifetime: Lifetime, random: f64) {
        let over = self.fetches.len() - usize::from(self.under_way().is_some());
        if over == 0 {
            return;
        }
        let which = which % over;
        let fetch = self.fetches[which];
        // A late failure has no effect.
        self.fail(fetch, random, true, None);
        self.reference.looked(self.now);
        self.look();
        let held = !self.holds_good();
        let (arrival, lifetime) = self.arrive(fetch, lifetime, random);
        if which < self.void {
            assert_eq!(arrival, Arrival::Void);
            self.reference.looked(self.now);
            return;
        }
        assert_eq!(arrival, Arrival::Late { held });
        self.seen.late += 1;
        self.seen.late_and_held += u32::from(held);
        if held {
            self.reference
                .came(self.now, self.tokens, lifetime, random, true);
        } else {
            self.reference.looked(self.now);
        }
    }

    fn overdue(&mut self, random: f64) {
        let timeout = self.policy.fetch_timeout;
        let fetch = self.reference.under_way();
        let expected = fetch.is_some_and(|fetch| self.now.monotonic - fetch.began >= timeout);
        let overdue = self.machine.overdue(self.told(self.now));
        assert_eq!(overdue, self.under_way().filter(|_| expected));
        if overdue.is_some() {
            self.failed(random, false, None);
        }
    }

    fn begin(&mut self, fetch: FetchId) {
        assert!(!self.fetches.contains(&fetch), "a fetch begins again");
        self.fetches.push(fetch);
    }

    fn ask_machine(&self, machine: &mut Machine<u32, u32>, now: Now) -> Answer<u32, u32> {
        let rejected = |&token: &u32| self.reference.is_rejected(token);
        let (mut answer, _displaced) = machine.ask(self.told(now), rejected);
        if let Answer::Serve { until, .. } | Answer::Wait { until, .. } = &mut answer {
            *until += self.behind;
        }
        answer
    }

    /// Asks a copy of the machine, and compares the answer with what the reference expects.
    fn look(&self) {
        let mut machine = self.machine.clone();
        let answer = self.ask_machine(&mut machine, self.now);
        self.compare(&answer, self.reference.expected(self.now));
        let (usable, _displaced) = self.machine.clone().usable(self.told(self.now));
        let token = self.reference.token(self.now);
        assert_eq!(usable, token.map(|token| token.number));
    }

    fn ask(&mut self) {
        let expected = self.reference.expected(self.now);
        let token = self.reference.token(self.now);
        let mut machine = self.machine.clone();
        let answer = self.ask_machine(&mut machine, self.now);
        self.machine = machine;
        if let Some(fetch) = self.compare(&answer, expected) {
            if let (Answer::Wait { .. }, Some(token)) = (&answer, token) {
                self.check_spacing(token);
            }
            self.begin(fetch);
        }
        self.count(expected, token);
        self.reference.asked(self.now, expected);
        if let Answer::Serve { token, until, .. } = answer {
            self.check_until(&answer, until);
            if self.hostile {
                self.reference.rejected(self.now, token);
            }
        }
    }

    /// Panics unless the machine gave the expected answer. Gives the fetch that begins with this
    /// answer.
    fn compare(&self, answer: &Answer<u32, u32>, expected: Expected) -> Option<FetchId> {
        let need = |fetch: Option<FetchId>| match (fetch, self.under_way()) {
            (None, _) => Need::Nothing,
            (Some(fetch), Some(under_way)) => {
                assert_eq!(fetch, under_way, "two fetches at a time");
                Need::UnderWay
            }
            (Some(_), None) => Need::New,
        };
        let (given, fetch) = match *answer {
            Answer::Serve {
                token,
                despite_rejection,
                fetch,
                ..
            } => {
                self.check_served(token);
                let given = Expected::Serve {
                    token,
                    rejected: despite_rejection,
                    fetch: need(fetch),
                };
                (given, fetch)
            }
            Answer::Wait { fetch, until } => {
                let given = Expected::Wait {
                    fetch: need(Some(fetch)),
                    until,
                };
                (given, Some(fetch))
            }
            Answer::BackOff { error, retry_in } => (Expected::BackOff { error, retry_in }, None),
        };
        assert_eq!(given, expected);
        fetch.filter(|_| self.under_way().is_none())
    }

    /// With any settings, the served token is the last that came, and neither clock is past its
    /// expiry.
    fn check_served(&self, number: u32) {
        let token = self.reference.token(self.now);
        let token = token.expect("a token is served that is spent or invalidated");
        assert_eq!(token.number, number, "not the token that came last");
        let expired = token
            .lifetime
            .is_some_and(|lifetime| has_passed(token.came, self.now, lifetime.max(SECOND)));
        assert!(!expired, "a token is served past its expiry");
    }

    /// A replacement does not begin within the interval after the previous replacement.
    fn check_spacing(&self, token: Token) {
        if let Some(end) = self.reference.throttle() {
            let due = Reference::is_due(token, self.now);
            assert!(due || self.now.monotonic >= end, "replaced too soon");
        }
    }

    /// Before `until`, another question gets the same answer. `until` comes within a second, but no
    /// earlier than the first change.
    fn check_until(&self, answer: &Answer<u32, u32>, until: Instant) {
        let now = self.now.monotonic;
        let mut changes = self.reference.changes(self.now);
        changes.retain(|&change| change > now);
        let check_at = now + SECOND;
        let earliest = changes.iter().fold(check_at, |at, &change| at.min(change));
        assert!(until >= earliest, "asked again before anything can change");
        assert!(until <= check_at, "the wall clock is not looked at");

        changes.push(until - NANO);
        changes.retain(|&change| change < until);
        for monotonic in changes {
            let later = Now {
                monotonic,
                wall: self.now.wall,
            };
            self.compare(
                &self.ask_machine(&mut self.machine.clone(), later),
                self.reference.expected(later),
            );
            let again = self.ask_machine(&mut self.machine.clone(), later);
            assert!(same(answer, &again), "{again:?} before `until`");
        }
    }

    fn count(&mut self, expected: Expected, token: Option<Token>) {
        let due = token.is_some_and(|token| Reference::is_due(token, self.now));
        let throttled = self.reference.throttle();
        let throttled = throttled.is_some_and(|end| self.now.monotonic < end) && !due;
        let seen = &mut self.seen;
        match expected {
            Expected::Serve {
                rejected, fetch, ..
            } => {
                seen.good += u32::from(!rejected);
                seen.ahead += u32::from(fetch == Need::New);
                seen.due_but_backing_off += u32::from(!rejected && due && fetch == Need::Nothing);
                seen.despite_throttle += u32::from(rejected && throttled);
                seen.despite_backoff += u32::from(rejected && fetch == Need::Nothing && !throttled);
                seen.despite_patience += u32::from(rejected && fetch != Need::Nothing);
            }
            Expected::Wait { fetch, .. } => match token {
                Some(token) if !token.rejected => seen.waits_with_a_good_token += 1,
                Some(_) if fetch == Need::New => seen.replaced += 1,
                _ => seen.first += 1,
            },
            Expected::BackOff { .. } => seen.backoff += 1,
        }
        let by_monotonic = Now {
            wall: SystemTime::UNIX_EPOCH,
            ..self.now
        };
        if token.is_none() && self.reference.token(by_monotonic).is_some() {
            seen.over_by_wall += 1;
        }
    }
}

fn same(one: &Answer<u32, u32>, other: &Answer<u32, u32>) -> bool {
    let key = |answer: &Answer<u32, u32>| match *answer {
        Answer::Serve {
            token,
            despite_rejection,
            fetch,
            ..
        } => Some((token, despite_rejection, fetch)),
        _ => None,
    };
    key(one) == key(other)
}
