//! What carries the machine's decisions out: it holds the token, runs the fetch, and lets callers
//! wait for it.
//!
//! One lock guards the machine and the token. It is held to decide and to store, never while
//! anything is polled, spawned or awaited. The hot path does not take it.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures::{
    channel::oneshot,
    future::{BoxFuture, FutureExt},
};

use super::{
    attempt::{Fetch, attempt},
    flight::Flight,
    machine::{Answer, FetchId, Machine, Now, Refusal},
    policy::Policy,
    served::Served,
};
use crate::{
    error::SourceError,
    runtime::Runtime,
    source::TokenFuture,
    sync::{Mutex, MutexGuard},
    token::BearerToken,
    trace,
};

/// A source that fetches. A clone is another handle; the last one stops what runs in the background.
#[derive(Clone)]
pub(crate) struct Engine {
    core: Arc<Core>,
}

struct Core {
    served: Served,
    runtime: Arc<dyn Runtime>,
    fetch: Arc<Fetch>,
    fetch_timeout: Duration,
    state: Mutex<State>,
}

struct State {
    machine: Machine<BearerToken, SourceError>,
    under_way: Option<UnderWay>,
    random: fastrand::Rng,
}

/// The fetch under way.
struct UnderWay {
    id: FetchId,
    fetch: Flight<Result<BearerToken, SourceError>>,
    /// Gone when nobody polls the fetch of his own accord. Then the next caller sees to it.
    driver: Weak<Driver>,
    /// Ends the fetch when it is dropped.
    _cancel: oneshot::Sender<()>,
}

/// Held by the background task, or by the one caller who drives the fetch.
struct Driver;

/// A fetch that is to be driven, in the background or else by the caller.
struct Duty {
    fetch: Flight<Result<BearerToken, SourceError>>,
    driver: Arc<Driver>,
}

/// A fetch to wait for, and what is held meanwhile by who drives it.
type Wait = (
    Flight<Result<BearerToken, SourceError>>,
    Option<Arc<Driver>>,
);

enum Decision {
    Token(BearerToken),
    Wait(Flight<Result<BearerToken, SourceError>>),
    Fail(SourceError),
}

impl Engine {
    pub(crate) fn new(
        policy: Policy,
        runtime: Arc<dyn Runtime>,
        fetch: Arc<Fetch>,
        random: fastrand::Rng,
    ) -> Self {
        Self {
            core: Arc::new(Core {
                served: Served::nothing(),
                runtime,
                fetch,
                fetch_timeout: policy.fetch_timeout,
                state: Mutex::new(State {
                    machine: Machine::new(policy),
                    under_way: None,
                    random,
                }),
            }),
        }
    }

    /// Starts with a token, as if it had been fetched now.
    pub(crate) fn hold(&self, token: BearerToken) {
        let mut guard = self.core.lock();
        let state = &mut *guard;
        let (now, expiry) = (self.core.now(), token.expiry());
        state.machine.hold(now, token, expiry, state.random.f64());
        self.core.served.withdraw();
    }

    /// The token to use now. With one at hand: one lock-free load, one read of a coarse clock, one
    /// comparison and one reference count.
    #[inline]
    pub(crate) fn token(&self) -> TokenFuture {
        if let Some(token) = self.core.served.token(&*self.core.runtime) {
            return token.into();
        }
        self.ask()
    }

    #[cold]
    fn ask(&self) -> TokenFuture {
        match self.result_or_wait() {
            Ok(result) => TokenFuture::ready(result),
            Err(wait) => self.wait(wait),
        }
    }

    fn result_or_wait(&self) -> Result<Result<BearerToken, SourceError>, Wait> {
        let (decision, duty) = self.core.decide();
        let duty = duty.and_then(|duty| duty.delegate(&*self.core.runtime));
        match (decision, duty) {
            (Decision::Fail(error), _) => {
                trace::backing_off(error.kind(), error.retry_after());
                Ok(Err(error))
            }
            (Decision::Token(token), None) => Ok(Ok(token)),
            // Nothing runs in the background, so one caller has to wait although there is a token.
            (Decision::Token(_), Some(duty)) => Err((duty.fetch, Some(duty.driver))),
            (Decision::Wait(fetch), duty) => Err((fetch, duty.map(|duty| duty.driver))),
        }
    }

    fn wait(&self, mut wait: Wait) -> TokenFuture {
        // The wait keeps the source alive: a service may be dropped while its last request waits.
        let engine = self.clone();
        TokenFuture::boxed(async move {
            loop {
                let (fetch, driver) = wait;
                let result = fetch.await;
                drop(driver);
                match result {
                    Ok(token) if engine.core.is_good(&token) => return Ok(token),
                    // It is over since: the waiter was not polled for so long. Not `token`, whose
                    // wait would be within this one, and so on.
                    Ok(_) => match engine.result_or_wait() {
                        Ok(result) => return result,
                        Err(next) => wait = next,
                    },
                    Err(error) => return engine.core.usable().ok_or(error),
                }
            }
        })
    }

    /// Fetches a token now, or joins the fetch that is under way.
    pub(crate) fn refresh(&self) -> TokenFuture {
        let (fetch, duty) = self.core.refresh();
        let duty = duty.and_then(|duty| duty.delegate(&*self.core.runtime));
        let engine = self.clone();
        TokenFuture::boxed(async move {
            let result = fetch.await;
            drop(duty);
            match result {
                Ok(token) if !engine.core.is_good(&token) => engine.token().await,
                result => result,
            }
        })
    }

    /// Forgets the token.
    pub(crate) fn invalidate(&self) {
        // Dropped after the lock is free, since it holds the user's error.
        let _last_error;
        let mut state = self.core.lock();
        _last_error = state.machine.last_error();
        state.machine.invalidate();
        self.core.served.withdraw();
    }

    /// The token that may be served now, rejected or not.
    pub(crate) fn usable(&self) -> Option<BearerToken> {
        self.core.usable()
    }
}

impl Duty {
    /// Has the fetch driven in the background. Gives it back if the runtime cannot.
    fn delegate(self, runtime: &dyn Runtime) -> Option<Self> {
        let Self { fetch, driver } = self;
        let (background, held) = (fetch.clone(), Arc::clone(&driver));
        let task = async move {
            let _result = background.await;
            drop(held);
        };
        match runtime.spawn(task.boxed()) {
            Ok(()) => None,
            Err(_) => Some(Self { fetch, driver }),
        }
    }
}

impl Core {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Read under the lock, so that the machine never sees time go back.
    fn now(&self) -> Now {
        Now {
            monotonic: self.runtime.now(),
            wall: self.runtime.system_now(),
        }
    }

    /// Whether it is the token that is held, and may be served.
    fn is_good(&self, token: &BearerToken) -> bool {
        !token.is_rejected() && self.usable().is_some_and(|held| held.is_same(token))
    }

    fn usable(&self) -> Option<BearerToken> {
        let mut state = self.lock();
        let now = self.now();
        state.machine.usable(now).cloned()
    }

    fn decide(self: &Arc<Self>) -> (Decision, Option<Duty>) {
        // Dropped after the lock is free, since it holds the user's future and error.
        let _given_up;
        let mut guard = self.lock();
        let state = &mut *guard;
        let now = self.now();
        _given_up = self.give_up_overdue(state, now);
        match state.machine.ask(now, BearerToken::is_rejected) {
            Answer::Serve {
                token,
                until,
                despite_rejection,
                fetch,
            } => {
                self.served.publish(token.clone(), until, despite_rejection);
                let duty = fetch.and_then(|id| self.see_to(state, id).1);
                (Decision::Token(token), duty)
            }
            Answer::Wait { fetch } => {
                self.served.withdraw();
                let (fetch, duty) = self.see_to(state, fetch);
                (Decision::Wait(fetch), duty)
            }
            Answer::BackOff { error, retry_in } => {
                self.served.withdraw();
                let error = SourceError::backing_off(&error, retry_in);
                (Decision::Fail(error), None)
            }
        }
    }

    fn refresh(self: &Arc<Self>) -> (Flight<Result<BearerToken, SourceError>>, Option<Duty>) {
        let _given_up;
        let mut guard = self.lock();
        let state = &mut *guard;
        let now = self.now();
        _given_up = self.give_up_overdue(state, now);
        let id = state.machine.refresh(now);
        self.see_to(state, id)
    }

    /// The fetch, begun if the machine has just named it; and whether the caller has to drive it.
    fn see_to(
        self: &Arc<Self>,
        state: &mut State,
        id: FetchId,
    ) -> (Flight<Result<BearerToken, SourceError>>, Option<Duty>) {
        if let Some(under_way) = state
            .under_way
            .as_mut()
            .filter(|under_way| under_way.id == id)
        {
            let fetch = under_way.fetch.clone();
            if under_way.driver.strong_count() > 0 {
                return (fetch, None);
            }
            let driver = Arc::new(Driver);
            under_way.driver = Arc::downgrade(&driver);
            return (fetch.clone(), Some(Duty { fetch, driver }));
        }
        let driver = Arc::new(Driver);
        let (cancel, cancelled) = oneshot::channel();
        let fetch = Flight::new(self.begin(id, cancelled));
        state.under_way = Some(UnderWay {
            id,
            fetch: fetch.clone(),
            driver: Arc::downgrade(&driver),
            _cancel: cancel,
        });
        (fetch.clone(), Some(Duty { fetch, driver }))
    }

    /// Holds the core weakly, so that a fetch in the background does not keep the source alive.
    fn begin(
        self: &Arc<Self>,
        id: FetchId,
        cancelled: oneshot::Receiver<()>,
    ) -> BoxFuture<'static, Result<BearerToken, SourceError>> {
        let core = Arc::downgrade(self);
        let fetch = Arc::clone(&self.fetch);
        let runtime = Arc::clone(&self.runtime);
        let attempt = attempt(fetch, runtime, self.fetch_timeout, cancelled);
        let finished = attempt.map(move |result| match core.upgrade() {
            Some(core) => core.finish(id, result),
            None => result,
        });
        finished.boxed()
    }

    fn finish(
        &self,
        id: FetchId,
        result: Result<BearerToken, SourceError>,
    ) -> Result<BearerToken, SourceError> {
        let result = self.take_in(id, result);
        // Without the lock: whoever hears of it may ask for a token in turn.
        trace::fetch_ended(&result, self.runtime.now());
        result
    }

    fn take_in(
        &self,
        id: FetchId,
        result: Result<BearerToken, SourceError>,
    ) -> Result<BearerToken, SourceError> {
        // Dropped after the lock is free, as in `invalidate`.
        let _last_error;
        let mut guard = self.lock();
        let state = &mut *guard;
        _last_error = state.machine.last_error();
        let now = self.now();
        let random = state.random.f64();
        let result = result.and_then(|token| {
            if token.is_rejected() {
                return Err(SourceError::fetched_rejected());
            }
            let (held, expiry) = (token.clone(), token.expiry());
            match state.machine.fetched(now, id, held, expiry, random) {
                Ok(()) | Err(Refusal::GivenUp) => Ok(token),
                Err(Refusal::Expired) => Err(SourceError::fetched_expired()),
            }
        });
        if let Err(error) = &result {
            state.machine.failed(now, id, error.clone(), random);
        }
        // Also on success: the next caller publishes the new token.
        self.served.withdraw();
        // Not the last holder of the user's future: this is called from within it.
        state.under_way.take_if(|under_way| under_way.id == id);
        result
    }

    /// Where nothing runs in the background, no timer ends a fetch: its callers do.
    fn give_up_overdue(
        &self,
        state: &mut State,
        now: Now,
    ) -> Option<(Option<UnderWay>, Option<SourceError>)> {
        let id = state.machine.overdue(now)?;
        let last_error = state.machine.last_error();
        let is_driven = |under_way: &UnderWay| under_way.driver.strong_count() > 0;
        if state.under_way.as_ref().is_some_and(is_driven) {
            let error = SourceError::timed_out(self.fetch_timeout);
            let random = state.random.f64();
            state.machine.failed(now, id, error, random);
        } else {
            state.machine.abandon();
        }
        Some((state.under_way.take(), last_error))
    }
}
