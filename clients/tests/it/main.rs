//! The crate's promises about tower-http and reqwest. Its other promises are in `tests/it` of the root.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unchecked_time_subtraction,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub
)]

mod first_example;
#[cfg(feature = "retry")]
mod orders;
mod redirects;
#[cfg(all(feature = "reqwest-middleware", feature = "tracing"))]
mod reqwest_events;
#[cfg(feature = "reqwest-middleware")]
mod reqwest_middleware;
#[cfg(all(feature = "oauth2", feature = "reqwest-middleware"))]
mod reqwest_oauth2;
#[cfg(feature = "reqwest-middleware")]
mod reqwest_per_request;
#[cfg(feature = "reqwest-middleware")]
mod reqwest_redirects;
#[cfg(feature = "reqwest-middleware")]
mod reqwest_server;
// The root's tests use the parts that are not used here.
#[allow(dead_code)]
#[path = "../../../tests/it/support/mod.rs"]
mod support;
