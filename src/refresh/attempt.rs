//! One try to get a token: the user's future, ended at its time limit, and without its panics.

use std::{mem, panic::AssertUnwindSafe, pin::pin, sync::Arc, time::Duration};

use futures::{
    channel::oneshot,
    future::{BoxFuture, Either, FutureExt, select},
};

use crate::{error::SourceError, runtime::Runtime, token::BearerToken, trace};

/// Makes a fetch. Called when the fetch is first polled.
pub(crate) type Fetch =
    dyn Fn() -> BoxFuture<'static, Result<BearerToken, SourceError>> + Send + Sync;

/// Ends after `timeout`, or when the sender of `cancelled` is gone.
pub(crate) async fn attempt(
    fetch: Arc<Fetch>,
    runtime: Arc<dyn Runtime>,
    timeout: Duration,
    cancelled: oneshot::Receiver<()>,
) -> Result<BearerToken, SourceError> {
    let attempt = async move {
        let fetched = async move {
            trace::fetch_started();
            fetch().await
        };
        let limit = async move {
            let given_up = select(runtime.sleep(timeout), cancelled);
            given_up.await;
        };
        match select(pin!(fetched), pin!(limit)).await {
            Either::Left((result, _)) => result,
            Either::Right(((), _)) => Err(SourceError::timed_out(timeout)),
        }
    };
    // A panic must not tear down whoever happens to poll.
    let result = AssertUnwindSafe(attempt).catch_unwind().await;
    result.unwrap_or_else(|payload| {
        // Its `Drop` may panic in turn.
        mem::forget(payload);
        Err(SourceError::panicked())
    })
}
