//! A token that is fetched, and fetched again before it expires: [`RefreshingToken`].

use std::{fmt, future::Future, sync::Arc, time::Duration};

use futures::future::FutureExt;

use crate::{
    error::{BoxError, SourceError},
    refresh::{attempt::Fetch, engine::Engine, policy::Policy},
    runtime::{Runtime, default_runtime},
    source::{TokenFuture, TokenSource},
    token::BearerToken,
};

/// A token that an async function fetches: at the first request, ahead of each expiry, and when a
/// server has rejected it.
///
/// No request waits while there is a valid token, and however many wait, one fetch serves them all,
/// whoever of them goes away. A fetch that fails never displaces a token that is still valid.
///
/// A clone is a handle on the same token. When the last one is dropped, and no request waits, a
/// fetch in the background ends and the token is wiped.
///
/// ```
/// use std::time::Duration;
/// use tower_bearer::{BearerAuthLayer, BearerToken, InvalidToken, RefreshingToken};
///
/// async fn fetch() -> Result<BearerToken, InvalidToken> {
///     // Ask the token endpoint here. Tell the lifetime, if it has one.
///     Ok(BearerToken::new("7Fjfp0ZBr1KtDRbnfVdmIw")?.expires_in(Duration::from_secs(3600)))
/// }
///
/// let source = RefreshingToken::new(fetch);
/// let layer = BearerAuthLayer::new(source.clone());
/// ```
///
/// # When
///
/// With L the lifetime that is left when the token comes, it is
/// * refreshed in the background from min(5 min, L/5) before expiry, or up to L/10 earlier, at
///   random, so that clients that started together do not stay together;
/// * served until min(10 s, L/20) before expiry, so that it does not expire on the way;
/// * judged by the monotonic clock and by the clock on the wall, whichever is first, since the
///   former may stand still while the machine sleeps.
///
/// A token with no expiry is kept until it is rejected.
///
/// A rejected token is replaced at once, and requests wait for that. If it cannot be replaced, it is
/// sent again until it expires: one spurious 401 and an outage of the token endpoint must not add up
/// to a total outage. While a server rejects one new token after the other, replacements are at least
/// 10 s apart, then 20, and so on up to 5 min.
///
/// After a failure the source waits for a random time of up to 100 ms, then 200, and so on up to 30 s
/// (full jitter). With no token to serve, requests meanwhile get the error at once; it tells
/// [when the next try is](SourceError::retry_after). A fetch that takes over 30 s or panics has
/// failed, and so has one that gives an expired or a rejected token.
///
/// All of these numbers are settings of the [builder](Self::builder).
///
/// # Many clients
///
/// An outage of the token endpoint costs requests if it lasts longer than a token is refreshed ahead
/// of its expiry. And a fleet that started together needs days to spread its refreshes by a jitter of
/// a tenth. For a fleet, give both more room; `cargo run --release --example fleet` shows what that
/// changes.
///
/// ```
/// use std::time::Duration;
/// use tower_bearer::{BearerToken, InvalidToken, RefreshingToken};
///
/// # async fn fetch() -> Result<BearerToken, InvalidToken> { BearerToken::new("t") }
/// let source = RefreshingToken::builder(fetch)
///     .refresh_ahead(Duration::from_secs(15 * 60)) // of a one-hour token, a fifth: 12 minutes
///     .startup_jitter(0.75)
///     .build();
/// ```
#[derive(Clone)]
pub struct RefreshingToken {
    engine: Engine,
}

impl RefreshingToken {
    /// Fetches with `fetch`, first when the first request comes.
    ///
    /// With the feature `tokio`, fetches run in the background of the tokio runtime that the request
    /// runs in. Without it, or outside of one, requests drive the fetch, as
    /// [`CallerDriven`](crate::CallerDriven) says.
    pub fn new<F, Fut, E>(fetch: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<BearerToken, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self::builder(fetch).build()
    }

    /// Fetches with `fetch`, under other settings.
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
    pub fn builder<F, Fut, E>(fetch: F) -> RefreshingTokenBuilder
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<BearerToken, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let fetch = move || {
            let token = fetch();
            async move { token.await.map_err(SourceError::failed) }.boxed()
        };
        RefreshingTokenBuilder {
            fetch: Arc::new(fetch),
            first: None,
            policy: Policy::default(),
            runtime: None,
            random: None,
        }
    }

    /// Fetches a new token now, whether or not the one that is held is good, and whether or not a
    /// fetch failed just now; or joins the fetch that is under way. Others are served as before.
    ///
    /// Where there is a runtime, the fetch goes on even if the future is dropped.
    pub fn refresh_now(&self) -> TokenFuture {
        self.engine.refresh()
    }

    /// Forgets the token: it is not served any more, not even if no other can be had. The next
    /// request waits for a fetch; one that is under way counts.
    pub fn invalidate(&self) {
        self.engine.invalidate();
    }
}

impl TokenSource for RefreshingToken {
    /// With a token at hand, costs one lock-free load, one read of a coarse clock, one comparison
    /// and one reference count. About once in a second, one request takes a lock to look at the
    /// clock on the wall.
    #[inline]
    fn token(&self) -> TokenFuture {
        self.engine.token()
    }
}

impl fmt::Debug for RefreshingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshingToken")
            .field("current", &self.engine.usable())
            .finish_non_exhaustive()
    }
}

/// The settings of a [`RefreshingToken`], see there for what they mean together.
#[must_use = "a builder does nothing until it is built"]
pub struct RefreshingTokenBuilder {
    fetch: Arc<Fetch>,
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

    /// How long before expiry a token is refreshed, at most; a fifth of its lifetime if that is
    /// less. Default: 5 minutes.
    pub fn refresh_ahead(mut self, ahead: Duration) -> Self {
        self.policy.refresh_ahead = ahead;
        self
    }

    /// By which part of the lifetime, from 0 to 1, a refresh is moved earlier at most. Default: 0.1.
    pub fn refresh_jitter(mut self, fraction: f64) -> Self {
        self.policy.refresh_jitter = fraction;
        self
    }

    /// The same for a token that did not come by a refresh ahead of time: the first one, and one that
    /// came after a rejection or a failure. Default: 0.1.
    ///
    /// Many clients may have got such a token at the same moment. See
    /// [many clients](RefreshingToken#many-clients).
    pub fn startup_jitter(mut self, fraction: f64) -> Self {
        self.policy.startup_jitter = fraction;
        self
    }

    /// How long before expiry a token is no longer served, at most; a twentieth of its lifetime if
    /// that is less. Default: 10 seconds.
    pub fn expiry_margin(mut self, margin: Duration) -> Self {
        self.policy.expiry_margin = margin;
        self
    }

    /// How long a fetch may take. Default: 30 seconds.
    pub fn fetch_timeout(mut self, timeout: Duration) -> Self {
        self.policy.fetch_timeout = timeout;
        self
    }

    /// The most that is waited after the first failure, and after any number of failures.
    /// Default: 100 milliseconds and 30 seconds.
    pub fn backoff(mut self, first: Duration, max: Duration) -> Self {
        self.policy.backoff_first = first;
        self.policy.backoff_max = max;
        self
    }

    /// The least time between two fetches that replace a rejected token, at first and after any
    /// number of rejections. Default: 10 seconds and 5 minutes.
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
        let engine = Engine::new(self.policy, runtime, self.fetch, random);
        if let Some(first) = self.first {
            engine.hold(first);
        }
        RefreshingToken { engine }
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
