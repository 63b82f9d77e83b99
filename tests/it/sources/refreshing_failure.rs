//! `RefreshingToken`: what happens when a fetch fails.

use std::{
    error::Error,
    fmt,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use futures::{
    channel::oneshot,
    future::{FutureExt, join_all},
};
use tower_bearer::{BearerToken, RefreshingToken, SourceError, SourceErrorKind, TokenSource};

use crate::{
    sources::refreshing::{
        Endpoint, HOUR, MINUTE, SECOND, Script, number, number_of, one_hour, waiting,
    },
    support::virtual_time::VirtualTime,
};

fn error(endpoint: &Endpoint, source: &impl TokenSource) -> SourceError {
    endpoint.time.block_on(source.token()).unwrap_err()
}

#[test]
fn a_failed_refresh_never_displaces_a_valid_token() {
    let endpoint = Endpoint::new(|| Script::Fail);
    endpoint.script([Script::Token(Some(HOUR))]);
    let source = endpoint.source();
    number(&endpoint, &source);
    endpoint.time.advance(50 * MINUTE);
    // Ask until 10 s before expiry.
    for _ in 0..589 {
        let token = source.token().now_or_never().expect("a caller waits");
        assert_eq!(number_of(&token.unwrap()), 1);
        endpoint.time.advance(SECOND);
    }
    // The back-off is a random time of up to 30 s. So there is a fetch about every 15 s, and a few more at
    // first.
    assert!(
        (10..100).contains(&endpoint.fetches()),
        "{}",
        endpoint.fetches()
    );
    endpoint.time.advance(2 * SECOND);
    assert_eq!(error(&endpoint, &source).kind(), SourceErrorKind::Failed);
    endpoint.otherwise(one_hour);
    endpoint.time.advance(31 * SECOND);
    let mended = number(&endpoint, &source);
    assert_eq!(usize::try_from(mended).unwrap(), endpoint.fetches());
}

#[test]
fn all_who_wait_get_the_error_of_the_one_fetch() {
    let endpoint = Endpoint::new(|| Script::Fail);
    let source = endpoint.source();
    let callers: Vec<_> = (0..100).map(|_| source.token()).collect();
    for result in endpoint.time.block_on(join_all(callers)) {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::Failed);
        assert_eq!(error.source().unwrap().to_string(), "the endpoint is down");
        assert_eq!(error.retry_after(), None);
    }
    assert_eq!(endpoint.fetches(), 1);
}

#[test]
fn inside_the_back_off_callers_get_the_error_at_once_with_the_time_until_the_next_try() {
    let endpoint = Endpoint::new(|| Script::Fail);
    let source = endpoint.builder().backoff(MINUTE, MINUTE).build();
    error(&endpoint, &source);
    let first = source
        .token()
        .now_or_never()
        .expect("a caller waits")
        .unwrap_err();
    let wait = first.retry_after().expect("no time until the next try");
    assert!(wait <= MINUTE);
    assert_eq!(first.kind(), SourceErrorKind::Failed);
    let last = first.source().unwrap();
    assert_eq!(last.to_string(), "the token could not be fetched");
    assert_eq!(last.source().unwrap().to_string(), "the endpoint is down");

    endpoint.time.advance(wait - Duration::from_millis(1));
    let second = source
        .token()
        .now_or_never()
        .expect("a caller waits")
        .unwrap_err();
    assert_eq!(second.retry_after(), Some(Duration::from_millis(1)));
    let said = "no token, and no new fetch for 1.0ms";
    assert_eq!(second.to_string(), said);
    assert_eq!(endpoint.fetches(), 1);
    endpoint.time.advance(Duration::from_millis(1));
    error(&endpoint, &source);
    assert_eq!(endpoint.fetches(), 2);
}

#[test]
fn the_back_off_doubles_to_its_limit_and_starts_again_after_a_success() {
    let mut longest = vec![Duration::ZERO; 12];
    for seed in 0..200 {
        let endpoint = Endpoint::new(|| Script::Fail);
        // A back-off that the user sets also applies when there is no token to serve.
        let builder = endpoint.builder().random_seed(seed);
        let first = Duration::from_millis(100);
        let source = builder.backoff(first, 30 * SECOND).build();
        for longest in &mut longest {
            error(&endpoint, &source);
            let wait = match source.token().now_or_never() {
                Some(Err(error)) => error.retry_after().unwrap(),
                _ => panic!("a caller does not get the error at once"),
            };
            *longest = wait.max(*longest);
            endpoint.time.advance(wait);
        }
        endpoint.script([Script::Token(Some(SECOND))]);
        number(&endpoint, &source);
        endpoint.time.advance(SECOND);
        error(&endpoint, &source);
        let again = source.token().now_or_never().unwrap().unwrap_err();
        assert!(again.retry_after().unwrap() <= Duration::from_millis(100));
    }
    for (failures, longest) in (0..).zip(longest) {
        let limit = (Duration::from_millis(100) * 2_u32.pow(failures)).min(30 * SECOND);
        assert!(longest <= limit, "after {failures}: {longest:?}");
        assert!(longest >= limit * 9 / 10, "after {failures}: {longest:?}");
    }
}

#[test]
fn a_server_can_make_the_source_wait_for_up_to_a_quarter_of_an_hour() {
    for (says, waits) in [(MINUTE, MINUTE), (10_000 * HOUR, 15 * MINUTE)] {
        let time = VirtualTime::new();
        let source = RefreshingToken::builder(move || async move {
            let error = SourceError::new(SourceErrorKind::Failed, "the endpoint is busy");
            Err::<BearerToken, _>(error.with_retry_after(says))
        })
        .runtime(time.clone())
        .build();
        let first = time.block_on(source.token()).unwrap_err();
        assert_eq!(first.retry_after(), Some(waits));
        let second = source.token().now_or_never().unwrap().unwrap_err();
        assert_eq!(second.retry_after(), Some(waits));
    }
}

#[test]
fn refresh_now_does_not_wait_for_the_back_off() {
    let endpoint = Endpoint::new(one_hour);
    endpoint.script([Script::Fail]);
    let source = endpoint.builder().backoff(HOUR, HOUR).build();
    error(&endpoint, &source);
    let token = endpoint.time.block_on(source.refresh_now()).unwrap();
    assert_eq!(number_of(&token), 2);
    assert_eq!(number(&endpoint, &source), 2);
}

#[test]
fn a_fetch_that_takes_over_thirty_seconds_is_given_up() {
    let endpoint = Endpoint::new(|| Script::Hang);
    let source = endpoint.source();
    let mut caller = waiting(&source);
    endpoint.time.advance(29 * SECOND);
    assert!(crate::sources::refreshing::poll(&mut caller).is_pending());
    endpoint.time.advance(SECOND);
    let error = endpoint.time.block_on(caller).unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::TimedOut);
    // If a fetch waits for itself through a buffer, only the time limit notices. So the error names this
    // cause.
    assert_eq!(
        error.to_string(),
        "the token could not be fetched within 30s: the endpoint is slow, or the fetch goes through \
         a client that waits for this token"
    );
    assert_eq!(endpoint.time.tasks(), 0);
    endpoint.otherwise(one_hour);
    endpoint.time.advance(SECOND);
    assert_eq!(number(&endpoint, &source), 2);
}

#[test]
fn the_third_loss_within_one_wait_is_an_error_and_the_next_request_begins_anew() {
    let endpoint = Endpoint::new(|| Script::Hang);
    let source = endpoint.source();
    let mut caller = waiting(&source);
    for loss in 1..=2 {
        endpoint.time.run();
        endpoint.time.drop_tasks();
        assert!((&mut caller).now_or_never().is_none(), "loss {loss}");
    }
    endpoint.time.run();
    endpoint.time.drop_tasks();
    let error = (&mut caller).now_or_never().expect("it waits").unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Closed);
    assert_eq!((endpoint.fetches(), source.status().failures()), (3, 0));
    endpoint.otherwise(one_hour);
    assert_eq!(number(&endpoint, &source), 4);
}

/// After a pause of the whole process, the timer of a waiter may fire before the timer of the fetch.
#[test]
fn a_fetch_is_lost_after_two_checks_without_a_sign_of_life_and_not_after_one() {
    const CHECK: Duration = Duration::from_millis(2_500);
    let endpoint = Endpoint::new(|| Script::Hang);
    let source = endpoint.source();
    let mut caller = waiting(&source);
    endpoint.time.run();
    let mut silent_check = || {
        endpoint.time.stall(CHECK);
        assert!((&mut caller).now_or_never().is_none());
        endpoint.time.tasks()
    };
    assert_eq!(silent_check(), 1);
    // The fetch shows a sign of life. After that, two silent checks are needed again.
    endpoint.time.advance(Duration::ZERO);
    for tasks in [1, 1, 2] {
        assert_eq!(silent_check(), tasks);
    }
    endpoint.time.run();
    assert_eq!(endpoint.fetches(), 2);
    assert_eq!(source.status().failures(), 0);
}

/// The last step of a wait for a replacement is as long as a check, and so counts as one.
#[test]
fn a_waiter_for_a_replacement_notices_that_the_runtime_of_the_fetch_stands_idle() {
    let endpoint = Endpoint::new(one_hour);
    let source = endpoint.source();
    endpoint.time.block_on(source.token()).unwrap().reject();
    let mut caller = waiting(&source);
    for tasks in [1, 2] {
        assert!((&mut caller).now_or_never().is_none());
        endpoint.time.stall(Duration::from_millis(2_500));
        let answer = (&mut caller).now_or_never();
        assert_eq!(
            (answer.is_some(), endpoint.time.tasks()),
            (tasks == 2, tasks)
        );
        if let Some(rejected) = answer {
            assert_eq!(number_of(&rejected.unwrap()), 1);
            break;
        }
    }
    endpoint.time.run();
    assert!(number(&endpoint, &source) > 1);
    assert_eq!(source.status().failures(), 0);
}

/// After a pause of the whole process, the timer of a waiter may fire before the timer of the fetch. So a step
/// that is too short for a sign of life does not make the fetch lost.
#[test]
fn a_fetch_is_not_lost_because_the_wait_for_a_replacement_ends() {
    let endpoint = Endpoint::new(one_hour);
    let builder = endpoint.builder();
    let source = builder
        .replacement_wait(Duration::from_millis(2_600))
        .build();
    endpoint.time.block_on(source.token()).unwrap().reject();
    let mut caller = waiting(&source);
    for pause in [2_500, 100] {
        assert!((&mut caller).now_or_never().is_none());
        endpoint.time.stall(Duration::from_millis(pause));
    }
    let rejected = (&mut caller).now_or_never().expect("its time is over");
    assert_eq!(number_of(&rejected.unwrap()), 1);
    assert_eq!(endpoint.time.tasks(), 1, "no second fetch");
    endpoint.time.run();
    assert_eq!(number(&endpoint, &source), 2);
}

/// A request after a sign-out waits until the fetch before it has ended. The failure of that fetch is that of
/// another account.
#[test]
fn a_request_after_a_sign_out_does_not_get_the_error_of_the_fetch_before() {
    for is_overdue in [false, true] {
        let endpoint = Endpoint::new(one_hour);
        let (go, signal) = oneshot::channel();
        endpoint.script([Script::When(signal)]);
        let source = endpoint.source();
        drop(waiting(&source));
        source.invalidate();
        let caller = waiting(&source);
        if is_overdue {
            endpoint.time.stall(30 * SECOND);
        } else {
            // The fetch panics, which is a failure.
            drop(go);
        }
        assert_eq!(number_of(&endpoint.time.block_on(caller).unwrap()), 2);
        assert_eq!(source.status().failures(), 0);
    }
}

/// A second fetch beside a fetch that blocks its thread would spend a refresh token twice.
#[test]
fn a_fetch_that_blocks_its_thread_is_not_lost() {
    let (entered, enters) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let time = VirtualTime::new();
    let source = RefreshingToken::builder(move || {
        entered.send(()).unwrap();
        released.lock().unwrap().recv().unwrap();
        async { BearerToken::new("fetched") }
    })
    .runtime(time.clone())
    .build();
    let mut caller = waiting(&source);
    let background = std::thread::spawn({
        let time = time.clone();
        move || time.run()
    });
    enters.recv().unwrap();
    for _ in 0..4 {
        time.stall(Duration::from_millis(2_500));
        assert!((&mut caller).now_or_never().is_none());
    }
    assert_eq!(time.tasks(), 0, "the only task is being polled");
    release.send(()).unwrap();
    background.join().unwrap();
    time.block_on(caller).unwrap();
    assert!(enters.try_recv().is_err(), "a single fetch");
}

#[test]
fn a_late_token_reaches_the_requests_that_wait_for_the_next_fetch() {
    let endpoint = Endpoint::new(|| Script::Hang);
    let (give, when) = oneshot::channel();
    endpoint.script([Script::When(when)]);
    let source = endpoint.source();
    let first = waiting(&source);
    endpoint.time.run();
    // The process stands still past the time limit. The next request begins another fetch.
    endpoint.time.stall(31 * SECOND);
    assert!(first.now_or_never().expect("it waits").is_err());
    endpoint.time.stall(SECOND);
    let mut second = waiting(&source);
    assert!((&mut second).now_or_never().is_none());
    give.send(()).unwrap();
    // The token comes in the poll that would have found the limit.
    endpoint.time.run();
    let token = (&mut second).now_or_never().expect("it waits").unwrap();
    assert_eq!(number_of(&token), 1);
}

/// The runtime of the fetch stands still, so the timer of the waiter fires first.
#[test]
fn a_waiter_that_ends_a_fetch_hears_of_its_time_limit_and_not_of_the_back_off_after_it() {
    let endpoint = Endpoint::new(|| Script::Hang);
    let source = endpoint.source();
    let mut caller = waiting(&source);
    endpoint.time.run();
    endpoint.time.stall(30 * SECOND);
    let error = (&mut caller).now_or_never().expect("it waits").unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::TimedOut);
    assert_eq!(error.retry_after(), None);
    assert!(error.to_string().contains("within 30s"), "{error}");
    assert_eq!(source.status().failures(), 1);
}

#[test]
fn a_fetch_that_takes_just_under_thirty_seconds_is_not() {
    let endpoint = Endpoint::new(|| Script::Slow(Duration::from_millis(29_999)));
    let source = endpoint.source();
    let caller = waiting(&source);
    endpoint.time.advance(30 * SECOND);
    assert_eq!(number_of(&endpoint.time.block_on(caller).unwrap()), 1);
}

#[test]
fn with_no_runtime_a_later_caller_gives_up_the_fetch_that_takes_too_long() {
    let endpoint = Endpoint::on(VirtualTime::caller_driven(), one_hour);
    endpoint.script([Script::Hang]);
    let source = endpoint.source();
    let stuck = waiting(&source);
    endpoint.time.advance(30 * SECOND);
    let error = source
        .token()
        .now_or_never()
        .expect("a caller waits")
        .unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::TimedOut);
    let error = endpoint.time.block_on(stuck).unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::TimedOut);
    endpoint.time.advance(SECOND);
    assert_eq!(number(&endpoint, &source), 2);
}

#[test]
fn with_no_runtime_a_stale_fetch_that_all_have_left_is_started_anew() {
    let endpoint = Endpoint::on(VirtualTime::caller_driven(), one_hour);
    endpoint.script([Script::Hang]);
    let source = endpoint.source();
    drop(waiting(&source));
    endpoint.time.advance(30 * SECOND);
    assert_eq!(number(&endpoint, &source), 2);
}

#[test]
fn a_fetch_left_behind_by_a_runtime_that_stood_still_costs_no_request() {
    type Wakes = fn(&Endpoint);
    let cases: [(&str, Wakes); 2] = [
        ("the request is first", |_| {}),
        ("the timer is first", |endpoint| {
            endpoint.time.advance(Duration::ZERO);
        }),
    ];
    for (case, wakes) in cases {
        let endpoint = Endpoint::new(one_hour);
        endpoint.script([Script::Token(Some(HOUR)), Script::Hang]);
        let source = endpoint.source();
        assert_eq!(number(&endpoint, &source), 1);
        endpoint.time.advance(56 * MINUTE);
        assert_eq!(number(&endpoint, &source), 1);
        endpoint.time.run();
        assert_eq!(endpoint.fetches(), 2, "{case}");
        endpoint.time.stall(HOUR);
        wakes(&endpoint);
        let token = endpoint.time.block_on(source.token()).expect(case);
        assert_eq!(number_of(&token), 3, "{case}");
    }
}

#[test]
fn a_fetch_that_panics_is_an_error_and_the_source_lives() {
    for time in [VirtualTime::new(), VirtualTime::caller_driven()] {
        let endpoint = Endpoint::on(time, one_hour);
        endpoint.script([Script::Panic]);
        let source = endpoint.source();
        let callers = [source.token(), source.token()];
        for result in endpoint.time.block_on(join_all(callers)) {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), SourceErrorKind::Panicked);
        }
        endpoint.time.advance(SECOND);
        assert_eq!(number(&endpoint, &source), 2);
    }
}

#[test]
fn a_fetch_function_that_panics_before_it_gives_a_future_is_an_error_too() {
    let panics = || -> std::future::Ready<Result<BearerToken, SourceError>> { panic!("a bug") };
    let time = VirtualTime::new();
    let source = RefreshingToken::builder(panics)
        .runtime(time.clone())
        .build();
    let error = time.block_on(source.token()).unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Panicked);
}

#[test]
fn a_token_that_has_expired_when_it_comes_is_served_since_our_clock_cannot_judge_it() {
    let endpoint = Endpoint::new(|| Script::Token(Some(Duration::ZERO)));
    let source = endpoint.source();
    let mut begun = Vec::new();
    for _ in 0..3600 {
        // Only the first request waits, and no request fails.
        number(&endpoint, &source);
        if begun.last() != Some(&endpoint.last_fetch()) {
            begun.push(endpoint.last_fetch());
        }
        endpoint.time.advance(SECOND);
    }
    let gaps: Vec<_> = begun
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).as_secs())
        .collect();
    assert_eq!(gaps[..7], [10, 20, 40, 80, 160, 300, 300]);
    endpoint.otherwise(one_hour);
    endpoint.time.advance(300 * SECOND);
    number(&endpoint, &source);
    endpoint.time.run();
    let fetches = endpoint.fetches();
    let good = number(&endpoint, &source);
    assert_eq!(usize::try_from(good).unwrap(), fetches);
    endpoint.time.advance(2 * MINUTE);
    number(&endpoint, &source);
    assert_eq!(endpoint.fetches(), fetches, "the clock judges again");
}

#[test]
fn an_expired_token_does_not_displace_a_good_token() {
    let endpoint = Endpoint::new(|| Script::Token(Some(Duration::ZERO)));
    endpoint.script([Script::Token(Some(HOUR))]);
    let source = endpoint.source();
    assert_eq!(number(&endpoint, &source), 1);
    let error = endpoint.time.block_on(source.refresh_now()).unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Expired);
    assert_eq!(
        error.to_string(),
        "the token that was fetched has already expired"
    );
    assert_eq!(number(&endpoint, &source), 1);
    assert_eq!(source.status().failures(), 1);
}

#[test]
fn with_no_token_to_serve_the_back_off_is_at_most_half_the_outage() {
    let mut longest = Duration::ZERO;
    for seed in 0..100 {
        let endpoint = Endpoint::new(|| Script::Fail);
        let source = endpoint.builder().random_seed(seed).build();
        let start = endpoint.time.elapsed();
        // The outage lasts for eleven seconds.
        while endpoint.time.elapsed() - start < 11 * SECOND {
            error(&endpoint, &source);
            endpoint.time.advance(Duration::from_millis(50));
        }
        endpoint.otherwise(one_hour);
        let end = endpoint.time.elapsed();
        while endpoint.time.block_on(source.token()).is_err() {
            endpoint.time.advance(Duration::from_millis(50));
        }
        longest = longest.max(endpoint.time.elapsed() - end);
    }
    assert!(longest <= Duration::from_millis(5_600), "{longest:?}");
    assert!(longest >= 2 * SECOND, "the outage shows: {longest:?}");
}

#[test]
fn a_caller_that_was_not_polled_until_its_token_expired_gets_another() {
    let endpoint = Endpoint::new(one_hour);
    let (go, signal) = oneshot::channel();
    endpoint.script([Script::When(signal)]);
    let source = endpoint.source();
    let caller = waiting(&source);
    go.send(()).unwrap();
    endpoint.time.advance(2 * HOUR);
    let token = endpoint.time.block_on(caller).unwrap();
    assert_eq!(number_of(&token), 2);
}

/// If each wait were within the wait before, the stack would overflow.
#[test]
fn a_caller_may_be_polled_too_late_for_any_number_of_tokens() {
    let endpoint = Endpoint::new(|| Script::Slow(SECOND));
    let source = endpoint.source();
    let mut caller = waiting(&source);
    for _ in 0..20_000 {
        // The token comes, and expires before the caller is polled.
        endpoint.time.advance(2 * HOUR);
        assert!(crate::sources::refreshing::poll(&mut caller).is_pending());
    }
    endpoint.time.advance(SECOND);
    assert!(endpoint.time.block_on(caller).is_ok());
}

#[test]
fn the_error_of_the_fetch_function_keeps_its_type() {
    let endpoint = Endpoint::new(|| Script::Fail);
    let source = endpoint.source();
    let error = error(&endpoint, &source);
    assert!(error.source().unwrap().is::<std::io::Error>());
}

/// An error that asks for a token in its `Drop`, as an error that owns a client may.
struct Asks(Arc<Mutex<Option<RefreshingToken>>>);

impl Drop for Asks {
    fn drop(&mut self) {
        let source = self.0.lock().unwrap().take();
        if let Some(source) = source {
            drop(source.token());
        }
    }
}

impl fmt::Debug for Asks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asks")
    }
}

impl fmt::Display for Asks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the endpoint is down")
    }
}

impl Error for Asks {}

/// This test hangs if the source drops an error under a lock.
#[test]
fn dropping_the_error_of_a_fetch_may_ask_for_a_token() {
    type Displace = fn(&VirtualTime, &RefreshingToken);
    let cases: [(&str, Displace); 4] = [
        ("by a token", |time, source| {
            time.block_on(source.refresh_now()).unwrap();
        }),
        ("by an invalidation", |_, source| source.invalidate()),
        ("by another error", |time, source| {
            let mut second = source.refresh_now();
            time.advance(30 * SECOND);
            assert!(time.block_on(&mut second).is_err());
        }),
        ("by a fetch given up", |time, source| {
            let _stuck = source.refresh_now();
            time.stall(30 * SECOND);
            drop(source.token());
        }),
    ];
    for (case, displace) in cases {
        let time = VirtualTime::new();
        let asks = Arc::new(Mutex::new(None));
        let (first, hangs) = (
            Mutex::new(Some(Asks(Arc::clone(&asks)))),
            !case.ends_with("token"),
        );
        let fetch = move || {
            let error = first.lock().unwrap().take();
            async move {
                match error {
                    Some(error) => Err(error),
                    None if hangs => std::future::pending().await,
                    None => Ok(BearerToken::new("token-2").unwrap()),
                }
            }
        };
        let source = RefreshingToken::builder(fetch)
            .runtime(time.clone())
            .build();
        assert!(time.block_on(source.token()).is_err());
        *asks.lock().unwrap() = Some(source.clone());
        displace(&time, &source);
        assert!(asks.lock().unwrap().is_none(), "not displaced {case}");
    }
}

/// The payload of a panic that panics again when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "the payload is dropped");
    }
}

#[test]
fn a_panic_whose_payload_panics_in_turn_reaches_every_waiter_as_an_error() {
    let time = VirtualTime::caller_driven();
    let fetch = || async {
        if true {
            std::panic::panic_any(Bomb);
        }
        BearerToken::new("token-1")
    };
    let builder = RefreshingToken::builder(fetch);
    let source = builder.runtime(time.clone()).build();
    for result in time.block_on(join_all([source.token(), source.token()])) {
        assert_eq!(result.unwrap_err().kind(), SourceErrorKind::Panicked);
    }
}
