//! A token that is fetched, and fetched again before it expires: [`RefreshingToken`].

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
/// While there is a valid token, no request waits. Requests that do wait share one fetch, which goes
/// on if some of them are cancelled. A fetch that fails never displaces a token that is still valid.
///
/// A clone is a handle on the same token.
///
/// ```
/// use std::time::Duration;
/// use tower_bearer::{BearerAuthLayer, BearerToken, InvalidToken, RefreshingToken};
///
/// async fn fetch() -> Result<BearerToken, InvalidToken> {
///     // Ask the token endpoint here. Tell the lifetime, if the token has one.
///     Ok(BearerToken::new("7Fjfp0ZBr1KtDRbnfVdmIw")?.expires_in(Duration::from_secs(3600)))
/// }
///
/// let source = RefreshingToken::new(fetch);
/// let layer = BearerAuthLayer::new(source.clone());
/// ```
///
/// # When
///
/// Nothing happens without a request: the first request fetches, and a refresh begins when a request
/// finds it due. A program that idles for hours and must not wait then spawns
/// [`keep_fresh`](Self::keep_fresh).
///
/// With L the lifetime that is left when the token comes, a token is
/// * served until min(10 s, L/20) before its expiry, so that it does not expire on the way, and at
///   least min(1 s, L/4) before, since servers count whole seconds;
/// * refreshed in the background from min(15 min, L/5) before that, or up to L/10 earlier, at random:
///   clients that started together do not stay together. The first token, and a token that came after
///   a rejection or an outage, is refreshed up to 3/4 L earlier, since many clients may have got
///   theirs at the same moment;
/// * served for a second at least, however short it lives;
/// * judged by the monotonic clock and by the wall clock, whichever is first: the monotonic clock may
///   stand still while the machine sleeps.
///
/// A token with no expiry is kept until a server rejects it. A token that has expired when it comes
/// shows that this machine's clock is wrong: it is served all the same, as a token without expiry,
/// unless a better token is held.
///
/// # When a server rejects the token
///
/// Requests wait for the one fetch that replaces it, for at most 5 s. If the fetch fails or takes
/// longer, the rejected token is sent again until it expires, no request waits for a replacement until
/// a fetch succeeds, and later tries run in the background: one spurious 401 and an outage of the token
/// endpoint must not add up to a total outage. The first two replacements are immediate. While the
/// server rejects one new token after the other, later replacements are 10 s apart, then 20 s, and so
/// on up to 5 min. A success of a rejected token takes the mark off.
///
/// # When a fetch fails
///
/// A fetch that panics, takes over 30 s or gives a rejected token has failed. The source tries again
/// after a random time of up to 100 ms, then 200 ms, and so on up to 30 s (full jitter). With no token
/// to serve, that is at most half the time that the outage has lasted, but may always be 5 s; requests
/// meanwhile get the error at once, and it tells [when the next try is](crate::SourceError::retry_after).
/// [`with_retry_after`](crate::SourceError::with_retry_after) makes the wait longer. After a
/// [permanent](crate::SourceError::permanent) error the source tries again after 10 s, then 20 s, and so on up
/// to 5 min, or at once with [`refresh_now`](Self::refresh_now). A batch job that waits for its first
/// token:
///
/// ```
/// # use std::time::Duration;
/// # use tower_bearer::{BearerToken, InvalidToken, RefreshingToken, SourceError, TokenSource};
/// # async fn sleep(_: Duration) {}
/// # async fn fetch() -> Result<BearerToken, InvalidToken> { BearerToken::new("t") }
/// # futures::executor::block_on(async {
/// # let source = RefreshingToken::new(fetch);
/// while let Err(error) = source.token().await {
///     if error.is_permanent() { return Err(error); }
///     sleep(error.retry_after().unwrap_or(Duration::from_secs(1))).await; // yours, as tokio's
/// }
/// # Ok::<(), SourceError>(())
/// # }).unwrap();
/// ```
///
/// # Who runs the fetch
///
/// With the feature `tokio`, a task of the tokio runtime that the first waiting request runs in; it
/// goes on up to its time limit even if every request and every handle is dropped. Without a runtime,
/// requests drive the fetch, as [`CallerDriven`](crate::CallerDriven) says.
///
/// * **A fetch through your own client.** A fetch may use the client *below* the layer, whatever its
///   limits: a request that waits for a token holds no permit and no connection. A fetch that goes
///   through the layer itself would wait for its own token. It gets an error of kind
///   [`Recursive`](crate::SourceErrorKind::Recursive) at once, or ends at its time limit if a buffer or
///   another task is in between.
/// * **A time limit may cost a rotated refresh token.** A server that rotates refresh tokens has
///   spent the old one when the limit cuts off the fetch. Have the fetch function spawn the exchange
///   and store the new refresh token there, so that only the wait for the exchange is cut off.
/// * **A runtime for each call**, dropped after it: a fetch dies with the runtime that runs it. That is
///   no failure. The next request begins the fetch anew, and waits for it although the old token may
///   still be good: otherwise no fetch would ever end. Better keep one runtime, or name it with
///   `TokioRuntime::with_handle`.
/// * **A process that is frozen between calls**, as by a function platform: a fetch in the background
///   stands still with the process. Past its time limit nobody waits for it any more; if it brings a
///   token in the end, that is taken. Await [`refresh_now`](Self::refresh_now) within a call to be
///   sure.
/// * **A runtime that stands idle.** A fetch shows signs of life. If they stop, as in a current-thread
///   runtime that nobody drives, a waiter in another runtime begins the fetch anew after 5 s, at most.
///   A waiter needs a working timer for that.
///
/// All of these numbers are settings of the [builder](Self::builder).
#[derive(Clone)]
pub struct RefreshingToken {
    refresher: Refresher,
}

impl RefreshingToken {
    /// Fetches with `fetch`, first when the first request comes.
    ///
    /// An error of any type becomes a [`SourceError`](crate::SourceError) of kind
    /// [`Failed`](crate::SourceErrorKind::Failed) with that error as its `source()`. A [`SourceError`](crate::SourceError)
    /// stays what it is: return one to say [how long to wait](crate::SourceError::with_retry_after), or that
    /// [another try is pointless](crate::SourceError::permanent).
    pub fn new<F, Fut, E>(fetch: F) -> Self
    where
        F: FnMut() -> Fut + Send + 'static,
        Fut: Future<Output = Result<BearerToken, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self::builder(fetch).build()
    }

    /// Fetches with a function that gets the previous token, whose
    /// [rejection](BearerToken::rejection) tells what the server asked for.
    ///
    /// `previous` is the last token that any fetch gave, also if that token has expired, was rejected
    /// or was not kept. It is `None` at first, and after [`invalidate`](Self::invalidate).
    ///
    /// ```
    /// use tower_bearer::{BearerToken, InvalidToken, RefreshingToken};
    ///
    /// let source = RefreshingToken::renewing(|previous: Option<BearerToken>| async move {
    ///     let rejection = previous.and_then(|token| token.rejection());
    ///     let claims = rejection.and_then(|rejection| rejection.parameter("claims"));
    ///     // Ask the token endpoint here, with these claims.
    ///     let _ = claims;
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

    /// As [`new`](Self::new), under other settings.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_bearer::{BearerToken, InvalidToken, RefreshingToken};
    ///
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

    /// As [`renewing`](Self::renewing), under other settings.
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

    /// Fetches a new token now, whether or not there is a good token, and whether or not a fetch failed
    /// just now; or joins the fetch that is under way. Other requests are served as before.
    ///
    /// Where there is a runtime, the fetch goes on even if the future is dropped.
    ///
    /// # Errors
    ///
    /// The future ends with the error of the fetch.
    pub fn refresh_now(&self) -> TokenFuture {
        self.refresher.refresh()
    }

    /// Signs out: rejects the token, and forgets it. It is not served any more, not even if no other
    /// token can be had.
    ///
    /// Requests that wait get an error of kind [`Invalidated`](crate::SourceErrorKind::Invalidated): a
    /// request that was made for one account must not go out as another account. A fetch under way
    /// brings nothing any more. The next request waits until that fetch has ended, or is past its time
    /// limit, and begins another.
    pub fn invalidate(&self) {
        self.refresher.invalidate();
    }

    /// What is held and what is to come, for a health check or a log. Costs a lock.
    #[must_use]
    pub fn status(&self) -> SourceStatus {
        self.refresher.status().into()
    }

    /// A future that fetches the first token and refreshes on time, also while there are no requests.
    /// To spawn; it holds no handle, and ends with the last handle.
    ///
    /// ```
    /// # use tower_bearer::{BearerToken, InvalidToken, RefreshingToken};
    /// # async fn fetch() -> Result<BearerToken, InvalidToken> { BearerToken::new("t") }
    /// # #[cfg(feature = "tokio")]
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// let source = RefreshingToken::new(fetch);
    /// tokio::spawn(source.keep_fresh());
    /// # });
    /// ```
    #[must_use = "futures do nothing unless polled"]
    pub fn keep_fresh(&self) -> impl Future<Output = ()> + Send + use<> {
        self.refresher.keep_fresh()
    }
}

impl TokenSource for RefreshingToken {
    /// With a token at hand, costs one lock-free load, one read of a coarse clock, one comparison
    /// and one reference count. About once in a second, one request takes a lock to look at the
    /// wall clock.
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

/// The settings of a [`RefreshingToken`], see there for what they mean together.
#[must_use = "a builder does nothing until it is built"]
pub struct RefreshingTokenBuilder {
    fetch_fn: FetchFn,
    first: Option<BearerToken>,
    policy: Policy,
    runtime: Option<Arc<dyn Runtime>>,
    random: Option<fastrand::Rng>,
}

impl RefreshingTokenBuilder {
    /// Starts with a token that the program has already. Default: none.
    pub fn first_token(mut self, token: BearerToken) -> Self {
        self.first = Some(token);
        self
    }

    /// How long before the end of its service a token is refreshed, at most; a fifth of its lifetime if
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

    /// The same for a token that did not come by a refresh ahead of time: the first token, and a token
    /// that came after a rejection or a failure. Many clients may have got theirs at the same moment.
    /// Default: 0.75.
    pub fn startup_jitter(mut self, fraction: f64) -> Self {
        self.policy.startup_jitter = fraction;
        self
    }

    /// How long before expiry a token is no longer served, at most; a twentieth of its lifetime if
    /// that is less, but at least the smaller of one second and a quarter of its lifetime.
    /// Default: 10 seconds.
    pub fn expiry_margin(mut self, margin: Duration) -> Self {
        self.policy.expiry_margin = margin;
        self
    }

    /// How long a fetch may take. Default: 30 seconds.
    pub fn fetch_timeout(mut self, timeout: Duration) -> Self {
        self.policy.fetch_timeout = timeout;
        self
    }

    /// How long requests wait for the fetch that replaces a rejected token, before that token is sent
    /// again. Default: 5 seconds.
    pub fn replacement_wait(mut self, wait: Duration) -> Self {
        self.policy.replacement_wait = wait;
        self
    }

    /// Ceiling of the random wait after the first failure, and the ceiling to which it doubles.
    /// Default: 100 milliseconds and 30 seconds, and less with no token to serve.
    pub fn backoff(mut self, first: Duration, max: Duration) -> Self {
        self.policy.backoff_first = first;
        self.policy.backoff_max = max;
        self.policy.backoff_is_users = true;
        self
    }

    /// Minimum time between fetches that replace a rejected token, from the third on: at first, and the
    /// limit to which it doubles. Default: 10 seconds and 5 minutes.
    pub fn rejection_backoff(mut self, first: Duration, max: Duration) -> Self {
        self.policy.rejection_backoff_first = first;
        self.policy.rejection_backoff_max = max;
        self
    }

    /// What to run on. Default: `TokioRuntime` with the feature `tokio`, else
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

    /// The source. Nothing is fetched before the first request.
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
