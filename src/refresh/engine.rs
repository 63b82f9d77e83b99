//! Carries the machine's decisions out: publishes the token, begins fetches, and lets requests wait
//! for them. All handles on a source share a [`Core`].
//!
//! A lock guards the machine and the fetch under way. The engine holds the lock to decide and to
//! store, and never while foreign code runs: not while it reads a clock, spawns a task, polls a
//! future or drops a user's value. The fast path does not take the lock.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    answer::{Answer, FetchId, Now, Status},
    attempt::{Attempt, FetchFn, Life},
    contain::contain,
    flight::{End, Flight},
    machine::Machine,
    owner::task,
    policy::Policy,
    recursion::{self, SourceId},
    served::Served,
    state::{Awaited, Displaced, State, UnderWay},
    throttle::later,
    waiters::Waiters,
};
use crate::{
    error::{SourceError, SourceErrorKind},
    runtime::Runtime,
    sign_in::{SignIn, SignIns},
    sync::Mutex,
    token::BearerToken,
    trace,
};

/// What the handles, the waiters and, weakly, the fetches of a source share.
pub(super) struct Core {
    served: Served,
    runtime: Arc<dyn Runtime>,
    fetch_fn: Arc<FetchFn>,
    fetch_timeout: Duration,
    source: SourceId,
    state: Mutex<State>,
    /// The `keep_fresh` futures. They are woken when there may be something new to wait for, and when
    /// the last handle is gone.
    changed: Arc<Waiters>,
}

/// What a caller wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The token to use now.
    Token,
    /// A new token, whether or not there is a good token.
    NewToken,
}

/// What a caller has to do.
pub(super) enum Step {
    Done(Result<BearerToken, SourceError>),
    Wait(Awaited),
}

impl Core {
    pub(super) fn new(
        policy: Policy,
        runtime: Arc<dyn Runtime>,
        fetch_fn: FetchFn,
        random: fastrand::Rng,
    ) -> Self {
        Self {
            served: Served::nothing(),
            runtime,
            fetch_fn: Arc::new(fetch_fn),
            fetch_timeout: policy.fetch_timeout,
            source: SourceId::new(),
            state: Mutex::new(State {
                machine: Machine::new(policy),
                under_way: None,
                random,
                sign_ins: SignIns::default(),
            }),
            changed: Arc::default(),
        }
    }

    /// Starts with a token that no fetch gave.
    pub(super) fn hold(&self, token: BearerToken) {
        let now = self.now();
        let lifetime = token.lifetime(now.monotonic, now.wall);
        let _displaced = {
            let mut state = self.state.lock();
            let random = state.random.f64();
            token.belongs_to(&state.sign_ins.current());
            let displaced = state.machine.hold(now, token, lifetime, random);
            (displaced, self.served.withdraw())
        };
    }

    /// The token that requests take without asking the machine.
    #[inline]
    pub(super) fn served(&self) -> Option<BearerToken> {
        self.served.token(&*self.runtime)
    }

    /// Rejects the held token and forgets it. The waiters of a fetch get an error.
    pub(super) fn invalidate(&self) {
        let (_displaced, held, under_way) = {
            let mut state = self.state.lock();
            state.sign_ins.end();
            let (held, displaced) = state.machine.invalidate();
            let under_way = state.under_way.clone();
            ((displaced, self.served.withdraw()), held, under_way)
        };
        if let Some(held) = held {
            held.reject();
        }
        if let Some(under_way) = under_way {
            under_way.flight.invalidate();
        }
        self.changed.wake_all();
    }

    pub(super) fn status(&self) -> Status<SourceError> {
        let now = self.now();
        self.state.lock().machine.status(now)
    }

    /// The `keep_fresh` futures, which are woken when there may be something new to wait for, and when
    /// the last handle is gone.
    pub(super) fn changed(&self) -> &Arc<Waiters> {
        &self.changed
    }

    pub(super) fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.runtime
    }

    pub(super) fn fetch_timeout(&self) -> Duration {
        self.fetch_timeout
    }

    pub(super) fn now(&self) -> Now {
        Now {
            monotonic: self.runtime.now(),
            wall: self.runtime.system_now(),
        }
    }

    /// The time, which is at least `at_least`: the clock may lag behind a timer that has fired.
    fn now_at_least(&self, at_least: Option<Instant>) -> Now {
        let mut now = self.now();
        now.monotonic = at_least.map_or(now.monotonic, |at| at.max(now.monotonic));
        now
    }

    /// Whether `token` is the held token, still has time left, and is not rejected.
    pub(super) fn is_good(&self, token: &BearerToken) -> bool {
        !token.is_rejected() && self.usable().is_some_and(|held| held.is_same(token))
    }

    /// The token that may be served now, rejected or not.
    pub(super) fn usable(&self) -> Option<BearerToken> {
        let now = self.now();
        let (usable, _displaced) = self.state.lock().machine.usable(now);
        usable
    }

    /// What a caller gets if the fetch that it waited for failed: the held token, or the error. A
    /// caller that began to wait before a sign-out gets no token of a later sign-in.
    pub(super) fn fall_back(
        &self,
        wanted: Wanted,
        sign_in: &SignIn,
        error: SourceError,
    ) -> Result<BearerToken, SourceError> {
        let may = wanted == Wanted::Token && error.kind() != SourceErrorKind::Invalidated;
        if !may {
            return Err(error);
        }
        let now = self.now();
        let (usable, _displaced) = {
            let mut state = self.state.lock();
            if sign_in.is_over() {
                return Err(SourceError::invalidated());
            }
            state.machine.usable(now)
        };
        usable.ok_or(error)
    }

    /// Asks the machine, and begins the fetch that the machine wants. A caller that has waited
    /// gives the sign-in for which it began to wait, and gets an error if the source was
    /// invalidated since then.
    pub(super) fn step(
        self: &Arc<Self>,
        wanted: Wanted,
        sign_in: Option<&SignIn>,
        at_least: Option<Instant>,
    ) -> Step {
        self.end_overdue(at_least);
        let step = self.decide(wanted, sign_in, self.now_at_least(at_least));
        // A call from within the fetch would make the fetch wait for itself.
        if matches!(step, Step::Wait(_)) && recursion::is_within(self.source) {
            return Step::Done(Err(SourceError::recursive()));
        }
        if let Step::Done(Err(error)) = &step {
            if error.kind() != SourceErrorKind::Invalidated {
                let _ = contain(|| trace::backing_off(error.kind(), error.retry_after()));
            }
        }
        step
    }

    fn decide(self: &Arc<Self>, wanted: Wanted, sign_in: Option<&SignIn>, now: Now) -> Step {
        let (answer, awaited, _displaced) = {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            if sign_in.is_some_and(SignIn::is_over) {
                return Step::Done(Err(SourceError::invalidated()));
            }
            let (answer, displaced) = match wanted {
                Wanted::Token => state.machine.ask(now, BearerToken::is_rejected),
                Wanted::NewToken => {
                    let (fetch, until) = state.machine.refresh(now);
                    (Answer::Wait { fetch, until }, Displaced::default())
                }
            };
            let limit = later(now.monotonic, self.fetch_timeout);
            let (id, until) = match &answer {
                Answer::Wait { fetch, until } => (Some(*fetch), *until),
                Answer::Serve { fetch, .. } => (*fetch, limit),
                Answer::BackOff { .. } => (None, limit),
            };
            let awaited = id.map(|id| {
                let under_way = self.join_or_begin(state, id);
                under_way.until(until, now, state.sign_ins.current())
            });
            let served = match &answer {
                Answer::Serve {
                    token,
                    until,
                    despite_rejection,
                    ..
                } => {
                    let (token, now) = (token.clone(), now.monotonic);
                    self.served.publish(token, now, *until, *despite_rejection)
                }
                // The next caller after the fetch publishes the new token. Until then each caller
                // has to ask the machine.
                Answer::Wait { .. } | Answer::BackOff { .. } => self.served.withdraw(),
            };
            (answer, awaited, (displaced, served))
        };
        if let Some(awaited) = &awaited {
            awaited.flight.launch(&*self.runtime);
        }
        match (answer, awaited) {
            (Answer::Wait { .. }, Some(awaited)) => Step::Wait(awaited),
            // Nothing runs in the background, so this caller has to drive the fetch, although there
            // is a token.
            (Answer::Serve { .. }, Some(awaited)) if awaited.flight.is_unattended() => {
                Step::Wait(awaited)
            }
            (Answer::Serve { token, .. }, _) => Step::Done(Ok(token)),
            (Answer::BackOff { error, retry_in }, _) => {
                Step::Done(Err(SourceError::backing_off(&error, retry_in)))
            }
            // Not reached.
            (Answer::Wait { .. }, None) => Step::Done(Err(SourceError::closed_after_losses())),
        }
    }

    /// The fetch with this number. Begins the fetch if the machine has just named it.
    fn join_or_begin(self: &Arc<Self>, state: &mut State, id: FetchId) -> UnderWay {
        if let Some(under_way) = state.under_way.as_ref().filter(|fetch| fetch.id == id) {
            return under_way.clone();
        }
        let life = Arc::new(Life::default());
        let attempt = Attempt {
            fetch_fn: Arc::clone(&self.fetch_fn),
            previous: state.machine.previous(),
            runtime: Arc::clone(&self.runtime),
            timeout: self.fetch_timeout,
            source: self.source,
            life: Arc::clone(&life),
        };
        // Weak, since a fetch in the background must not keep the source alive.
        let core = Arc::downgrade(self);
        let task = task(attempt, move |end| match (core.upgrade(), end) {
            (Some(core), Some(result)) => core.finish(id, result),
            (Some(core), None) => core.lose(id),
            (None, _) => {}
        });
        let flight = Flight::new(life, task);
        let under_way = UnderWay { id, flight };
        state.under_way = Some(under_way.clone());
        under_way
    }

    /// The task of a fetch has ended.
    fn finish(&self, id: FetchId, result: Result<BearerToken, SourceError>) {
        let now = self.now();
        let token = result.as_ref().ok();
        let lifetime = token.and_then(|token| token.lifetime(now.monotonic, now.wall));
        let (result, flight, next, _displaced) = {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            let flight = state.take_flight(id);
            let (end, displaced) = state.arrive(now, id, result, lifetime);
            // If this fetch is late, the next fetch is under way already.
            let next = state.under_way.clone();
            // Withdrawn on success as well: the next caller publishes the new token.
            (end, flight, next, (displaced, self.served.withdraw()))
        };
        // After the lock is released, since a subscriber of the event may ask for a token.
        if let Some(result) = &result {
            let _ = contain(|| trace::fetch_ended(result, lifetime));
        }
        if let (Some(Ok(_)), Some(next)) = (&result, next) {
            next.flight.tell_news();
        }
        if let Some(flight) = flight {
            flight.land(result.map_or(End::Void, End::Landed));
        }
        self.changed.wake_all();
    }

    /// The task of a fetch is gone, or shows no sign of life.
    pub(super) fn lose(&self, id: FetchId) {
        let flight = {
            let mut state = self.state.lock();
            let flight = state.take_flight(id);
            state.machine.lost(id);
            flight
        };
        if let Some(flight) = flight {
            flight.land(End::Lost);
            self.changed.wake_all();
        }
    }

    /// The fetch under way, so that the caller can listen to it.
    pub(super) fn under_way(&self, now: Now) -> Option<Awaited> {
        let state = self.state.lock();
        let until = later(now.monotonic, self.fetch_timeout);
        let under_way = state.under_way.as_ref()?;
        Some(under_way.until(until, now, state.sign_ins.current()))
    }

    /// When the machine has to be asked again, if nothing changes before.
    pub(super) fn next_event(&self, now: Now) -> Option<Instant> {
        self.state.lock().machine.next_event(now)
    }

    /// Ends the fetch under way if it is past its time limit, so that no caller joins it.
    pub(super) fn end_overdue(&self, at_least: Option<Instant>) {
        let now = self.now_at_least(at_least);
        let (flight, end, _displaced) = {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            let Some(id) = state.machine.overdue(now) else {
                return;
            };
            let flight = state.take_flight(id);
            // A parked fetch without waiters has nobody to poll it. So it did not fail: it is lost.
            let is_left = flight.as_ref().is_some_and(Flight::is_unattended);
            let (end, displaced) = if is_left {
                state.machine.lost(id);
                (End::Lost, Displaced::default())
            } else {
                let timed_out = SourceError::timed_out(self.fetch_timeout);
                let (result, displaced) = state.fail(now, id, timed_out);
                (
                    result.map_or(End::Void, |error| End::Landed(Err(error))),
                    displaced,
                )
            };
            (flight, end, (displaced, self.served.withdraw()))
        };
        if let End::Landed(result) = &end {
            let _ = contain(|| trace::fetch_ended(result, None));
        }
        if let Some(flight) = flight {
            flight.land(end);
        }
        self.changed.wake_all();
    }
}

/// Wakes the `keep_fresh` futures, which end with the last handle.
impl Drop for Core {
    fn drop(&mut self) {
        self.changed.wake_all();
    }
}
