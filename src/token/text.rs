//! Which text is a token, [`TokenText`], and why another text is not: [`InvalidToken`].

use std::fmt;

use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};

/// The longest token that is taken, in bytes. No server accepts a header field this long.
pub(super) const MAX_LEN: usize = 64 * 1024;

/// RFC 6750 §2.1: `b64token = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="`.
pub(super) fn check_b64token(bytes: &[u8]) -> Result<(), InvalidToken> {
    let padding = bytes.iter().rev().take_while(|&&byte| byte == b'=').count();
    let body = &bytes[..bytes.len() - padding];
    if body.is_empty() {
        return Err(InvalidToken::forbidden(0, b'='));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    forbid_all_but(allowed, body)
}

pub(super) fn check_visible(bytes: &[u8]) -> Result<(), InvalidToken> {
    forbid_all_but(|byte| byte.is_ascii_graphic(), bytes)
}

fn forbid_all_but(allowed: impl Fn(u8) -> bool, bytes: &[u8]) -> Result<(), InvalidToken> {
    match bytes.iter().position(|&byte| !allowed(byte)) {
        Some(offset) => Err(InvalidToken::forbidden(offset, bytes[offset])),
        None => Ok(()),
    }
}

/// A text that a [`BearerToken`](crate::BearerToken) can be made from: `&str`, `&String`, `String`, `Box<str>`,
/// [`SecretString`], [`Zeroizing<String>`]. What is given by value is wiped, spare capacity too.
///
/// Sealed: it cannot be implemented outside this crate.
pub trait TokenText: Sealed {}

pub(super) mod sealed {
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
    pub(super) reason: Reason,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reason {
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
