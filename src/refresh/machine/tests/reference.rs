//! A plain model of the machine: it records every event, keeps no other state, and answers each
//! question from the whole record.

use std::time::{Duration, Instant};

use super::events::{MINUTE, SECOND};
use crate::refresh::{answer::Now, policy::Policy};

#[derive(Clone, Debug)]
enum What {
    Began {
        ahead: bool,
    },
    /// A fetch is under way, and a request finds that the held token is rejected.
    Replaces {
        token: Token,
    },
    /// A request waits, although it could send the held token.
    Waited,
    Came {
        number: u32,
        /// Zero if the token had expired.
        lifetime: Option<Duration>,
        random: f64,
        late: bool,
    },
    Failed {
        error: u32,
        random: f64,
        permanent: bool,
        retry_after: Option<Duration>,
    },
    /// A void fetch ended: the source was invalidated after it began.
    VoidEnded,
    Lost,
    /// The machine read the time, and so may have ended the service of a token.
    Looked,
    /// A request came while a token was held, good or rejected.
    Asked {
        rejected: bool,
    },
    Rejected {
        number: u32,
    },
    Accepted {
        number: u32,
    },
    Invalidated,
}

#[derive(Clone, Debug)]
struct Entry {
    at: Now,
    what: What,
}

/// The token that may be served.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub(super) number: u32,
    pub(super) rejected: bool,
    pub(super) lifetime: Option<Duration>,
    pub(super) judged: bool,
    pub(super) came: Now,
    /// The time from the arrival of the token to the last request that got it before the first rejection.
    lasted: Duration,
    refresh_after: Option<Duration>,
    serve_for: Option<Duration>,
}

/// The fetch under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fetch {
    pub(super) began: Instant,
    ahead: bool,
    replaces: Option<Token>,
    waited_for: bool,
    pub(super) void: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Nothing,
    UnderWay,
    New,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    Serve {
        token: u32,
        rejected: bool,
        fetch: Need,
    },
    Wait {
        fetch: Need,
        until: Instant,
    },
    BackOff {
        error: u32,
        retry_in: Duration,
    },
}

#[derive(Clone)]
pub(super) struct Reference {
    policy: Policy,
    log: Vec<Entry>,
}

/// Whether `length` has passed by either clock.
pub(super) fn has_passed(since: Now, now: Now, length: Duration) -> bool {
    let by_wall = now.wall.duration_since(since.wall).unwrap_or_default();
    by_wall >= length || now.monotonic.duration_since(since.monotonic) >= length
}

impl Reference {
    pub(super) fn new(policy: Policy) -> Self {
        let log = Vec::new();
        Self { policy, log }
    }

    fn write(&mut self, at: Now, what: What) {
        self.log.push(Entry { at, what });
    }

    pub(super) fn came(
        &mut self,
        at: Now,
        number: u32,
        lifetime: Option<Duration>,
        random: f64,
        late: bool,
    ) {
        let what = What::Came {
            number,
            lifetime,
            random,
            late,
        };
        self.write(at, what);
    }

    pub(super) fn failed(
        &mut self,
        at: Now,
        error: u32,
        random: f64,
        permanent: bool,
        retry_after: Option<Duration>,
    ) {
        let what = What::Failed {
            error,
            random,
            permanent,
            retry_after,
        };
        self.write(at, what);
        self.write(at, What::Looked);
    }

    pub(super) fn void_ended(&mut self, at: Now) {
        self.write(at, What::VoidEnded);
        self.write(at, What::Looked);
    }

    pub(super) fn lost(&mut self, at: Now) {
        let is_void = self.under_way().is_some_and(|fetch| fetch.void);
        self.write(at, if is_void { What::VoidEnded } else { What::Lost });
    }

    pub(super) fn looked(&mut self, at: Now) {
        self.write(at, What::Looked);
    }

    pub(super) fn rejected(&mut self, at: Now, number: u32) {
        self.write(at, What::Rejected { number });
    }

    pub(super) fn accepted(&mut self, at: Now, number: u32) {
        self.write(at, What::Accepted { number });
    }

    pub(super) fn invalidated(&mut self, at: Now) {
        self.write(at, What::Invalidated);
    }

    pub(super) fn refreshed(&mut self, at: Now) {
        if self.under_way().is_none() {
            self.write(at, What::Began { ahead: false });
        }
    }

    /// A request got the expected answer.
    pub(super) fn asked(&mut self, at: Now, expected: Expected) {
        let token = self.token(at);
        self.write(at, What::Looked);
        if let Some(token) = token {
            let rejected = token.rejected;
            self.write(at, What::Asked { rejected });
        }
        let need = match expected {
            Expected::Serve { fetch, .. } | Expected::Wait { fetch, .. } => fetch,
            Expected::BackOff { .. } => Need::Nothing,
        };
        if need == Need::New {
            let ahead = token.is_some_and(|token| !token.rejected);
            self.write(at, What::Began { ahead });
        }
        let Some(token) = token else { return };
        if need != Need::Nothing && token.rejected {
            self.write(at, What::Replaces { token });
        }
        if let Expected::Wait { .. } = expected {
            self.write(at, What::Waited);
        }
    }

    pub(super) fn is_rejected(&self, token: u32) -> bool {
        let last = self.log.iter().rev().find_map(|entry| match entry.what {
            What::Rejected { number } if number == token => Some(true),
            What::Accepted { number } if number == token => Some(false),
            _ => None,
        });
        last.unwrap_or(false)
    }

    /// The last token that came, in time or not, since the last invalidation.
    pub(super) fn held(&self) -> Option<u32> {
        self.log.iter().rev().find_map(|entry| match entry.what {
            What::Came { number, .. } => Some(number),
            _ => None,
        })
    }

    pub(super) fn under_way(&self) -> Option<Fetch> {
        fetch_in(&self.log)
    }

    /// The token that may be served: the last token that came, unless it was invalidated, or its
    /// service has ended by now, or had ended at an earlier reading of the time.
    pub(super) fn token(&self, now: Now) -> Option<Token> {
        let is_token = |entry: &Entry| matches!(entry.what, What::Came { .. });
        let index = self.log.iter().rposition(is_token)?;
        let (before, since) = (&self.log[..index], &self.log[index + 1..]);
        let What::Came {
            number,
            lifetime,
            random,
            late,
        } = self.log[index].what
        else {
            return None;
        };
        let came = self.log[index].at;
        let in_time = !late
            && fetch_in(before).is_some_and(|fetch| fetch.ahead && fetch.replaces.is_none())
            && failures(before).is_empty()
            && expired_in_a_row(before) == 0;
        let jitter = if in_time {
            self.policy.refresh_jitter
        } else {
            self.policy.startup_jitter
        };
        let judged = lifetime != Some(Duration::ZERO);
        let lifetime = lifetime.filter(|_| judged);
        let serve_for = lifetime.map(|lifetime| {
            let margin = self.policy.expiry_margin.min(lifetime / 20);
            (lifetime - margin.max(SECOND.min(lifetime / 4))).max(SECOND)
        });
        let before_end = lifetime.zip(serve_for).map(|(lifetime, serve_for)| {
            let ahead = self.policy.refresh_ahead.min(lifetime / 5);
            let earlier = lifetime.mul_f64(jitter * random);
            serve_for
                .saturating_sub(ahead)
                .saturating_sub(earlier)
                .max(SECOND)
        });
        let unjudged = (!judged).then(|| {
            let mut used = self.policy.rejection_backoff_first;
            for _ in 0..expired_in_a_row(before) {
                used = used.saturating_mul(2);
            }
            used.min(self.policy.rejection_backoff_max)
        });
        let moments = [before_end, self.policy.refresh_every, unjudged];

        let spent = |at: Now| serve_for.is_some_and(|length| has_passed(came, at, length));
        let gone = since.iter().any(|entry| match entry.what {
            What::Looked => spent(entry.at),
            What::Invalidated => true,
            _ => false,
        });
        (!gone && !spent(now)).then(|| Token {
            number,
            rejected: self.is_rejected(number),
            lifetime,
            judged,
            came,
            lasted: lasted(came, since),
            refresh_after: moments.into_iter().flatten().min(),
            serve_for,
        })
    }

    /// The last error and the end of the back-off, unless a token or an invalidation ended it.
    fn backoff(&self, has_token: bool) -> Option<(u32, Instant)> {
        let failures = failures(&self.log);
        let times: Vec<_> = failures
            .iter()
            .map(|&index| {
                let fetch = fetch_in(&self.log[..index])?;
                let limit = fetch.began + self.policy.fetch_timeout;
                let failed = self.log[index].at.monotonic;
                let noticed_late = failed >= limit + self.policy.fetch_timeout;
                Some(if noticed_late { limit } else { failed })
            })
            .collect::<Option<_>>()?;
        let (first, last) = (*times.first()?, *times.last()?);
        let What::Failed {
            error,
            random,
            permanent,
            retry_after,
        } = self.log[*failures.last()?].what
        else {
            return None;
        };
        let floor = retry_after.unwrap_or_default();
        if permanent {
            let is_permanent = |&&index: &&usize| {
                matches!(
                    self.log[index].what,
                    What::Failed {
                        permanent: true,
                        ..
                    }
                )
            };
            let mut wait = 10 * SECOND;
            for _ in 1..failures.iter().rev().take_while(is_permanent).count() {
                wait = (wait * 2).min(5 * MINUTE);
            }
            return Some((error, last + wait.max(floor)));
        }
        let mut ceiling = self.policy.backoff_first;
        for _ in 1..failures.len() {
            ceiling = (ceiling * 2).min(self.policy.backoff_max);
        }
        ceiling = ceiling.min(self.policy.backoff_max);
        if !has_token && !self.policy.backoff_is_users {
            let half = last.saturating_duration_since(first) / 2;
            ceiling = ceiling.min(half.max(5 * SECOND).min(30 * SECOND));
        }
        Some((error, last + ceiling.mul_f64(random).max(floor)))
    }

    /// The moment before which no fetch begins to replace a rejected token.
    pub(super) fn throttle(&self) -> Option<Instant> {
        let mut last = None;
        let mut row = 0_u32;
        let interval = |row: u32| {
            let mut interval = self.policy.rejection_backoff_first;
            for _ in 2..row {
                interval = interval
                    .saturating_mul(2)
                    .min(self.policy.rejection_backoff_max);
            }
            interval.min(self.policy.rejection_backoff_max)
        };
        for (index, entry) in self.log.iter().enumerate() {
            if !matches!(entry.what, What::Came { .. } | What::Invalidated) {
                continue;
            }
            let before = &self.log[..index];
            let fetch =
                fetch_in(before).filter(|_| matches!(entry.what, What::Came { late: false, .. }));
            let replaced = fetch.and_then(|fetch| fetch.replaces);
            let gone = last_token(before);
            let replaced_lasted = replaced.map(|token| (token.lifetime, token.lasted));
            for (lifetime, lasted) in gone.into_iter().chain(replaced_lasted) {
                // Before the third replacement, the first interval counts, even if the limit is
                // lower.
                let needed = match row {
                    0 | 1 => self.policy.rejection_backoff_first,
                    _ => interval(row),
                };
                let tenth = lifetime.map(|lifetime| (lifetime / 10).min(5 * MINUTE));
                if lasted >= needed.max(tenth.unwrap_or_default()) {
                    row = 0;
                }
            }
            if let Some(fetch) = fetch {
                row += u32::from(replaced.is_some());
                last = Some(fetch.began);
            }
        }
        (row >= 2).then(|| last.map(|began| began + interval(row)))?
    }

    /// Until when a request with a held token may wait. `None`: it may not wait.
    fn patience(&self, now: Now) -> Option<Instant> {
        let is_decisive =
            |entry: &Entry| matches!(entry.what, What::Came { .. } | What::Invalidated);
        let begin = self
            .log
            .iter()
            .rposition(is_decisive)
            .map_or(0, |index| index + 1);
        let mut until = now.monotonic + self.policy.replacement_wait;
        let mut first = true;
        for (index, entry) in self.log.iter().enumerate().skip(begin) {
            match entry.what {
                What::Waited if first => {
                    until = entry.at.monotonic + self.policy.replacement_wait;
                    first = false;
                }
                What::Failed { .. } => {
                    let fetch = fetch_in(&self.log[..index])?;
                    if fetch.waited_for || fetch.replaces.is_some() {
                        return None;
                    }
                }
                _ => {}
            }
        }
        (now.monotonic < until).then_some(until)
    }

    fn is_after_loss(&self) -> bool {
        let last = self.log.iter().rev().find(|entry| {
            matches!(
                entry.what,
                What::Lost | What::Came { .. } | What::Failed { .. } | What::Invalidated
            )
        });
        last.is_some_and(|entry| matches!(entry.what, What::Lost))
    }

    pub(super) fn is_due(token: Token, now: Now) -> bool {
        token
            .refresh_after
            .is_some_and(|length| has_passed(token.came, now, length))
    }

    pub(super) fn expected(&self, now: Now) -> Expected {
        let under_way = self.under_way();
        let began = under_way.map_or(now.monotonic, |fetch| fetch.began);
        let limit = began + self.policy.fetch_timeout;
        let fetch = if under_way.is_some() {
            Need::UnderWay
        } else {
            Need::New
        };
        let Some(token) = self.token(now) else {
            let backoff = self.backoff(false).filter(|&(_, end)| now.monotonic < end);
            return match backoff {
                Some((error, end)) if under_way.is_none() => Expected::BackOff {
                    error,
                    retry_in: end - now.monotonic,
                },
                _ => Expected::Wait {
                    fetch,
                    until: limit,
                },
            };
        };
        let due = Self::is_due(token, now);
        let backing_off = self
            .backoff(true)
            .is_some_and(|(_, end)| now.monotonic < end);
        let throttled = !due && self.throttle().is_some_and(|end| now.monotonic < end);
        let may_begin = (due || token.rejected) && !backing_off && !throttled;
        let fetch = match under_way {
            Some(fetch) if fetch.void => Need::Nothing,
            None if !may_begin => Need::Nothing,
            _ => fetch,
        };
        let overdue = self.policy.wait_after;
        let overdue = overdue.is_some_and(|length| has_passed(token.came, now, length));
        let waits = token.rejected || due && (self.is_after_loss() || overdue);
        if let (true, Some(until)) = (waits && fetch != Need::Nothing, self.patience(now)) {
            let until = until.min(limit);
            return Expected::Wait { fetch, until };
        }
        Expected::Serve {
            token: token.number,
            rejected: token.rejected,
            fetch,
        }
    }

    /// All moments at which the answer may change without an event.
    pub(super) fn changes(&self, now: Now) -> Vec<Instant> {
        let token = self.token(now);
        let of_token = |length: fn(Token) -> Option<Duration>| {
            token.and_then(|token| Some(token.came.monotonic + length(token)?))
        };
        let overdue = token.zip(self.policy.wait_after);
        [
            of_token(|token| token.refresh_after),
            of_token(|token| token.serve_for),
            of_token(|token| token.lifetime),
            overdue.map(|(token, length)| token.came.monotonic + length),
            self.backoff(true).map(|(_, end)| end),
            self.backoff(false).map(|(_, end)| end),
            self.throttle(),
            self.patience(now),
            self.under_way()
                .map(|fetch| fetch.began + self.policy.fetch_timeout),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// The fetch under way at the end of a record.
fn fetch_in(log: &[Entry]) -> Option<Fetch> {
    let mut under_way: Option<Fetch> = None;
    for entry in log {
        match (&entry.what, &mut under_way) {
            (What::Began { .. }, Some(_)) => panic!("two fetches at a time"),
            (&What::Began { ahead }, None) => {
                under_way = Some(Fetch {
                    began: entry.at.monotonic,
                    ahead,
                    replaces: None,
                    waited_for: false,
                    void: false,
                });
            }
            (&What::Replaces { token }, Some(fetch)) => {
                fetch.replaces.get_or_insert(token);
            }
            (What::Waited, Some(fetch)) => fetch.waited_for = true,
            (What::Invalidated, Some(fetch)) => fetch.void = true,
            (
                What::Came { late: false, .. } | What::Failed { .. } | What::VoidEnded | What::Lost,
                _,
            ) => under_way = None,
            _ => {}
        }
    }
    under_way
}

/// The lifetime of the token that came last, and how long it was good. `None` if it was
/// invalidated.
fn last_token(log: &[Entry]) -> Option<(Option<Duration>, Duration)> {
    let is_decisive = |entry: &Entry| matches!(entry.what, What::Came { .. } | What::Invalidated);
    let index = log.iter().rposition(is_decisive)?;
    let What::Came { lifetime, .. } = log[index].what else {
        return None;
    };
    let lifetime = lifetime.filter(|lifetime| !lifetime.is_zero());
    Some((lifetime, lasted(log[index].at, &log[index + 1..])))
}

/// The time from the arrival of the token to the last request that got it before the first rejection.
fn lasted(came: Now, since: &[Entry]) -> Duration {
    let last_good = since
        .iter()
        .take_while(|entry| !matches!(entry.what, What::Asked { rejected: true }))
        .filter(|entry| matches!(entry.what, What::Asked { .. }))
        .last();
    last_good.map_or(Duration::ZERO, |entry| entry.at.monotonic - came.monotonic)
}

/// The indices of the failures since the last token or invalidation.
fn failures(log: &[Entry]) -> Vec<usize> {
    let is_decisive = |entry: &Entry| matches!(entry.what, What::Came { .. } | What::Invalidated);
    let begin = log
        .iter()
        .rposition(is_decisive)
        .map_or(0, |index| index + 1);
    let is_failure = |index: &usize| matches!(log[*index].what, What::Failed { .. });
    (begin..log.len()).filter(is_failure).collect()
}

/// How many tokens in a row, up to the last, had expired when they came.
fn expired_in_a_row(log: &[Entry]) -> usize {
    log.iter()
        .rev()
        .filter(|entry| matches!(entry.what, What::Came { .. } | What::Invalidated))
        .take_while(|entry| {
            let expired = Some(Duration::ZERO);
            matches!(entry.what, What::Came { lifetime, .. } if lifetime == expired)
        })
        .count()
}
