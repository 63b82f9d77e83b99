//! Simulates our policy: 100,000 real `RefreshingToken`s in virtual time.

use std::{
    mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tower_bearer::{
    BearerToken, RefreshingToken, Runtime, SourceError, SourceErrorKind, TokenSource,
};

use crate::{
    clock::{Clock, lock},
    world::{Counts, Incident, LATENCY, LIFETIME, Requests, count},
};

/// Which requests ask their source for a token.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Requested {
    Each,
    /// Without the requests that come while the token is too young to be refreshed, whatever the random
    /// number is. Such a request is served at once and changes nothing.
    ThatMayMatter,
}

struct Fleet {
    clock: Clock,
    incident: Incident,
    requested: Requested,
    counts: Mutex<Counts>,
}

/// What the fetches of a client tell the requests of this client.
#[derive(Default)]
struct Client {
    /// No refresh begins before this moment.
    quiet_until: AtomicU64,
    /// Whether the last fetch succeeded, and no server has rejected its token. Then the next token has the
    /// smaller jitter.
    steady: AtomicBool,
}

pub(crate) fn simulate(clients: u64, incident: Incident, requested: Requested) -> Counts {
    let clock = Clock::new();
    let fleet = Arc::new(Fleet {
        clock: clock.clone(),
        incident,
        requested,
        counts: Mutex::default(),
    });
    for client in 0..clients {
        let run = Arc::clone(&fleet).run_client(client);
        // The clock takes every task.
        let _taken = clock.spawn(Box::pin(run));
    }
    clock.run();
    mem::take(&mut *lock(&fleet.counts))
}

impl Fleet {
    async fn run_client(self: Arc<Self>, number: u64) {
        let client = Arc::new(Client::default());
        let source = self.source(&client, number);
        let mut requests = Requests::new(number);
        while requests.at() < self.incident.window().1 {
            self.clock.sleep_until(requests.at()).await;
            let token = source.token().await;
            self.send(&client, token);
            let quiet_until = match self.requested {
                Requested::Each => 0,
                Requested::ThatMayMatter => client.quiet_until.load(Ordering::Relaxed),
            };
            let now = self.clock.millis();
            requests.advance(self.incident.before_revocation(now, quiet_until));
        }
    }

    fn source(self: &Arc<Self>, client: &Arc<Client>, number: u64) -> RefreshingToken {
        let (fleet, client) = (Arc::clone(self), Arc::clone(client));
        let fetch = move || Arc::clone(&fleet).fetch(Arc::clone(&client));
        RefreshingToken::builder(fetch)
            .runtime(self.clock.clone())
            .random_seed(!number)
            .build()
    }

    async fn fetch(self: Arc<Self>, client: Arc<Client>) -> Result<BearerToken, SourceError> {
        let begun = self.clock.millis();
        count(&mut lock(&self.counts).fetches, begun);
        self.clock.sleep(Duration::from_millis(LATENCY)).await;
        if !self.incident.endpoint_is_up(begun) {
            client.steady.store(false, Ordering::Relaxed);
            return Err(SourceError::new(SourceErrorKind::Failed, "503"));
        }
        let now = self.clock.millis();
        let steady = client.steady.swap(true, Ordering::Relaxed);
        let quiet_until = now + quiet_for(steady);
        client.quiet_until.store(quiet_until, Ordering::Relaxed);
        let token = BearerToken::new("7Fjfp0ZBr1KtDRbnfVdmIw")?;
        Ok(token.expires_at(self.clock.now() + Duration::from_millis(LIFETIME)))
    }

    /// Sends a request to a server that may reject the token.
    fn send(&self, client: &Client, token: Result<BearerToken, SourceError>) {
        let now = self.clock.millis();
        let Ok(token) = token else {
            return count(&mut lock(&self.counts).failed, now);
        };
        let expiry = token.expiry().map_or(0, |at| self.clock.millis_at(at));
        if !self.incident.accepts(expiry - LIFETIME, now) {
            token.reject();
            count(&mut lock(&self.counts).rejected, now);
            client.steady.store(false, Ordering::Relaxed);
            client.quiet_until.store(0, Ordering::Relaxed);
        }
    }
}

/// How long after it came a token is not refreshed, whatever the random number is.
fn quiet_for(steady: bool) -> u64 {
    const MARGIN: u64 = 10_000;

    let jitter = if steady {
        LIFETIME / 10
    } else {
        LIFETIME * 3 / 4
    };
    LIFETIME - MARGIN - LIFETIME / 5 - jitter
}
