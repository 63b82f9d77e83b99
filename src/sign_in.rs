//! The time between two sign-outs of a source: [`SignIn`]. A request that was made for one account must not go
//! out as another account.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// What the tokens of a source have in common until [`invalidate`](crate::RefreshingToken::invalidate).
#[derive(Clone, Default)]
pub(crate) struct SignIn {
    is_over: Arc<AtomicBool>,
}

impl SignIn {
    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Release);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }
}
