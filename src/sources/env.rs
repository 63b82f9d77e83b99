//! A token from an environment variable: [`EnvToken`].

use std::fmt;

use super::static_token::StaticToken;
use crate::{
    error::{SourceError, SourceErrorKind},
    secret_text::{token_in, variable},
    source::{TokenFuture, TokenSource},
    token::{BearerToken, InvalidToken},
};

/// A token from an environment variable, which is read and checked once, at start-up.
///
/// Whitespace around the value is dropped, since a trailing newline is the most common mistake. The
/// copy that this source reads is wiped. The process environment itself cannot be wiped.
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
    /// value is not a token. The message names the variable.
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
    let has = |is: fn(&u8) -> bool| name.bytes().any(|byte| is(&byte));
    let is_mixed =
        has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_digit);
    // A token with letters of one case, such as hexadecimal digits, perhaps after a prefix. A word of a name is
    // shorter, or has no digits.
    let is_random = |part: &str| {
        part.len() >= 16
            && part.contains(|c: char| c.is_ascii_digit())
            && part.contains(|c: char| c.is_ascii_alphabetic())
    };
    let is_of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let plain = name.strip_prefix('$').unwrap_or(name);
    if is_mixed
        || name.split('_').any(is_random)
        || !plain.chars().all(is_of_a_name)
        || plain.starts_with(|c: char| c.is_ascii_digit())
    {
        return "no such environment variable: pass the name of the variable, not the token; a name has \
                letters, digits and underscores"
            .to_owned();
    }
    if plain.len() < name.len() {
        return format!("environment variable {name} is not set: leave the `$` out of the name");
    }
    format!("environment variable {name} is not set")
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
