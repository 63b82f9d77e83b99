//! A token from a file that another program writes: [`FileToken`].

use std::{
    fmt,
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use futures::channel::oneshot;

use crate::{
    error::{SourceError, SourceErrorKind},
    refresh::{Refresher, attempt::FetchFn, policy::Policy},
    runtime::{Runtime, default_runtime},
    secret_text::{ShownPath, read_text, token_in, unreadable},
    source::{TokenFuture, TokenSource},
    token::{BearerToken, InvalidToken},
};

/// A read costs little, and a file is often replaced a moment after the server has revoked its token.
const REJECTION_BACKOFF: Duration = Duration::from_secs(1);

type Parse = fn(&str) -> Result<BearerToken, InvalidToken>;

/// A token from a file that another program writes and replaces, such as a projected Kubernetes
/// service account token, or a token that an agent renews.
///
/// The file is read and checked at start-up. The first request after a minute begins another read,
/// and so does the first request after a server has rejected the token. If the server goes on
/// rejecting what is read, the third such read comes 1 s after the second, and later reads come 2 s,
/// 4 s and up to a minute apart.
///
/// Requests do not wait for a read, with two exceptions: a read after a rejection, and a read that is
/// overdue by a minute, as in the morning after a night without requests. Requests wait for such a
/// read for at most 5 s. If a read fails or finds no token, the source keeps the last token and tries
/// again later.
///
/// Put the new file in place by a rename or by a swap of symbolic links, as Kubernetes does: a file
/// that is written in place may be read half-written.
///
/// Whitespace around the token is dropped, and the buffer of the read is wiped. A slow file system
/// does not hold up the runtime: one of the runtime's threads for blocking work reads the file, or a
/// new thread if the runtime has no such threads. While a read hangs, no other read begins.
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
    refresher: Refresher,
}

impl FileToken {
    /// Reads an RFC 6750 token from the file at `path`, as [`BearerToken::new`] does. Blocks while
    /// it reads.
    ///
    /// # Errors
    ///
    /// [`SourceErrorKind::Absent`] if there is no such file, [`SourceErrorKind::Failed`] if it
    /// cannot be read, [`SourceErrorKind::Invalid`] if it is no regular file, is over 64 KiB or
    /// does not hold a token. The message names the path, unless there is no such file and the path
    /// looks like a token.
    ///
    /// Nothing expands `~` or variables in the path.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self, SourceError> {
        Self::builder(path).build()
    }

    /// Starts a builder, to read the file at `path` with other settings.
    pub fn builder(path: impl Into<PathBuf>) -> FileTokenBuilder {
        FileTokenBuilder {
            path: path.into(),
            parse: |text| BearerToken::new(text),
            reread_every: Duration::from_secs(60),
            lazy: false,
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
    /// Costs what a token of [`RefreshingToken`](crate::RefreshingToken) costs.
    #[inline]
    fn token(&self) -> TokenFuture {
        self.refresher.token()
    }
}

impl fmt::Debug for FileToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileToken")
            .field("path", &ShownPath(&self.path))
            .field("current", &self.refresher.usable())
            .finish()
    }
}

/// The settings of a [`FileToken`]. The documentation of [`FileToken`] has an example.
#[must_use = "a builder does nothing until it is built"]
pub struct FileTokenBuilder {
    path: PathBuf,
    parse: Parse,
    reread_every: Duration,
    lazy: bool,
    runtime: Option<Arc<dyn Runtime>>,
}

impl fmt::Debug for FileTokenBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileTokenBuilder")
            .field("path", &ShownPath(&self.path))
            .field("reread_every", &self.reread_every)
            .field("lazy", &self.lazy)
            .finish_non_exhaustive()
    }
}

impl FileTokenBuilder {
    /// Takes any visible ASCII, as [`BearerToken::nonstandard`] does. Default: RFC 6750 tokens only.
    pub fn nonstandard(mut self) -> Self {
        self.parse = |text| BearerToken::nonstandard(text);
        self
    }

    /// How long a token is used before the file is read again. After twice this time, a request
    /// waits for the read. Default: 60 seconds.
    pub fn reread_every(mut self, interval: Duration) -> Self {
        self.reread_every = interval;
        self
    }

    /// Reads the file not at start-up but at the first request, which waits for the read. The file
    /// may be written after start-up.
    ///
    /// While there is no file, requests get an error of kind [`SourceErrorKind::Absent`] at once,
    /// so that a [`Chain`](crate::Chain) goes on to its next source. The source looks for the file
    /// again after a back-off, as [`RefreshingToken`](crate::RefreshingToken) does after a failed
    /// fetch.
    pub fn lazy(mut self) -> Self {
        self.lazy = true;
        self
    }

    /// The runtime on which the source reads. Default: `TokioRuntime` with the feature `tokio`,
    /// else [`CallerDriven`](crate::CallerDriven).
    pub fn runtime(mut self, runtime: impl Runtime) -> Self {
        self.runtime = Some(Arc::new(runtime));
        self
    }

    /// Makes the source. Reads the file, and blocks while it reads, unless the source is
    /// [`lazy`](Self::lazy).
    ///
    /// # Errors
    ///
    /// As [`FileToken::new`].
    pub fn build(self) -> Result<FileToken, SourceError> {
        let first = if self.lazy {
            None
        } else {
            Some(read(&self.path, self.parse)?)
        };
        let path: Arc<Path> = self.path.into();
        let defaults = Policy::default();
        let policy = Policy {
            refresh_every: Some(self.reread_every),
            wait_after: self.reread_every.checked_mul(2),
            rejection_backoff_first: REJECTION_BACKOFF.min(self.reread_every),
            rejection_backoff_max: self.reread_every,
            ..defaults
        };
        let runtime = self.runtime.unwrap_or_else(default_runtime);
        let reader = Reader {
            path: Arc::clone(&path),
            parse: self.parse,
            runtime: Arc::clone(&runtime),
            reading: Arc::new(()),
        };
        let fetch_fn = FetchFn::new(move |_| reader.read());
        let refresher = Refresher::new(policy, runtime, fetch_fn, fastrand::Rng::new());
        if let Some(first) = first {
            refresher.hold(first);
        }
        Ok(FileToken { path, refresher })
    }
}

/// Reads the file on a thread that may block.
struct Reader {
    path: Arc<Path>,
    parse: Parse,
    runtime: Arc<dyn Runtime>,
    /// The thread that reads has a second reference.
    reading: Arc<()>,
}

impl Reader {
    fn read(&self) -> impl Future<Output = Result<BearerToken, SourceError>> + Send + use<> {
        let (path, parse, runtime) = (
            Arc::clone(&self.path),
            self.parse,
            Arc::clone(&self.runtime),
        );
        // No second read: on a file system that hangs, each try would leave another thread behind.
        let reading = (Arc::strong_count(&self.reading) == 1).then(|| Arc::clone(&self.reading));
        async move {
            let reading = reading.ok_or_else(|| still_reading(&path))?;
            let (answer, token) = oneshot::channel();
            let work = {
                let path = Arc::clone(&path);
                move || {
                    let token = read(&path, parse);
                    drop(reading);
                    // The send fails if nobody waits any more.
                    let _ = answer.send(token);
                }
            };
            if let Err(work) = runtime.spawn_blocking(Box::new(work)) {
                let thread = thread::Builder::new().name("tower-bearer file".into());
                thread
                    .spawn(work)
                    .map_err(|error| unreadable(&path, error))?;
            }
            token.await.unwrap_or_else(|_| Err(SourceError::panicked()))
        }
    }
}

fn read(path: &Path, parse: Parse) -> Result<BearerToken, SourceError> {
    let text = read_text(path)?;
    token_in(&text, parse, || format!("token file {}", path.display()))
}

fn still_reading(path: &Path) -> SourceError {
    let message = format!("token file {} is still being read", path.display());
    SourceError::new(SourceErrorKind::TimedOut, message)
}
