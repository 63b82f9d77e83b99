//! The form of a token request and the Basic header of its client, in buffers that are wiped and never
//! grow.

use base64::{Engine, engine::general_purpose::STANDARD};
use form_urlencoded::byte_serialize;
use http::HeaderValue;
use secrecy::zeroize::Zeroizing;

use crate::{
    error::{SourceError, SourceErrorKind},
    token::{InvalidToken, secret_header},
};

type Buffer = Zeroizing<Vec<u8>>;

/// The scheme of RFC 7617.
pub(crate) const BASIC: &str = "Basic ";

/// Excludes a secret that is a mistake: a server would answer `invalid_client`, without a hint. By RFC 6749
/// appendices A.2 and A.17, a secret has visible ASCII and spaces. Real servers also give characters outside
/// ASCII. A client secret may be empty: a public client of Cloud Foundry has an empty secret. `name` is the name
/// of the secret.
pub(crate) fn check_secret(
    name: &str,
    secret: &str,
    may_be_empty: bool,
) -> Result<(), SourceError> {
    let why = if secret.is_empty() && !may_be_empty {
        "is empty"
    } else if secret.contains(|c: char| c.is_ascii_control()) {
        "has a control character: trim the text"
    } else {
        return Ok(());
    };
    let error = SourceError::new(SourceErrorKind::Invalid, format!("the {name} {why}"));
    Err(error.permanent())
}

/// Encodes a form, as RFC 6749 appendix B says.
pub(crate) fn encode(pairs: &[(&str, &str)]) -> Buffer {
    let lengths = pairs.iter().map(|(name, value)| max_len(name, value) + 1);
    let mut form = Zeroizing::new(Vec::with_capacity(lengths.sum()));
    for (name, value) in pairs {
        if !form.is_empty() {
            form.push(b'&');
        }
        push_pair(&mut form, name, b'=', value, "+");
    }
    form
}

/// A value as it stands in a form.
pub(crate) fn encode_value(value: &str) -> Buffer {
    let mut encoded = Zeroizing::new(Vec::with_capacity(3 * value.len()));
    push(&mut encoded, value, "+");
    encoded
}

/// The Basic credentials of a client. By RFC 6749 §2.3.1, the identifier and the secret are encoded as in a
/// form before they are encoded as RFC 7617 says. A space becomes `%20`, which a form allows: some servers,
/// such as Authlib, do not read a `+` as a space here.
pub(crate) fn basic(id: &str, secret: &str) -> Result<HeaderValue, InvalidToken> {
    let mut plain = Zeroizing::new(Vec::with_capacity(max_len(id, secret)));
    push_pair(&mut plain, id, b':', secret, "%20");
    let mut encoded = Zeroizing::new(vec![0; plain.len().div_ceil(3) * 4]);
    // Fails only if the buffer is too short, and it is not.
    let length = STANDARD.encode_slice(&plain, &mut encoded).unwrap_or(0);
    encoded.truncate(length);
    secret_header(BASIC.as_bytes(), &encoded)
}

/// The most bytes that [`push_pair`] pushes.
fn max_len(name: &str, value: &str) -> usize {
    3 * (name.len() + value.len()) + 1
}

/// `space` is the code of a space: `+` or `%20`.
fn push_pair(buffer: &mut Buffer, name: &str, separator: u8, value: &str, space: &str) {
    push(buffer, name, space);
    buffer.push(separator);
    push(buffer, value, space);
}

fn push(buffer: &mut Buffer, text: &str, space: &str) {
    for part in byte_serialize(text.as_bytes()) {
        let part = if part == "+" { space } else { part };
        buffer.extend_from_slice(part.as_bytes());
    }
}
