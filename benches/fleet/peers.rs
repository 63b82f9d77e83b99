//! The policies of other libraries, in the shortest form. The retries of their HTTP clients, which would
//! add to the peaks, are left out.

use crate::world::{CLIENTS, Counts, Incident, LATENCY, LIFETIME, Requests, SECOND, count};

/// Refreshes at the first request after a fixed time before expiry. The request waits for the refresh.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// How long before expiry a refresh is due.
    ahead: u64,
    /// The refresh comes later by a random part of `ahead`, up to this fraction.
    jitter: f64,
    /// What a request gets if the refresh fails and the old token has not expired.
    on_failure: OnFailure,
    on_401: On401,
}

#[derive(Clone, Copy, PartialEq)]
enum OnFailure {
    OldToken,
    Error,
}

#[derive(Clone, Copy, PartialEq)]
enum On401 {
    RefreshAndResend,
    Nothing,
}

pub(crate) const PEERS: [Peer; 4] = [
    // Go, golang.org/x/oauth2, token.go: `expiryDelta`. `ReuseTokenSource` returns the error of a
    // refresh, and does not hear of a 401.
    Peer {
        name: "Go oauth2: 10 s",
        ahead: 10 * SECOND,
        jitter: 0.0,
        on_failure: OnFailure::Error,
        on_401: On401::Nothing,
    },
    // Python, google-auth: `REFRESH_THRESHOLD` is 3:45 min. `before_request` refreshes, and raises the
    // error of the refresh. `AuthorizedSession` refreshes on a 401 and sends the request again.
    Peer {
        name: "Google auth: 225 s",
        ahead: 225 * SECOND,
        jitter: 0.0,
        on_failure: OnFailure::Error,
        on_401: On401::RefreshAndResend,
    },
    // Rust, azure_core, bearer_token_policy.rs: `should_refresh`. While the token is valid, an error
    // is ignored, and each request tries again.
    Peer {
        name: "Azure core: 300 s",
        ahead: 300 * SECOND,
        jitter: 0.0,
        on_failure: OnFailure::OldToken,
        on_401: On401::Nothing,
    },
    // Rust, aws-smithy-runtime, identity/cache/lazy.rs: `DEFAULT_BUFFER_TIME` is 10 s. The refresh comes
    // later by a random part of this time, up to a half.
    Peer {
        name: "AWS smithy: 10 s, jitter",
        ahead: 10 * SECOND,
        jitter: 0.5,
        on_failure: OnFailure::Error,
        on_401: On401::Nothing,
    },
];

impl Peer {
    pub(crate) fn simulate(&self, incident: Incident) -> Counts {
        let mut counts = Counts::default();
        for number in 0..CLIENTS {
            let mut client = Client {
                peer: self,
                incident,
                random: fastrand::Rng::with_seed(!number),
                issued: None,
                refresh_at: 0,
            };
            let mut requests = Requests::new(number);
            while requests.at() < incident.window().1 {
                let quiet_until = client.request(requests.at(), &mut counts);
                requests.advance(quiet_until);
            }
        }
        counts
    }
}

struct Client<'a> {
    peer: &'a Peer,
    incident: Incident,
    random: fastrand::Rng,
    issued: Option<u64>,
    refresh_at: u64,
}

impl Client<'_> {
    /// Sends a request. Gives the moment before which no further request changes anything.
    fn request(&mut self, now: u64, counts: &mut Counts) -> u64 {
        let refreshed = now < self.refresh_at || self.refresh(now, counts);
        let is_usable = |issued: &u64| {
            refreshed || (self.peer.on_failure == OnFailure::OldToken && now < issued + LIFETIME)
        };
        match self.issued.filter(is_usable) {
            None => count(&mut counts.failed, now),
            Some(issued) if !self.incident.accepts(issued, now) => {
                count(&mut counts.rejected, now);
                if self.peer.on_401 == On401::RefreshAndResend && !self.refresh(now, counts) {
                    count(&mut counts.failed, now);
                }
            }
            Some(_) => return self.incident.before_revocation(now, self.refresh_at),
        }
        now
    }

    fn refresh(&mut self, now: u64, counts: &mut Counts) -> bool {
        count(&mut counts.fetches, now);
        let is_up = self.incident.endpoint_is_up(now);
        if is_up {
            let issued = now + LATENCY;
            self.issued = Some(issued);
            self.refresh_at = issued + LIFETIME - self.peer.ahead + self.delay();
        }
        is_up
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss
    )]
    fn delay(&mut self) -> u64 {
        (self.peer.ahead as f64 * self.peer.jitter * self.random.f64()) as u64
    }
}
