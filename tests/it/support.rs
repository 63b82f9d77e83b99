//! What more than one file needs.

use std::{
    convert::Infallible,
    env,
    future::{Future, Ready, ready},
    pin::Pin,
    process::Command,
    task::{Context, Poll},
};

use futures::task::noop_waker_ref;
use http::{Request, Response};
use tower::Service;

/// A service that answers each request at once with 200 and drops it.
#[derive(Clone, Debug)]
pub(crate) struct Respond;

impl<B> Service<Request<B>> for Respond {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        ready(Ok(Response::new(())))
    }
}

/// Polls once, without a waker that does anything.
pub(crate) fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(noop_waker_ref()))
}

const CHILD: &str = "TOWER_BEARER_TEST_CHILD";

/// Runs `body` in a process of its own, with these environment variables: this process cannot set
/// them while others read them. `test` is the calling test's path.
pub(crate) fn in_child(test: &str, variables: &[(&str, &std::ffi::OsStr)], body: impl FnOnce()) {
    let sentinel = format!("{test} ran in the child");
    if env::var_os(CHILD).is_some_and(|name| name == *test) {
        body();
        println!("{sentinel}");
        return;
    }
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .envs(variables.iter().copied())
        .env(CHILD, test)
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && stdout.contains(&sentinel),
        "{stdout}\n{stderr}"
    );
}
