//! Header values of secrets: each shares a buffer that is wiped, and is marked sensitive.

use std::sync::OnceLock;

use bytes::Bytes;
use http::HeaderValue;
use secrecy::{ExposeSecret, ExposeSecretMut, SecretSlice};

use super::text::{InvalidToken, Reason};

/// The scheme of RFC 6750 §2.1, with the one space of RFC 9110 §11.4.
pub(super) const SCHEME: &[u8] = b"Bearer ";

/// The header value without the scheme, made on first use.
#[derive(Clone)]
pub(super) struct Bare {
    shared: Bytes,
    value: OnceLock<HeaderValue>,
}

impl Bare {
    pub(super) fn new(shared: Bytes) -> Self {
        let value = OnceLock::new();
        Self { shared, value }
    }

    /// `whole` is the header value with the scheme.
    pub(super) fn header_value(&self, whole: &HeaderValue) -> HeaderValue {
        let value = self.value.get_or_init(|| {
            let token = self.shared.slice(SCHEME.len()..);
            // Never fails: a part of a header value is a header value.
            header_value(token).unwrap_or_else(|_| whole.clone())
        });
        value.clone()
    }
}

/// The scheme and the secret, in a buffer that is wiped.
pub(super) fn secret_bytes(scheme: &[u8], text: &[u8]) -> Bytes {
    // The buffer has its full size before it holds the secret: a buffer that grows leaves copies behind.
    let mut secret = SecretSlice::from(vec![0; scheme.len() + text.len()]);
    let (start, rest) = secret.expose_secret_mut().split_at_mut(scheme.len());
    start.copy_from_slice(scheme);
    rest.copy_from_slice(text);

    Bytes::from_owner(Owner(secret))
}

/// The header value of a secret of another scheme, marked sensitive and wiped like a token.
#[cfg(feature = "oauth2")]
pub(crate) fn secret_header(scheme: &[u8], text: &[u8]) -> Result<HeaderValue, InvalidToken> {
    header_value(secret_bytes(scheme, text))
}

/// Turns a secret into a header value. This is the only function that does so.
pub(super) fn header_value(shared: Bytes) -> Result<HeaderValue, InvalidToken> {
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
