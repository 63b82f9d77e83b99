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
#[cfg(feature = "dnanexus")]
mod dnanexus_json;
mod env;
mod executor;
mod file;
mod flight;
mod grpc;
mod http;
mod http2;
mod machine;
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

// The very files of the crate, which are not public.
#[cfg(feature = "dnanexus")]
#[path = "../../src/sources/dnanexus/json.rs"]
mod json;
#[allow(dead_code)]
#[path = "../../src/sources/refreshing/policy.rs"]
mod policy;
#[path = "../../src/sources/refreshing/flight.rs"]
mod shared_flight;
#[allow(dead_code)]
#[path = "../../src/sources/refreshing/machine.rs"]
mod state_machine;
/// What `shared_flight` takes its locks from.
mod sync {
    pub(crate) use std::sync::{Mutex, MutexGuard};
}
