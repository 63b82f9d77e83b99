//! A token that other code pushes: [`RotatingToken`].

use std::{
    fmt, mem,
    sync::{Arc, Weak},
};

use arc_swap::ArcSwapOption;
use futures::channel::oneshot;

use crate::{
    error::{SourceError, SourceErrorKind},
    source::{TokenFuture, TokenSource},
    sync::{Mutex, MutexGuard},
    token::{BearerToken, Inner},
};

/// A token that other code pushes, when it has a new one, with [`rotate`](Self::rotate).
///
/// A clone is a handle on the same token: give one to the layer and keep one to push with.
/// The next request after `rotate` has returned carries the new token, and reading it takes no lock.
///
/// With no token yet, or with one past its expiry, requests wait for the next `rotate`. A rejected
/// token is still handed out, since there is no other.
///
/// ```
/// use tower_bearer::{BearerAuthLayer, BearerToken, RotatingToken};
///
/// let source = RotatingToken::new(BearerToken::new("first")?);
/// let layer = BearerAuthLayer::new(source.clone());
/// // Later, wherever the new token arrives:
/// source.rotate(BearerToken::new("second")?);
/// # Ok::<(), tower_bearer::InvalidToken>(())
/// ```
#[derive(Clone)]
pub struct RotatingToken {
    /// Those who wait hold it, too: the last handle may be gone when they are polled.
    current: Arc<Current>,
    waiting: Arc<Waiting>,
}

struct Current(ArcSwapOption<Inner>);

/// Who waits for the next rotation, as long as there is a handle. Each has a channel of its own, so
/// that none depends on another to be polled.
#[derive(Default)]
struct Waiting(Mutex<Vec<oneshot::Sender<()>>>);

impl RotatingToken {
    /// Starts with a token.
    #[must_use]
    pub fn new(first: BearerToken) -> Self {
        Self::with(Some(first))
    }

    /// Starts without a token: requests wait for the first [`rotate`](Self::rotate). A timeout
    /// around the stack covers that wait.
    #[must_use]
    pub fn empty() -> Self {
        Self::with(None)
    }

    fn with(first: Option<BearerToken>) -> Self {
        Self {
            current: Arc::new(Current(ArcSwapOption::new(
                first.map(BearerToken::into_inner),
            ))),
            waiting: Arc::default(),
        }
    }

    /// Replaces the token. Requests that wait for one go on; requests already sent are not
    /// disturbed, and a late 401 for their token does not touch this one.
    pub fn rotate(&self, next: BearerToken) {
        self.current.0.store(Some(next.into_inner()));
        // After the store, so that whoever asks in between either sees the token or is woken; and
        // not under the lock, since a waker may do anything.
        let waiting = mem::take(&mut *self.waiting.lock());
        for waiter in waiting {
            // Fails if the waiter is gone.
            let _ = waiter.send(());
        }
    }

    /// Waits from now on, not from the first poll: the last handle may be gone by then.
    #[cold]
    fn wait(&self) -> TokenFuture {
        match self.waiting.usable_or_next(&self.current) {
            Ok(token) => token.into(),
            Err(next) => {
                let (current, waiting) = (Arc::clone(&self.current), Arc::downgrade(&self.waiting));
                TokenFuture::boxed(wait(current, waiting, next))
            }
        }
    }
}

impl Current {
    #[inline]
    fn get(&self) -> Option<BearerToken> {
        self.0.load_full().map(BearerToken::from_inner)
    }

    /// The token to use now.
    #[inline]
    fn usable(&self) -> Option<BearerToken> {
        self.get().filter(|token| !token.is_expired())
    }
}

impl Waiting {
    /// The token to use now, or what to wait for before asking again.
    fn usable_or_next(&self, current: &Current) -> Result<BearerToken, oneshot::Receiver<()>> {
        let mut waiting = self.lock();
        // Again, under the lock: a rotation since the last look has taken its waiters already.
        if let Some(token) = current.usable() {
            return Ok(token);
        }
        if waiting.len() == waiting.capacity() {
            // Those who were cancelled go before there is more room: so they never add up.
            waiting.retain(|waiter| !waiter.is_canceled());
        }
        let (waiter, next) = oneshot::channel();
        waiting.push(waiter);
        Err(next)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<oneshot::Sender<()>>> {
        self.0.lock()
    }
}

/// Waits without being a handle: when the last one is gone, no rotation can come, and whoever waits
/// is told.
async fn wait(
    current: Arc<Current>,
    waiting: Weak<Waiting>,
    mut next: oneshot::Receiver<()>,
) -> Result<BearerToken, SourceError> {
    loop {
        // Fails if no rotation can come.
        let _ = next.await;
        let Some(waiting) = waiting.upgrade() else {
            return current.usable().ok_or_else(closed);
        };
        next = match waiting.usable_or_next(&current) {
            Ok(token) => return Ok(token),
            Err(next) => next,
        };
    }
}

#[cold]
fn closed() -> SourceError {
    SourceError::new(
        SourceErrorKind::Closed,
        "every handle of the rotating token was dropped before it had a token",
    )
}

impl TokenSource for RotatingToken {
    /// With a token at hand, costs one lock-free load and one reference count, and a look at the
    /// clock if the token has an expiry.
    #[inline]
    fn token(&self) -> TokenFuture {
        match self.current.usable() {
            Some(token) => token.into(),
            None => self.wait(),
        }
    }
}

impl fmt::Debug for RotatingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RotatingToken")
            .field("current", &self.current.get())
            .finish_non_exhaustive()
    }
}
