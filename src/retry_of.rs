//! The sign-ins of the tokens that the first try of a retried request carried: [`RetryOf`].

use http::Extensions;

use crate::{
    error::{Error, SourceError},
    sign_in::SignIn,
    token::BearerToken,
};

/// In the extensions of a response with [`TokenReplaced`](crate::TokenReplaced), and then in the extensions of the
/// retry. It has the sign-ins and not the tokens, since a caller may keep a response for long.
#[derive(Clone, Default)]
pub(crate) struct RetryOf(Vec<SignIn>);

impl RetryOf {
    /// Adds a token to the tokens that the response rejects: each layer of a stack may retry for a token of its own.
    pub(crate) fn add(response: &mut Extensions, rejected: &BearerToken) {
        let Self(sign_ins) = response.get_or_insert_default();
        sign_ins.extend(rejected.sign_ins());
    }

    /// Fails for a retry whose account has been signed out since the first try.
    pub(crate) fn check(request: &Extensions) -> Result<(), Error> {
        match request.get::<Self>() {
            Some(Self(sign_ins)) if sign_ins.iter().any(SignIn::is_over) => {
                Err(Error::no_token(SourceError::invalidated()))
            }
            _ => Ok(()),
        }
    }
}
