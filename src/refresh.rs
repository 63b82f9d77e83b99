//! What the sources that fetch share, [`RefreshingToken`](crate::RefreshingToken) and
//! [`FileToken`](crate::FileToken).
//!
//! `policy` has the numbers, `machine` decides, `engine` carries the decisions out, `served` is the
//! fast path, `attempt` is one fetch with its time limit, and `flight` lets many callers wait for the
//! fetch.

pub(crate) mod attempt;
mod contain;
pub(crate) mod engine;
mod flight;
mod machine;
pub(crate) mod policy;
pub(crate) mod recursion;
mod served;
pub(crate) mod waiters;
