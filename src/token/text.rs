//! [`TokenText`], the texts that a token can be made from, and [`InvalidToken`], why a text is not a token.

use std::fmt;

use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};

/// The longest token that this crate accepts, in bytes. Few servers accept a header field this long.
pub(super) const MAX_LEN: usize = 64 * 1024;

/// U+FEFF, which some editors put in front of UTF-8.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// RFC 6750 §2.1: `b64token = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="`.
pub(super) fn check_b64token(text: &str) -> Result<(), InvalidToken> {
    let body = text.trim_end_matches('=');
    if body.is_empty() {
        return Err(InvalidToken::forbidden(text, 0));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    match body.bytes().position(|byte| !allowed(byte)) {
        Some(offset) => Err(InvalidToken::forbidden(text, offset)),
        None => Ok(()),
    }
}

pub(super) fn check_visible(text: &str) -> Result<(), InvalidToken> {
    // Before other bytes: if there is a space within the quotes, the quotes are still the likely mistake.
    if is_quoted(text) {
        return Err(InvalidToken::forbidden(text, 0));
    }
    match text.bytes().position(|byte| !byte.is_ascii_graphic()) {
        Some(offset) => Err(InvalidToken::forbidden(text, offset)),
        None => Ok(()),
    }
}

/// Whether a pair of quotes surrounds the text: straight quotes, curly quotes or backticks.
fn is_quoted(text: &str) -> bool {
    let text = text.trim();
    [
        ('"', '"'),
        ('\'', '\''),
        ('`', '`'),
        ('\u{201c}', '\u{201d}'),
        ('\u{2018}', '\u{2019}'),
    ]
    .into_iter()
    .any(|(open, close)| {
        let rest = text.strip_prefix(open);
        rest.is_some_and(|rest| rest.ends_with(close))
    })
}

/// What to do about the forbidden byte at `offset`: the advice is for the likely mistake.
fn advice(text: &str, offset: usize) -> Option<&'static str> {
    let (before, rest) = text.split_at_checked(offset)?;
    let whole = text.trim();
    let is = |word: &str| before.eq_ignore_ascii_case(word);
    let begins_with = |start: &str| {
        let begin = whole.get(..start.len());
        begin.is_some_and(|begin| begin.eq_ignore_ascii_case(start))
    };
    let is_within = |open: &str, close: &str| whole.starts_with(open) && whole.ends_with(close);
    let is_template = is_within("{{", "}}");
    let is_array = is_within("[", "]") && whole.contains('"');
    let is_masked = whole.bytes().all(|byte| byte == b'*');
    let in_percents = whole.strip_prefix('%').and_then(|it| it.strip_suffix('%'));
    // The padding of Base64 is in its place if only whitespace follows.
    let end = rest.trim_start_matches('=');

    // The first row that holds is the likely mistake.
    let mistakes = [
        (offset == 0 && is_quoted(text), "leave the quotes out"),
        (
            begins_with("<!doctype html") || begins_with("<html"),
            "this is a page of HTML, not a token",
        ),
        (
            (is_within("{", "}") && !is_template) || is_array,
            "take the token out of the JSON, such as the value of `access_token`",
        ),
        (is("Bearer"), "leave `Bearer ` out"),
        (is("Authorization"), "leave `Authorization: Bearer ` out"),
        (is("Basic"), "`Basic` credentials are not a bearer token"),
        (is("token"), "leave `token ` out"),
        (is_assignment(whole), "leave the name and `=` out"),
        (
            offset > 0 && rest.starts_with("://"),
            "this is a URL, not a token",
        ),
        (
            (!end.is_empty() && end.trim().is_empty())
                || (offset == 0 && rest.starts_with(char::is_whitespace)),
            "trim the text",
        ),
        (
            (offset == 0 && rest.starts_with('$')) || in_percents.is_some_and(is_variable_name),
            "put the value of the variable in place of its name",
        ),
        (
            is_template || is_masked || is_within("<", ">") || is_within("[", "]"),
            "put a token in place of the placeholder",
        ),
        (
            rest.starts_with(|c: char| c.is_ascii_graphic()),
            "`BearerToken::nonstandard` takes this byte",
        ),
    ];
    let likely = mistakes.into_iter().find(|(holds, _)| *holds);
    likely.map(|(_, advice)| advice)
}

/// Whether the text is an assignment of a shell or of a `.env` file. Without `export`, the name has to be in
/// capitals, since a nonstandard token may have a `=` within it.
fn is_assignment(text: &str) -> bool {
    let exported = text.strip_prefix("export ");
    let Some((name, value)) = exported.unwrap_or(text).split_once('=') else {
        return false;
    };
    let name = name.trim();
    let is_in_capitals = !name.bytes().any(|byte| byte.is_ascii_lowercase());
    let is_padding = value.starts_with('=') || value.trim().is_empty();
    is_variable_name(name) && (is_in_capitals || exported.is_some()) && !is_padding
}

/// Whether the text can be the name of an environment variable in a shell.
pub(crate) fn is_variable_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The text of a variable or of a file, without the whitespace around it, and without the byte order mark
/// that some editors put in front of UTF-8.
pub(crate) fn trimmed(text: &str) -> &str {
    let text = text.trim_matches(|c: char| c.is_ascii_whitespace());
    match text.strip_prefix(BYTE_ORDER_MARK) {
        Some(rest) => rest.trim_start_matches(|c: char| c.is_ascii_whitespace()),
        None => text,
    }
}

/// A text that a [`BearerToken`](crate::BearerToken) can be made from: `&str`, `&String`, `String`, `Box<str>`,
/// [`SecretString`], [`Zeroizing<String>`]. A text that is given by value is wiped with its spare capacity.
///
/// Sealed: no type outside this crate can implement it.
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

/// Why a text is not a token: what is wrong, at which byte, and what the likely mistake is. The error
/// never holds a byte of the text.
#[derive(Clone, PartialEq, Eq)]
pub struct InvalidToken {
    pub(super) reason: Reason,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Reason {
    Empty,
    TooLong(usize),
    Forbidden {
        offset: usize,
        class: &'static str,
        advice: Option<&'static str>,
    },
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
    /// The byte of `text` at `offset` is not allowed.
    fn forbidden(text: &str, offset: usize) -> Self {
        let byte = text.as_bytes().get(offset).copied().unwrap_or_default();
        let class = match byte {
            _ if offset == 0 && is_quoted(text) => "quotes around the value",
            _ if offset == 0 && text.starts_with(BYTE_ORDER_MARK) => "byte order mark",
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
        let reason = Reason::Forbidden {
            offset,
            class,
            advice: advice(text, offset),
        };
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
            Reason::Forbidden {
                offset,
                class,
                advice,
            } => {
                write!(f, "token has a forbidden byte at offset {offset} ({class})")?;
                match advice {
                    Some(advice) => write!(f, ": {advice}"),
                    None => Ok(()),
                }
            }
            Reason::NotAFieldValue => f.write_str("token is not an HTTP field value"),
        }
    }
}

/// Shows the text of `Display`, since `main` prints an error by its `Debug`.
impl fmt::Debug for InvalidToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InvalidToken")
            .field("kind", &self.kind())
            .field("message", &format_args!("\"{self}\""))
            .finish()
    }
}

impl std::error::Error for InvalidToken {}
