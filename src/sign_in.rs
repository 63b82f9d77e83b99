//! The time between two sign-outs of a source: [`SignIn`]. A request that was made for one account must not go
//! out as another account.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicU64, Ordering},
};

/// The sign-ins of a source in turn. [`invalidate`](crate::RefreshingToken::invalidate) ends the current sign-in, and
/// the next sign-in begins.
#[derive(Default)]
pub(crate) struct SignIns {
    ended: Arc<AtomicU64>,
    /// Dropped with the source.
    source: Arc<()>,
}

impl SignIns {
    pub(crate) fn current(&self) -> SignIn {
        SignIn {
            number: self.ended.load(Ordering::Acquire),
            ended: Arc::clone(&self.ended),
            source: Arc::downgrade(&self.source),
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
    source: Weak<()>,
}

impl SignIn {
    pub(crate) fn is_over(&self) -> bool {
        self.ended.load(Ordering::Acquire) != self.number
    }

    /// Joins the sign-ins of a token, in place of an earlier sign-in of the same source. Removes each sign-in that
    /// is not over and whose source is gone, since nothing can end that sign-in any more. Otherwise a token that
    /// many sources hand out would collect sign-ins without limit.
    pub(crate) fn join(&self, others: &mut Vec<Self>) {
        others.retain(|other| {
            let is_ours = Arc::ptr_eq(&self.ended, &other.ended);
            !is_ours && (other.source.strong_count() > 0 || other.is_over())
        });
        others.push(self.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::SignIns;

    #[test]
    fn tokens_that_many_sources_hand_out_do_not_collect_their_sign_ins() {
        // Two tokens: each would keep the sign-ins of the other alive.
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for _ in 0..10 {
            let source = SignIns::default();
            source.current().join(&mut first);
            source.current().join(&mut second);
        }
        assert_eq!((first.len(), second.len()), (1, 1));
    }

    #[test]
    fn a_sign_in_that_is_over_stays_although_its_source_is_gone() {
        let mut sign_ins = Vec::new();
        let source = SignIns::default();
        source.current().join(&mut sign_ins);
        source.end();
        drop(source);
        SignIns::default().current().join(&mut sign_ins);
        assert_eq!(sign_ins.len(), 2);
        assert!(sign_ins[0].is_over());
    }
}
