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
mod chain;
#[cfg(feature = "dnanexus")]
mod dnanexus;
mod env;
mod executor;
mod file;
mod grpc;
mod http;
mod http2;
mod redaction;
mod refreshing;
mod refreshing_failure;
mod refreshing_rejection;
#[cfg(feature = "reqwest-middleware")]
mod reqwest_middleware;
#[cfg(feature = "reqwest-middleware")]
mod reqwest_redirects;
#[cfg(feature = "reqwest-middleware")]
mod reqwest_server;
#[cfg(feature = "retry")]
mod retry;
mod rotating;
mod scope;
mod sdk;
mod size;
#[cfg(feature = "retry")]
mod stack;
mod support;
mod token;
#[cfg(feature = "tracing")]
mod tracing_events;
mod unauthorized;
mod virtual_time;
mod waiting;
mod wiping;
#[cfg(feature = "dnanexus")]
mod wiping_dnanexus;
