//! Pages that belong to no single item, for what goes beyond the front page.
//!
//! This module is a part of the documentation only. It holds no items, and a program cannot name it.
// Texts of their own, so that they can be read and checked as prose. The tests of a page need the features
// that its code uses; the page is there without them.
#![cfg_attr(docsrs, doc(auto_cfg = false))]

// What the pages link to.
#[allow(
    unused_imports,
    reason = "rustc does not see what a documentation comment uses"
)]
use crate::*;

#[doc = include_str!("guide/order.md")]
#[cfg_attr(
    not(feature = "retry"),
    doc = "",
    doc = "[`RetryRejected`]: https://docs.rs/tower-bearer/latest/tower_bearer/struct.RetryRejected.html"
)]
#[cfg(any(not(doctest), feature = "retry"))]
pub mod order {}

#[doc = include_str!("guide/reqwest.md")]
#[cfg_attr(
    not(feature = "oauth2"),
    doc = "",
    doc = "[`TokenRequest`]: https://docs.rs/tower-bearer/latest/tower_bearer/struct.TokenRequest.html"
)]
#[cfg(any(
    not(doctest),
    all(feature = "oauth2", feature = "reqwest-middleware", feature = "retry")
))]
pub mod reqwest {}

#[doc = include_str!("guide/tests.md")]
#[cfg(any(not(doctest), all(feature = "retry", feature = "test-util")))]
pub mod tests {}

#[doc = include_str!("guide/wiping.md")]
pub mod wiping {}

#[doc = include_str!("guide/migration.md")]
#[cfg(any(not(doctest), all(feature = "reqwest-middleware", feature = "retry")))]
pub mod migration {}

#[doc = include_str!("guide/which_crate.md")]
pub mod which_crate {}
