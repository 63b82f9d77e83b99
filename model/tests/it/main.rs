//! The concurrent parts under shuttle, which runs them in thousands of random orders of their locks
//! and tasks, and finds lost wake-ups as deadlocks.
//!
//! `cargo test -p tower-bearer-model`
//!
//! The locks and tasks are shuttle's; the atomic pointer of arc-swap, the reference counts of the
//! standard library and the channels of futures are not, so no switch happens within them.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod invalidating;
mod leaving;
mod owning;
mod refreshing;
mod rejecting;
mod rotating;
mod support;
