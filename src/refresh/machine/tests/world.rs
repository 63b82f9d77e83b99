//! A world that puts events to the machine and to the reference, and compares the answers.

use std::time::{Duration, Instant, SystemTime};

use super::{
    super::{Answer, FetchId, Machine, Now, Refusal},
    events::{DAY, Event, Lifetime, NANO, SECOND},
    reference::{Expected, Need, Reference, Token, has_passed},
};
use crate::refresh::policy::Policy;

/// How often something was seen that the promises speak of.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) good: u32,
    pub(super) ahead: u32,
    pub(super) due_but_backing_off: u32,
    pub(super) despite_throttle: u32,
    pub(super) despite_backoff: u32,
    pub(super) first: u32,
    pub(super) replaced: u32,
    pub(super) backoff: u32,
    pub(super) refused: u32,
    /// A token whose time was over by the clock on the wall alone.
    pub(super) over_by_wall: u32,
    pub(super) longest_throttle: Duration,
}

pub(super) struct World {
    now: Now,
    machine: Machine<u32, u32>,
    reference: Reference,
    policy: Policy,
    /// Each fetch there was. While one is under way, it is the last.
    fetches: Vec<FetchId>,
    tokens: u32,
    errors: u32,
    hostile: bool,
    pub(super) seen: Seen,
}

pub(super) fn start() -> Now {
    Now {
        // Long after the first moment there is, since a token may have expired before it comes.
        monotonic: Instant::now() + 1_000 * DAY,
        wall: SystemTime::UNIX_EPOCH + 20_000 * DAY,
    }
}

impl World {
    pub(super) fn new(policy: Policy) -> Self {
        Self {
            now: start(),
            machine: Machine::new(policy.clone()),
            reference: Reference::new(policy.clone()),
            policy,
            fetches: Vec::new(),
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
            Event::Fetched(lifetime) => self.fetched(lifetime, random),
            Event::Failed => self.failed(random),
            Event::Late(which) => self.late(which, random),
            Event::Overdue { driven } => self.overdue(driven, random),
            Event::Abandoned => self.abandon(),
            Event::Refresh => {
                let fetch = self.machine.refresh(self.now);
                match self.under_way() {
                    Some(under_way) => assert_eq!(fetch, under_way, "two fetches at a time"),
                    None => self.begin(fetch),
                }
                self.reference.refreshed(self.now);
            }
            Event::Invalidate => {
                self.machine.invalidate();
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

    fn fetched(&mut self, lifetime: Lifetime, random: f64) {
        let Some(fetch) = self.under_way() else {
            return;
        };
        self.tokens += 1;
        let now = self.now.monotonic;
        let (expiry, lifetime) = match lifetime {
            Lifetime::Endless => (None, None),
            Lifetime::Of(lifetime) => (Some(now + lifetime), Some(lifetime)),
            Lifetime::Past(age) => (Some(now - age), Some(Duration::ZERO)),
        };
        let taken = self
            .machine
            .fetched(self.now, fetch, self.tokens, expiry, random);
        if lifetime == Some(Duration::ZERO) {
            assert_eq!(taken, Err(Refusal::Expired));
            self.seen.refused += 1;
            self.look();
            self.failed(random);
            return;
        }
        assert_eq!(taken, Ok(()));
        self.reference.came(self.now, self.tokens, lifetime, random);
        let throttle = self.reference.throttle();
        let wait = throttle.map(|end| end.saturating_duration_since(now));
        let longest = &mut self.seen.longest_throttle;
        *longest = wait.unwrap_or_default().max(*longest);
    }

    fn failed(&mut self, random: f64) {
        if let Some(fetch) = self.under_way() {
            self.errors += 1;
            self.machine.failed(self.now, fetch, self.errors, random);
            self.reference.failed(self.now, self.errors, random);
        }
    }

    fn late(&mut self, which: usize, random: f64) {
        let over = self.fetches.len() - usize::from(self.under_way().is_some());
        if over == 0 {
            return;
        }
        let fetch = self.fetches[which % over];
        let taken = self.machine.fetched(self.now, fetch, 0, None, random);
        assert_eq!(taken, Err(Refusal::GivenUp));
        self.machine.failed(self.now, fetch, 0, random);
    }

    fn overdue(&mut self, driven: bool, random: f64) {
        let timeout = self.policy.fetch_timeout;
        let since = self.reference.under_way();
        let expected = since.is_some_and(|began| self.now.monotonic - began >= timeout);
        let overdue = self.machine.overdue(self.now);
        assert_eq!(overdue, self.under_way().filter(|_| expected));
        match overdue {
            Some(_) if driven => self.failed(random),
            Some(_) => self.abandon(),
            None => {}
        }
    }

    fn abandon(&mut self) {
        self.machine.abandon();
        self.reference.given_up(self.now);
    }

    fn begin(&mut self, fetch: FetchId) {
        assert!(!self.fetches.contains(&fetch), "a fetch begins again");
        self.fetches.push(fetch);
    }

    fn ask_machine(&self, machine: &mut Machine<u32, u32>, now: Now) -> Answer<u32, u32> {
        machine.ask(now, |&token| self.reference.is_rejected(token))
    }

    /// What would be answered now, without asking.
    fn look(&self) {
        let mut machine = self.machine.clone();
        let answer = self.ask_machine(&mut machine, self.now);
        self.compare(&answer, self.reference.expected(self.now));
        let usable = self.machine.clone().usable(self.now).copied();
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

    /// Panics if the answer is not the one that is expected. Gives the fetch that begins with it.
    fn compare(&self, answer: &Answer<u32, u32>, expected: Expected) -> Option<FetchId> {
        let need = |fetch: Option<FetchId>| match (fetch, self.under_way()) {
            (None, _) => Need::Nothing,
            (Some(fetch), Some(under_way)) => {
                assert_eq!(fetch, under_way, "two fetches at a time");
                Need::TheOneUnderWay
            }
            (Some(_), None) => Need::ANewOne,
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
            Answer::Wait { fetch } => (Expected::Wait(need(Some(fetch))), Some(fetch)),
            Answer::BackOff { error, retry_in } => (Expected::BackOff { error, retry_in }, None),
        };
        assert_eq!(given, expected);
        fetch.filter(|_| self.under_way().is_none())
    }

    /// Whatever the settings, what is served is the last token, and neither clock is past its expiry.
    fn check_served(&self, number: u32) {
        let token = self.reference.token(self.now);
        let token = token.expect("a token is served that is spent or invalidated");
        assert_eq!(token.number, number, "not the token that came last");
        let expired = token
            .lifetime
            .is_some_and(|lifetime| has_passed(token.came, self.now, lifetime));
        assert!(!expired, "a token is served past its expiry");
    }

    /// A replacement begins neither within the interval nor within the back-off of the one before.
    fn check_spacing(&self, token: Token) {
        assert!(token.rejected, "a request waits although a token is good");
        if let Some(end) = self.reference.throttle() {
            let due = Reference::is_due(token, self.now);
            assert!(due || self.now.monotonic >= end, "replaced too soon");
        }
    }

    /// Until then asking again gives the same; and then, or after a second, it may not.
    fn check_until(&self, answer: &Answer<u32, u32>, until: Instant) {
        let now = self.now.monotonic;
        let mut changes = self.reference.changes(self.now);
        changes.retain(|&change| change > now);
        let check_at = now + SECOND;
        let earliest = changes.iter().fold(check_at, |at, &change| at.min(change));
        assert!(until >= earliest, "asked again before anything can change");
        assert!(until <= check_at, "the clock on the wall is not looked at");

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
                seen.ahead += u32::from(fetch == Need::ANewOne);
                seen.due_but_backing_off += u32::from(!rejected && due && fetch == Need::Nothing);
                seen.despite_throttle += u32::from(rejected && throttled);
                seen.despite_backoff += u32::from(rejected && !throttled);
            }
            Expected::Wait(Need::ANewOne) if token.is_some() => seen.replaced += 1,
            Expected::Wait(_) => seen.first += 1,
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
