//! The token sources that come with the crate; the crate's front page says which one to use when.

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
    chain::{Chain, IntoSource, first_of},
    env::EnvToken,
    file::{FileToken, FileTokenBuilder},
    fixed::StaticToken,
    refreshing::{RefreshingToken, RefreshingTokenBuilder},
    rotating::RotatingToken,
};
