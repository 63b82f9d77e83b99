//! The wakers of the futures that wait for the same event: [`Waiters`].
//!
//! For a waiter, the cost to enter, to leave and to be woken does not depend on the number of
//! waiters.

use std::{mem, task::Waker};

use slab::Slab;

use super::contain::contain;
use crate::sync::Mutex;

#[derive(Debug, Default)]
pub(crate) struct Waiters(Mutex<Places>);

#[derive(Default)]
struct Places {
    wakers: Slab<Waker>,
    /// How often all waiters have been woken. A place is valid within its epoch only.
    epoch: u64,
}

/// Where the waker of a waiter is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    epoch: u64,
    key: usize,
}

impl Waiters {
    /// Makes the next [`wake_all`](Self::wake_all) wake `waker`, in place of the waker that is at
    /// `place`.
    pub(crate) fn enter(&self, place: &mut Option<Place>, waker: &Waker) {
        let is_known = |places: &Places, place: Place| {
            let known = places.wakers.get(place.key);
            place.epoch == places.epoch && known.is_some_and(|known| known.will_wake(waker))
        };
        if place.is_some_and(|place| is_known(&self.0.lock(), place)) {
            return;
        }
        // Clone and drop wakers without the lock: a waker may own a task, which may call this
        // method.
        let fresh = waker.clone();
        let mut places = self.0.lock();
        let epoch = places.epoch;
        let held = place.filter(|place| place.epoch == epoch);
        let known = held.and_then(|place| places.wakers.get_mut(place.key));
        let displaced = if let Some(known) = known {
            Some(mem::replace(known, fresh))
        } else {
            let key = places.wakers.insert(fresh);
            *place = Some(Place { epoch, key });
            None
        };
        drop(places);
        drop(displaced);
    }

    /// Drops the waker at `place`.
    pub(crate) fn leave(&self, place: Place) {
        let mut places = self.0.lock();
        let waker = (places.epoch == place.epoch)
            .then(|| places.wakers.try_remove(place.key))
            .flatten();
        if places.wakers.is_empty() {
            // Frees the memory after a burst of waiters.
            places.wakers = Slab::new();
        }
        drop(places);
        drop(waker);
    }

    /// Wakes all wakers that have entered. A waker that panics does not keep the other wakers from
    /// being woken.
    pub(crate) fn wake_all(&self) {
        let wakers = {
            let mut places = self.0.lock();
            places.epoch = places.epoch.wrapping_add(1);
            mem::take(&mut places.wakers)
        };
        for (_, waker) in wakers {
            let _ = contain(|| waker.wake());
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.lock().wakers.len()
    }
}

#[cfg(test)]
#[allow(clippy::panic, clippy::unwrap_used)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::{Wake, Waker},
    };

    use futures::task::noop_waker;

    use super::Waiters;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_waiter_that_leaves_is_forgotten_at_once() {
        let waiters = Waiters::default();
        let mut places = vec![None; 65_536];
        for place in &mut places {
            waiters.enter(place, &noop_waker());
        }
        assert_eq!(waiters.len(), 65_536);
        for _ in 0..1_000 {
            waiters.leave(places.pop().flatten().unwrap());
            let mut place = None;
            waiters.enter(&mut place, &noop_waker());
            places.push(place);
            assert_eq!(waiters.len(), 65_536);
        }
        for place in places.into_iter().flatten() {
            waiters.leave(place);
        }
        assert_eq!(waiters.len(), 0);
        assert_eq!(waiters.0.lock().wakers.capacity(), 0, "memory of a burst");
    }

    #[test]
    fn a_waiter_that_enters_again_has_one_place_and_its_newest_waker() {
        let waiters = Waiters::default();
        let (old, new) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let mut place = None;
        for count in [&old, &new, &new] {
            waiters.enter(&mut place, &Waker::from(Arc::clone(count)));
        }
        assert_eq!(waiters.len(), 1);
        assert_eq!(Arc::strong_count(&old), 1, "its waker is dropped");
        waiters.wake_all();
        assert_eq!(old.0.load(Ordering::SeqCst), 0);
        assert_eq!(new.0.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_place_of_an_earlier_epoch_removes_no_other_waker() {
        let waiters = Waiters::default();
        let mut woken = None;
        waiters.enter(&mut woken, &noop_waker());
        waiters.wake_all();
        let count = Arc::new(Count::default());
        let mut other = None;
        waiters.enter(&mut other, &Waker::from(Arc::clone(&count)));
        waiters.leave(woken.unwrap());
        assert_eq!(waiters.len(), 1);
        waiters.enter(&mut woken, &noop_waker());
        assert_eq!(waiters.len(), 2);
        waiters.wake_all();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
    }

    /// A task that polls several futures enters the same waker several times.
    #[test]
    fn a_waiter_does_not_rely_on_the_place_of_another_waiter_with_the_same_waker() {
        let waiters = Waiters::default();
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let (mut stays, mut leaves) = (None, None);
        waiters.enter(&mut stays, &waker);
        waiters.wake_all();
        waiters.enter(&mut leaves, &waker);
        waiters.enter(&mut stays, &waker);
        waiters.leave(leaves.unwrap());
        waiters.wake_all();
        assert_eq!(count.0.load(Ordering::SeqCst), 2);
    }

    struct Panics;

    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("the waker has a bug");
        }
    }

    #[test]
    fn a_waker_that_panics_does_not_keep_other_wakers_from_being_woken() {
        let waiters = Waiters::default();
        let count = Arc::new(Count::default());
        let wakers = [
            Waker::from(Arc::clone(&count)),
            Waker::from(Arc::new(Panics)),
            Waker::from(Arc::clone(&count)),
        ];
        for waker in &wakers {
            waiters.enter(&mut None, waker);
        }
        waiters.wake_all();
        assert_eq!(count.0.load(Ordering::SeqCst), 2);
    }
}
