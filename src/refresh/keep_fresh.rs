//! Keeps a token fresh while requests are rare: [`KeepFresh`].

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use super::{
    attempt::{poll_timer, timer},
    contain::Contained,
    engine::{Core, Step, Wanted},
    flight::End,
    wait::{Heard, Listening},
    waiters::{Place, Waiters},
};
use crate::runtime::Runtime;

/// A timer may stand still while the computer sleeps, so the future wakes this often to read the
/// wall clock.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// The pause between the loss of a fetch and the next fetch.
const AFTER_LOSS: Duration = Duration::from_secs(1);

/// Asks for the token whenever a refresh is due. This future does not count as a handle: it ends when
/// the last handle is dropped.
pub(super) struct KeepFresh {
    core: Weak<Core>,
    runtime: Arc<dyn Runtime>,
    fetch_timeout: Duration,
    changed: Arc<Waiters>,
    place: Option<Place>,
    doing: Doing,
}

enum Doing {
    /// The next poll asks the machine.
    Asking,
    Listening(Box<Listening>),
    /// Each poll asks the machine again, since a poll shows that the sleep is over or that
    /// something changed.
    Sleeping(Contained<()>),
    /// A fetch was lost. Only time ends the pause, and no wake-up does, since the loss itself wakes
    /// this future.
    Pausing(Pause),
}

struct Pause {
    timer: Contained<()>,
    /// Where no timer fires, the first poll after this moment ends the pause.
    until: Instant,
}

impl Pause {
    fn new(runtime: &dyn Runtime) -> Self {
        let now = runtime.now();
        Self {
            timer: timer(runtime, AFTER_LOSS),
            until: now.checked_add(AFTER_LOSS).unwrap_or(now),
        }
    }

    fn is_over(&mut self, cx: &mut Context<'_>, runtime: &dyn Runtime) -> bool {
        poll_timer(&mut self.timer, cx).is_ready() || self.until <= runtime.now()
    }
}

impl KeepFresh {
    pub(super) fn new(core: &Arc<Core>) -> Self {
        Self {
            core: Arc::downgrade(core),
            runtime: Arc::clone(core.runtime()),
            fetch_timeout: core.fetch_timeout(),
            changed: Arc::clone(core.changed()),
            place: None,
            doing: Doing::Asking,
        }
    }

    /// Asks the machine. Gives what to do until the machine has to be asked again.
    fn ask(&self, core: &Arc<Core>) -> Doing {
        if let Step::Wait(awaited) = core.step(Wanted::Token, None, None) {
            return Doing::Listening(Box::new(Listening::new(awaited)));
        }
        let now = core.now();
        if let Some(awaited) = core.under_way(now) {
            return Doing::Listening(Box::new(Listening::new(awaited)));
        }
        let next = core.next_event(now);
        Doing::Sleeping(next.map_or_else(Contained::pending, |at| {
            let sleep = at.saturating_duration_since(now.monotonic);
            // At least a millisecond: otherwise this would spin if the machine had nothing to do at
            // that time.
            let sleep = sleep.clamp(Duration::from_millis(1), LONGEST_SLEEP);
            timer(&*self.runtime, sleep)
        }))
    }
}

impl Future for KeepFresh {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            // Enter before looking: a change from here on wakes this future.
            this.changed.enter(&mut this.place, cx.waker());
            let Some(core) = this.core.upgrade() else {
                return Poll::Ready(());
            };
            let mut is_lost = false;
            match &mut this.doing {
                Doing::Asking | Doing::Sleeping(_) => {}
                Doing::Pausing(pause) => {
                    if !pause.is_over(cx, &*this.runtime) {
                        return Poll::Pending;
                    }
                }
                Doing::Listening(listening) => {
                    let heard = listening.poll(cx, &*this.runtime, this.fetch_timeout);
                    match ready!(heard) {
                        Heard::End(End::Lost) => is_lost = true,
                        Heard::End(_) => {}
                        Heard::Silence => {
                            core.lose(listening.id());
                            is_lost = true;
                        }
                        Heard::TimeIsUp => core.end_overdue(Some(listening.until())),
                    }
                }
            }
            this.doing = if is_lost {
                // This must not spin in a runtime that drops every task.
                Doing::Pausing(Pause::new(&*this.runtime))
            } else {
                this.ask(&core)
            };
            let is_over = match &mut this.doing {
                Doing::Asking | Doing::Listening(_) => continue,
                Doing::Sleeping(sleep) => poll_timer(sleep, cx).is_ready(),
                Doing::Pausing(pause) => pause.is_over(cx, &*this.runtime),
            };
            if is_over {
                // The sleep took no time. Yield, so that other tasks run.
                this.doing = Doing::Asking;
                cx.waker().wake_by_ref();
            }
            return Poll::Pending;
        }
    }
}

impl Drop for KeepFresh {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.changed.leave(place);
        }
    }
}
