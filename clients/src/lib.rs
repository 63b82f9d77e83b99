//! tower-bearer under the clients that programs use. This package has tests and examples only.

/// Runs the README's code with the other documentation tests. The code needs a client with TLS, which the
/// root's examples should not have to build.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct ReadmeDoctests;
