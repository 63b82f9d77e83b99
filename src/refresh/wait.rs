//! The wait of a request for a fetch: [`Wait`].

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use super::{
    answer::FetchId,
    attempt::{beat, poll_timer, timer},
    contain::Contained,
    engine::{Core, Step, Wanted},
    flight::{End, Listener},
    state::Awaited,
};
use crate::{error::SourceError, runtime::Runtime, sign_in::SignIn, token::BearerToken};

/// After this many lost fetches, a wait ends: with the held token, or with an error.
const LOSSES: u8 = 3;
/// After this many checks in a row without a sign of life, a fetch is lost. A single check is too
/// few: after a pause of the whole process, the timer of the waiter may fire before the timer of
/// the fetch.
const SILENT_CHECKS: u8 = 2;

/// What a [`Listening`] reports.
pub(super) enum Heard {
    End(End),
    /// The time of the listener is over.
    TimeIsUp,
    /// The fetch shows no sign of life.
    Silence,
}

/// Listens to a fetch, with a time limit. The timer belongs to the runtime that polls the waiter.
pub(super) struct Listening {
    listener: Listener,
    id: FetchId,
    until: Instant,
    left: Duration,
    /// The duration of the timer.
    step: Duration,
    /// `None` before the first poll: a timer belongs to the runtime that makes it.
    timer: Option<Contained<()>>,
    beats: u32,
    silent_checks: u8,
}

impl Listening {
    pub(super) fn new(awaited: Awaited) -> Self {
        let Awaited {
            id,
            sign_in: _,
            flight,
            told,
            until,
            at_most,
        } = awaited;
        Self {
            id,
            until,
            left: at_most,
            step: Duration::ZERO,
            timer: None,
            beats: flight.life().beats(),
            silent_checks: 0,
            listener: flight.listen(told),
        }
    }

    pub(super) fn id(&self) -> FetchId {
        self.id
    }

    pub(super) fn has_ended(&self) -> bool {
        self.listener.end().is_some()
    }

    /// When the time of the listener is over.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        runtime: &dyn Runtime,
        fetch_timeout: Duration,
    ) -> Poll<Heard> {
        if let Poll::Ready(end) = self.listener.poll(cx, runtime) {
            return Poll::Ready(Heard::End(end));
        }
        // Every two and a half beats, so that a check finds a beat even if a beat is late.
        let check = beat(fetch_timeout).saturating_mul(5) / 2;
        let check = check.max(Duration::from_millis(1));
        loop {
            let step = self.step;
            if let Some(timer) = &mut self.timer {
                if poll_timer(timer, cx).is_pending() {
                    return Poll::Pending;
                }
                self.timer = None;
                // What is left by the timer or by the clock, whichever is less: this waiter may be
                // polled late, and the timer may run on another clock.
                let by_clock = self.until.saturating_duration_since(runtime.now());
                self.left = self.left.saturating_sub(step).min(by_clock);
                if self.is_silent(step >= check) {
                    return Poll::Ready(Heard::Silence);
                }
            }
            if self.left.is_zero() {
                return Poll::Ready(Heard::TimeIsUp);
            }
            self.step = check.min(self.left);
            self.timer = Some(timer(runtime, self.step));
        }
    }

    /// Whether the last checks in a row found no sign of life. The last step of a wait counts as a check
    /// only if the step is whole: a shorter step may be too short for a sign.
    fn is_silent(&mut self, is_whole: bool) -> bool {
        let flight = self.listener.flight();
        let beats = flight.life().beats();
        if beats != self.beats || !flight.is_away() || flight.life().is_polled() {
            self.beats = beats;
            self.silent_checks = 0;
            return false;
        }
        if !is_whole {
            return false;
        }
        self.silent_checks += 1;
        self.silent_checks >= SILENT_CHECKS
    }
}

/// Waits for a token. It keeps the source alive, since a service may be dropped while its last
/// request waits.
pub(super) struct Wait {
    core: Arc<Core>,
    wanted: Wanted,
    sign_in: SignIn,
    listening: Listening,
    losses: u8,
}

impl Wait {
    pub(super) fn new(core: Arc<Core>, wanted: Wanted, awaited: Awaited) -> Self {
        Self {
            core,
            wanted,
            sign_in: awaited.sign_in.clone(),
            listening: Listening::new(awaited),
            losses: 0,
        }
    }

    /// Asks the machine again. Gives the result, or `None` if there is another fetch to wait for.
    fn ask_again(&mut self, at_least: Option<Instant>) -> Option<Result<BearerToken, SourceError>> {
        match self.core.step(self.wanted, Some(&self.sign_in), at_least) {
            Step::Done(result) => Some(result),
            Step::Wait(awaited) => {
                self.listening = Listening::new(awaited);
                None
            }
        }
    }

    fn landed(
        &mut self,
        result: Result<BearerToken, SourceError>,
    ) -> Option<Result<BearerToken, SourceError>> {
        match result {
            Ok(token) if self.core.is_good(&token) => Some(Ok(token)),
            // The token stopped being good before this waiter was polled.
            Ok(_) => self.ask_again(None),
            Err(error) => Some(self.core.fall_back(self.wanted, &self.sign_in, error)),
        }
    }
}

impl Future for Wait {
    type Output = Result<BearerToken, SourceError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            let core = &*this.core;
            let heard = this
                .listening
                .poll(cx, &**core.runtime(), core.fetch_timeout());
            let Poll::Ready(heard) = heard else {
                return Poll::Pending;
            };
            let answer = match heard {
                Heard::End(End::Landed(result)) => this.landed(result),
                Heard::End(End::Void) => this.ask_again(None),
                Heard::End(End::Lost) => {
                    this.losses += 1;
                    if this.losses < LOSSES {
                        this.ask_again(None)
                    } else {
                        let error = SourceError::closed_after_losses();
                        Some(this.core.fall_back(this.wanted, &this.sign_in, error))
                    }
                }
                Heard::Silence => {
                    // The next round of the loop hears of the loss, as every other waiter does.
                    this.core.lose(this.listening.id());
                    None
                }
                Heard::TimeIsUp => {
                    let until = this.listening.until();
                    // If the fetch is past its time limit, this ends the fetch. The next round of
                    // the loop then gives the error of the fetch, and not the error of the back-off.
                    this.core.end_overdue(Some(until));
                    if this.listening.has_ended() {
                        None
                    } else {
                        this.ask_again(Some(until))
                    }
                }
            };
            if let Some(answer) = answer {
                return Poll::Ready(answer);
            }
        }
    }
}
