//! The owner of a fetch: the task that polls it. [`Owner`] reports how the task ends, in its `Drop` at the
//! latest.

use futures::future::BoxFuture;

use super::attempt::Attempt;
use crate::{error::SourceError, token::BearerToken};

/// A task that makes the attempt and reports its result, or `None` if the task is dropped before the end.
pub(super) fn task(
    attempt: Attempt,
    report: impl FnOnce(Option<Result<BearerToken, SourceError>>) + Send + 'static,
) -> BoxFuture<'static, ()> {
    let mut owner = Owner {
        report: Some(report),
    };
    Box::pin(async move {
        let result = attempt.run().await;
        owner.report(Some(result));
    })
}

/// Lives in the task that polls the fetch, and so is dropped with the task.
struct Owner<F: FnOnce(Option<Result<BearerToken, SourceError>>)> {
    /// `None` once the end is reported.
    report: Option<F>,
}

impl<F: FnOnce(Option<Result<BearerToken, SourceError>>)> Owner<F> {
    fn report(&mut self, end: Option<Result<BearerToken, SourceError>>) {
        if let Some(report) = self.report.take() {
            report(end);
        }
    }
}

impl<F: FnOnce(Option<Result<BearerToken, SourceError>>)> Drop for Owner<F> {
    fn drop(&mut self) {
        self.report(None);
    }
}
