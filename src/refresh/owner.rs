//! The owner of a fetch: the task that polls it. [`Owner`] tells the engine how the task ends, in
//! its `Drop` at the latest.

use std::sync::{Arc, Weak};

use futures::future::BoxFuture;

use super::{answer::FetchId, attempt::Attempt, engine::Core};
use crate::{error::SourceError, token::BearerToken};

/// A task that makes the attempt and reports its end.
pub(super) fn task(core: &Arc<Core>, id: FetchId, attempt: Attempt) -> BoxFuture<'static, ()> {
    let mut owner = Owner {
        core: Arc::downgrade(core),
        id,
        ended: false,
    };
    Box::pin(async move {
        let result = attempt.run().await;
        owner.finish(result);
    })
}

/// Lives in the task that polls the fetch, and so is dropped with the task.
struct Owner {
    /// Weak, since a fetch in the background must not keep the source alive.
    core: Weak<Core>,
    id: FetchId,
    ended: bool,
}

impl Owner {
    fn finish(&mut self, result: Result<BearerToken, SourceError>) {
        self.ended = true;
        if let Some(core) = self.core.upgrade() {
            core.finish(self.id, result);
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if let Some(core) = self.core.upgrade() {
            core.lose(self.id);
        }
    }
}
