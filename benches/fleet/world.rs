//! What all policies face: the requests of the clients and the incidents. This module also counts what
//! happens. Times are in milliseconds since the start.

pub(crate) const SECOND: u64 = 1_000;
pub(crate) const MINUTE: u64 = 60 * SECOND;
pub(crate) const HOUR: u64 = 60 * MINUTE;
pub(crate) const DAY: u64 = 24 * HOUR;

pub(crate) const CLIENTS: u64 = 100_000;
pub(crate) const LIFETIME: u64 = HOUR;
/// How long a fetch takes.
pub(crate) const LATENCY: u64 = 200;
/// The least time between two requests of a client. The most is twice this time.
const GAP: u64 = 30 * SECOND;

/// The window without an incident: the two hours after the first day.
pub(crate) const QUIET: (u64, u64) = (DAY, DAY + 2 * HOUR);
/// How long the window is that begins with an incident.
const WATCHED: u64 = 2 * HOUR;
const OUTAGE: u64 = 10 * MINUTE;

#[derive(Clone, Copy)]
pub(crate) enum Incident {
    Nothing,
    /// For ten minutes from this moment, the token endpoint answers each request with an error.
    Outage(u64),
    /// From this moment on, servers reject every token that was issued before.
    Revocation(u64),
}

impl Incident {
    pub(crate) fn endpoint_is_up(self, now: u64) -> bool {
        match self {
            Self::Outage(from) => !(from..from + OUTAGE).contains(&now),
            _ => true,
        }
    }

    /// Whether a server accepts a token.
    pub(crate) fn accepts(self, issued: u64, now: u64) -> bool {
        let revoked = match self {
            Self::Revocation(at) => issued < at && now >= at,
            _ => false,
        };
        now < issued + LIFETIME && !revoked
    }

    /// `until`, or the next revocation if that is earlier.
    pub(crate) fn before_revocation(self, now: u64, until: u64) -> u64 {
        match self {
            Self::Revocation(at) if now < at => until.min(at),
            _ => until,
        }
    }

    pub(crate) fn window(self) -> (u64, u64) {
        match self {
            Self::Nothing => QUIET,
            Self::Outage(from) | Self::Revocation(from) => (from, from + WATCHED),
        }
    }
}

/// The times of a client's requests. They are the same under each policy.
pub(crate) struct Requests {
    random: fastrand::Rng,
    at: u64,
}

impl Requests {
    /// The first request comes within the first second.
    pub(crate) fn new(client: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(client);
        let at = random.u64(..SECOND);
        Self { random, at }
    }

    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Moves on by at least one request, to the first request that does not come before `from`.
    pub(crate) fn advance(&mut self, from: u64) {
        loop {
            self.at += GAP + self.random.u64(..GAP);
            if self.at >= from {
                return;
            }
        }
    }
}

/// What happened in each second.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Counts {
    /// Requests to the token endpoint.
    pub(crate) fetches: Vec<u32>,
    /// Requests that were not sent, since there was no token.
    pub(crate) failed: Vec<u32>,
    /// Requests that were sent with a revoked or expired token.
    pub(crate) rejected: Vec<u32>,
}

impl Counts {
    pub(crate) fn in_window(&self, window: (u64, u64)) -> Summary {
        let fetches = cut(&self.fetches, window);
        let (failed, rejected) = (cut(&self.failed, window), cut(&self.rejected, window));
        let peak = fetches.iter().copied().max().unwrap_or_default();
        let seconds = u32::try_from((window.1 - window.0) / SECOND).unwrap_or(u32::MAX);
        let last = |series: &[u32]| series.iter().rposition(|&count| count > 0);
        Summary {
            peak: f64::from(peak),
            mean: fetches.iter().copied().map(f64::from).sum::<f64>() / f64::from(seconds),
            failed: sum(failed),
            rejected: sum(rejected),
            recovery: last(failed)
                .max(last(rejected))
                .map_or(0, |second| second + 1),
        }
    }

    /// When the second with the most fetches in `window` begins.
    pub(crate) fn busiest(&self, window: (u64, u64)) -> u64 {
        let fetches = (0..).zip(cut(&self.fetches, window));
        let second = fetches.max_by_key(|(_, count)| **count);
        window.0 + second.map_or(0, |(second, _)| second) * SECOND
    }
}

/// Fetches per second, failed and rejected requests, and the seconds until the last such request.
#[derive(Clone, Copy)]
pub(crate) struct Summary {
    pub(crate) peak: f64,
    pub(crate) mean: f64,
    pub(crate) failed: u64,
    pub(crate) rejected: u64,
    pub(crate) recovery: usize,
}

pub(crate) fn count(series: &mut Vec<u32>, at: u64) {
    let second = usize::try_from(at / SECOND).unwrap_or(usize::MAX);
    if second >= series.len() {
        series.resize(second + 1, 0);
    }
    series[second] += 1;
}

fn sum(series: &[u32]) -> u64 {
    series.iter().copied().map(u64::from).sum()
}

pub(crate) fn cut(series: &[u32], (from, to): (u64, u64)) -> &[u32] {
    let index = |at: u64| usize::try_from(at / SECOND).unwrap_or(usize::MAX);
    let to = index(to).min(series.len());
    &series[index(from).min(to)..to]
}
