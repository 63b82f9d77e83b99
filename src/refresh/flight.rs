//! One fetch, for all who wait for it: [`Flight`].
//!
//! Where a runtime takes the fetch, a task owns it, and waiters only listen. Where none does, the
//! fetch is parked here, and any waiter may poll it, so that no request depends on another request
//! being polled.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures::future::BoxFuture;

use super::{
    attempt::Life,
    contain::contain,
    waiters::{Place, Waiters},
};
use crate::{error::SourceError, runtime::Runtime, sync::Mutex, token::BearerToken};

/// How a fetch ended for its waiters.
#[derive(Clone)]
pub(super) enum End {
    /// With a token, or with an error.
    Landed(Result<BearerToken, SourceError>),
    /// Its task is gone, or shows no sign of life. That is no failure: the waiters begin anew.
    Lost,
    /// The token that it was to bring is not wanted any more. The waiters ask again.
    Void,
}

/// A handle on a fetch.
#[derive(Clone)]
pub(super) struct Flight {
    cell: Arc<Cell>,
}

struct Cell {
    state: Mutex<State>,
    waiters: Arc<Woken>,
    /// Listeners, whether or not they have been polled.
    listeners: AtomicUsize,
    life: Arc<Life>,
}

struct State {
    task: Task,
    end: Option<End>,
    /// How often those who listened have been sent away.
    invalidations: u32,
}

/// Where the fetch is.
enum Task {
    /// No runtime took it. Any waiter may try again, and poll it.
    Parked(BoxFuture<'static, ()>),
    /// Somebody has it, to give it to a runtime or to poll it.
    Held,
    /// A runtime has it, or it has ended.
    Away,
}

/// The wakers of the waiters, and the waker of a parked fetch. Apart from the fetch, which would keep
/// itself alive otherwise.
#[derive(Default)]
struct Woken {
    waiters: Waiters,
    /// Since the last poll of the parked fetch began.
    since_poll: AtomicBool,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.since_poll.store(true, Ordering::SeqCst);
        self.waiters.wake_all();
    }
}

impl Flight {
    /// `task` [ends](Self::land) this flight, in its `Drop` at the latest.
    pub(super) fn new(life: Arc<Life>, task: BoxFuture<'static, ()>) -> Self {
        Self {
            cell: Arc::new(Cell {
                state: Mutex::new(State {
                    task: Task::Parked(task),
                    end: None,
                    invalidations: 0,
                }),
                waiters: Arc::default(),
                listeners: AtomicUsize::new(0),
                life,
            }),
        }
    }

    /// Gives the fetch to a runtime if it is parked and the runtime takes it.
    pub(super) fn launch(&self, runtime: &dyn Runtime) {
        let Some(task) = self.cell.hold() else { return };
        if let Some(task) = self.cell.give(task, runtime) {
            self.cell.park(task);
            // Listeners that came meanwhile found nothing to poll.
            self.cell.waiters.waiters.wake_all();
        }
    }

    /// Ends the flight. What ended before stays.
    pub(super) fn land(&self, end: End) {
        let task = {
            let mut state = self.cell.state.lock();
            if state.end.is_none() {
                state.end = Some(end);
            }
            match state.task {
                Task::Parked(_) => mem::replace(&mut state.task, Task::Away),
                Task::Held | Task::Away => Task::Away,
            }
        };
        // Before the task is dropped: that may take long, and may come back here.
        self.cell.waiters.waiters.wake_all();
        if let Task::Parked(task) = task {
            let _ = contain(|| drop(task));
        }
    }

    /// Sends all listeners away: the token is for another account than they were made for.
    pub(super) fn invalidate(&self) {
        {
            let mut state = self.cell.state.lock();
            state.invalidations = state.invalidations.wrapping_add(1);
        }
        self.cell.waiters.waiters.wake_all();
    }

    /// Whether nobody would poll the fetch if its starter did not.
    pub(super) fn is_unattended(&self) -> bool {
        let parked = matches!(self.cell.state.lock().task, Task::Parked(_));
        parked && self.cell.listeners.load(Ordering::SeqCst) == 0
    }

    /// Whether a runtime has the fetch, which then shows signs of life.
    pub(super) fn is_away(&self) -> bool {
        matches!(self.cell.state.lock().task, Task::Away)
    }

    pub(super) fn life(&self) -> &Life {
        &self.cell.life
    }

    /// Listens from now on, not from the first poll.
    pub(super) fn listen(&self) -> Listener {
        self.cell.listeners.fetch_add(1, Ordering::SeqCst);
        Listener {
            invalidations: self.cell.state.lock().invalidations,
            flight: self.clone(),
            place: None,
        }
    }
}

impl Cell {
    fn hold(&self) -> Option<BoxFuture<'static, ()>> {
        let mut state = self.state.lock();
        match mem::replace(&mut state.task, Task::Held) {
            Task::Parked(task) => Some(task),
            other => {
                state.task = other;
                None
            }
        }
    }

    /// Gives the task back if the runtime does.
    fn give(
        &self,
        task: BoxFuture<'static, ()>,
        runtime: &dyn Runtime,
    ) -> Option<BoxFuture<'static, ()>> {
        self.life.moves();
        if let Ok(Err(task)) = contain(|| runtime.spawn(task)) {
            return Some(task);
        }
        // Also after a panic: then the task was dropped, and has said so.
        self.state.lock().task = Task::Away;
        None
    }

    fn park(&self, task: BoxFuture<'static, ()>) {
        let mut state = self.state.lock();
        let over = if state.end.is_none() {
            state.task = Task::Parked(task);
            None
        } else {
            state.task = Task::Away;
            Some(task)
        };
        drop(state);
        if let Some(task) = over {
            let _ = contain(|| drop(task));
        }
    }

    /// Polls the fetch, which no runtime took. Without a lock: the fetch is foreign code.
    fn poll(&self, mut task: BoxFuture<'static, ()>) {
        self.waiters.since_poll.store(false, Ordering::SeqCst);
        let waker = Waker::from(Arc::clone(&self.waiters));
        let polled = contain(|| task.as_mut().poll(&mut Context::from_waker(&waker)));
        if let Ok(Poll::Pending) = polled {
            self.park(task);
            // Listeners that came during the poll found nothing to poll. If the fetch was woken
            // during that poll, no further wake-up may come.
            if self.waiters.since_poll.load(Ordering::SeqCst) {
                self.waiters.waiters.wake_all();
            }
        } else {
            self.state.lock().task = Task::Away;
            let _ = contain(|| drop(task));
        }
    }
}

/// A waiter of a fetch.
pub(super) struct Listener {
    flight: Flight,
    invalidations: u32,
    place: Option<Place>,
}

impl Listener {
    pub(super) fn flight(&self) -> &Flight {
        &self.flight
    }

    /// How the fetch ended. Takes the fetch to `runtime` if it is parked, or else polls it.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, runtime: &dyn Runtime) -> Poll<End> {
        let cell = &*self.flight.cell;
        // First, so that what happens from here on wakes this listener.
        cell.waiters.waiters.enter(&mut self.place, cx.waker());
        if let Some(end) = self.end() {
            return Poll::Ready(end);
        }
        let Some(task) = cell.hold() else {
            return Poll::Pending;
        };
        if let Some(task) = cell.give(task, runtime) {
            cell.poll(task);
            if let Some(end) = self.end() {
                return Poll::Ready(end);
            }
        }
        Poll::Pending
    }

    pub(super) fn end(&self) -> Option<End> {
        let state = self.flight.cell.state.lock();
        if state.invalidations == self.invalidations {
            return state.end.clone();
        }
        Some(End::Landed(Err(SourceError::invalidated())))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.flight.cell.listeners.fetch_sub(1, Ordering::SeqCst);
        if let Some(place) = self.place.take() {
            self.flight.cell.waiters.waiters.leave(place);
        }
    }
}

#[cfg(test)]
mod tests;
