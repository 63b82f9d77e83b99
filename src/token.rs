//! The secret itself: [`BearerToken`].

mod expiry;
mod header;
mod text;

use std::{
    any::Any,
    fmt,
    panic::{RefUnwindSafe, UnwindSafe},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::HeaderValue;

#[cfg(feature = "oauth2")]
pub(crate) use self::header::secret_header;
pub use self::text::{InvalidToken, InvalidTokenKind, TokenText};
pub(crate) use self::text::{is_variable_name, trimmed};
use self::{
    expiry::Expiry,
    header::{Bare, SCHEME, header_value, secret_bytes},
    text::{MAX_LEN, Reason, check_b64token, check_visible},
};
use crate::{
    rejection::{Mark, Rejection, SeenMark},
    sign_in::SignIn,
};

/// A bearer token: a shared, immutable secret, kept as a ready-made `Authorization` header value.
///
/// A clone costs a reference count and is the *same* token: if a clone is [rejected](Self::reject), all
/// clones are. The bytes are wiped when the last holder is dropped. A holder is a clone of the token, or a
/// [`HeaderValue`] that is still in a request.
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

/// What a [`BearerToken`] points to. A source that swaps its token atomically holds a pointer to this.
#[derive(Clone)]
pub(crate) struct Inner {
    header: HeaderValue,
    bare: Bare,
    expiry: Option<Expiry>,
    /// At most one value of each type. The `Drop` of a value is the user's code, which may ask a source.
    data: Vec<Arc<dyn Any + Send + Sync>>,
    /// In an `Arc` of its own, so that a clone with another expiry is still the same token.
    mark: Arc<Mark>,
}

impl BearerToken {
    /// Makes a token from RFC 6750 §2.1 `b64token` text: letters, digits, `-._~+/`, then any
    /// number of `=`.
    ///
    /// A text given by value (`String`, `Box<str>`, `SecretString`, `Zeroizing<String>`) is wiped,
    /// whether or not it is valid. Prefer `String` to `SecretString::from(String)`: this conversion may
    /// reallocate, and leave a copy behind that nobody wipes.
    ///
    /// # Errors
    ///
    /// If the text is empty, longer than 64 KiB, or has a byte that `b64token` does not allow. The error
    /// names the likely mistake: `Bearer ` before the token, quotes or whitespace around the token, JSON.
    pub fn new(token: impl TokenText) -> Result<Self, InvalidToken> {
        token.with_text(|text| Self::build(text, check_b64token))
    }

    /// Makes a token from any visible ASCII text, for servers with tokens that are not RFC 6750
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
    /// outside ASCII. Also if a pair of quotes surrounds the text: the quotes of a shell or of a
    /// configuration file are more likely than quotes that belong to the token.
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

    /// The same token, known to expire at `at`. In a test that moves tokio's clock, take `at` from that clock.
    #[must_use]
    pub fn expires_at(self, at: Instant) -> Self {
        self.with_expiry(Some(Expiry::at(at)))
    }

    /// The same token, known to expire at `time`, which may lie in the past. This crate reads no JWT: pass
    /// the `exp` claim here.
    #[must_use]
    pub fn expires_at_time(self, time: SystemTime) -> Self {
        self.with_expiry(Expiry::at_time(time))
    }

    /// The same token, known to expire `lifetime` from now: `expires_in` of RFC 6749 §5.1. A lifetime
    /// that goes past the end of the clock sets no expiry.
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

    /// The same token with `data` that belongs to the token: the refresh token that came with it, or the
    /// project that pays for its requests. As in [`http::Extensions`], there is one value of each type:
    /// `data` takes the place of an earlier value of type `D`.
    ///
    /// Clones of the result share the value, and [`expires_in`](Self::expires_in) keeps the value. Earlier
    /// clones do not have the value. No header and no `Debug` shows the value. The value is dropped with the
    /// last clone that has it. A `D` with a secret has to wipe the secret, as
    /// [`SecretString`](https://docs.rs/secrecy/0.10/secrecy/type.SecretString.html) does.
    ///
    /// Costs at least two allocations. A request with the token costs the same as without `data`.
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

    /// Changes this token. Other clones do not see the change.
    fn with(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.inner));
        self
    }

    /// When the token expires by the monotonic clock, if that is known.
    #[must_use]
    pub fn expiry(&self) -> Option<Instant> {
        self.inner.expiry.map(|expiry| expiry.monotonic)
    }

    /// The time until the token expires. Zero for a token that has expired. `now` and `wall` come from a
    /// runtime, whose clocks need not be the clocks of this crate.
    pub(crate) fn lifetime(&self, now: Instant, wall: SystemTime) -> Option<Duration> {
        Some(self.inner.expiry?.left(now, wall))
    }

    /// The `Authorization` field value, `Bearer …`, marked sensitive. Costs a reference count: the value
    /// shares the token's buffer, which is wiped when its last holder is dropped.
    #[must_use]
    #[inline]
    pub fn header_value(&self) -> HeaderValue {
        self.inner.header.clone()
    }

    /// The token without its scheme, marked sensitive and wiped like [`header_value`](Self::header_value).
    pub(crate) fn bare_header_value(&self) -> HeaderValue {
        self.inner.bare.header_value(&self.inner.header)
    }

    /// The text of the token, without `Bearer `: for a protocol that carries the token outside a header, or
    /// for an HTTP client that makes the header itself. Your copies of the text are not wiped.
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

    /// Marks this token as rejected by a server. All clones share the mark, and sources that can get another
    /// token do so. Idempotent.
    ///
    /// If a request is sent with the token after this call and succeeds, the layer takes the mark off.
    pub fn reject(&self) {
        self.inner.mark.put_on(None);
    }

    /// Like [`reject`](Self::reject), and records what the server said.
    pub(crate) fn reject_with(&self, rejection: Rejection) {
        self.inner.mark.put_on(Some(rejection));
    }

    /// Whether the token is marked as [rejected](Self::reject).
    #[must_use]
    #[inline]
    pub fn is_rejected(&self) -> bool {
        self.inner.mark.is_on()
    }

    /// What the server said when it rejected the token. `None` if the token is not marked as rejected, or if
    /// [`reject`](Self::reject) marked it.
    #[must_use]
    pub fn rejection(&self) -> Option<Rejection> {
        self.inner.mark.said()
    }

    /// The mark of a token that is sent although it is rejected.
    #[inline]
    pub(crate) fn seen_mark(&self) -> Option<SeenMark> {
        self.inner.mark.seen()
    }

    /// Takes off the mark `seen`, since a request has succeeded that was sent with the mark on.
    pub(crate) fn accept(&self, seen: SeenMark) {
        self.inner.mark.take_off(seen);
    }

    /// Whether the token is past its expiry, by the monotonic clock or by the wall clock: the monotonic
    /// clock may stand still while the machine sleeps. Reads the clocks only if there is an expiry.
    ///
    /// A source must not hand out an expired token; [`RefreshingToken`](crate::RefreshingToken#when) has exceptions.
    #[must_use]
    #[inline]
    pub fn is_expired(&self) -> bool {
        self.inner.expiry.as_ref().is_some_and(Expiry::has_passed)
    }

    /// Whether this token and `other` are clones of the same token, whatever their expiry. Clones share the
    /// mark of a rejection. Two tokens that were made from the same text are not the same token.
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

    /// Whether a request that carried `rejected` is worth a retry with this token. Compares texts: a source
    /// that makes a token anew for each call may make the rejected text again.
    pub(crate) fn can_replace(&self, rejected: &Self) -> bool {
        !self.is_rejected()
            && !rejected.is_signed_out()
            && self.inner.header != rejected.inner.header
    }

    /// Records a sign-in that the token belongs to, for all clones.
    pub(crate) fn belongs_to(&self, sign_in: &SignIn) {
        self.inner.mark.belongs_to(sign_in);
    }

    /// The sign-ins that the token belongs to, one for each source that has handed out the token.
    pub(crate) fn sign_ins(&self) -> Vec<SignIn> {
        self.inner.mark.sign_ins()
    }

    /// Whether any source that has handed out the token has signed out since. No other token may then take the
    /// place of this token in a request.
    pub(crate) fn is_signed_out(&self) -> bool {
        self.inner.mark.is_signed_out()
    }

    #[inline]
    pub(crate) fn from_inner(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    pub(crate) fn into_inner(self) -> Arc<Inner> {
        self.inner
    }
}

/// A token is unwind safe, whatever its data. After a panic, the state of the data is the user's concern.
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

#[cfg(test)]
mod tests;
