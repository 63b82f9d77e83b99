//! The time between two sign-outs of a source: [`SignIn`]. A request that was made for one account must not go
//! out as another account.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// The sign-ins of a source in turn. [`invalidate`](crate::RefreshingToken::invalidate) ends the current sign-in, and
/// the next sign-in begins.
#[derive(Default)]
pub(crate) struct SignIns {
    ended: Arc<AtomicU64>,
}

impl SignIns {
    pub(crate) fn current(&self) -> SignIn {
        SignIn {
            number: self.ended.load(Ordering::Acquire),
            ended: Arc::clone(&self.ended),
        }
    }

    pub(crate) fn end(&self) {
        self.ended.fetch_add(1, Ordering::Release);
    }
}

/// What the tokens of a source have in common until the next sign-out. A sign-in outlives its source, since a program
/// may sign out and go on with another source.
#[derive(Clone)]
pub(crate) struct SignIn {
    number: u64,
    /// How many sign-ins of the source have ended.
    ended: Arc<AtomicU64>,
}

impl SignIn {
    pub(crate) fn is_over(&self) -> bool {
        self.ended.load(Ordering::Acquire) != self.number
    }

    /// Joins the sign-ins of a token, in place of an earlier sign-in of the same source. Removes each sign-in that
    /// is not over and has no other reference: the source is gone, so nothing can end that sign-in any more.
    /// Otherwise a token that many sources hand out would collect sign-ins without limit.
    pub(crate) fn join(&self, others: &mut Vec<Self>) {
        others.retain(|other| {
            let is_ours = Arc::ptr_eq(&self.ended, &other.ended);
            !is_ours && (Arc::strong_count(&other.ended) > 1 || other.is_over())
        });
        others.push(self.clone());
    }
}
