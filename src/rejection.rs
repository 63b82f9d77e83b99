//! What a server said when it rejected a token, [`Rejection`], and the mark that the token carries.

mod parameters;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use http::{HeaderValue, StatusCode};

pub(crate) use self::parameters::{Parameter, bearer_parameters};
use crate::{sign_in::SignIn, sync::Mutex};

/// The most bytes that are kept of the challenges of a response.
const MOST_BYTES: usize = 8 * 1024;

/// What a server said when it rejected a token, see
/// [`BearerToken::rejection`](crate::BearerToken::rejection).
///
/// A clone costs a reference count. `Debug` shows no text of the server.
#[derive(Clone)]
pub struct Rejection {
    status: StatusCode,
    challenges: Arc<[HeaderValue]>,
}

impl Rejection {
    /// Copies the challenges, since a header value may keep the buffer of the whole response alive.
    pub(crate) fn new<'a>(
        status: StatusCode,
        challenges: impl IntoIterator<Item = &'a HeaderValue>,
    ) -> Self {
        let mut left = MOST_BYTES;
        let challenges = challenges.into_iter().map_while(|value| {
            left = left.checked_sub(value.len())?;
            HeaderValue::from_bytes(value.as_bytes()).ok()
        });
        Self {
            status,
            challenges: challenges.collect(),
        }
    }

    /// The status of the response.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The values of `WWW-Authenticate` (`Proxy-Authenticate` for a proxy), as the server sent them
    /// (RFC 9110 §11.6.1). A value that would bring the total over 8 KiB is left out, and so are all values
    /// after it.
    #[must_use]
    pub fn challenges(&self) -> &[HeaderValue] {
        &self.challenges
    }

    /// The first value of a parameter in the Bearer challenges, without quotes and escapes. Examples are
    /// `scope` and `error` (RFC 6750 §3), `acr_values` (RFC 9470 §3), Azure's `claims`, and the `realm` of a
    /// registry.
    ///
    /// The case of `name` does not matter. Bytes that are not UTF-8 are replaced. The server chose the value:
    /// check the value before you follow a URL in it or ask for a scope in it.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<String> {
        let mut parameters = bearer_parameters(self.challenges());
        let found = parameters.find(|parameter| parameter.is_named(name))?;
        Some(found.text())
    }
}

impl fmt::Debug for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejection")
            .field("status", &self.status.as_u16())
            .field("challenges", &self.challenges.len())
            .finish()
    }
}

/// The mark of a rejected token, on or off. All clones of the token share the mark.
#[derive(Default)]
pub(crate) struct Mark {
    /// How often the mark was put on and taken off. The number is odd while the mark is on.
    count: AtomicU64,
    said: Mutex<Option<Rejection>>,
    /// The sign-in of each source that holds or held the token. Empty if these sources know no sign-out.
    sign_ins: Mutex<Vec<SignIn>>,
}

/// The mark that was on a token when a request was sent with the token. A mark that is put on the same
/// token later is not equal to this mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SeenMark(u64);

impl Mark {
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        is_on(self.count.load(Ordering::Acquire))
    }

    /// The mark that is on now, or `None` if the mark is off.
    #[inline]
    pub(crate) fn seen(&self) -> Option<SeenMark> {
        let count = self.count.load(Ordering::Acquire);
        is_on(count).then_some(SeenMark(count))
    }

    /// Puts the mark on. If the mark is on already, this drops `said`: what the server said first stays.
    #[cold]
    pub(crate) fn put_on(&self, said: Option<Rejection>) {
        // The server's text is dropped after the lock is released.
        let _unused = {
            let mut kept = self.said.lock();
            let count = self.count.load(Ordering::Acquire);
            if is_on(count) {
                said
            } else {
                self.count.store(count.wrapping_add(1), Ordering::Release);
                std::mem::replace(&mut *kept, said)
            }
        };
    }

    /// Takes off the mark that was seen. A mark that was put on later stays.
    #[cold]
    pub(crate) fn take_off(&self, seen: SeenMark) {
        let _unused = {
            let mut kept = self.said.lock();
            if self.count.load(Ordering::Acquire) == seen.0 {
                self.count.store(seen.0.wrapping_add(1), Ordering::Release);
                kept.take()
            } else {
                None
            }
        };
    }

    /// Records a sign-in that the token belongs to.
    pub(crate) fn belongs_to(&self, sign_in: &SignIn) {
        sign_in.join(&mut self.sign_ins.lock());
    }

    pub(crate) fn sign_ins(&self) -> Vec<SignIn> {
        self.sign_ins.lock().clone()
    }

    pub(crate) fn is_signed_out(&self) -> bool {
        self.sign_ins.lock().iter().any(SignIn::is_over)
    }

    pub(crate) fn said(&self) -> Option<Rejection> {
        let kept = self.said.lock();
        kept.clone().filter(|_| self.is_on())
    }
}

const fn is_on(count: u64) -> bool {
    count % 2 == 1
}
