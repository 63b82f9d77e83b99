//! A token that never changes: [`StaticToken`].

use crate::{
    error::SourceError,
    source::{TokenFuture, TokenSource},
    token::BearerToken,
};

/// A token that never changes while the program runs.
///
/// Requests carry the token even after a server has rejected it, since there is no other token.
/// Past the token's expiry, requests fail with
/// [`SourceErrorKind::Expired`](crate::SourceErrorKind::Expired).
///
/// ```
/// use tower_bearer::{BearerAuthLayer, BearerToken, StaticToken};
///
/// let token = BearerToken::new("7Fjfp0ZBr1KtDRbnfVdmIw")?;
/// let layer = BearerAuthLayer::new(StaticToken::new(token));
/// # Ok::<(), tower_bearer::InvalidToken>(())
/// ```
#[derive(Clone, Debug)]
pub struct StaticToken {
    token: BearerToken,
}

impl StaticToken {
    /// Always hands out `token`.
    #[must_use]
    pub fn new(token: BearerToken) -> Self {
        Self { token }
    }
}

impl From<BearerToken> for StaticToken {
    fn from(token: BearerToken) -> Self {
        Self::new(token)
    }
}

impl TokenSource for StaticToken {
    /// Costs a reference count, and a read of both clocks if the token has an expiry.
    #[inline]
    fn token(&self) -> TokenFuture {
        self.token.token()
    }
}

/// A token is the simplest source: it hands out itself, as a [`StaticToken`] does.
impl TokenSource for BearerToken {
    #[inline]
    fn token(&self) -> TokenFuture {
        TokenFuture::ready(SourceError::unless_expired(self.clone()))
    }
}
