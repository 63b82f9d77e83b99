//! tower-bearer under the clients that programs use. This package has tests and examples only.

/// Runs the README's code with the other documentation tests. It needs a client with TLS, which no example
/// of the root shall have to build.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct ReadmeDoctests;
