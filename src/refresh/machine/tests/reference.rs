//! What the contract says, in the plainest form: all that happens is written down, nothing is
//! remembered beside it, and each question is answered by reading the whole record again.

use std::time::{Duration, Instant};

use super::super::Now;
use crate::refresh::policy::Policy;

#[derive(Clone, Debug)]
enum What {
    Began {
        ahead: bool,
    },
    /// A request waits for the fetch under way, since the token that is held is rejected.
    Replaces {
        token: Token,
    },
    Came {
        number: u32,
        lifetime: Option<Duration>,
        random: f64,
    },
    Failed {
        error: u32,
        random: f64,
    },
    GivenUp,
    Asked,
    HandedOut,
    Rejected {
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
    pub(super) came: Now,
    /// How long after it came a request last got it without a rejection.
    lasted: Duration,
    refresh_after: Option<Duration>,
    serve_for: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Nothing,
    TheOneUnderWay,
    ANewOne,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    Serve {
        token: u32,
        rejected: bool,
        fetch: Need,
    },
    Wait(Need),
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

/// By whichever clock has gone further.
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

    pub(super) fn came(&mut self, at: Now, number: u32, lifetime: Option<Duration>, random: f64) {
        let what = What::Came {
            number,
            lifetime,
            random,
        };
        self.write(at, what);
    }

    pub(super) fn failed(&mut self, at: Now, error: u32, random: f64) {
        self.write(at, What::Failed { error, random });
    }

    pub(super) fn given_up(&mut self, at: Now) {
        self.write(at, What::GivenUp);
    }

    pub(super) fn rejected(&mut self, at: Now, number: u32) {
        self.write(at, What::Rejected { number });
    }

    pub(super) fn invalidated(&mut self, at: Now) {
        self.write(at, What::Invalidated);
    }

    pub(super) fn refreshed(&mut self, at: Now) {
        if self.under_way().is_none() {
            self.write(at, What::Began { ahead: false });
        }
    }

    /// A request was answered as expected.
    pub(super) fn asked(&mut self, at: Now, expected: Expected) {
        let token = self.token(at);
        self.write(at, What::Asked);
        match expected {
            Expected::Serve {
                rejected, fetch, ..
            } => {
                if !rejected {
                    self.write(at, What::HandedOut);
                }
                if fetch == Need::ANewOne {
                    self.write(at, What::Began { ahead: true });
                }
            }
            Expected::Wait(fetch) => {
                if fetch == Need::ANewOne {
                    self.write(at, What::Began { ahead: false });
                }
                if let Some(token) = token {
                    self.write(at, What::Replaces { token });
                }
            }
            Expected::BackOff { .. } => {}
        }
    }

    pub(super) fn is_rejected(&self, token: u32) -> bool {
        let mut log = self.log.iter();
        log.any(|entry| matches!(entry.what, What::Rejected { number } if number == token))
    }

    /// Since when a fetch is under way.
    pub(super) fn under_way(&self) -> Option<Instant> {
        fetch_in(&self.log).map(|(began, _, _)| began)
    }

    /// The token that may be served: the last that came, unless it was invalidated, or its time was
    /// over at this moment or at one when somebody asked.
    pub(super) fn token(&self, now: Now) -> Option<Token> {
        let is_token = |entry: &Entry| matches!(entry.what, What::Came { .. });
        let index = self.log.iter().rposition(is_token)?;
        let (before, since) = (&self.log[..index], &self.log[index + 1..]);
        let What::Came {
            number,
            lifetime,
            random,
        } = self.log[index].what
        else {
            return None;
        };
        let came = self.log[index].at;
        let last_good = since
            .iter()
            .rfind(|entry| matches!(entry.what, What::HandedOut))
            .map_or(came, |entry| entry.at);

        let in_time = matches!(fetch_in(before), Some((_, true, None))) && failures(before) == 0;
        let jitter = if in_time {
            self.policy.refresh_jitter
        } else {
            self.policy.startup_jitter
        };
        let serve_for =
            lifetime.map(|lifetime| lifetime - self.policy.expiry_margin.min(lifetime / 20));
        let before_expiry = lifetime.zip(serve_for).map(|(lifetime, serve_for)| {
            let latest = lifetime - self.policy.refresh_ahead.min(lifetime / 5);
            let earlier = lifetime.mul_f64(jitter * random);
            latest.saturating_sub(earlier).min(serve_for)
        });
        let refresh_after = match (before_expiry, self.policy.refresh_every) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };

        let spent = |at: Now| serve_for.is_some_and(|length| has_passed(came, at, length));
        let gone = since.iter().any(|entry| match entry.what {
            What::Asked => spent(entry.at),
            What::Invalidated => true,
            _ => false,
        });
        (!gone && !spent(now)).then(|| Token {
            number,
            rejected: self.is_rejected(number),
            lifetime,
            came,
            lasted: last_good.monotonic - came.monotonic,
            refresh_after,
            serve_for,
        })
    }

    /// The last error and the end of the back-off, unless a token or an invalidation ended it.
    fn backoff(&self) -> Option<(u32, Instant)> {
        let is_decisive = |entry: &Entry| {
            matches!(
                entry.what,
                What::Failed { .. } | What::Came { .. } | What::Invalidated
            )
        };
        let index = self.log.iter().rposition(is_decisive)?;
        let What::Failed { error, random } = self.log[index].what else {
            return None;
        };
        let (began, _, _) = fetch_in(&self.log[..index])?;
        let limit = began + self.policy.fetch_timeout;
        let failed = self.log[index].at.monotonic;
        let at = if failed < limit + self.policy.fetch_timeout {
            failed
        } else {
            limit
        };
        let mut ceiling = self.policy.backoff_first;
        for _ in 1..failures(&self.log) {
            ceiling = (ceiling * 2).min(self.policy.backoff_max);
        }
        let ceiling = ceiling.min(self.policy.backoff_max);
        Some((error, at + ceiling.mul_f64(random)))
    }

    /// Before when no fetch begins that replaces a rejected token.
    pub(super) fn throttle(&self) -> Option<Instant> {
        let mut last: Option<(Instant, Duration)> = None;
        for (index, entry) in self.log.iter().enumerate() {
            if !matches!(entry.what, What::Came { .. }) {
                continue;
            }
            let Some((began, _, Some(replaced))) = fetch_in(&self.log[..index]) else {
                continue;
            };
            let interval = match last {
                Some((_, interval)) if replaced.lasted < interval => {
                    (interval * 2).min(self.policy.rejection_backoff_max)
                }
                _ => self.policy.rejection_backoff_first,
            };
            last = Some((began, interval));
        }
        last.map(|(began, interval)| began + interval)
    }

    pub(super) fn is_due(token: Token, now: Now) -> bool {
        token
            .refresh_after
            .is_some_and(|length| has_passed(token.came, now, length))
    }

    pub(super) fn expected(&self, now: Now) -> Expected {
        let under_way = self.under_way().is_some();
        let backoff = self.backoff().filter(|&(_, end)| now.monotonic < end);
        let fetch = if under_way {
            Need::TheOneUnderWay
        } else {
            Need::ANewOne
        };
        let Some(token) = self.token(now) else {
            return match backoff {
                Some((error, end)) if !under_way => Expected::BackOff {
                    error,
                    retry_in: end - now.monotonic,
                },
                _ => Expected::Wait(fetch),
            };
        };
        let due = Self::is_due(token, now);
        let serve = |fetch| Expected::Serve {
            token: token.number,
            rejected: token.rejected,
            fetch,
        };
        if !token.rejected {
            let begin = due && backoff.is_none();
            return serve(if under_way || begin {
                fetch
            } else {
                Need::Nothing
            });
        }
        let throttled = !due && self.throttle().is_some_and(|end| now.monotonic < end);
        if under_way || !(throttled || backoff.is_some()) {
            Expected::Wait(fetch)
        } else {
            serve(Need::Nothing)
        }
    }

    /// All moments at which time alone may change the answer.
    pub(super) fn changes(&self, now: Now) -> Vec<Instant> {
        let token = self.token(now);
        let of_token = |length: fn(Token) -> Option<Duration>| {
            token.and_then(|token| Some(token.came.monotonic + length(token)?))
        };
        [
            of_token(|token| token.refresh_after),
            of_token(|token| token.serve_for),
            of_token(|token| token.lifetime),
            self.backoff().map(|(_, end)| end),
            self.throttle(),
            self.under_way()
                .map(|began| began + self.policy.fetch_timeout),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// The fetch under way: when it began, whether ahead of time, and the rejected token that it replaces.
fn fetch_in(log: &[Entry]) -> Option<(Instant, bool, Option<Token>)> {
    let mut fetch = None;
    for entry in log {
        match (&entry.what, &mut fetch) {
            (What::Began { .. }, Some(_)) => panic!("two fetches at a time"),
            (What::Began { ahead }, None) => fetch = Some((entry.at.monotonic, *ahead, None)),
            (What::Replaces { token }, Some((_, _, replaces))) => *replaces = Some(*token),
            (What::Came { .. } | What::Failed { .. } | What::GivenUp, _) => fetch = None,
            _ => {}
        }
    }
    fetch
}

/// Failures since the last token.
fn failures(log: &[Entry]) -> usize {
    log.iter()
        .rev()
        .take_while(|entry| !matches!(entry.what, What::Came { .. }))
        .filter(|entry| matches!(entry.what, What::Failed { .. }))
        .count()
}
