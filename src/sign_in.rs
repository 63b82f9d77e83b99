//! The time between two sign-outs of a source: [`SignIn`]. A request that was made for one account must not go
//! out as another account.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// The sign-ins of a source, one after the other. Each [`invalidate`](crate::RefreshingToken::invalidate) ends one.
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

/// What the tokens of a source have in common until the next sign-out. It outlives the source: a program may sign
/// out and go on with another source.
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

    /// Takes the place of an earlier sign-in of the same source. Leaves out each sign-in that nobody can end, since
    /// its source is gone: otherwise a token that many sources hand out would collect the sign-ins of all.
    pub(crate) fn join(&self, others: &mut Vec<Self>) {
        others.retain(|other| {
            let is_ours = Arc::ptr_eq(&self.ended, &other.ended);
            !is_ours && (Arc::strong_count(&other.ended) > 1 || other.is_over())
        });
        others.push(self.clone());
    }
}
