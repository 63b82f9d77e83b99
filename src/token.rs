//! The secret itself: [`BearerToken`].

mod expiry;
mod text;

use std::{
    any::Any,
    fmt,
    panic::{RefUnwindSafe, UnwindSafe},
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::HeaderValue;
use secrecy::{ExposeSecret, ExposeSecretMut, SecretSlice};

pub(crate) use self::text::trimmed;
pub use self::text::{InvalidToken, InvalidTokenKind, TokenText};
use self::{
    expiry::Expiry,
    text::{MAX_LEN, Reason, check_b64token, check_visible},
};
use crate::rejection::{Mark, Rejection, SeenMark};

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
#[derive(Clone)]
pub(crate) struct Inner {
    header: HeaderValue,
    bare: Bare,
    expiry: Option<Expiry>,
    /// At most one value of each type. Foreign: its `Drop` may do anything, also ask a source.
    data: Vec<Arc<dyn Any + Send + Sync>>,
    /// Apart from the rest, so that a clone that is given another expiry is still the same token.
    mark: Arc<Mark>,
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
    /// If the text is empty, longer than 64 KiB, or has a byte that `b64token` does not allow. The error
    /// names the likely mistake: `Bearer ` before the token, quotes around it, a byte order mark.
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
    /// outside ASCII. Also if it is wrapped in a pair of quotes, which are those of a shell or of a
    /// configuration file more likely than a part of the token.
    pub fn nonstandard(token: impl TokenText) -> Result<Self, InvalidToken> {
        token.with_text(|text| Self::build(text, check_visible))
    }

    fn build(
        text: &str,
        check: fn(&str) -> Result<(), InvalidToken>,
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
            _ => check(text)?,
        }
        let shared = secret_bytes(SCHEME, text.as_bytes());
        Ok(Self {
            inner: Arc::new(Inner {
                header: header_value(shared.clone())?,
                bare: Bare::new(shared),
                expiry: None,
                data: Vec::new(),
                mark: Arc::default(),
            }),
        })
    }

    /// The same token, known to expire at `at`.
    #[must_use]
    pub fn expires_at(self, at: Instant) -> Self {
        self.with_expiry(Some(Expiry::at(at)))
    }

    /// The same token, known to expire at `time`, as in the `exp` claim of a JWT. The time may lie in the
    /// past.
    #[must_use]
    pub fn expires_at_time(self, time: SystemTime) -> Self {
        self.with_expiry(Expiry::at_time(time))
    }

    /// The same token, known to expire `lifetime` from now: `expires_in` of RFC 6749 §5.1. A lifetime
    /// past the end of the clock is no expiry.
    #[must_use]
    pub fn expires_in(self, lifetime: Duration) -> Self {
        self.with_expiry(Expiry::after(lifetime))
    }

    fn with_expiry(self, expiry: Option<Expiry>) -> Self {
        match expiry {
            Some(expiry) => self.with(|inner| inner.expiry = Some(expiry)),
            None => self,
        }
    }

    /// The same token with `data`, which belongs to the token: the refresh token that came with it, the
    /// project that pays for its requests. A token has one value of each type, as
    /// [`http::Extensions`] does: `data` takes the place of an earlier value of type `D`.
    ///
    /// Clones of the result share the value, and [`expires_in`](Self::expires_in) keeps it. Clones that
    /// were made before do not have it. It is in no header and not shown by `Debug`. It is dropped with
    /// the last holder of the token; wiping a secret in it is up to `D`, as
    /// [`SecretString`](https://docs.rs/secrecy/0.10/secrecy/type.SecretString.html) does.
    ///
    /// Costs two allocations, and a request with the token costs no more.
    ///
    /// ```
    /// use secrecy::{ExposeSecret, SecretString};
    /// use tower_bearer::{BearerToken, InvalidToken, RefreshingToken};
    ///
    /// struct RefreshToken(SecretString);
    ///
    /// async fn token_endpoint(refresh_token: &str) -> Result<BearerToken, InvalidToken> {
    ///     let (access, next) = ("7Fjfp0ZBr1KtDRbnfVdmIw", "8xLOxBtZp8"); // from its response
    ///     Ok(BearerToken::new(access)?.with_data(RefreshToken(next.into())))
    /// }
    ///
    /// let source = RefreshingToken::renewing(|previous: Option<BearerToken>| async move {
    ///     let refresh_token = previous.as_ref().and_then(BearerToken::data::<RefreshToken>);
    ///     token_endpoint(refresh_token.map_or("tGzv3JOkF0", |token| token.0.expose_secret())).await
    /// });
    /// ```
    #[must_use]
    pub fn with_data<D: Send + Sync + 'static>(self, data: D) -> Self {
        let data: Arc<dyn Any + Send + Sync> = Arc::new(data);
        self.with(|inner| {
            inner.data.retain(|other| !other.is::<D>());
            inner.data.push(data);
        })
    }

    /// The value of type `D` that [belongs to the token](Self::with_data).
    #[must_use]
    pub fn data<D: Send + Sync + 'static>(&self) -> Option<&D> {
        self.inner.data.iter().find_map(|data| data.downcast_ref())
    }

    /// A change that other clones do not see.
    fn with(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.inner));
        self
    }

    /// When the token expires by the monotonic clock, if that is known.
    #[must_use]
    pub fn expiry(&self) -> Option<Instant> {
        self.inner.expiry.map(|expiry| expiry.monotonic)
    }

    /// What is left of the lifetime by the clocks of a runtime, which need not be the clocks of this
    /// crate. Nothing is left of a token that has expired.
    pub(crate) fn lifetime(&self, now: Instant, wall: SystemTime) -> Option<Duration> {
        Some(self.inner.expiry?.left(now, wall))
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

    /// The text of the token, without `Bearer `: for a protocol that takes the token elsewhere than in a
    /// header, or for an HTTP client that makes its header itself. What you copy from it is not wiped.
    ///
    /// ```
    /// use tower_bearer::BearerToken;
    ///
    /// let token = BearerToken::new("7Fjfp0ZBr1KtDRbnfVdmIw")?;
    /// assert_eq!(token.expose_secret(), "7Fjfp0ZBr1KtDRbnfVdmIw");
    /// # Ok::<(), tower_bearer::InvalidToken>(())
    /// ```
    #[must_use]
    pub fn expose_secret(&self) -> &str {
        let text = self.inner.header.to_str().ok();
        let token = text.and_then(|text| text.get(SCHEME.len()..));
        // Not reached: a token is visible ASCII.
        token.unwrap_or_default()
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

/// As without data. What a panic leaves of the data is a matter between the data and its user.
impl UnwindSafe for BearerToken {}
impl RefUnwindSafe for BearerToken {}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BearerToken")
            .field("token", &format_args!("[redacted]"))
            .field("expiry", &self.expiry())
            .field("rejected", &self.is_rejected())
            .finish()
    }
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
