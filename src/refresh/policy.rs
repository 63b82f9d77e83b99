//! When to refresh, when to stop serving, and how long to back off: the numbers, and nothing else.

use std::time::Duration;

/// A token is served for this long at least, however short it lives.
const LEAST_SERVICE: Duration = Duration::from_secs(1);
/// Servers count whole seconds, so service ends this long before expiry at least, or a quarter of the
/// lifetime if that is less.
const LEAST_MARGIN: Duration = Duration::from_secs(1);
/// With no token to serve, the back-off is half the outage, but within these limits.
const OUTAGE_BACKOFF: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));
/// After permanent errors: the first wait, and the limit to which it doubles.
const PERMANENT_BACKOFF: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));
/// No server keeps the source waiting for longer.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(15 * 60);

/// The settings of a source that fetches. Durations that depend on a token's lifetime are a
/// fraction of it, with a ceiling.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// Refresh this long before service ends, or a fifth of the lifetime if that is less.
    pub(crate) refresh_ahead: Duration,
    /// Refresh earlier than that by a random part of the lifetime, up to this fraction.
    pub(crate) refresh_jitter: f64,
    /// The same for a token that did not come by a refresh ahead of time: the first token, and a token
    /// that came after a rejection or an outage. Many clients may have got theirs at that moment.
    pub(crate) startup_jitter: f64,
    /// Stop serving this long before expiry, or a twentieth of the lifetime if that is less.
    pub(crate) expiry_margin: Duration,
    /// Refresh this long after the token came, whether or not it expires.
    pub(crate) refresh_every: Option<Duration>,
    /// Have requests wait for the refresh this long after the token came.
    pub(crate) wait_after: Option<Duration>,
    /// The ceiling of the first back-off; it doubles with each failure.
    pub(crate) backoff_first: Duration,
    /// The ceiling of every back-off.
    pub(crate) backoff_max: Duration,
    /// Whether the user has set the back-off, which then holds also with no token to serve.
    pub(crate) backoff_is_users: bool,
    /// Give a fetch up after this long.
    pub(crate) fetch_timeout: Duration,
    /// How long a request that has a token to send waits for a better token.
    pub(crate) replacement_wait: Duration,
    /// Between two fetches that replace a rejected token, from the third on, at least this long; doubles
    /// while each new token is rejected as well.
    pub(crate) rejection_backoff_first: Duration,
    /// The ceiling of that time.
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

/// How long after it came a token is refreshed and no longer served. `None`: never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    pub(crate) refresh_after: Option<Duration>,
    pub(crate) serve_for: Option<Duration>,
}

/// What is known when a fetch has failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outage {
    /// Failures in a row, of which the last so many were permanent.
    pub(crate) failures: u32,
    pub(crate) permanent: u32,
    /// From the first failure to the last.
    pub(crate) lasted: Duration,
    /// What the server asked for.
    pub(crate) retry_after: Option<Duration>,
    /// From 0 to 1.
    pub(crate) random: f64,
}

impl Policy {
    /// `jitter` is the part of the lifetime by which the refresh comes earlier.
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

    /// How long to wait after a failure. Full jitter: anything from nothing to a ceiling that doubles
    /// with each failure in a row.
    pub(crate) fn backoff(&self, outage: Outage, has_token: bool) -> Duration {
        let floor = outage
            .retry_after
            .unwrap_or_default()
            .min(LONGEST_RETRY_AFTER);
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

    /// The time between two replacements of a rejected token, of which `replacements` came in a row. The
    /// first two are immediate.
    pub(crate) fn rejection_backoff(&self, replacements: u32) -> Option<Duration> {
        let doublings = replacements.checked_sub(1).filter(|&spaced| spaced > 0)?;
        let (first, max) = (self.rejection_backoff_first, self.rejection_backoff_max);
        Some(doubled(first, doublings, max))
    }

    /// How long a token is used that was expired when it came, `arrivals` times in a row.
    pub(crate) fn unjudged(&self, arrivals: u32) -> Duration {
        let (first, max) = (self.rejection_backoff_first, self.rejection_backoff_max);
        doubled(first, arrivals, max)
    }
}

/// `first`, then twice that, and so on up to `max`.
fn doubled(first: Duration, time: u32, max: Duration) -> Duration {
    let doublings = time.saturating_sub(1).min(31);
    first.saturating_mul(1 << doublings).min(max)
}

/// From nothing to the whole, whatever `fraction` is: `mul_f64` would panic.
fn fraction_of(whole: Duration, fraction: f64) -> Duration {
    let part = whole.as_secs_f64() * fraction.max(0.0);
    Duration::try_from_secs_f64(part).map_or(whole, |part| part.min(whole))
}
