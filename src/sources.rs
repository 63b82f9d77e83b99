//! The token sources that come with the crate.
//!
//! | Where the token comes from | Source |
//! |---|---|
//! | a text that the program has | [`StaticToken`] |
//! | an environment variable, read once at start-up | [`EnvToken`] |
//! | a file that something else writes and replaces | [`FileToken`] |
//! | other code, which pushes a new token when it has one | [`RotatingToken`] |
//! | an async function, called ahead of each expiry and when a server says 401 | [`RefreshingToken`] |
//! | an async function, called for each request | [`source_fn`](crate::source_fn) |
//! | anything else | your own [`TokenSource`](crate::TokenSource) |

mod env;
mod file;
mod fixed;
mod refreshing;
mod rotating;

pub use self::{
    env::EnvToken,
    file::{FileToken, FileTokenBuilder},
    fixed::StaticToken,
    refreshing::{RefreshingToken, RefreshingTokenBuilder},
    rotating::RotatingToken,
};
