//! The policies of others, as small as they can be said.

use crate::world::{
    CLIENTS, Counts, END, LIFETIME, REQUEST_EVERY, count, endpoint_is_up, is_accepted,
};

/// Refreshes a fixed time before expiry, when a request comes. If that fails, the old token is used
/// until it expires, and the next request tries again.
pub(crate) struct Fixed {
    pub(crate) name: &'static str,
    /// Seconds before expiry.
    pub(crate) ahead: u64,
    /// How much of `ahead` is taken off at random, up to this fraction.
    pub(crate) jitter: f64,
    /// Whether a 401 leads to a fetch.
    pub(crate) heeds_401: bool,
}

pub(crate) const PEERS: [Fixed; 4] = [
    // golang.org/x/oauth2, `expiryDelta`. A 401 is the caller's affair.
    Fixed {
        name: "Go oauth2: 10 s",
        ahead: 10,
        jitter: 0.0,
        heeds_401: false,
    },
    // google-auth, `REFRESH_THRESHOLD` of 3:45 min; its sessions refresh on a 401.
    Fixed {
        name: "Google: 225 s",
        ahead: 225,
        jitter: 0.0,
        heeds_401: true,
    },
    // azure-core's bearer token policy: 5 min.
    Fixed {
        name: "Azure: 300 s",
        ahead: 300,
        jitter: 0.0,
        heeds_401: false,
    },
    // aws-smithy-runtime's identity cache: a buffer of 10 s, of which a random part of up to half
    // is taken off.
    Fixed {
        name: "smithy: 10 s, jitter",
        ahead: 10,
        jitter: 0.5,
        heeds_401: false,
    },
];

impl Fixed {
    pub(crate) fn simulate(&self) -> Counts {
        let mut counts = Counts::new();
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..CLIENTS {
            self.simulate_one(&mut counts, &mut random);
        }
        counts
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss
    )]
    fn refresh_at(&self, issued: u64, random: &mut fastrand::Rng) -> u64 {
        let less = self.ahead as f64 * self.jitter * random.f64();
        issued + LIFETIME - self.ahead + less as u64
    }

    fn simulate_one(&self, counts: &mut Counts, random: &mut fastrand::Rng) {
        count(&mut counts.fetches, 0);
        let mut issued = 0;
        let mut refresh_at = self.refresh_at(issued, random);
        let mut rejected = false;
        let mut now = random.u64(0..REQUEST_EVERY);
        while now < END {
            if now >= refresh_at || (rejected && self.heeds_401) {
                count(&mut counts.fetches, now);
                if endpoint_is_up(now) {
                    issued = now;
                    rejected = false;
                    refresh_at = self.refresh_at(issued, random);
                }
            }
            if now >= issued + LIFETIME {
                count(&mut counts.failed, now);
            } else if !is_accepted(issued, now) {
                rejected = true;
                count(&mut counts.rejected, now);
            }
            now += REQUEST_EVERY;
        }
    }
}
