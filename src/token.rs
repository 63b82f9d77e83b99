//! The secret itself: [`BearerToken`], and why a text cannot be one: [`InvalidToken`].

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::HeaderValue;
use secrecy::{ExposeSecret, ExposeSecretMut, SecretSlice, SecretString, zeroize::Zeroizing};

/// The scheme of RFC 6750 §2.1, with the one space of RFC 9110 §11.4.
const SCHEME: &[u8] = b"Bearer ";

/// The longest token that is taken, in bytes. No server accepts a header field this long.
const MAX_LEN: usize = 64 * 1024;

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
    expiry: Option<Instant>,
    /// Apart from the rest, so that a clone that is given another expiry is still the same token.
    rejected: Arc<AtomicBool>,
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
        Ok(Self {
            inner: Arc::new(Inner {
                header: header_value(text)?,
                expiry: None,
                rejected: Arc::new(AtomicBool::new(false)),
            }),
        })
    }

    /// The same token, known to expire at `at`.
    #[must_use]
    pub fn expires_at(self, at: Instant) -> Self {
        self.with_expiry(Some(at))
    }

    /// The same token, known to expire `lifetime` from now. A lifetime past the end of the clock
    /// is no expiry.
    #[must_use]
    pub fn expires_in(self, lifetime: Duration) -> Self {
        self.with_expiry(Instant::now().checked_add(lifetime))
    }

    fn with_expiry(mut self, expiry: Option<Instant>) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.expiry = expiry;
            return self;
        }
        Self {
            inner: Arc::new(Inner {
                header: self.inner.header.clone(),
                expiry,
                rejected: Arc::clone(&self.inner.rejected),
            }),
        }
    }

    /// When the token expires, if that is known.
    #[must_use]
    pub fn expiry(&self) -> Option<Instant> {
        self.inner.expiry
    }

    /// The `Authorization` field value, `Bearer …`. It is marked sensitive and shares the token's
    /// one wiped allocation; it costs one reference count.
    #[must_use]
    #[inline]
    pub fn header_value(&self) -> HeaderValue {
        self.inner.header.clone()
    }

    /// Marks the token as refused by a server. Sources that can get another one then do.
    /// Idempotent, and seen by every clone.
    pub fn reject(&self) {
        self.inner.rejected.store(true, Ordering::Release);
    }

    /// Whether a server has refused the token.
    #[must_use]
    #[inline]
    pub fn is_rejected(&self) -> bool {
        self.inner.rejected.load(Ordering::Acquire)
    }

    /// Whether the token is past its expiry. Reads the clock only if there is an expiry.
    ///
    /// A source must not hand out a token that is; those of this crate do not.
    #[must_use]
    #[inline]
    pub fn is_expired(&self) -> bool {
        self.inner.expiry.is_some_and(|at| at <= Instant::now())
    }

    /// Whether a request that was sent with `rejected` is worth sending again with this one. A source
    /// that makes a token anew each time it is asked may make the same again.
    pub(crate) fn can_replace(&self, rejected: &Self) -> bool {
        !self.is_rejected() && self.inner.header != rejected.inner.header
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
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

/// The one place that turns a token into a header value.
fn header_value(text: &str) -> Result<HeaderValue, InvalidToken> {
    // Sized before it holds the secret: a buffer that grows leaves copies behind.
    let mut secret = SecretSlice::from(vec![0; SCHEME.len() + text.len()]);
    let (scheme, token) = secret.expose_secret_mut().split_at_mut(SCHEME.len());
    scheme.copy_from_slice(SCHEME);
    token.copy_from_slice(text.as_bytes());

    let shared = Bytes::from_owner(Owner(secret));
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

/// RFC 6750 §2.1: `b64token = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="`.
fn check_b64token(bytes: &[u8]) -> Result<(), InvalidToken> {
    let padding = bytes.iter().rev().take_while(|&&byte| byte == b'=').count();
    let body = &bytes[..bytes.len() - padding];
    if body.is_empty() {
        return Err(InvalidToken::forbidden(0, b'='));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    forbid_all_but(allowed, body)
}

fn check_visible(bytes: &[u8]) -> Result<(), InvalidToken> {
    forbid_all_but(|byte| byte.is_ascii_graphic(), bytes)
}

fn forbid_all_but(allowed: impl Fn(u8) -> bool, bytes: &[u8]) -> Result<(), InvalidToken> {
    match bytes.iter().position(|&byte| !allowed(byte)) {
        Some(offset) => Err(InvalidToken::forbidden(offset, bytes[offset])),
        None => Ok(()),
    }
}

/// A text that a [`BearerToken`] can be made from: `&str`, `&String`, `String`, `Box<str>`,
/// [`SecretString`], [`Zeroizing<String>`]. What is given by value is wiped, spare capacity too.
///
/// Sealed: it cannot be implemented outside this crate.
pub trait TokenText: Sealed {}

mod sealed {
    pub trait Sealed: Sized {
        fn with_text<R>(self, read: impl FnOnce(&str) -> R) -> R;
    }
}
use sealed::Sealed;

impl TokenText for &str {}
impl Sealed for &str {
    fn with_text<R>(self, read: impl FnOnce(&str) -> R) -> R {
        read(self)
    }
}

impl TokenText for &String {}
impl Sealed for &String {
    fn with_text<R>(self, read: impl FnOnce(&str) -> R) -> R {
        read(self)
    }
}

impl TokenText for String {}
impl Sealed for String {
    fn with_text<R>(self, read: impl FnOnce(&str) -> R) -> R {
        Zeroizing::new(self).with_text(read)
    }
}

impl TokenText for Box<str> {}
impl Sealed for Box<str> {
    fn with_text<R>(self, read: impl FnOnce(&str) -> R) -> R {
        read(&Zeroizing::new(self))
    }
}

impl TokenText for SecretString {}
impl Sealed for SecretString {
    fn with_text<R>(self, read: impl FnOnce(&str) -> R) -> R {
        read(self.expose_secret())
    }
}

impl TokenText for Zeroizing<String> {}
impl Sealed for Zeroizing<String> {
    fn with_text<R>(self, read: impl FnOnce(&str) -> R) -> R {
        read(&self)
    }
}

/// Why a text is not a token: what is wrong, and at which byte. It never holds a byte of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidToken {
    reason: Reason,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Reason {
    Empty,
    TooLong(usize),
    Forbidden { offset: usize, class: &'static str },
    NotAFieldValue,
}

/// What is wrong with a token, see [`InvalidToken::kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidTokenKind {
    /// The token has no bytes.
    Empty,
    /// The token is longer than 64 KiB.
    TooLong,
    /// The token has a byte that a token cannot have, at [`InvalidToken::offset`].
    ForbiddenByte,
}

impl InvalidToken {
    fn forbidden(offset: usize, byte: u8) -> Self {
        let class = match byte {
            b'\n' => "line feed",
            b'\r' => "carriage return",
            b'\t' => "tab",
            b' ' => "space",
            0 => "null byte",
            0x7f => "delete",
            0x80.. => "not ASCII",
            _ if byte.is_ascii_control() => "control byte",
            b'=' => "padding that is not at the end",
            _ => "not in the b64token alphabet of RFC 6750",
        };
        let reason = Reason::Forbidden { offset, class };
        Self { reason }
    }

    /// What is wrong.
    #[must_use]
    pub fn kind(&self) -> InvalidTokenKind {
        match self.reason {
            Reason::Empty => InvalidTokenKind::Empty,
            Reason::TooLong(_) => InvalidTokenKind::TooLong,
            Reason::Forbidden { .. } | Reason::NotAFieldValue => InvalidTokenKind::ForbiddenByte,
        }
    }

    /// Where the first forbidden byte is, counted from 0.
    #[must_use]
    pub fn offset(&self) -> Option<usize> {
        match self.reason {
            Reason::Forbidden { offset, .. } => Some(offset),
            _ => None,
        }
    }
}

impl fmt::Display for InvalidToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Reason::Empty => f.write_str("token is empty"),
            Reason::TooLong(length) => {
                write!(f, "token is {length} bytes long, the limit is {MAX_LEN}")
            }
            Reason::Forbidden { offset, class } => {
                write!(f, "token has a forbidden byte at offset {offset} ({class})")
            }
            Reason::NotAFieldValue => f.write_str("token is not an HTTP field value"),
        }
    }
}

impl std::error::Error for InvalidToken {}
