//! The secret itself: [`BearerToken`].

mod text;

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::HeaderValue;
use secrecy::{ExposeSecret, ExposeSecretMut, SecretSlice};

pub use self::text::{InvalidToken, InvalidTokenKind, TokenText};
use self::text::{MAX_LEN, Reason, check_b64token, check_visible};
use crate::{
    clock,
    rejection::{Mark, Rejection, SeenMark},
};

/// The scheme of RFC 6750 §2.1, with the one space of RFC 9110 §11.4.
const SCHEME: &[u8] = b"Bearer ";

/// A bearer token: one shared, immutable secret, kept as a ready-made `Authorization` header value.
///
/// A clone costs one reference count and is the *same* token: [`reject`](Self::reject) on one is
/// seen by all. The bytes are wiped when the last holder is dropped, be it a clone of the token or
/// a [`HeaderValue`] still sitting in a request.
///
/// There is no `Display`, no `Serialize` and no `PartialEq`, and `Debug` does not show the token.
///
/// ```
/// use std::time::Duration;
/// use tower_bearer::BearerToken;
///
/// let token = BearerToken::new("7Fjfp0ZBr1KtDRbnfVdmIw")?.expires_in(Duration::from_secs(3600));
/// assert!(token.header_value().is_sensitive());
/// assert!(!format!("{token:?}").contains("7Fjfp0ZBr1KtDRbnfVdmIw"));
/// # Ok::<(), tower_bearer::InvalidToken>(())
/// ```
#[derive(Clone)]
pub struct BearerToken {
    inner: Arc<Inner>,
}

/// What a [`BearerToken`] points to. Sources that keep their token in an atomic pointer keep this.
pub(crate) struct Inner {
    header: HeaderValue,
    bare: Bare,
    expiry: Option<Expiry>,
    /// Apart from the rest, so that a clone that is given another expiry is still the same token.
    mark: Arc<Mark>,
}

/// When a token expires, on both clocks. The monotonic clock may stand still while the machine sleeps;
/// the wall clock may be set.
#[derive(Clone, Copy)]
struct Expiry {
    monotonic: Instant,
    /// `None` past the end of the clock.
    wall: Option<SystemTime>,
    given: Given,
}

/// How an expiry was given, and so which clock it is true by.
#[derive(Clone, Copy)]
enum Given {
    In,
    At,
    AtTime,
}

impl Expiry {
    /// Not inlined: the sources without an engine read two clocks only for a token with an expiry.
    #[inline(never)]
    fn has_passed(&self) -> bool {
        self.monotonic <= clock::now() || self.wall.is_some_and(|at| at <= clock::wall())
    }
}

impl BearerToken {
    /// Makes a token from RFC 6750 §2.1 `b64token` text: letters, digits, `-._~+/`, then any
    /// number of `=`.
    ///
    /// A text given by value (`String`, `Box<str>`, `SecretString`, `Zeroizing<String>`) is wiped,
    /// whether or not it is valid. Prefer `String` to `SecretString::from(String)`: the latter may
    /// reallocate, and leave a copy behind that nobody wipes.
    ///
    /// # Errors
    ///
    /// If the text is empty, longer than 64 KiB, or has a byte that `b64token` does not allow.
    pub fn new(token: impl TokenText) -> Result<Self, InvalidToken> {
        token.with_text(|text| Self::build(text, check_b64token))
    }

    /// Makes a token from any visible ASCII text, for servers whose tokens are not RFC 6750
    /// `b64token`s.
    ///
    /// ```
    /// use tower_bearer::BearerToken;
    ///
    /// assert!(BearerToken::new("id:4711").is_err());
    /// assert!(BearerToken::nonstandard("id:4711").is_ok());
    /// ```
    ///
    /// # Errors
    ///
    /// If the text is empty, longer than 64 KiB, or has whitespace, a control byte or a byte
    /// outside ASCII.
    pub fn nonstandard(token: impl TokenText) -> Result<Self, InvalidToken> {
        token.with_text(|text| Self::build(text, check_visible))
    }

    fn build(
        text: &str,
        check: fn(&[u8]) -> Result<(), InvalidToken>,
    ) -> Result<Self, InvalidToken> {
        match text.len() {
            0 => {
                return Err(InvalidToken {
                    reason: Reason::Empty,
                });
            }
            length if length > MAX_LEN => {
                return Err(InvalidToken {
                    reason: Reason::TooLong(length),
                });
            }
            _ => check(text.as_bytes())?,
        }
        let shared = secret_bytes(SCHEME, text.as_bytes());
        Ok(Self {
            inner: Arc::new(Inner {
                header: header_value(shared.clone())?,
                bare: Bare::new(shared),
                expiry: None,
                mark: Arc::default(),
            }),
        })
    }

    /// The same token, known to expire at `at`.
    #[must_use]
    pub fn expires_at(self, at: Instant) -> Self {
        self.with_expiry(Expiry {
            monotonic: at,
            wall: clock::shift(clock::wall(), clock::now(), at),
            given: Given::At,
        })
    }

    /// The same token, known to expire at `time`, as in the `exp` claim of a JWT. The time may lie in the
    /// past.
    #[must_use]
    pub fn expires_at_time(self, time: SystemTime) -> Self {
        let (now, wall) = (clock::now(), clock::wall());
        let monotonic = match time.duration_since(wall) {
            Ok(left) => now.checked_add(left),
            // A clock need not reach back so far. Any time in the past says the same.
            Err(passed) => Some(now.checked_sub(passed.duration()).unwrap_or(now)),
        };
        match monotonic {
            Some(monotonic) => self.with_expiry(Expiry {
                monotonic,
                wall: Some(time),
                given: Given::AtTime,
            }),
            None => self,
        }
    }

    /// The same token, known to expire `lifetime` from now: `expires_in` of RFC 6749 §5.1. A lifetime
    /// past the end of the clock is no expiry.
    #[must_use]
    pub fn expires_in(self, lifetime: Duration) -> Self {
        match clock::now().checked_add(lifetime) {
            Some(monotonic) => self.with_expiry(Expiry {
                monotonic,
                wall: clock::wall().checked_add(lifetime),
                given: Given::In,
            }),
            None => self,
        }
    }

    fn with_expiry(mut self, expiry: Expiry) -> Self {
        let expiry = Some(expiry);
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.expiry = expiry;
            return self;
        }
        Self {
            inner: Arc::new(Inner {
                header: self.inner.header.clone(),
                bare: self.inner.bare.clone(),
                expiry,
                mark: Arc::clone(&self.inner.mark),
            }),
        }
    }

    /// When the token expires by the monotonic clock, if that is known.
    #[must_use]
    pub fn expiry(&self) -> Option<Instant> {
        self.inner.expiry.map(|expiry| expiry.monotonic)
    }

    /// What is left of the lifetime by the clocks of a runtime, which need not be the clocks of this
    /// crate. Nothing is left of a token that has expired.
    pub(crate) fn lifetime(&self, now: Instant, wall: SystemTime) -> Option<Duration> {
        let expiry = self.inner.expiry?;
        let left = match (expiry.given, expiry.wall) {
            // It counts from when the token was made, by the clocks of then.
            (Given::In, at) => {
                let left = expiry.monotonic.saturating_duration_since(clock::now());
                at.map_or(left, |at| left.min(until(at, clock::wall())))
            }
            (Given::AtTime, Some(at)) => until(at, wall),
            (Given::At | Given::AtTime, _) => expiry.monotonic.saturating_duration_since(now),
        };
        Some(left)
    }

    /// The `Authorization` field value, `Bearer …`. It is marked sensitive and shares the token's
    /// one wiped allocation; it costs one reference count.
    #[must_use]
    #[inline]
    pub fn header_value(&self) -> HeaderValue {
        self.inner.header.clone()
    }

    /// The token without its scheme, as sensitive and as wiped as [`header_value`](Self::header_value).
    pub(crate) fn bare_header_value(&self) -> HeaderValue {
        self.inner.bare.header_value(&self.inner.header)
    }

    /// Records that a server rejected this token. Every clone sees it, and sources that can get another
    /// token do so. Idempotent.
    ///
    /// A success of a request that was sent with the token after this takes the mark off.
    pub fn reject(&self) {
        self.inner.mark.put_on(None);
    }

    /// Records what the server said, as well.
    pub(crate) fn reject_with(&self, rejection: Rejection) {
        self.inner.mark.put_on(Some(rejection));
    }

    /// Whether a server has rejected the token.
    #[must_use]
    #[inline]
    pub fn is_rejected(&self) -> bool {
        self.inner.mark.is_on()
    }

    /// What the server said that rejected the token. `None` if no server has, and after
    /// [`reject`](Self::reject).
    #[must_use]
    pub fn rejection(&self) -> Option<Rejection> {
        self.inner.mark.said()
    }

    /// The mark of a token that is sent although it is rejected.
    #[inline]
    pub(crate) fn seen_mark(&self) -> Option<SeenMark> {
        self.inner.mark.seen()
    }

    /// A request that was sent with the mark seen there has succeeded.
    pub(crate) fn accept(&self, seen: SeenMark) {
        self.inner.mark.take_off(seen);
    }

    /// Whether the token is past its expiry, by the monotonic clock or by the wall clock: the monotonic
    /// clock may stand still while the machine sleeps. Reads the clocks only if there is an expiry.
    ///
    /// A source must not hand out a token that is; the sources of this crate do not.
    #[must_use]
    #[inline]
    pub fn is_expired(&self) -> bool {
        self.inner.expiry.as_ref().is_some_and(Expiry::has_passed)
    }

    /// Whether the two are clones of one token, whatever their expiry: a mark on one is a mark on the
    /// other. Not whether they have the same text.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_bearer::BearerToken;
    ///
    /// let token = BearerToken::new("7Fjfp0ZBr1KtDRbnfVdmIw")?;
    /// assert!(token.is_same(&token.clone().expires_in(Duration::from_secs(60))));
    /// assert!(!token.is_same(&BearerToken::new("7Fjfp0ZBr1KtDRbnfVdmIw")?));
    /// # Ok::<(), tower_bearer::InvalidToken>(())
    /// ```
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner.mark, &other.inner.mark)
    }

    /// Whether a request that was sent with `rejected` is worth sending again with this one. A source
    /// that makes a token anew each time it is asked may make the same again.
    pub(crate) fn can_replace(&self, rejected: &Self) -> bool {
        !self.is_rejected() && self.inner.header != rejected.inner.header
    }

    #[inline]
    pub(crate) fn from_inner(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    pub(crate) fn into_inner(self) -> Arc<Inner> {
        self.inner
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BearerToken")
            .field("token", &format_args!("[redacted]"))
            .field("expiry", &self.expiry())
            .field("rejected", &self.is_rejected())
            .finish()
    }
}

fn until(at: SystemTime, now: SystemTime) -> Duration {
    at.duration_since(now).unwrap_or_default()
}

/// The token without its scheme as a header value, made when it is first wanted.
#[derive(Clone)]
struct Bare {
    shared: Bytes,
    value: OnceLock<HeaderValue>,
}

impl Bare {
    fn new(shared: Bytes) -> Self {
        let value = OnceLock::new();
        Self { shared, value }
    }

    /// `whole` has the scheme.
    fn header_value(&self, whole: &HeaderValue) -> HeaderValue {
        let value = self.value.get_or_init(|| {
            let token = self.shared.slice(SCHEME.len()..);
            // A part of a header value is one.
            header_value(token).unwrap_or_else(|_| whole.clone())
        });
        value.clone()
    }
}

/// A secret after its scheme, in the one buffer that is wiped.
fn secret_bytes(scheme: &[u8], text: &[u8]) -> Bytes {
    // Sized before it holds the secret: a buffer that grows leaves copies behind.
    let mut secret = SecretSlice::from(vec![0; scheme.len() + text.len()]);
    let (start, rest) = secret.expose_secret_mut().split_at_mut(scheme.len());
    start.copy_from_slice(scheme);
    rest.copy_from_slice(text);

    Bytes::from_owner(Owner(secret))
}

/// A secret of another scheme, as sensitive and as wiped as a token.
#[cfg(feature = "oauth2")]
pub(crate) fn secret_header(scheme: &[u8], text: &[u8]) -> Result<HeaderValue, InvalidToken> {
    header_value(secret_bytes(scheme, text))
}

/// The one place that turns a secret into a header value.
fn header_value(shared: Bytes) -> Result<HeaderValue, InvalidToken> {
    let mut value = HeaderValue::from_maybe_shared(shared).map_err(|_| InvalidToken {
        reason: Reason::NotAFieldValue,
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Wiped by [`SecretSlice`] when the last `Bytes` that shares it is dropped.
struct Owner(SecretSlice<u8>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        self.0.expose_secret()
    }
}

#[cfg(test)]
mod tests;
