//! The token sources of the crate. The crate's front page says when to use which source.

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
