//! The crate's promises under stacks that take long to build, in a file for each stack.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, missing_docs)]

mod kube;
mod migration;
mod tonic;

use tower_bearer::{BearerToken, Error, StaticToken};

fn token(text: &str) -> BearerToken {
    BearerToken::new(text).unwrap()
}

fn fixed(text: &str) -> StaticToken {
    StaticToken::new(token(text))
}

/// This crate's error in the chain of a client's error.
fn ours<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a Error {
    let mut chain = std::iter::successors(Some(error), |error| error.source());
    chain
        .find_map(|error| error.downcast_ref())
        .unwrap_or_else(|| panic!("not an error of this crate: {error:?}"))
}
