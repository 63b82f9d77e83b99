//! Measures threads that share a source, each with a clone of the service: throughput and the worst
//! pause, at rest and while the token is rotated 1,000 times a second.
//!
//! `cargo bench -p tower-bearer-benches --bench contention`
#![allow(clippy::print_stdout, clippy::cast_precision_loss)]

use std::{
    error::Error,
    hint::black_box,
    sync::{
        Arc, Barrier, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tower::Layer;
use tower_bearer::{
    BearerAuthLayer, BearerToken, RotatingToken, StaticToken, TokenFuture, TokenSource,
};
use tower_bearer_benches::{Bare, TOKEN, request, send};

const REQUESTS: u64 = 300_000;

/// The token, and how often it was rotated.
#[derive(Clone)]
struct Versioned {
    source: RotatingToken,
    version: Arc<AtomicU64>,
}

/// A remedy that was tried. Each clone of the service keeps the last token, and asks the shared source
/// again only after a rotation. With `copy`, each clone keeps a token of its own, so that no two threads
/// share a reference count.
struct Cached {
    shared: Versioned,
    seen: AtomicU64,
    token: Mutex<Option<BearerToken>>,
    copy: bool,
}

impl TokenSource for Cached {
    fn token(&self) -> TokenFuture {
        let version = self.shared.version.load(Ordering::Acquire);
        // Never contended, since each thread has its own `Cached`.
        let mut token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        match &*token {
            Some(token) if self.seen.load(Ordering::Relaxed) == version => token.clone().into(),
            _ => {
                let next = if self.copy {
                    BearerToken::new(TOKEN).ok()
                } else {
                    futures::executor::block_on(self.shared.source.token()).ok()
                };
                self.seen.store(version, Ordering::Relaxed);
                token.clone_from(&next);
                next.map_or_else(|| self.shared.source.token(), Into::into)
            }
        }
    }
}

struct Measured {
    /// Per thread.
    per_second: f64,
    worst_pause: Duration,
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let cores = thread::available_parallelism()?;
    println!(
        "{cores} cores, {REQUESTS} requests a thread; million requests a second a thread, and the worst pause\n"
    );
    println!("| source | rotated | 1 thread | 2 | 4 | 8 |");
    println!("|---|---|---:|---:|---:|---:|");
    let first = || BearerToken::new(TOKEN);
    let source = StaticToken::new(first()?);
    row("static, shared", false, None, || source.clone());
    row("static, one a thread", false, None, || {
        BearerToken::new(TOKEN)
            .map(StaticToken::new)
            .unwrap_or_else(|_| source.clone())
    });
    for rotated in [false, true] {
        let shared = Versioned {
            source: RotatingToken::new(first()?),
            version: Arc::default(),
        };
        row("rotating, shared", rotated, Some(&shared), || {
            shared.source.clone()
        });
        for (name, copy) in [
            ("cached pointer a clone", false),
            ("own copy a clone", true),
        ] {
            row(name, rotated, Some(&shared), || Cached {
                shared: shared.clone(),
                seen: AtomicU64::new(u64::MAX),
                token: Mutex::new(None),
                copy,
            });
        }
    }
    Ok(())
}

fn row<T: TokenSource + 'static>(
    name: &str,
    rotated: bool,
    shared: Option<&Versioned>,
    source: impl Fn() -> T,
) {
    let cells: Vec<_> = [1, 2, 4, 8]
        .map(|threads| {
            let sources = (0..threads).map(|_| source()).collect();
            let measured = measure(sources, shared.filter(|_| rotated));
            format!(
                "{:.2} ({:.1?})",
                measured.per_second / 1e6,
                measured.worst_pause
            )
        })
        .into();
    println!(
        "| {name} | {} | {} |",
        if rotated { "1,000/s" } else { "no" },
        cells.join(" | ")
    );
}

fn measure<T: TokenSource + 'static>(sources: Vec<T>, rotated: Option<&Versioned>) -> Measured {
    let start = Barrier::new(sources.len());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        if let Some(shared) = rotated {
            let done = &done;
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    if let Ok(token) = BearerToken::new(TOKEN) {
                        shared.source.rotate(token);
                        shared.version.fetch_add(1, Ordering::Release);
                    }
                    thread::park_timeout(Duration::from_millis(1));
                }
            });
        }
        let threads: Vec<_> = sources
            .into_iter()
            .map(|source| {
                let start = &start;
                scope.spawn(move || {
                    let mut service =
                        BearerAuthLayer::new(source).layer(Bare::<std::convert::Infallible>::new());
                    start.wait();
                    let mut worst = Duration::ZERO;
                    let mut spent = Duration::ZERO;
                    for _ in 0..REQUESTS {
                        let request = black_box(request());
                        let before = Instant::now();
                        send(&mut service, request);
                        let took = before.elapsed();
                        spent += took;
                        worst = worst.max(took);
                    }
                    (spent, worst)
                })
            })
            .collect();
        let results: Vec<_> = threads
            .into_iter()
            .filter_map(|thread| thread.join().ok())
            .collect();
        done.store(true, Ordering::Relaxed);
        let spent: Duration = results.iter().map(|(spent, _)| *spent).sum();
        Measured {
            per_second: REQUESTS as f64 * results.len() as f64 / spent.as_secs_f64(),
            worst_pause: results
                .iter()
                .map(|(_, worst)| *worst)
                .max()
                .unwrap_or_default(),
        }
    })
}
