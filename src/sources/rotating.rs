//! A token that other code pushes: [`RotatingToken`].

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use arc_swap::ArcSwapOption;

use crate::{
    error::{SourceError, SourceErrorKind},
    refresh::waiters::{Place, Waiters},
    source::{TokenFuture, TokenSource},
    token::{BearerToken, Inner},
};

/// A token that other code pushes. The code calls [`rotate`](Self::rotate) when it has a new token.
///
/// A clone is a handle on the same token: give a clone to the layer, and keep a clone to push with.
/// The next request after `rotate` has returned carries the new token. A request takes no lock to
/// read the token.
///
/// With no token yet, or with a token past its expiry, requests wait for the next `rotate`, for ever
/// if nobody calls it: put a timeout above the layer. The source still hands out a rejected token,
/// since it has no other token.
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
    current: Arc<Current>,
    handles: Arc<Handles>,
}

/// Shared by the handles only. It is dropped with the last handle, and its drop ends every wait.
struct Handles {
    current: Arc<Current>,
}

/// What the handles and the waiters share.
struct Current {
    token: ArcSwapOption<Inner>,
    waiters: Waiters,
}

impl RotatingToken {
    /// Starts with a token.
    #[must_use]
    pub fn new(first: BearerToken) -> Self {
        Self::with(Some(first))
    }

    /// Starts without a token. Requests wait for the first [`rotate`](Self::rotate).
    #[must_use]
    pub fn empty() -> Self {
        Self::with(None)
    }

    fn with(first: Option<BearerToken>) -> Self {
        let current = Current {
            token: ArcSwapOption::new(first.map(BearerToken::into_inner)),
            waiters: Waiters::default(),
        };
        let current = Arc::new(current);
        let handles = Handles {
            current: Arc::clone(&current),
        };
        Self {
            current,
            handles: Arc::new(handles),
        }
    }

    /// Replaces the token. Requests that wait for a token go on. Requests that were already sent
    /// are not disturbed, and a late 401 for their old token does not mark the new token.
    pub fn rotate(&self, next: BearerToken) {
        // Drop the old token last: data of the user's may panic in its `Drop`.
        let _old = self.current.token.swap(Some(next.into_inner()));
        // Wake after the swap: a request that asks meanwhile either sees the token or is woken.
        self.current.waiters.wake_all();
    }

    #[cold]
    fn wait(&self) -> TokenFuture {
        TokenFuture::boxed(Wait {
            current: Arc::clone(&self.current),
            handles: Arc::downgrade(&self.handles),
            place: None,
        })
    }
}

impl Drop for Handles {
    fn drop(&mut self) {
        self.current.waiters.wake_all();
    }
}

impl Current {
    #[inline]
    fn get(&self) -> Option<BearerToken> {
        self.token.load_full().map(BearerToken::from_inner)
    }

    #[inline]
    fn usable(&self) -> Option<BearerToken> {
        self.get().filter(|token| !token.is_expired())
    }
}

/// Waits for a token. A waiter is not a handle: when the last handle is dropped, no rotation can come.
struct Wait {
    current: Arc<Current>,
    handles: Weak<Handles>,
    place: Option<Place>,
}

impl Future for Wait {
    type Output = Result<BearerToken, SourceError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self {
            current,
            handles,
            place,
        } = &mut *self;
        // Enter before looking: a rotation from here on wakes this waiter.
        current.waiters.enter(place, cx.waker());
        // Look at the handles before the token: the last rotation comes before the drop of the last
        // handle.
        let is_closed = handles.strong_count() == 0;
        match current.usable() {
            Some(token) => Poll::Ready(Ok(token)),
            None if is_closed => Poll::Ready(Err(closed())),
            None => Poll::Pending,
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.current.waiters.leave(place);
        }
    }
}

#[cold]
fn closed() -> SourceError {
    SourceError::new(
        SourceErrorKind::Closed,
        "every handle of the rotating token was dropped, so no token can come any more",
    )
}

impl TokenSource for RotatingToken {
    /// With a token at hand, costs a lock-free load and a reference count, and a read of both
    /// clocks if the token has an expiry.
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
