//! What the crate promises: one file for each promise.
#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that panics is a test that fails"
)]

mod attach;
mod executor;
mod http;
mod rotating;
mod scope;
mod size;
mod support;
mod unauthorized;
mod waiting;
