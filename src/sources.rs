//! The token sources that come with the crate. The crate's front page says which one to use when.

mod chain;
mod env;
mod file;
mod function;
mod refreshing;
mod rotating;
mod static_token;
mod status;

pub use self::{
    chain::{Chain, IntoSource, first_of},
    env::EnvToken,
    file::{FileToken, FileTokenBuilder},
    function::{SourceFn, source_fn},
    refreshing::{RefreshingToken, RefreshingTokenBuilder},
    rotating::RotatingToken,
    static_token::StaticToken,
    status::SourceStatus,
};
