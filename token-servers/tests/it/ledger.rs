//! A Tower layer that notes each token request.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::{Request, Response, StatusCode};
use tower::{Layer, Service};

/// The refresh schedule reads a clock that may lag by 20 ms.
const CLOCK: Duration = Duration::from_millis(20);

/// How long a permanent error stands before the source tries again.
const PERMANENT: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) begun: Instant,
    /// When the head of the response came. `None` if no response came.
    pub(crate) answer: Option<(Instant, StatusCode)>,
}

impl Entry {
    pub(crate) fn is_success(&self) -> bool {
        matches!(&self.answer, Some((_, status)) if status.is_success())
    }
}

#[derive(Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<Vec<Entry>>>);

impl Ledger {
    pub(crate) fn of(entries: &[Entry]) -> Self {
        Self(Arc::new(Mutex::new(entries.to_vec())))
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Checks that each token was replaced once, and that there was no other token request. The replacement
    /// begins `after` the answer that brought the token, or later by at most `late`. `stopped` is when the
    /// last request of the traffic had ended.
    pub(crate) fn assert_one_request_each(
        &self,
        after: Duration,
        late: Duration,
        stopped: Instant,
    ) {
        let entries = self.entries();
        let mut ends = Vec::new();
        for entry in &entries {
            assert!(entry.is_success(), "{entry:?}");
            ends.push(entry.answer.unwrap().0);
        }
        let begins = entries[1..].iter().map(|entry| entry.begun);
        for (number, (end, begin)) in ends.iter().zip(begins).enumerate() {
            let gap = begin.saturating_duration_since(*end);
            assert!(
                gap + CLOCK >= after && gap <= after + late,
                "token {number} was replaced after {gap:?}"
            );
        }
        let last = stopped.saturating_duration_since(*ends.last().unwrap());
        assert!(last <= after + late, "the last token is {last:?} old");
    }

    /// The number of token requests that failed. Checks that two failures are at least 10 s apart.
    pub(crate) fn permanent_failures(&self) -> usize {
        let entries = self.entries();
        let failures = entries.iter().filter(|entry| !entry.is_success());
        let failures: Vec<_> = failures.map(|entry| entry.begun).collect();
        for pair in failures.windows(2) {
            let gap = pair[1] - pair[0];
            assert!(gap + CLOCK >= PERMANENT, "tried again after {gap:?}");
        }
        failures.len()
    }
}

impl<S> Layer<S> for Ledger {
    type Service = Noted<S>;

    fn layer(&self, inner: S) -> Noted<S> {
        Noted {
            inner,
            ledger: self.clone(),
        }
    }
}

#[derive(Clone)]
pub(crate) struct Noted<S> {
    inner: S,
    ledger: Ledger,
}

impl<S, B, R> Service<Request<B>> for Noted<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let ledger = self.ledger.0.clone();
        let number = {
            let mut entries = ledger.lock().unwrap();
            entries.push(Entry {
                begun: Instant::now(),
                answer: None,
            });
            entries.len() - 1
        };
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await?;
            ledger.lock().unwrap()[number].answer = Some((Instant::now(), response.status()));
            Ok(response)
        })
    }
}
