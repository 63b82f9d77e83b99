//! Servers and sources for requests that are retried.
#![cfg_attr(not(feature = "retry"), allow(dead_code))]

use std::sync::atomic::{AtomicUsize, Ordering};

use http::StatusCode;
use tower_bearer::TokenSource;

use super::{Asking, Req, Res, Server, status, token, values};

pub(crate) use super::URL;

/// A server that panics after ten requests, so that a test of a layer that retries without end fails.
pub(crate) fn answering(answer: impl Fn(&Req) -> Res + Send + Sync + 'static) -> Server {
    let requests = AtomicUsize::new(0);
    Server::answering(move |request| {
        assert!(requests.fetch_add(1, Ordering::SeqCst) < 10);
        answer(request)
    })
}

/// A server that accepts only the token `good`.
pub(crate) fn takes(good: &'static str) -> Server {
    answering(move |request| {
        let is_good = values(request, "authorization") == [format!("Bearer {good}")];
        status(if is_good {
            StatusCode::OK
        } else {
            StatusCode::UNAUTHORIZED
        })
    })
}

/// Hands out `old` until it is rejected, then `new`.
pub(crate) fn old_then_new() -> impl TokenSource {
    let (old, new) = (token("old"), token("new"));
    Asking(move || {
        let token = if old.is_rejected() { &new } else { &old };
        token.clone().into()
    })
}

/// Hands out another token at each call: `0`, `1` and so on.
pub(crate) fn always_another() -> impl TokenSource {
    let count = AtomicUsize::new(0);
    Asking(move || token(&count.fetch_add(1, Ordering::SeqCst).to_string()).into())
}
