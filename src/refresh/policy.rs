//! The numbers: when to refresh a token, when to stop serving it, and how long to back off.

use std::time::Duration;

/// A token is served for at least this long, however short its lifetime is.
const LEAST_SERVICE: Duration = Duration::from_secs(1);
/// Servers count whole seconds, so service ends at least this long before expiry, or a quarter of
/// the lifetime if that is less.
const LEAST_MARGIN: Duration = Duration::from_secs(1);
/// With no token to serve, the ceiling of the back-off is at most half the time that the outage has
/// lasted. This half counts as at least the first number, and as at most the second.
const OUTAGE_BACKOFF: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));
/// The wait after a permanent error, and the limit to which the wait doubles.
const PERMANENT_BACKOFF: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));

/// The settings of a source that fetches. For a token with a short lifetime, a fraction of the
/// lifetime takes the place of `refresh_ahead` and of `expiry_margin`.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// Refresh this long before service ends, or a fifth of the lifetime if that is less.
    pub(crate) refresh_ahead: Duration,
    /// Refresh even earlier, by a random part of the lifetime. This fraction is the largest part.
    pub(crate) refresh_jitter: f64,
    /// The same fraction for a token that did not come by a refresh ahead of time: the first token,
    /// and a token that came after a rejection or an outage. Many clients may have fetched at the
    /// same moment.
    pub(crate) startup_jitter: f64,
    /// Stop serving this long before expiry, or a twentieth of the lifetime if that is less.
    pub(crate) expiry_margin: Duration,
    /// Refresh at the latest this long after the token came, even if the token does not expire.
    pub(crate) refresh_every: Option<Duration>,
    /// From this long after the token came, requests wait for the refresh.
    pub(crate) wait_after: Option<Duration>,
    /// The ceiling of the first back-off. The ceiling doubles with each failure.
    pub(crate) backoff_first: Duration,
    /// The limit to which that ceiling doubles.
    pub(crate) backoff_max: Duration,
    /// Whether the user has set the back-off. Then the back-off is not shorter while there is no
    /// token to serve.
    pub(crate) backoff_is_users: bool,
    /// The time limit of a fetch.
    pub(crate) fetch_timeout: Duration,
    /// How long a request waits for a better token than the token that it could send.
    pub(crate) replacement_wait: Duration,
    /// The minimum time between two fetches that replace a rejected token, from the third fetch on.
    /// It doubles while every new token is rejected.
    pub(crate) rejection_backoff_first: Duration,
    /// The limit to which that time doubles.
    pub(crate) rejection_backoff_max: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            refresh_ahead: Duration::from_secs(15 * 60),
            refresh_jitter: 0.1,
            startup_jitter: 0.75,
            expiry_margin: Duration::from_secs(10),
            refresh_every: None,
            wait_after: None,
            backoff_first: Duration::from_millis(100),
            backoff_max: Duration::from_secs(30),
            backoff_is_users: false,
            fetch_timeout: Duration::from_secs(30),
            replacement_wait: Duration::from_secs(5),
            rejection_backoff_first: Duration::from_secs(10),
            rejection_backoff_max: Duration::from_secs(5 * 60),
        }
    }
}

/// When a token is refreshed and when its service ends, counted from the moment when it came.
/// `None`: never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    pub(crate) refresh_after: Option<Duration>,
    pub(crate) serve_for: Option<Duration>,
}

/// The failures so far, which decide the length of the back-off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outage {
    /// The number of failures in a row.
    pub(crate) failures: u32,
    /// How many failures in a row, up to the last, were permanent.
    pub(crate) permanent: u32,
    /// From the first failure to the last.
    pub(crate) lasted: Duration,
    /// The wait that the error of the fetch asks for, which `SourceError::with_retry_after` limits.
    pub(crate) retry_after: Option<Duration>,
    /// From 0 to 1.
    pub(crate) random: f64,
}

impl Policy {
    /// When to refresh a token and when to stop serving it. `jitter` is the part of the lifetime by
    /// which the refresh comes earlier.
    pub(crate) fn schedule(&self, lifetime: Option<Duration>, jitter: f64) -> Schedule {
        let expires = lifetime.map(|lifetime| {
            let margin = self.expiry_margin.min(lifetime / 20);
            let margin = margin.max(LEAST_MARGIN.min(lifetime / 4));
            let serve = lifetime.saturating_sub(margin).max(LEAST_SERVICE);
            let refresh = serve
                .saturating_sub(self.refresh_ahead.min(lifetime / 5))
                .saturating_sub(fraction_of(lifetime, jitter))
                .max(LEAST_SERVICE);
            (refresh, serve)
        });
        let ahead = expires.map(|(refresh, _)| refresh);
        Schedule {
            refresh_after: ahead.into_iter().chain(self.refresh_every).min(),
            serve_for: expires.map(|(_, serve)| serve),
        }
    }

    /// How long to wait after a failure. Unless the error is permanent, the wait has full jitter: it
    /// is a random part of a ceiling that doubles with each failure in a row.
    pub(crate) fn backoff(&self, outage: Outage, has_token: bool) -> Duration {
        let floor = outage.retry_after.unwrap_or_default();
        if outage.permanent > 0 {
            let (first, max) = PERMANENT_BACKOFF;
            return doubled(first, outage.permanent, max).max(floor);
        }
        let mut ceiling = doubled(self.backoff_first, outage.failures, self.backoff_max);
        if !has_token && !self.backoff_is_users {
            let (least, most) = OUTAGE_BACKOFF;
            ceiling = ceiling.min((outage.lasted / 2).clamp(least, most));
        }
        fraction_of(ceiling, outage.random).max(floor)
    }

    /// The minimum time before the next replacement of a rejected token, after `replacements` in a
    /// row. The first two replacements are immediate.
    pub(crate) fn rejection_backoff(&self, replacements: u32) -> Option<Duration> {
        let doublings = replacements.checked_sub(1).filter(|&spaced| spaced > 0)?;
        let (first, max) = (self.rejection_backoff_first, self.rejection_backoff_max);
        Some(doubled(first, doublings, max))
    }

    /// When to refresh a token that had expired when it came, if `arrivals` tokens in a row had
    /// expired.
    pub(crate) fn unjudged(&self, arrivals: u32) -> Duration {
        let (first, max) = (self.rejection_backoff_first, self.rejection_backoff_max);
        doubled(first, arrivals, max)
    }
}

/// `first`, doubled `nth - 1` times, up to `max`.
fn doubled(first: Duration, nth: u32, max: Duration) -> Duration {
    let doublings = nth.saturating_sub(1).min(31);
    first.saturating_mul(1 << doublings).min(max)
}

/// A part of `whole`: at least zero and at most `whole`, whatever `fraction` is. `mul_f64` would
/// panic.
fn fraction_of(whole: Duration, fraction: f64) -> Duration {
    let part = whole.as_secs_f64() * fraction.max(0.0);
    Duration::try_from_secs_f64(part).map_or(whole, |part| part.min(whole))
}
