//! Requests without a pause from several tasks, and the outcome of each request.

use std::{
    collections::BTreeSet,
    error::Error as StdError,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::task::JoinHandle;
use tower::{Service, ServiceBuilder, ServiceExt, retry::RetryLayer, util::BoxCloneSyncService};
use tower_bearer::{BearerAuthLayer, BoxError, Error, ErrorKind, RetryRejected, TokenSource};

/// Enough tasks that several requests wait for the same fetch.
const TASKS: usize = 4;

/// A wait for longer than this fails, so that no test hangs.
const HANGS: Duration = Duration::from_secs(100);

pub(crate) type HttpClient = Client<HttpConnector, Full<Bytes>>;
pub(crate) type Stack =
    BoxCloneSyncService<Request<Full<Bytes>>, http::Response<Incoming>, BoxError>;

pub(crate) fn http_client() -> HttpClient {
    Client::builder(TokioExecutor::new()).build_http()
}

/// A request that was rejected is not sent again.
pub(crate) fn stack(source: impl TokenSource + 'static) -> Stack {
    let stack = ServiceBuilder::new()
        .layer(BearerAuthLayer::new(source))
        .service(http_client());
    BoxCloneSyncService::new(stack)
}

/// A request that was rejected is sent again with the next token.
pub(crate) fn retrying_stack(source: impl TokenSource + 'static) -> Stack {
    let stack = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryRejected::new()))
        .layer(BearerAuthLayer::new(source).retry_rejected())
        .service(http_client());
    BoxCloneSyncService::new(stack)
}

pub(crate) struct Outcome {
    begun: Instant,
    ended: Instant,
    pub(crate) result: Result<StatusCode, BoxError>,
}

impl Outcome {
    pub(crate) fn is_success(&self) -> bool {
        matches!(&self.result, Ok(status) if status.is_success())
    }

    /// The layer's error, if the layer did not send the request.
    pub(crate) fn refusal(&self) -> Option<&Error> {
        causes(&**self.result.as_ref().err()?).find_map(|cause| cause.downcast_ref())
    }

    fn describe(&self) -> String {
        match &self.result {
            Ok(status) => status.to_string(),
            Err(error) => chain(&**error),
        }
    }
}

fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

fn chain(error: &(dyn StdError + 'static)) -> String {
    let texts: Vec<_> = causes(error).map(ToString::to_string).collect();
    texts.join(": ")
}

pub(crate) struct Traffic {
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    successes: Arc<AtomicUsize>,
    others: Arc<AtomicUsize>,
    refusals: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Traffic {
    pub(crate) fn start(stack: &Stack, url: &str) -> Self {
        let mut traffic = Self {
            outcomes: Arc::default(),
            successes: Arc::default(),
            others: Arc::default(),
            refusals: Arc::default(),
            stop: Arc::default(),
            tasks: Vec::new(),
        };
        for _ in 0..TASKS {
            let task = traffic.task(stack.clone(), url.to_owned());
            traffic.tasks.push(tokio::spawn(task));
        }
        traffic
    }

    fn task(&self, mut stack: Stack, url: String) -> impl Future<Output = ()> + Send + use<> {
        let outcomes = self.outcomes.clone();
        let (successes, others) = (self.successes.clone(), self.others.clone());
        let (refusals, stop) = (self.refusals.clone(), self.stop.clone());
        async move {
            while !stop.load(SeqCst) {
                let begun = Instant::now();
                let result = request(&mut stack, &url).await;
                let outcome = Outcome {
                    begun,
                    ended: Instant::now(),
                    result,
                };
                let count = if outcome.is_success() {
                    &successes
                } else {
                    &others
                };
                if outcome.refusal().is_some() {
                    refusals.fetch_add(1, SeqCst);
                }
                outcomes.lock().unwrap().push(outcome);
                count.fetch_add(1, SeqCst);
                // The servers share two processors with the other tests.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// Waits for `count` more requests that succeed.
    pub(crate) async fn succeed(&self, count: usize) {
        reach(&self.successes, count).await;
    }

    /// Waits for `count` more requests that do not succeed.
    pub(crate) async fn fail(&self, count: usize) {
        reach(&self.others, count).await;
    }

    /// Waits for `count` more requests that the layer does not send.
    pub(crate) async fn refuse(&self, count: usize) {
        reach(&self.refusals, count).await;
    }

    pub(crate) async fn stop(self) -> Outcomes {
        self.stop.store(true, SeqCst);
        for task in self.tasks {
            task.await.unwrap();
        }
        Outcomes(std::mem::take(&mut self.outcomes.lock().unwrap()))
    }
}

async fn reach(counter: &AtomicUsize, more: usize) {
    let wanted = counter.load(SeqCst) + more;
    let begun = Instant::now();
    while counter.load(SeqCst) < wanted {
        assert!(begun.elapsed() < HANGS, "only {counter:?} of {wanted}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn request(stack: &mut Stack, url: &str) -> Result<StatusCode, BoxError> {
    let request = Request::get(url).body(Full::default())?;
    let response = stack.ready().await?.call(request).await?;
    let status = response.status();
    response.into_body().collect().await?;
    Ok(status)
}

pub(crate) struct Outcomes(pub(crate) Vec<Outcome>);

impl Outcomes {
    /// Checks that each request that did not succeed was under way in `window`. With `None`, each request has
    /// to succeed.
    pub(crate) fn assert_failures_within(&self, window: Option<(Instant, Instant)>) {
        let outside = self.0.iter().filter(|outcome| {
            let overlaps =
                window.is_some_and(|(from, to)| outcome.ended >= from && outcome.begun <= to);
            !outcome.is_success() && !overlaps
        });
        let outside: Vec<_> = outside.map(Outcome::describe).collect();
        assert!(
            outside.is_empty(),
            "{} of {} requests failed outside of the window: {:?}",
            outside.len(),
            self.0.len(),
            outside.iter().collect::<BTreeSet<_>>()
        );
    }

    pub(crate) fn failures(&self) -> usize {
        let failures = self.0.iter().filter(|outcome| !outcome.is_success());
        failures.count()
    }

    /// The text of the permanent error that kept the layer from sending requests. Checks that it was the same
    /// error each time.
    ///
    /// Compares the last cause only, since an error in the back-off also says how long the back-off takes.
    pub(crate) fn only_refusal(&self) -> String {
        let refusals = self.0.iter().filter_map(Outcome::refusal);
        let causes: BTreeSet<_> = refusals
            .map(|error| {
                assert_eq!(error.kind(), ErrorKind::NoToken);
                let source = error.source_error().unwrap();
                assert!(source.is_permanent(), "{source}");
                causes(source).last().unwrap().to_string()
            })
            .collect();
        assert_eq!(causes.len(), 1, "{causes:?}");
        causes.into_iter().next().unwrap()
    }
}
