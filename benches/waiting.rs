//! Measures many requests that wait for the same token, from a fetch and from a rotation: the time of the
//! whole wait, the memory of each waiter, and the time for a waiter to leave and for another to come while
//! many wait.
//!
//! `cargo bench -p tower-bearer-benches --bench waiting`
#![allow(clippy::print_stdout, clippy::cast_precision_loss)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    error::Error,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use tower_bearer::{
    BearerToken, BoxError, RefreshingToken, RotatingToken, TokenFuture, TokenSource,
};
use tower_bearer_benches::TOKEN;

/// Bytes that are allocated at this moment.
static HELD: AtomicUsize = AtomicUsize::new(0);

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[expect(unsafe_code, reason = "an allocator that counts")]
// SAFETY: each call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(block, layout) }
    }
}

const COUNTS: [usize; 4] = [1, 1_000, 100_000, 1_000_000];

/// What a number of waiters took.
struct Wait {
    /// From the first call to the last token, without `replaced`.
    time: Duration,
    /// For each waiter.
    bytes: usize,
    /// The time for a waiter to leave and for another to come, while all others wait.
    replaced: Duration,
}

fn poll(future: &mut TokenFuture) -> Poll<bool> {
    let polled = Pin::new(future).poll(&mut Context::from_waker(Waker::noop()));
    polled.map(|result| result.is_ok())
}

/// Measures `count` waiters of a source. `arrive` makes the token come.
async fn wait<F: Future<Output = ()>>(
    source: &impl TokenSource,
    count: usize,
    arrive: impl FnOnce() -> F,
) -> Result<Wait, BoxError> {
    const REPLACED: u32 = 1_000;

    // Allocate the list before the count: its memory does not belong to the waiters.
    let mut waiters = Vec::with_capacity(count);
    let before = HELD.load(Ordering::Relaxed);
    let start = Instant::now();
    for _ in 0..count {
        let mut waiter = source.token();
        if poll(&mut waiter).is_ready() {
            return Err("a waiter does not wait".into());
        }
        waiters.push(waiter);
    }
    let entered = start.elapsed();
    let bytes = (HELD.load(Ordering::Relaxed) - before) / count;

    let start = Instant::now();
    for _ in 0..REPLACED {
        waiters.pop();
        let mut waiter = source.token();
        let _ = poll(&mut waiter);
        waiters.push(waiter);
    }
    let replaced = start.elapsed() / REPLACED;

    let start = Instant::now();
    arrive().await;
    for mut waiter in waiters {
        if poll(&mut waiter) != Poll::Ready(true) {
            return Err("a waiter has no token".into());
        }
    }
    Ok(Wait {
        time: entered + start.elapsed(),
        bytes,
        replaced,
    })
}

async fn fetch(count: usize) -> Result<Wait, BoxError> {
    let (go, gone) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let source = {
        let (go, gone) = (Arc::clone(&go), Arc::clone(&gone));
        RefreshingToken::new(move || {
            let (go, gone) = (Arc::clone(&go), Arc::clone(&gone));
            async move {
                go.notified().await;
                gone.notify_one();
                BearerToken::new(TOKEN)
            }
        })
    };
    wait(&source, count, || async {
        go.notify_one();
        gone.notified().await;
        // The fetch ends in the poll that notifies `gone`, so the fetch has ended here.
    })
    .await
}

async fn rotate(count: usize) -> Result<Wait, BoxError> {
    let source = RotatingToken::empty();
    let token = BearerToken::new(TOKEN)?;
    wait(&source, count, || async { source.rotate(token) }).await
}

fn print(what: &str, count: usize, wait: &Wait) {
    println!(
        "| {what} | {count} | {:.1} ms | {:.0} ns | {} | {:.0} ns |",
        wait.time.as_secs_f64() * 1e3,
        wait.time.as_secs_f64() * 1e9 / count as f64,
        wait.bytes,
        wait.replaced.as_secs_f64() * 1e9,
    );
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    println!(
        "| waiting for | waiters | until all have the token | each | bytes each | one leaves, one comes |"
    );
    println!("|---|---:|---:|---:|---:|---:|");
    for count in COUNTS {
        print("a fetch", count, &runtime.block_on(fetch(count))?);
    }
    for count in COUNTS {
        print("a rotation", count, &runtime.block_on(rotate(count))?);
    }
    Ok(())
}
