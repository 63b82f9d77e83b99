//! A token that other code pushes: [`RotatingToken`].

use std::{
    fmt, mem,
    sync::{Arc, PoisonError, Weak},
};

use arc_swap::ArcSwapOption;
use futures::channel::oneshot;

use crate::{
    source::{SourceError, SourceErrorKind, TokenFuture, TokenSource},
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
    state: Arc<State>,
}

struct State {
    current: ArcSwapOption<Inner>,
    /// Who waits for the next rotation. Each has a channel of its own, so that none depends on
    /// another to be polled; and is sent the token, since the state may be gone when it is polled.
    waiting: Mutex<Vec<oneshot::Sender<BearerToken>>>,
}

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
            state: Arc::new(State {
                current: ArcSwapOption::new(first.map(BearerToken::into_inner)),
                waiting: Mutex::default(),
            }),
        }
    }

    /// Replaces the token. Requests that wait for one go on; requests already sent are not
    /// disturbed, and a late 401 for their token does not touch this one.
    pub fn rotate(&self, next: BearerToken) {
        let announced = next.clone();
        self.state.current.store(Some(next.into_inner()));
        // After the store, so that whoever asks in between either sees the token or is woken; and
        // not under the lock, since a waker may do anything.
        let waiting = mem::take(&mut *self.state.lock_waiting());
        for waiter in waiting {
            // Fails if the waiter is gone.
            let _ = waiter.send(announced.clone());
        }
    }

    /// Waits from now on, not from the first poll: the last handle may be gone by then.
    #[cold]
    fn wait(&self) -> TokenFuture {
        match self.state.usable_or_next() {
            Ok(token) => token.into(),
            Err(next) => TokenFuture::pending(wait(Arc::downgrade(&self.state), next)),
        }
    }
}

impl State {
    /// The token to use now.
    #[inline]
    fn usable(&self) -> Option<BearerToken> {
        let current = self.current.load_full().map(BearerToken::from_inner);
        current.filter(|token| !token.is_expired())
    }

    /// The token to use now, or what to wait for before asking again.
    fn usable_or_next(&self) -> Result<BearerToken, oneshot::Receiver<BearerToken>> {
        let mut waiting = self.lock_waiting();
        // Again, under the lock: a rotation since the last look has taken its waiters already.
        if let Some(token) = self.usable() {
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

    fn lock_waiting(&self) -> MutexGuard<'_, Vec<oneshot::Sender<BearerToken>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits without keeping the state alive: when the last handle is gone, no rotation can come, and
/// whoever waits is told.
async fn wait(
    state: Weak<State>,
    mut next: oneshot::Receiver<BearerToken>,
) -> Result<BearerToken, SourceError> {
    loop {
        let announced = next.await.ok();
        let Some(alive) = state.upgrade() else {
            let last = announced.filter(|token| !token.is_expired());
            return last.ok_or_else(closed);
        };
        next = match alive.usable_or_next() {
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
        match self.state.usable() {
            Some(token) => token.into(),
            None => self.wait(),
        }
    }
}

impl fmt::Debug for RotatingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let current = self.state.current.load_full().map(BearerToken::from_inner);
        f.debug_struct("RotatingToken")
            .field("current", &current)
            .finish()
    }
}
