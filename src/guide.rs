//! Pages on subjects that concern more than one item, in more detail than the front page.
//!
//! This module exists only in the documentation: a program cannot name it.
// Each page is a Markdown file, so that tools can check the page as prose. The documentation tests of a page
// run only with the features that the code of the page uses. The page itself is always there.
#![cfg_attr(docsrs, doc(auto_cfg = false))]

// The items that the pages link to.
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
