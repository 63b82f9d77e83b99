//! The real `RefreshingToken`, 100,000 times, in virtual time.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use tower_bearer::{BearerToken, RefreshingToken, Runtime, SourceError, TokenFuture, TokenSource};

use crate::{
    clock::Clock,
    world::{
        CLIENTS, Counts, END, LIFETIME, MINUTE, REQUEST_EVERY, count, endpoint_is_up, is_accepted,
    },
};

/// How long a fetch takes.
const LATENCY: Duration = Duration::from_millis(200);

/// How the sources are set up.
#[derive(Clone, Copy)]
pub(crate) enum Settings {
    Default,
    /// As the documentation of `RefreshingToken` advises for many clients.
    ManyClients,
}

/// Each thread has its share of the clients, and a clock of its own.
pub(crate) fn simulate(settings: Settings, threads: usize) -> Counts {
    let shares = thread::scope(|scope| {
        let share = |index| move || simulate_share(settings, index, CLIENTS / threads);
        let handles: Vec<_> = (0..threads)
            .map(|index| scope.spawn(share(index)))
            .collect();
        handles
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect::<Vec<_>>()
    });
    let mut counts = Counts::new();
    for share in shares.into_iter().flatten() {
        counts.add(&share);
    }
    counts
}

fn simulate_share(settings: Settings, index: usize, clients: usize) -> Counts {
    let clock = Clock::new();
    let fetches = Arc::new(Mutex::new(Counts::new()));
    let mut random = fastrand::Rng::with_seed(index as u64);
    let seed = random.u64(..);
    let mut by_phase: Vec<Vec<RefreshingToken>> = Vec::new();
    by_phase.resize_with(usize::try_from(REQUEST_EVERY).unwrap_or(1), Vec::new);
    for client in 0..clients {
        let (clock, fetches) = (clock.clone(), Arc::clone(&fetches));
        let fetch = {
            let clock = clock.clone();
            move || fetch(clock.clone(), Arc::clone(&fetches))
        };
        let builder = RefreshingToken::builder(fetch)
            .runtime(clock.clone())
            .random_seed(seed.wrapping_add(client as u64));
        let builder = match settings {
            Settings::Default => builder,
            Settings::ManyClients => builder
                .refresh_ahead(Duration::from_secs(15 * MINUTE))
                .startup_jitter(0.75),
        };
        let source = builder.build();
        let phase = random.usize(0..by_phase.len());
        by_phase[phase].push(source);
    }

    let mut counts = Counts::new();
    // All tokens are issued in the same second.
    let mut waiting: Vec<_> = by_phase.iter().flatten().map(TokenSource::token).collect();
    let mut phases = by_phase.iter().cycle();
    while clock.seconds() < END {
        for source in phases.next().into_iter().flatten() {
            waiting.push(source.token());
        }
        waiting.retain_mut(|request| send(&clock, request, &mut counts).is_pending());
        clock.tick();
    }
    drop(by_phase);
    counts.add(&fetches.lock().unwrap_or_else(PoisonError::into_inner));
    counts
}

async fn fetch(clock: Clock, counts: Arc<Mutex<Counts>>) -> Result<BearerToken, SourceError> {
    let second = clock.seconds();
    count(
        &mut counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .fetches,
        second,
    );
    clock.sleep(LATENCY).await;
    if !endpoint_is_up(second) {
        let kind = tower_bearer::SourceErrorKind::Failed;
        return Err(SourceError::new(kind, "503"));
    }
    let expiry = clock.now() + Duration::from_secs(LIFETIME);
    Ok(BearerToken::new("7Fjfp0ZBr1KtDRbnfVdmIw")?.expires_at(expiry))
}

/// Sends the request once it has its token, to a server that may reject it.
fn send(clock: &Clock, request: &mut TokenFuture, counts: &mut Counts) -> Poll<()> {
    let token = match Pin::new(request).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => return Poll::Pending,
        Poll::Ready(token) => token,
    };
    let now = clock.seconds();
    match token {
        Err(_) => count(&mut counts.failed, now),
        Ok(token) => {
            let expiry = token.expiry().map_or(u64::MAX, |at| clock.seconds_at(at));
            if !is_accepted(expiry.saturating_sub(LIFETIME), now) {
                token.reject();
                count(&mut counts.rejected, now);
            }
        }
    }
    Poll::Ready(())
}
