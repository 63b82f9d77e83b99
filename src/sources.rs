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
//! | where the `dx` client of DNAnexus keeps it | `Dnanexus` (feature `dnanexus`) |
//! | the first of several that has one | [`Chain`], by [`first_of`] |
//! | anything else | your own [`TokenSource`](crate::TokenSource) |

mod chain;
#[cfg(feature = "dnanexus")]
mod dnanexus;
mod env;
mod file;
mod fixed;
mod refreshing;
mod rotating;

#[cfg(feature = "dnanexus")]
#[cfg_attr(docsrs, doc(cfg(feature = "dnanexus")))]
pub use self::dnanexus::Dnanexus;
pub use self::{
    chain::{Chain, Link, first_of},
    env::EnvToken,
    file::{FileToken, FileTokenBuilder},
    fixed::StaticToken,
    refreshing::{RefreshingToken, RefreshingTokenBuilder},
    rotating::RotatingToken,
};
