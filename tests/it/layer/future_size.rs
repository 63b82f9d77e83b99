//! How much larger the layer makes the future of a request. Callers move, box and await this future.

use std::{
    convert::Infallible,
    future::Future,
    mem::size_of,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower::Service;
use tower_bearer::ResponseFuture;

const LIMIT: usize = 32;

/// A service with a future of `LENGTH` items of `T`.
#[derive(Clone)]
struct Inner<T, const LENGTH: usize>([T; LENGTH]);

struct InnerFuture<T, const LENGTH: usize>([T; LENGTH]);

impl<T, const LENGTH: usize> Future for InnerFuture<T, LENGTH> {
    type Output = Result<Response<()>, Infallible>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Pending
    }
}

impl<B, T: Clone, const LENGTH: usize> Service<Request<B>> for Inner<T, LENGTH> {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = InnerFuture<T, LENGTH>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        InnerFuture(self.0.clone())
    }
}

/// The size of the inner future, and the size of the `ResponseFuture` around it.
fn sizes<T: Clone, B, const LENGTH: usize>() -> (usize, usize) {
    (
        size_of::<InnerFuture<T, LENGTH>>(),
        size_of::<ResponseFuture<Inner<T, LENGTH>, B>>(),
    )
}

#[test]
#[allow(clippy::print_stdout, reason = "the table is for those who ask for it")]
fn the_response_future_is_at_most_32_bytes_larger_than_the_inner_one() {
    // The service and the request wait in a box, so their sizes do not matter.
    type Large = [u8; 4096];
    let cases = [
        ("bytes", sizes::<u8, (), 0>()),
        ("bytes", sizes::<u8, (), 1>()),
        ("bytes", sizes::<u8, (), 8>()),
        ("bytes", sizes::<u8, (), 24>()),
        ("bytes", sizes::<u8, (), 200>()),
        ("bytes", sizes::<u8, (), 1000>()),
        ("words", sizes::<u64, (), 0>()),
        ("words", sizes::<u64, (), 1>()),
        ("words", sizes::<u64, (), 3>()),
        ("words", sizes::<u64, (), 25>()),
        ("words", sizes::<u64, (), 125>()),
        ("boxes", sizes::<Box<u8>, (), 1>()),
        ("double words", sizes::<u128, (), 1>()),
        ("double words", sizes::<u128, (), 63>()),
        ("large body", sizes::<u8, Large, 0>()),
        ("large body", sizes::<u64, Large, 25>()),
    ];
    println!(
        "{:<14}{:>6}{:>6}{:>6}",
        "inner future", "inner", "ours", "more"
    );
    for (of, (inner, ours)) in cases {
        println!("{of:<14}{inner:>6}{ours:>6}{:>6}", ours - inner);
    }
    for (of, (inner, ours)) in cases {
        assert!(ours <= inner + LIMIT, "{ours} bytes around {inner} of {of}");
    }
}
