//! The engine behind [`RefreshingToken`](crate::RefreshingToken) and
//! [`FileToken`](crate::FileToken), the two sources that fetch.
//!
//! `machine` decides what happens: `policy` has its numbers, `held` its token and `throttle` its
//! delays. `answer` has the types that go into the machine and come out of it. `engine` carries the
//! decisions out, `state` is what the engine's lock guards, and `served` is the fast path.
//!
//! A single task owns a fetch, and all waiters listen to the fetch. `attempt` is the fetch with its
//! time limit, `owner` is the task that polls the attempt, `flight` lets many requests wait for the
//! fetch, and `wait` is the wait of a single request. `keep_fresh` fetches without requests.
//!
//! `contain` catches the panics of foreign code, `recursion` finds a fetch that waits for itself,
//! and `waiters` keeps wakers.

mod answer;
pub(crate) mod attempt;
mod contain;
mod engine;
mod flight;
mod held;
mod keep_fresh;
mod machine;
mod owner;
pub(crate) mod policy;
pub(crate) mod recursion;
mod served;
mod state;
mod throttle;
mod wait;
pub(crate) mod waiters;

use std::{future::Future, sync::Arc};

pub(crate) use self::answer::Status;
#[cfg(test)]
pub(crate) use self::served::COARSE_CLOCK_LAG;
use self::{
    attempt::FetchFn,
    engine::{Core, Step, Wanted},
    keep_fresh::KeepFresh,
    policy::Policy,
    wait::Wait,
};
use crate::{error::SourceError, runtime::Runtime, source::TokenFuture, token::BearerToken};

/// A handle on a source that fetches.
#[derive(Clone)]
pub(crate) struct Refresher {
    core: Arc<Core>,
}

impl Refresher {
    pub(crate) fn new(
        policy: Policy,
        runtime: Arc<dyn Runtime>,
        fetch_fn: FetchFn,
        random: fastrand::Rng,
    ) -> Self {
        let core = Core::new(policy, runtime, fetch_fn, random);
        Self {
            core: Arc::new(core),
        }
    }

    /// Starts with a token that no fetch gave. An expired token is not served, but the first fetch
    /// gets it.
    pub(crate) fn hold(&self, token: BearerToken) {
        self.core.hold(token);
    }

    /// The token to use now. With a token at hand, costs what
    /// [`Served::token`](served::Served::token) costs.
    #[inline]
    pub(crate) fn token(&self) -> TokenFuture {
        match self.core.served() {
            Some(token) => token.into(),
            None => self.begin(Wanted::Token),
        }
    }

    /// Fetches a token now, or joins the fetch that is under way.
    pub(crate) fn refresh(&self) -> TokenFuture {
        self.begin(Wanted::NewToken)
    }

    #[cold]
    fn begin(&self, wanted: Wanted) -> TokenFuture {
        match self.core.step(wanted, None, None) {
            Step::Done(result) => TokenFuture::ready(result),
            Step::Wait(awaited) => {
                TokenFuture::boxed(Wait::new(Arc::clone(&self.core), wanted, awaited))
            }
        }
    }

    /// Rejects the held token and forgets it. The waiters of a fetch get an error.
    pub(crate) fn invalidate(&self) {
        self.core.invalidate();
    }

    /// The token that may be served now, rejected or not.
    pub(crate) fn usable(&self) -> Option<BearerToken> {
        self.core.usable()
    }

    pub(crate) fn status(&self) -> Status<SourceError> {
        self.core.status()
    }

    /// Keeps the token fresh until the last handle is gone.
    pub(crate) fn keep_fresh(&self) -> impl Future<Output = ()> + Send + use<> {
        KeepFresh::new(&self.core)
    }
}
