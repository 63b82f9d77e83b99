//! The token sources that come with the crate.
//!
//! | Where the token comes from | Source |
//! |---|---|
//! | a text that the program has | [`StaticToken`] |
//! | an environment variable, read once at start-up | [`EnvToken`] |
//! | other code, which pushes a new token when it has one | [`RotatingToken`] |
//! | an async function, called for each request | [`source_fn`](crate::source_fn) |
//! | anything else | your own [`TokenSource`](crate::TokenSource) |

mod env;
mod fixed;
mod rotating;

pub use self::{env::EnvToken, fixed::StaticToken, rotating::RotatingToken};
