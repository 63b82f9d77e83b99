//! The machine and the fetch under way: [`State`].

use std::time::{Duration, Instant};

use super::{
    answer::{self, Arrival, Failure, FetchId, Now},
    flight::{Flight, Told},
    machine::Machine,
};
use crate::{
    error::SourceError,
    sign_in::{SignIn, SignIns},
    token::BearerToken,
};

/// Everything that the lock of the engine guards.
pub(super) struct State {
    pub(super) machine: Machine<BearerToken, SourceError>,
    pub(super) under_way: Option<UnderWay>,
    pub(super) random: fastrand::Rng,
    pub(super) sign_ins: SignIns,
}

/// Values that the machine displaced. Drop them without the lock.
pub(super) type Displaced = answer::Displaced<BearerToken, SourceError>;

/// The fetch under way. This value and the machine change together, under the lock.
#[derive(Clone)]
pub(super) struct UnderWay {
    pub(super) id: FetchId,
    pub(super) flight: Flight,
}

/// A fetch to listen to, and how long to listen.
pub(super) struct Awaited {
    pub(super) id: FetchId,
    /// The waiter wants a token of this sign-in.
    pub(super) sign_in: SignIn,
    pub(super) flight: Flight,
    /// Taken under the lock of the engine, so that the waiter misses nothing before it listens.
    pub(super) told: Told,
    /// When to stop, on the runtime's clock.
    pub(super) until: Instant,
    pub(super) at_most: Duration,
}

impl State {
    pub(super) fn take_flight(&mut self, id: FetchId) -> Option<Flight> {
        let under_way = self.under_way.take_if(|fetch| fetch.id == id)?;
        Some(under_way.flight)
    }

    /// Tells the machine how a fetch ended. Gives the result for the waiters. `None` if the waiters
    /// have to ask again: the fetch was void, or its token came late and is not held.
    pub(super) fn arrive(
        &mut self,
        now: Now,
        id: FetchId,
        result: Result<BearerToken, SourceError>,
        lifetime: Option<Duration>,
    ) -> (Option<Result<BearerToken, SourceError>>, Displaced) {
        let random = self.random.f64();
        let error = match result {
            Err(error) => error,
            Ok(token) if token.is_rejected() => {
                // The data of a token that was signed out would bring its account back.
                let unused = if token.is_signed_out() {
                    Some(token)
                } else {
                    self.machine.remember(id, token)
                };
                let (error, mut displaced) = self.fail(now, id, SourceError::fetched_rejected());
                displaced.tokens.extend(unused);
                return (error.map(Err), displaced);
            }
            Ok(token) => {
                if !self.machine.is_void(id) {
                    token.belongs_to(&self.sign_ins.current());
                }
                let held = token.clone();
                let rejected = BearerToken::is_rejected;
                let (arrival, displaced) = self
                    .machine
                    .fetched(now, id, held, lifetime, rejected, random);
                match arrival {
                    Arrival::Held | Arrival::Late { held: true } => {
                        return (Some(Ok(token)), displaced);
                    }
                    Arrival::Void | Arrival::Late { held: false } => return (None, displaced),
                    Arrival::Expired => SourceError::fetched_expired(),
                }
            }
        };
        let (error, displaced) = self.fail(now, id, error);
        (error.map(Err), displaced)
    }

    /// Tells the machine that a fetch failed. Gives the error for the waiters, or `None` if the
    /// fetch was void.
    pub(super) fn fail(
        &mut self,
        now: Now,
        id: FetchId,
        error: SourceError,
    ) -> (Option<SourceError>, Displaced) {
        let counts = self.machine.is_under_way(id) && !self.machine.is_void(id);
        let failure = Failure {
            retry_after: error.retry_after(),
            permanent: error.is_permanent(),
            error: error.clone(),
        };
        let random = self.random.f64();
        let displaced = self.machine.failed(now, id, failure, random);
        (counts.then_some(error), displaced)
    }
}

impl UnderWay {
    pub(super) fn until(&self, until: Instant, now: Now, sign_in: SignIn) -> Awaited {
        Awaited {
            id: self.id,
            sign_in,
            flight: self.flight.clone(),
            told: self.flight.told(),
            until,
            at_most: until.saturating_duration_since(now.monotonic),
        }
    }
}
