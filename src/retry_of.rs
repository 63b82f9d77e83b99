//! The token that the first try of a retried request carried: [`RetryOf`].

use http::Extensions;

use crate::{
    error::{Error, SourceError},
    token::BearerToken,
};

/// In the extensions of a response with [`TokenReplaced`](crate::TokenReplaced), and then in the extensions of the
/// retry: the token that the first try carried.
#[derive(Clone)]
pub(crate) struct RetryOf(pub(crate) BearerToken);

impl RetryOf {
    /// Fails for a retry whose account has been signed out since the first try.
    pub(crate) fn check(extensions: &Extensions) -> Result<(), Error> {
        match extensions.get::<Self>() {
            Some(Self(rejected)) if rejected.is_signed_out() => {
                Err(Error::no_token(SourceError::invalidated()))
            }
            _ => Ok(()),
        }
    }
}
