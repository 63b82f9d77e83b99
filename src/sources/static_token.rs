//! One token for as long as the program runs: [`StaticToken`].

use crate::{
    error::SourceError,
    source::{TokenFuture, TokenSource},
    token::BearerToken,
};

/// One token for as long as the program runs.
///
/// It is sent even after a server has rejected it, since there is no other; past its expiry it is
/// not, and requests fail with [`SourceErrorKind::Expired`](crate::SourceErrorKind::Expired).
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
    /// Costs one reference count, and two readings of clocks if the token has an expiry.
    #[inline]
    fn token(&self) -> TokenFuture {
        self.token.token()
    }
}

/// A token is the simplest source: always itself, as a [`StaticToken`] of it is.
impl TokenSource for BearerToken {
    #[inline]
    fn token(&self) -> TokenFuture {
        TokenFuture::ready(SourceError::unless_expired(self.clone()))
    }
}
