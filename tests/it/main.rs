//! The crate's promises, one file each.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unchecked_time_subtraction,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub
)]

mod allocations;
mod allocator;
mod attach;
mod auto_traits;
mod env;
mod executor;
mod file;
mod http;
mod redaction;
mod refreshing;
mod refreshing_failure;
mod refreshing_rejection;
mod rotating;
mod scope;
mod size;
mod support;
mod token;
mod unauthorized;
mod virtual_time;
mod waiting;
mod wiping;
