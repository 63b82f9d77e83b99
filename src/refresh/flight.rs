//! One future and its result, for all who wait for it: [`Flight`].
//!
//! `futures::future::Shared` does nearly this. But it calls wakers with its lock held, so one that
//! polls at once hangs; and who comes while another polls is not woken if that other then goes away.

use std::{
    collections::BTreeMap,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use futures::future::BoxFuture;

use crate::sync::Mutex;

/// One who waits. Any of them may poll the future, so that none depends on another being polled;
/// and all are woken when it can go on.
pub(crate) struct Flight<T> {
    cell: Arc<Cell<T>>,
    place: Option<u64>,
}

struct Cell<T> {
    state: Mutex<State<T>>,
    /// The future's waker. Apart, so that the future does not keep itself alive.
    waiting: Arc<Waiting>,
}

enum State<T> {
    Parked(BoxFuture<'static, T>),
    /// One polls it at this moment.
    Polled,
    Ended(T),
}

#[derive(Default)]
struct Waiting(Mutex<Places>);

#[derive(Default)]
struct Places {
    /// Without those who were woken and have not been polled since.
    wakers: BTreeMap<u64, Waker>,
    last: u64,
    /// Since the last poll of the future began.
    woken: bool,
}

impl Waiting {
    fn enter(&self, place: &mut Option<u64>, waker: &Waker) {
        let mut places = self.0.lock();
        let place = *place.get_or_insert_with(|| {
            places.last += 1;
            places.last
        });
        let old = places.wakers.insert(place, waker.clone());
        // A waker may own a task, whose end may come back here.
        drop(places);
        drop(old);
    }

    fn leave(&self, place: u64) {
        let waker = self.0.lock().wakers.remove(&place);
        drop(waker);
    }

    fn begin_poll(&self) {
        self.0.lock().woken = false;
    }

    /// Who came during the poll found the future taken, and after a wake-up in that poll there may be
    /// no other.
    fn end_poll(&self) {
        if self.0.lock().woken {
            self.wake_all();
        }
    }

    fn wake_all(&self) {
        let wakers = mem::take(&mut self.0.lock().wakers);
        wakers.into_values().for_each(Waker::wake);
    }
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        self.0.lock().woken = true;
        self.wake_all();
    }
}

impl<T> Flight<T> {
    /// `future` must not panic.
    pub(crate) fn new(future: BoxFuture<'static, T>) -> Self {
        Self {
            cell: Arc::new(Cell {
                state: Mutex::new(State::Parked(future)),
                waiting: Arc::default(),
            }),
            place: None,
        }
    }
}

impl<T> Clone for Flight<T> {
    fn clone(&self) -> Self {
        Self {
            cell: Arc::clone(&self.cell),
            place: None,
        }
    }
}

impl<T: Clone> Future for Flight<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let Self { cell, place } = &mut *self;
        // First, so that whoever ends or parks the future from here on wakes this one.
        cell.waiting.enter(place, cx.waker());
        let mut future = {
            let mut state = cell.state.lock();
            match mem::replace(&mut *state, State::Polled) {
                State::Parked(future) => future,
                State::Polled => return Poll::Pending,
                State::Ended(result) => {
                    *state = State::Ended(result.clone());
                    return Poll::Ready(result);
                }
            }
        };
        cell.waiting.begin_poll();
        // Without a lock: the future runs foreign code.
        let waker = Waker::from(Arc::clone(&cell.waiting));
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => {
                *cell.state.lock() = State::Parked(future);
                cell.waiting.end_poll();
                Poll::Pending
            }
            Poll::Ready(result) => {
                *cell.state.lock() = State::Ended(result.clone());
                cell.waiting.wake_all();
                Poll::Ready(result)
            }
        }
    }
}

impl<T> Drop for Flight<T> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.cell.waiting.leave(place);
        }
    }
}

#[cfg(test)]
mod tests;
