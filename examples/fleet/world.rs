//! What all policies face: the clients, the token endpoint and what goes wrong, and what is counted.

/// Seconds.
pub(crate) const MINUTE: u64 = 60;
pub(crate) const HOUR: u64 = 60 * MINUTE;
pub(crate) const DAY: u64 = 24 * HOUR;

pub(crate) const CLIENTS: usize = 100_000;
/// Each client sends a request this often. When in that time is random.
pub(crate) const REQUEST_EVERY: u64 = 2 * MINUTE;
pub(crate) const LIFETIME: u64 = HOUR;

/// After the first day, an hour in which nothing happens.
pub(crate) const STEADY: (u64, u64) = (DAY, DAY + HOUR);
/// The token endpoint fails for ten minutes.
pub(crate) const OUTAGE: (u64, u64) = (DAY + HOUR, DAY + HOUR + 10 * MINUTE);
/// Servers reject every token from before this moment.
pub(crate) const REVOCATION: u64 = DAY + 2 * HOUR;
pub(crate) const END: u64 = DAY + 4 * HOUR;

pub(crate) fn endpoint_is_up(now: u64) -> bool {
    !(OUTAGE.0..OUTAGE.1).contains(&now)
}

/// Whether a server takes a token.
pub(crate) fn is_accepted(issued: u64, now: u64) -> bool {
    now < issued + LIFETIME && !(issued < REVOCATION && now >= REVOCATION)
}

/// What happened in each second.
#[derive(Clone)]
pub(crate) struct Counts {
    /// Requests to the token endpoint.
    pub(crate) fetches: Vec<u32>,
    /// Requests that were not sent, for want of a token.
    pub(crate) failed: Vec<u32>,
    /// Requests that were answered with 401.
    pub(crate) rejected: Vec<u32>,
}

impl Counts {
    pub(crate) fn new() -> Self {
        let seconds = usize::try_from(END).unwrap_or(usize::MAX) + 60;
        Self {
            fetches: vec![0; seconds],
            failed: vec![0; seconds],
            rejected: vec![0; seconds],
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.fetches, &other.fetches),
            (&mut self.failed, &other.failed),
            (&mut self.rejected, &other.rejected),
        ] {
            for (mine, theirs) in mine.iter_mut().zip(theirs) {
                *mine += theirs;
            }
        }
    }
}

pub(crate) fn count(series: &mut [u32], second: u64) {
    if let Some(count) = usize::try_from(second)
        .ok()
        .and_then(|index| series.get_mut(index))
    {
        *count += 1;
    }
}

pub(crate) fn window(series: &[u32], (from, to): (u64, u64)) -> &[u32] {
    let index = |second: u64| {
        usize::try_from(second)
            .unwrap_or(usize::MAX)
            .min(series.len())
    };
    &series[index(from)..index(to)]
}

/// The most in one second, and the mean.
pub(crate) fn peak_and_mean(series: &[u32]) -> (f64, f64) {
    let peak = series.iter().copied().max().unwrap_or_default();
    let sum: f64 = series.iter().copied().map(f64::from).sum();
    let seconds = u32::try_from(series.len()).unwrap_or(u32::MAX).max(1);
    (f64::from(peak), sum / f64::from(seconds))
}
