//! Finds a fetch that would wait for itself. Each thread has a list of the sources whose fetches are
//! running on its stack.

use std::{
    cell::RefCell,
    sync::atomic::{AtomicU64, Ordering},
};

#[cfg(shuttle)]
use shuttle::thread_local;

thread_local! {
    static FETCHING: RefCell<Vec<SourceId>> = const { RefCell::new(Vec::new()) };
}

/// Identifies a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SourceId(u64);

impl SourceId {
    pub(crate) fn new() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed))
    }
}

/// Notes that this thread runs the source's fetch until the guard is dropped.
pub(crate) fn enter(source: SourceId) -> Within {
    // While a thread ends, its list does not exist any more, and nobody looks at the list.
    let _ = FETCHING.try_with(|fetching| fetching.borrow_mut().push(source));
    Within(())
}

/// Whether this call comes, directly or not, from the source's fetch.
pub(crate) fn is_within(source: SourceId) -> bool {
    let is_within = FETCHING.try_with(|fetching| fetching.borrow().contains(&source));
    is_within.unwrap_or(false)
}

#[must_use]
pub(crate) struct Within(());

impl Drop for Within {
    fn drop(&mut self) {
        let _ = FETCHING.try_with(|fetching| fetching.borrow_mut().pop());
    }
}
