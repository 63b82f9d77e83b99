//! Time in tests: with the feature `test-util`, tokio's paused clock controls everything that the crate
//! does.

use std::{
    fs,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, advance, sleep};
use tower_bearer::{
    BearerToken, BoxError, FileToken, RefreshingToken, RefreshingTokenBuilder, RotatingToken,
    SourceError, SourceErrorKind, StaticToken, TokenSource,
};

use crate::support::{text, token};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// A source with tokens that live for an hour: `token-1`, `token-2` and so on.
fn hourly(fetches: &Arc<AtomicUsize>) -> RefreshingTokenBuilder {
    let fetches = Arc::clone(fetches);
    RefreshingToken::builder(move || {
        let number = fetches.fetch_add(1, Ordering::SeqCst) + 1;
        async move {
            sleep(Duration::from_millis(20)).await;
            let token = BearerToken::new(format!("token-{number}"))?;
            Ok::<_, BoxError>(token.expires_in(HOUR))
        }
    })
    .startup_jitter(0.0)
    .refresh_jitter(0.0)
}

#[tokio::test(start_paused = true)]
async fn expiry_and_refresh_follow_paused_time() {
    let fetches = Arc::default();
    let source = hourly(&fetches).build();
    let start = Instant::now();
    let first = source.token().await.unwrap();
    assert_eq!(
        start.elapsed(),
        Duration::from_millis(20),
        "no limit and no beat delays it"
    );
    advance(47 * MINUTE).await;
    assert!(source.token().await.unwrap().is_same(&first));
    advance(MINUTE).await;
    assert!(
        source.token().await.unwrap().is_same(&first),
        "in the background"
    );
    sleep(SECOND).await;
    assert_eq!(text(&source.token().await.unwrap()), "Bearer token-2");
    advance(HOUR).await;
    assert_eq!(text(&source.token().await.unwrap()), "Bearer token-3");
    assert_eq!(fetches.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_times_out_by_paused_time_and_not_by_real_time() {
    let fetches = Arc::default();
    let source = hourly(&fetches)
        .fetch_timeout(Duration::from_millis(19))
        .build();
    let start = Instant::now();
    let error = source.token().await.unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::TimedOut);
    assert_eq!(start.elapsed(), Duration::from_millis(19));
    let source = hourly(&fetches)
        .fetch_timeout(Duration::from_millis(21))
        .build();
    source.token().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_back_off_follows_paused_time() {
    let fetches = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&fetches);
    let source = RefreshingToken::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
        async {
            let error = SourceError::new(SourceErrorKind::Failed, "busy");
            Err::<BearerToken, _>(error.with_retry_after(MINUTE))
        }
    });
    for fetched in 1..5 {
        source.token().await.unwrap_err();
        let error = source.token().await.unwrap_err();
        assert_eq!(error.retry_after(), Some(MINUTE));
        assert_eq!(fetches.load(Ordering::SeqCst), fetched);
        advance(MINUTE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_alone_knows_paused_time_by_both_clocks() {
    let at_time = SystemTime::now() + HOUR;
    let tokens = [
        token("in").expires_in(HOUR),
        token("at").expires_at(std::time::Instant::now() + HOUR),
        token("at-time").expires_at_time(at_time),
    ];
    for token in &tokens {
        assert!(!token.is_expired());
        assert!(StaticToken::new(token.clone()).token().await.is_ok());
    }
    // The tokens were made at slightly different moments.
    advance(HOUR + SECOND).await;
    for token in &tokens {
        assert!(token.is_expired());
        let error = StaticToken::new(token.clone()).token().await.unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::Expired);
        let rotating = RotatingToken::new(token.clone());
        assert!(futures::FutureExt::now_or_never(rotating.token()).is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_is_read_again_by_paused_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    fs::write(&path, "first").unwrap();
    let source = FileToken::new(&path).unwrap();
    fs::write(&path, "second").unwrap();
    advance(59 * SECOND).await;
    assert_eq!(text(&source.token().await.unwrap()), "Bearer first");
    advance(MINUTE + SECOND).await;
    // After twice the interval, the request waits. Paused time stands still while a thread reads.
    assert_eq!(text(&source.token().await.unwrap()), "Bearer second");
}

/// Two tests may share a source in a `static`. For the source, the clock goes back between the tests.
#[test]
fn a_clock_that_goes_back_between_two_tests_holds_up_no_request() {
    static SHARED: OnceLock<RefreshingToken> = OnceLock::new();
    let paused = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(true).build().unwrap()
    };
    let fetches = Arc::default();
    let source = SHARED.get_or_init(|| hourly(&fetches).build());
    paused().block_on(async {
        advance(1_000 * HOUR).await;
        source.token().await.unwrap();
    });
    paused().block_on(async {
        source.token().await.unwrap();
        advance(2 * HOUR).await;
        source.token().await.unwrap();
    });
}

#[tokio::test(start_paused = true)]
async fn keep_fresh_refreshes_on_time_without_a_request() {
    let fetches = Arc::default();
    let source = hourly(&fetches).build();
    let kept = tokio::spawn(source.keep_fresh());
    sleep(SECOND).await;
    assert_eq!(fetches.load(Ordering::SeqCst), 1);
    sleep(24 * HOUR).await;
    // A refresh takes place every 47 minutes and 50 seconds.
    assert_eq!(fetches.load(Ordering::SeqCst), 31);
    let status = source.status();
    assert_eq!(status.failures(), 0);
    assert!(status.expiry().unwrap() > Instant::now().into_std());
    drop(source);
    kept.await.unwrap();
}
