//! Runs the concurrent parts under shuttle, in thousands of random orders of their locks and tasks. A
//! lost wake-up shows as a deadlock.
//!
//! `cargo test -p tower-bearer-model`
//!
//! Only the locks and tasks are shuttle's. No switch happens within the atomic pointer of arc-swap, the
//! reference counts of the standard library or the channels of futures.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod invalidating;
mod leaving;
mod owning;
mod refreshing;
mod rejecting;
mod rotating;
mod support;
