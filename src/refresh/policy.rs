//! When to refresh, when to stop serving, and how long to back off: the numbers, and nothing else.

use std::time::Duration;

/// The settings of a source that fetches. Durations that depend on a token's lifetime are a
/// fraction of it, with a ceiling.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// Refresh at the latest this long before expiry, or a fifth of the lifetime if that is less.
    pub(crate) refresh_ahead: Duration,
    /// Refresh earlier than that by a random part of the lifetime, up to this fraction.
    pub(crate) refresh_jitter: f64,
    /// The same for a token that did not come by a refresh ahead of time: the first, and one after
    /// a rejection or an outage. Many clients may have got theirs at that moment.
    pub(crate) startup_jitter: f64,
    /// Stop serving this long before expiry, or a twentieth of the lifetime if that is less.
    pub(crate) expiry_margin: Duration,
    /// Refresh this long after the token came, whether or not it expires.
    pub(crate) refresh_every: Option<Duration>,
    /// The ceiling of the first back-off; it doubles with each failure.
    pub(crate) backoff_first: Duration,
    /// The ceiling of every back-off.
    pub(crate) backoff_max: Duration,
    /// Give a fetch up after this long.
    pub(crate) fetch_timeout: Duration,
    /// Between two fetches that replace a rejected token, at least this long; doubles while each
    /// new token is rejected, too.
    pub(crate) rejection_backoff_first: Duration,
    /// The ceiling of that.
    pub(crate) rejection_backoff_max: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            refresh_ahead: Duration::from_secs(5 * 60),
            refresh_jitter: 0.1,
            startup_jitter: 0.1,
            expiry_margin: Duration::from_secs(10),
            refresh_every: None,
            backoff_first: Duration::from_millis(100),
            backoff_max: Duration::from_secs(30),
            fetch_timeout: Duration::from_secs(30),
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

impl Policy {
    /// `jitter` is the part of the lifetime by which the refresh comes earlier.
    pub(crate) fn schedule(&self, lifetime: Option<Duration>, jitter: f64) -> Schedule {
        let expires = lifetime.map(|lifetime| {
            let ahead = self.refresh_ahead.min(lifetime / 5);
            let jitter = fraction_of(lifetime, jitter);
            let refresh = lifetime.saturating_sub(ahead).saturating_sub(jitter);
            let serve = lifetime.saturating_sub(self.expiry_margin.min(lifetime / 20));
            (refresh.min(serve), serve)
        });
        let ahead = expires.map(|(refresh, _)| refresh);
        Schedule {
            refresh_after: ahead.into_iter().chain(self.refresh_every).min(),
            serve_for: expires.map(|(_, serve)| serve),
        }
    }

    /// Full jitter: anything from nothing to a ceiling that doubles with each failure in a row.
    pub(crate) fn backoff(&self, failures: u32, random: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let ceiling = self.backoff_first.saturating_mul(1 << doublings);
        fraction_of(ceiling.min(self.backoff_max), random)
    }
}

/// From nothing to the whole, whatever `fraction` is: `mul_f64` would panic.
fn fraction_of(whole: Duration, fraction: f64) -> Duration {
    let part = whole.as_secs_f64() * fraction.max(0.0);
    Duration::try_from_secs_f64(part).map_or(whole, |part| part.min(whole))
}
