//! A fetch that many requests wait for: [`Flight`].
//!
//! If a runtime takes the fetch, a task owns it, and the waiters only listen. If no runtime takes
//! the fetch, the flight keeps it: the fetch is *parked*, and any waiter may poll it, so that no
//! request depends on another request being polled.

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
    /// The fetch gave a token or an error.
    Landed(Result<BearerToken, SourceError>),
    /// The task of the fetch was dropped, or shows no sign of life. That is no failure: the waiters
    /// begin another fetch.
    Lost,
    /// The waiters ask again: the fetch was for an account that has been signed out, or an earlier fetch has
    /// brought its token late.
    Void,
}

/// A handle on a fetch.
#[derive(Clone)]
pub(super) struct Flight {
    cell: Arc<Cell>,
}

struct Cell {
    state: Mutex<State>,
    wakers: Arc<Wakers>,
    /// The number of listeners, polled or not.
    listeners: AtomicUsize,
    life: Arc<Life>,
}

struct State {
    task: Task,
    end: Option<End>,
    told: Told,
}

/// What the listeners of a flight have been told so far.
#[derive(Clone, Copy, Default)]
pub(super) struct Told {
    /// How often the source was invalidated. A listener from before an invalidation gets an error.
    invalidations: u32,
    /// How often the listeners were told to ask again. A listener asks again if this number has changed since
    /// the listener came.
    news: u32,
}

/// Where the future of the fetch is.
enum Task {
    /// No runtime has the fetch. Any waiter may offer the fetch to a runtime again, or poll the fetch.
    Parked(BoxFuture<'static, ()>),
    /// A thread has the fetch, to offer it to a runtime or to poll it.
    Held,
    /// A runtime has the fetch, or the fetch has ended.
    Away,
}

/// The wakers of the waiters. A parked fetch is polled with this value as its waker. The value is
/// not part of the `Cell`, since a waker that held the fetch would keep the fetch alive.
#[derive(Default)]
struct Wakers {
    waiters: Waiters,
    /// Whether the parked fetch was woken since its last poll began.
    was_woken: AtomicBool,
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        self.was_woken.store(true, Ordering::SeqCst);
        self.waiters.wake_all();
    }
}

impl Flight {
    /// `task` has to [end](Self::land) this flight, in its `Drop` at the latest.
    pub(super) fn new(life: Arc<Life>, task: BoxFuture<'static, ()>) -> Self {
        Self {
            cell: Arc::new(Cell {
                state: Mutex::new(State {
                    task: Task::Parked(task),
                    end: None,
                    told: Told::default(),
                }),
                wakers: Arc::default(),
                listeners: AtomicUsize::new(0),
                life,
            }),
        }
    }

    /// Offers a parked fetch to a runtime.
    pub(super) fn launch(&self, runtime: &dyn Runtime) {
        let Some(task) = self.cell.hold() else { return };
        if let Some(task) = self.cell.give(task, runtime) {
            self.cell.park(task);
            // A listener that was polled meanwhile found no fetch to poll.
            self.cell.wakers.waiters.wake_all();
        }
    }

    /// Ends the flight. The first end stays.
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
        // Wake before the task is dropped: the drop may take long, and may call this flight.
        self.cell.wakers.waiters.wake_all();
        if let Task::Parked(task) = task {
            let _ = contain(|| drop(task));
        }
    }

    /// Gives all present listeners an error: the next token is for another account.
    pub(super) fn invalidate(&self) {
        {
            let mut state = self.cell.state.lock();
            state.told.invalidations = state.told.invalidations.wrapping_add(1);
        }
        self.cell.wakers.waiters.wake_all();
    }

    /// Has all present listeners ask again: there is a token, although this fetch has not ended.
    pub(super) fn tell_news(&self) {
        {
            let mut state = self.cell.state.lock();
            state.told.news = state.told.news.wrapping_add(1);
        }
        self.cell.wakers.waiters.wake_all();
    }

    /// Whether the fetch is parked and nobody listens: then nobody but the caller would poll it.
    pub(super) fn is_unattended(&self) -> bool {
        let parked = matches!(self.cell.state.lock().task, Task::Parked(_));
        parked && self.cell.listeners.load(Ordering::SeqCst) == 0
    }

    /// Whether a runtime has the fetch. Only then does the fetch have to show signs of life: a parked
    /// fetch is polled by its listeners.
    pub(super) fn is_away(&self) -> bool {
        matches!(self.cell.state.lock().task, Task::Away)
    }

    pub(super) fn life(&self) -> &Life {
        &self.cell.life
    }

    pub(super) fn told(&self) -> Told {
        self.cell.state.lock().told
    }

    /// A listener, which counts from now on, not from its first poll. It hears what the listeners are told
    /// after `told`.
    pub(super) fn listen(&self, told: Told) -> Listener {
        self.cell.listeners.fetch_add(1, Ordering::SeqCst);
        Listener {
            told,
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

    /// Offers the task to the runtime. Gives the task back if the runtime does not take it.
    fn give(
        &self,
        task: BoxFuture<'static, ()>,
        runtime: &dyn Runtime,
    ) -> Option<BoxFuture<'static, ()>> {
        self.life.will_move();
        if let Ok(Err(task)) = contain(|| runtime.spawn(task)) {
            return Some(task);
        }
        // The task is away after a panic as well: the panic dropped the task, whose `Drop` ends the
        // flight.
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

    /// Polls the fetch, which no runtime took. No lock is held, since the fetch is foreign code.
    fn poll(&self, mut task: BoxFuture<'static, ()>) {
        self.wakers.was_woken.store(false, Ordering::SeqCst);
        let waker = Waker::from(Arc::clone(&self.wakers));
        let polled = contain(|| task.as_mut().poll(&mut Context::from_waker(&waker)));
        if let Ok(Poll::Pending) = polled {
            self.park(task);
            // A listener that was polled meanwhile found no fetch to poll. If the fetch was woken
            // during this poll, there may be no second wake-up, so wake every listener now.
            if self.wakers.was_woken.load(Ordering::SeqCst) {
                self.wakers.waiters.wake_all();
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
    told: Told,
    place: Option<Place>,
}

impl Listener {
    pub(super) fn flight(&self) -> &Flight {
        &self.flight
    }

    /// How the fetch ended. Offers a parked fetch to `runtime`, and polls the fetch if `runtime` does
    /// not take it.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, runtime: &dyn Runtime) -> Poll<End> {
        let cell = &*self.flight.cell;
        // Enter before looking: an end that comes from here on wakes this listener.
        cell.wakers.waiters.enter(&mut self.place, cx.waker());
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
        if state.told.invalidations != self.told.invalidations {
            return Some(End::Landed(Err(SourceError::invalidated())));
        }
        let asks_again = (state.told.news != self.told.news).then_some(End::Void);
        state.end.clone().or(asks_again)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.flight.cell.listeners.fetch_sub(1, Ordering::SeqCst);
        if let Some(place) = self.place.take() {
            self.flight.cell.wakers.waiters.leave(place);
        }
    }
}

#[cfg(test)]
mod tests;
