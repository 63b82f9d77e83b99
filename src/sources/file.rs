//! A token from a file that something else writes: [`FileToken`].

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use futures::{channel::oneshot, future::FutureExt};

use crate::{
    error::{SourceError, SourceErrorKind},
    refresh::{engine::Engine, policy::Policy},
    runtime::{Runtime, default_runtime},
    secret_text::{read_text, token_in, unreadable},
    source::{TokenFuture, TokenSource},
    token::{BearerToken, InvalidToken},
};

type Parse = fn(&str) -> Result<BearerToken, InvalidToken>;

/// A token from a file that something else writes and replaces: a projected Kubernetes service
/// account token, or one that an agent renews.
///
/// The file is read and checked at start-up, then read again once a minute, when a request comes,
/// and at once when the token is rejected. A read that fails, or finds no token, keeps the last one;
/// a later read mends it. Put the new file in place by a rename or by a swap of symbolic links, as
/// Kubernetes does: a file that is written in place may be read half-written.
///
/// Whitespace around the token is dropped, and the buffer that is read into is wiped. A thread of
/// its own reads, so that a slow file system does not hold up the runtime.
///
/// ```no_run
/// use tower_bearer::{BearerAuthLayer, FileToken};
///
/// let source = FileToken::new("/var/run/secrets/kubernetes.io/serviceaccount/token")?;
/// let layer = BearerAuthLayer::new(source);
/// # Ok::<(), tower_bearer::SourceError>(())
/// ```
///
/// With other settings:
///
/// ```no_run
/// use std::time::Duration;
/// use tower_bearer::FileToken;
///
/// let source = FileToken::builder("/run/agent/token")
///     .nonstandard()
///     .reread_every(Duration::from_secs(5))
///     .build()?;
/// # Ok::<(), tower_bearer::SourceError>(())
/// ```
#[derive(Clone)]
pub struct FileToken {
    path: Arc<Path>,
    engine: Engine,
}

impl FileToken {
    /// Reads an RFC 6750 token from the file at `path`, as [`BearerToken::new`] does. Blocks while
    /// it reads.
    ///
    /// # Errors
    ///
    /// [`SourceErrorKind::Absent`] if there is no such file, [`SourceErrorKind::Failed`] if it
    /// cannot be read, [`SourceErrorKind::Invalid`] if it is no regular file, is over 64 KiB or
    /// does not hold a token. The message names the path.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self, SourceError> {
        Self::builder(path).build()
    }

    /// Reads the file at `path`, under other settings.
    pub fn builder(path: impl Into<PathBuf>) -> FileTokenBuilder {
        FileTokenBuilder {
            path: path.into(),
            parse: |text| BearerToken::new(text),
            reread_every: Duration::from_secs(60),
            runtime: None,
        }
    }

    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl TokenSource for FileToken {
    /// Costs what that of [`RefreshingToken`](crate::RefreshingToken) does.
    #[inline]
    fn token(&self) -> TokenFuture {
        self.engine.token()
    }
}

impl fmt::Debug for FileToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileToken")
            .field("path", &self.path)
            .field("current", &self.engine.usable())
            .finish()
    }
}

/// The settings of a [`FileToken`].
#[must_use = "a builder does nothing until it is built"]
#[derive(Debug)]
pub struct FileTokenBuilder {
    path: PathBuf,
    parse: Parse,
    reread_every: Duration,
    runtime: Option<Arc<dyn Runtime>>,
}

impl FileTokenBuilder {
    /// Takes any visible ASCII, as [`BearerToken::nonstandard`] does. Default: RFC 6750 tokens only.
    pub fn nonstandard(mut self) -> Self {
        self.parse = |text| BearerToken::nonstandard(text);
        self
    }

    /// How long a token is used before the file is read again. Default: 60 seconds.
    pub fn reread_every(mut self, interval: Duration) -> Self {
        self.reread_every = interval;
        self
    }

    /// What to run on. Default: `TokioRuntime` with the feature `tokio`, else
    /// [`CallerDriven`](crate::CallerDriven).
    pub fn runtime(mut self, runtime: impl Runtime) -> Self {
        self.runtime = Some(Arc::new(runtime));
        self
    }

    /// Reads the file, and blocks meanwhile.
    ///
    /// # Errors
    ///
    /// As [`FileToken::new`].
    pub fn build(self) -> Result<FileToken, SourceError> {
        let Self { parse, .. } = self;
        let first = read(&self.path, parse)?;
        let path: Arc<Path> = self.path.into();
        let policy = Policy {
            refresh_every: Some(self.reread_every),
            rejection_backoff_max: self.reread_every,
            rejection_backoff_first: Policy::default()
                .rejection_backoff_first
                .min(self.reread_every),
            ..Policy::default()
        };
        let reread = Arc::clone(&path);
        // Held by the thread that reads.
        let reader = Arc::new(());
        let fetch = move || {
            // On a file system that hangs, each try would leave one more thread behind.
            if Arc::strong_count(&reader) > 1 {
                return std::future::ready(Err(still_reading(&reread))).boxed();
            }
            read_in_thread(Arc::clone(&reread), parse, Arc::clone(&reader)).boxed()
        };
        let runtime = self.runtime.unwrap_or_else(default_runtime);
        let engine = Engine::new(policy, runtime, Arc::new(fetch), fastrand::Rng::new());
        engine.hold(first);
        Ok(FileToken { path, engine })
    }
}

async fn read_in_thread(
    path: Arc<Path>,
    parse: Parse,
    reader: Arc<()>,
) -> Result<BearerToken, SourceError> {
    let (answer, token) = oneshot::channel();
    let reader = {
        let path = Arc::clone(&path);
        move || {
            let token = read(&path, parse);
            drop(reader);
            // Fails if nobody waits any more.
            let _ = answer.send(token);
        }
    };
    thread::Builder::new()
        .name("tower-bearer file".into())
        .spawn(reader)
        .map_err(|error| unreadable(&path, error))?;
    token.await.unwrap_or_else(|_| Err(SourceError::panicked()))
}

fn read(path: &Path, parse: Parse) -> Result<BearerToken, SourceError> {
    let text = read_text(path)?;
    token_in(&text, parse, || format!("token file {}", path.display()))
}

fn still_reading(path: &Path) -> SourceError {
    let message = format!("token file {} is still being read", path.display());
    SourceError::new(SourceErrorKind::TimedOut, message)
}
