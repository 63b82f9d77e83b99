//! A token that an async function fetches, and fetches again before each expiry: [`RefreshingToken`].

use std::{fmt, future::Future, sync::Arc, time::Duration};

use super::status::SourceStatus;
use crate::{
    error::BoxError,
    refresh::{Refresher, attempt::FetchFn, policy::Policy},
    runtime::{Runtime, default_runtime},
    source::{TokenFuture, TokenSource},
    token::BearerToken,
};

/// A token that an async function fetches: at the first request, ahead of each expiry, and when a
/// server has rejected the token.
///
/// While there is a valid token, no request waits. Requests that do wait share a fetch, which goes
/// on if some of the requests are cancelled. A fetch that fails never displaces a token that is
/// still valid. A clone is a handle on the same token.
///
/// ```
/// use std::time::Duration;
/// use tower_bearer::{BearerAuthLayer, BearerToken, InvalidToken, RefreshingToken};
///
/// # #[derive(Clone)] struct HttpClient; let client = HttpClient;
/// async fn fetch(client: HttpClient) -> Result<BearerToken, InvalidToken> {
///     // Ask the token endpoint here, over `client`. Tell the lifetime, if the token has one.
/// #   drop(client);
///     Ok(BearerToken::new("7Fjfp0ZBr1KtDRbnfVdmIw")?.expires_in(Duration::from_secs(3600)))
/// }
///
/// let source = RefreshingToken::new(move || fetch(client.clone())); // a clone for each call
/// let layer = BearerAuthLayer::new(source.clone());
/// ```
///
/// `move || async { … client … }` would borrow the client, and rustc would say "captured variable
/// cannot escape `FnMut` closure body".
///
/// # When
///
/// Nothing happens without a request: the first request fetches, and a request that finds a refresh
/// due begins it. If a program idles for hours and its next request must not wait, spawn
/// [`keep_fresh`](Self::keep_fresh).
///
/// Let L be the time to expiry when a token comes. The token is
/// * served until min(10 s, L/20) before its expiry, so that it does not expire on the way, or
///   until min(1 s, L/4) before its expiry if that is earlier, since servers count whole seconds;
/// * refreshed in the background from min(15 min, L/5) before the end of its service, or up to L/10
///   earlier, at random, so that clients that started together do not stay together. A token that
///   itself did not come by such a refresh, such as the first token or a token after a rejection or
///   an outage, is refreshed up to 3/4 L earlier: many clients may have fetched at the same moment;
/// * served for at least a second, however short its lifetime is;
/// * over as soon as the monotonic clock or the wall clock says so. The monotonic clock may stand
///   still while the computer sleeps.
///
/// A token with no expiry is kept until a server rejects it. A token that has already expired when
/// it comes shows that this computer's clock is wrong. Such a token is served as if it had no
/// expiry, and the source soon fetches another. But while the source holds a good token, such a
/// fetch counts as a failure.
///
/// # When a server rejects the token
///
/// Requests wait for the fetch that replaces the token, for at most 5 s. If the fetch fails or
/// takes longer, requests carry the rejected token until its service ends, and the source tries
/// again in the background. From then on, no request waits for a replacement until a fetch succeeds:
/// a spurious 401 and an outage of the token endpoint must not add up to a total outage.
///
/// The first two replacements are immediate. Later replacements are 10 s apart, then 20 s, and so on
/// up to 5 min, until a token has been good for this interval (at least 10 s) and for a tenth of its
/// lifetime (5 min are enough). If a request with a rejected token succeeds, the token no longer counts
/// as rejected. No request is [retried](crate::BearerAuthLayer::retry_rejected) with a new token
/// whose text is the same as the text of the rejected token.
///
/// # When a fetch fails
///
/// A fetch that panics, takes over 30 s or gives a rejected token has failed. The source tries
/// again after a random time of up to 100 ms, then up to 200 ms, and so on to 30 s (full jitter).
/// [`with_retry_after`](crate::SourceError::with_retry_after) makes the wait longer. After a
/// [permanent](crate::SourceError::permanent) error the source tries again after 10 s, then 20 s,
/// and so on up to 5 min, or at once with [`refresh_now`](Self::refresh_now).
///
/// With no token to serve, requests get the error at once until the next try, and the error tells
/// [when the next try is](crate::SourceError::retry_after). The random time is then at most half the
/// time that the outage has lasted, and this half counts as at least 5 s. A batch job waits for its
/// first token like this, and ends if another try [does not help](crate::SourceErrorKind):
///
/// ```
/// # use {std::time::Duration, tower_bearer::{*, SourceErrorKind::{Failed, Rejected, TimedOut}}};
/// # async fn sleep(_: Duration) {}
/// # async fn fetch() -> Result<BearerToken, InvalidToken> { BearerToken::new("t") }
/// # futures::executor::block_on(async {
/// # let source = RefreshingToken::new(fetch);
/// while let Err(error) = source.token().await {
///     let may_pass = matches!(error.kind(), Failed | TimedOut | Rejected);
///     if error.is_permanent() || !may_pass { return Err(error); }
///     sleep(error.retry_after().unwrap_or(Duration::from_secs(1))).await; // such as tokio's
/// }
/// # Ok::<(), SourceError>(())
/// # }).unwrap();
/// ```
///
/// # Who runs the fetch
///
/// With the feature `tokio`, a task runs the fetch, in the tokio runtime of the request that begins
/// it. The task goes on up to its time limit, even if every request and every handle is dropped.
/// Without a runtime, requests drive the fetch, as [`CallerDriven`](crate::CallerDriven) says.
///
/// * **A fetch through your own client.** A fetch may use the client *below* the layer, whatever
///   its limits: a request that waits for a token holds no permit and no connection. A fetch that
///   goes through the layer itself would wait for its own token. It gets an error of kind
///   [`Recursive`](crate::SourceErrorKind::Recursive) at once, or ends at its time limit if a
///   buffer or another task stands between the fetch and the layer.
/// * **A time limit may cost a rotated refresh token.** If a server rotates refresh tokens and the
///   limit cuts off the fetch, the server may have spent the old refresh token, and the new refresh
///   token is lost. Have the fetch function spawn a task that makes the exchange and stores the new
///   refresh token. Then the limit cuts off only the wait for that task.
/// * **A runtime for each call.** A fetch dies with the runtime that runs it. This does not count as
///   a failure. The next request begins the fetch anew, and waits for the fetch even if the old
///   token is still good: otherwise no fetch would ever end. It is better to keep a runtime for the
///   whole program, and to name it with `TokioRuntime::with_handle`.
/// * **A process that is frozen between calls**, as on a serverless platform. A fetch in the
///   background stands still with the process. No request waits for a fetch that is past its time
///   limit. A token that comes late is used unless the source holds a good token. To be sure, await
///   [`refresh_now`](Self::refresh_now) within a call.
/// * **A runtime that stands idle.** A fetch shows signs of life. If the signs stop, as in a
///   current-thread runtime that nobody drives, a request that waits elsewhere begins the fetch anew
///   after at most 7.5 s, if its own runtime has a timer. A request that waits for the
///   replacement of a rejected token carries the rejected token after 5 s.
/// * **A fetch must not block its thread**: use `spawn_blocking` of tokio. The time limit cannot cut off
///   a fetch that blocks, and a second fetch may begin beside it.
///
/// The [builder](Self::builder) has settings for most of these numbers.
#[derive(Clone)]
pub struct RefreshingToken {
    refresher: Refresher,
}

impl RefreshingToken {
    /// Makes a source that fetches with `fetch`. The first request begins the first fetch.
    ///
    /// An error of any type becomes a [`SourceError`](crate::SourceError) of kind
    /// [`Failed`](crate::SourceErrorKind::Failed) with that error as its `source()`. A
    /// [`SourceError`](crate::SourceError) is passed on unchanged: return a `SourceError` to say
    /// [how long to wait](crate::SourceError::with_retry_after), or that [another try is
    /// pointless](crate::SourceError::permanent).
    pub fn new<F, Fut, E>(fetch: F) -> Self
    where
        F: FnMut() -> Fut + Send + 'static,
        Fut: Future<Output = Result<BearerToken, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self::builder(fetch).build()
    }

    /// Makes a source whose fetch function gets the previous token. The token's
    /// [rejection](BearerToken::rejection) tells what the server asked for.
    ///
    /// `previous` is the last token that a fetch gave, even if that token has expired, was rejected
    /// since, or was not kept. Before the first fetch has given a token, `previous` is the
    /// [`first_token`](RefreshingTokenBuilder::first_token), if there is one. After
    /// [`invalidate`](Self::invalidate), `previous` is `None` until the next token comes.
    ///
    /// ```
    /// use tower_bearer::{BearerToken, InvalidToken, RefreshingToken};
    ///
    /// let source = RefreshingToken::renewing(|previous: Option<BearerToken>| async move {
    ///     let rejection = previous.and_then(|token| token.rejection());
    ///     let claims = rejection.and_then(|rejection| rejection.parameter("claims"));
    ///     let _ = claims; // Ask the token endpoint here, with these claims.
    ///     BearerToken::new("7Fjfp0ZBr1KtDRbnfVdmIw")
    /// });
    /// ```
    pub fn renewing<F, Fut, E>(fetch: F) -> Self
    where
        F: FnMut(Option<BearerToken>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<BearerToken, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self::renewing_builder(fetch).build()
    }

    /// Starts a builder: like [`new`](Self::new), but with other settings.
    ///
    /// ```
    /// # use {std::time::Duration, tower_bearer::{BearerToken, InvalidToken, RefreshingToken}};
    /// # async fn fetch() -> Result<BearerToken, InvalidToken> { BearerToken::new("t") }
    /// let source = RefreshingToken::builder(fetch)
    ///     .refresh_ahead(Duration::from_secs(60))
    ///     .fetch_timeout(Duration::from_secs(5))
    ///     .build();
    /// ```
    pub fn builder<F, Fut, E>(mut fetch: F) -> RefreshingTokenBuilder
    where
        F: FnMut() -> Fut + Send + 'static,
        Fut: Future<Output = Result<BearerToken, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self::renewing_builder(move |_| fetch())
    }

    /// Starts a builder: like [`renewing`](Self::renewing), but with other settings.
    pub fn renewing_builder<F, Fut, E>(fetch: F) -> RefreshingTokenBuilder
    where
        F: FnMut(Option<BearerToken>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<BearerToken, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        RefreshingTokenBuilder {
            fetch_fn: FetchFn::new(fetch),
            first: None,
            policy: Policy::default(),
            runtime: None,
            random: None,
        }
    }

    /// Fetches a new token now, even if the held token is good, and even during a back-off. If a
    /// fetch is under way, joins that fetch. Other requests get the held token meanwhile, as
    /// before.
    ///
    /// If there is a runtime, the fetch begins at the call, and goes on even if the future is
    /// dropped. Otherwise the future drives the fetch.
    ///
    /// # Errors
    ///
    /// The future ends with the error of the fetch.
    pub fn refresh_now(&self) -> TokenFuture {
        self.refresher.refresh()
    }

    /// Signs out: rejects the token and forgets it. No request gets the token any more, even if the
    /// source can get no other token.
    ///
    /// Requests that wait get an error of kind [`Invalidated`](crate::SourceErrorKind::Invalidated): a
    /// request that was made for one account must not go out as another account. For the same reason,
    /// neither `RetryRejected` nor the middleware for reqwest retries a request that was sent before the
    /// sign-out. A layer above that makes a request anew, such as a redirect follower or another policy
    /// for retries, gets a later token all the same.
    ///
    /// The result of a fetch that is under way is dropped. The next request waits until that fetch
    /// has ended or is past its time limit, and then begins another fetch.
    pub fn invalidate(&self) {
        self.refresher.invalidate();
    }

    /// What the source holds and when it fetches next, for a health check or a log. Costs a lock.
    #[must_use]
    pub fn status(&self) -> SourceStatus {
        self.refresher.status().into()
    }

    /// A future that fetches the first token and refreshes each token on time, even while there are
    /// no requests. Spawn the future. It does not count as a handle on the source: it ends when the
    /// last handle is dropped. The source's [`Runtime`] has to have a timer.
    ///
    /// ```
    /// # use tower_bearer::{BearerToken, InvalidToken, RefreshingToken};
    /// # async fn fetch() -> Result<BearerToken, InvalidToken> { BearerToken::new("t") }
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let source = RefreshingToken::new(fetch);
    /// tokio::spawn(source.keep_fresh());
    /// # }
    /// ```
    #[must_use = "futures do nothing unless polled"]
    pub fn keep_fresh(&self) -> impl Future<Output = ()> + Send + use<> {
        self.refresher.keep_fresh()
    }
}

impl TokenSource for RefreshingToken {
    /// With a token at hand, costs a lock-free load, a read of a coarse clock, two comparisons and
    /// a reference count. About once a second, a request takes a lock to look at the wall clock.
    #[inline]
    fn token(&self) -> TokenFuture {
        self.refresher.token()
    }
}

impl fmt::Debug for RefreshingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshingToken")
            .field("current", &self.refresher.usable())
            .finish_non_exhaustive()
    }
}

/// The settings of a [`RefreshingToken`], whose documentation says what the settings mean together.
#[must_use = "a builder does nothing until it is built"]
pub struct RefreshingTokenBuilder {
    fetch_fn: FetchFn,
    first: Option<BearerToken>,
    policy: Policy,
    runtime: Option<Arc<dyn Runtime>>,
    random: Option<fastrand::Rng>,
}

impl RefreshingTokenBuilder {
    /// Starts with a token that the program already has. An expired token is not served, but the fetch
    /// function gets it as [`previous`](RefreshingToken::renewing). Default: no token.
    pub fn first_token(mut self, token: BearerToken) -> Self {
        self.first = Some(token);
        self
    }

    /// How long before the end of its service a token is refreshed, or a fifth of its lifetime if
    /// that is less. Default: 15 minutes.
    pub fn refresh_ahead(mut self, ahead: Duration) -> Self {
        self.policy.refresh_ahead = ahead;
        self
    }

    /// The largest fraction of the lifetime, from 0 to 1, by which a refresh is randomly moved earlier.
    /// Default: 0.1.
    pub fn refresh_jitter(mut self, fraction: f64) -> Self {
        self.policy.refresh_jitter = fraction;
        self
    }

    /// Like [`refresh_jitter`](Self::refresh_jitter), but for a token that did not come by a refresh
    /// ahead of time: the first token, and a token after a rejection or a failure. Default: 0.75.
    pub fn startup_jitter(mut self, fraction: f64) -> Self {
        self.policy.startup_jitter = fraction;
        self
    }

    /// How long before its expiry a token's service ends, or a twentieth of its lifetime if that is
    /// less. Service ends at least a second before the expiry, or a quarter of the lifetime if that
    /// is less. Default: 10 seconds.
    pub fn expiry_margin(mut self, margin: Duration) -> Self {
        self.policy.expiry_margin = margin;
        self
    }

    /// How long a fetch may take. A fetch that takes longer has failed. Default: 30 seconds.
    pub fn fetch_timeout(mut self, timeout: Duration) -> Self {
        self.policy.fetch_timeout = timeout;
        self
    }

    /// How long requests wait for the fetch that replaces a rejected token, before they carry the
    /// rejected token again. Default: 5 seconds.
    pub fn replacement_wait(mut self, wait: Duration) -> Self {
        self.policy.replacement_wait = wait;
        self
    }

    /// The ceiling of the random wait after the first failure, and the limit to which the ceiling
    /// doubles. Default: 100 milliseconds and 30 seconds. By default, the ceiling is lower while
    /// there is no token to serve; with this setting, it is not.
    pub fn backoff(mut self, first: Duration, max: Duration) -> Self {
        self.policy.backoff_first = first;
        self.policy.backoff_max = max;
        self.policy.backoff_is_users = true;
        self
    }

    /// The minimum time between fetches that replace a rejected token, from the third fetch on, and
    /// the limit to which this time doubles. Default: 10 seconds and 5 minutes.
    pub fn rejection_backoff(mut self, first: Duration, max: Duration) -> Self {
        self.policy.rejection_backoff_first = first;
        self.policy.rejection_backoff_max = max;
        self
    }

    /// The runtime that runs the fetches. Default: `TokioRuntime` with the feature `tokio`, else
    /// [`CallerDriven`](crate::CallerDriven).
    pub fn runtime(mut self, runtime: impl Runtime) -> Self {
        self.runtime = Some(Arc::new(runtime));
        self
    }

    /// Makes the random numbers repeatable, for tests and simulations.
    pub fn random_seed(mut self, seed: u64) -> Self {
        self.random = Some(fastrand::Rng::with_seed(seed));
        self
    }

    /// Makes the source. Nothing is fetched before the first request.
    #[must_use]
    pub fn build(self) -> RefreshingToken {
        let runtime = self.runtime.unwrap_or_else(default_runtime);
        let random = self.random.unwrap_or_default();
        let refresher = Refresher::new(self.policy, runtime, self.fetch_fn, random);
        if let Some(first) = self.first {
            refresher.hold(first);
        }
        RefreshingToken { refresher }
    }
}

impl fmt::Debug for RefreshingTokenBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshingTokenBuilder")
            .field("first", &self.first)
            .field("policy", &self.policy)
            .field("runtime", &self.runtime)
            .finish_non_exhaustive()
    }
}
