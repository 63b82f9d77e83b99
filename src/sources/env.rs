//! A token from an environment variable: [`EnvToken`].

use std::fmt;

use super::static_token::StaticToken;
use crate::{
    error::{SourceError, SourceErrorKind},
    secret_text::{is_like_a_token, token_in, variable},
    source::{TokenFuture, TokenSource},
    token::{BearerToken, InvalidToken, is_variable_name},
};

/// A token from an environment variable, which is read and checked once, at start-up.
///
/// Whitespace around the value is dropped, since a trailing newline is the most common mistake. The
/// copy that this source reads is wiped. The process environment itself cannot be wiped.
///
/// A variable that is set and empty, or that has only whitespace, is an error of kind
/// [`Invalid`](SourceErrorKind::Invalid), not of kind [`Absent`](SourceErrorKind::Absent). A
/// [`Chain`](crate::Chain) therefore stops at such a variable, and does not ask its next source. To pass over
/// the variable, unset it.
///
/// ```no_run
/// use tower_bearer::{BearerAuthLayer, EnvToken};
///
/// let layer = BearerAuthLayer::new(EnvToken::new("API_TOKEN")?);
/// # Ok::<(), tower_bearer::SourceError>(())
/// ```
///
/// If the server's tokens are not RFC 6750 `b64token`s:
///
/// ```no_run
/// # use tower_bearer::EnvToken;
/// let source = EnvToken::nonstandard("LEGACY_TOKEN")?;
/// # Ok::<(), tower_bearer::SourceError>(())
/// ```
#[derive(Clone)]
pub struct EnvToken {
    name: String,
    token: StaticToken,
}

impl EnvToken {
    /// Reads a token from the variable `name`, and checks it as [`BearerToken::new`] does.
    ///
    /// # Errors
    ///
    /// [`SourceErrorKind::Absent`] if the variable is not set, [`SourceErrorKind::Invalid`] if its
    /// value is empty or is not a token. The message names the variable.
    pub fn new(name: impl Into<String>) -> Result<Self, SourceError> {
        Self::read(name.into(), |text| BearerToken::new(text))
    }

    /// Reads a token from the variable `name`, and checks it as [`BearerToken::nonstandard`] does.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn nonstandard(name: impl Into<String>) -> Result<Self, SourceError> {
        Self::read(name.into(), |text| BearerToken::nonstandard(text))
    }

    fn read(
        name: String,
        parse: fn(&str) -> Result<BearerToken, InvalidToken>,
    ) -> Result<Self, SourceError> {
        let Some(text) = variable(&name)? else {
            return Err(SourceError::new(SourceErrorKind::Absent, not_set(&name)));
        };
        let token = token_in(&text, parse, || format!("environment variable {name}"))?;
        Ok(Self {
            name,
            token: StaticToken::new(token),
        })
    }

    /// The name of the variable.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Shows the name only if it looks like a name: a program may pass the token in place of the name.
fn not_set(name: &str) -> String {
    let plain = plain(name);
    let has = |is: fn(&u8) -> bool| plain.bytes().any(|byte| is(&byte));
    let is_mixed =
        has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_digit);
    let is_name = name.is_empty() || is_variable_name(plain);
    if is_mixed || is_like_a_token(plain) || !is_name {
        return "no such environment variable: pass the name of the variable, not the token; a name has \
                letters, digits and underscores"
            .to_owned();
    }
    if name == plain {
        return format!("environment variable {name} is not set");
    }
    if name.strip_prefix('$') == Some(plain) {
        return format!("environment variable {name} is not set: leave the `$` out of the name");
    }
    format!("no such environment variable: pass the name alone, `{plain}`")
}

/// The name without the whitespace and without the signs of a shell around it.
fn plain(name: &str) -> &str {
    let name = name.trim();
    for (open, close) in [("${", "}"), ("%", "%"), ("$", "")] {
        let rest = name.strip_prefix(open);
        if let Some(plain) = rest.and_then(|rest| rest.strip_suffix(close)) {
            return plain;
        }
    }
    name
}

impl TokenSource for EnvToken {
    /// Costs a reference count.
    #[inline]
    fn token(&self) -> TokenFuture {
        self.token.token()
    }
}

impl fmt::Debug for EnvToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvToken")
            .field("name", &self.name)
            .field("token", &format_args!("[redacted]"))
            .finish()
    }
}
