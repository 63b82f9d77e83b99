//! `RefreshingToken`: all requests share a fetch, which runs in the background, ahead of expiry.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{
    channel::oneshot,
    future::{FutureExt, join_all},
    task::noop_waker_ref,
};
use tower_bearer::{
    BearerToken, RefreshingToken, RefreshingTokenBuilder, Runtime, TokenFuture, TokenSource,
};

use crate::support::virtual_time::VirtualTime;

pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// What a fetch does.
pub(crate) enum Script {
    /// Give a token with this lifetime.
    Token(Option<Duration>),
    /// Give this very token.
    Same(BearerToken),
    Fail,
    Panic,
    /// Never end.
    Hang,
    /// Wait until the test says so, then give a token that lives for an hour.
    When(oneshot::Receiver<()>),
    /// Take this long, then give a token that lives for an hour.
    Slow(Duration),
}

/// A token endpoint in virtual time. Its tokens are `token-1`, `token-2` and so on.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) time: VirtualTime,
    state: Arc<Mutex<State>>,
}

struct State {
    fetches: Vec<Instant>,
    script: VecDeque<Script>,
    otherwise: fn() -> Script,
}

impl Endpoint {
    pub(crate) fn new(otherwise: fn() -> Script) -> Self {
        Self::on(VirtualTime::new(), otherwise)
    }

    pub(crate) fn on(time: VirtualTime, otherwise: fn() -> Script) -> Self {
        let state = State {
            fetches: Vec::new(),
            script: VecDeque::new(),
            otherwise,
        };
        let state = Arc::new(Mutex::new(state));
        Self { time, state }
    }

    pub(crate) fn script(&self, steps: impl IntoIterator<Item = Script>) {
        self.state.lock().unwrap().script.extend(steps);
    }

    pub(crate) fn otherwise(&self, otherwise: fn() -> Script) {
        self.state.lock().unwrap().otherwise = otherwise;
    }

    pub(crate) fn fetches(&self) -> usize {
        self.state.lock().unwrap().fetches.len()
    }

    /// When the last fetch began.
    pub(crate) fn last_fetch(&self) -> Instant {
        *self.state.lock().unwrap().fetches.last().unwrap()
    }

    pub(crate) fn builder(&self) -> RefreshingTokenBuilder {
        let endpoint = self.clone();
        let fetch = move || endpoint.clone().fetch();
        RefreshingToken::builder(fetch)
            .runtime(self.time.clone())
            .random_seed(7)
    }

    pub(crate) fn source(&self) -> RefreshingToken {
        self.builder().build()
    }

    async fn fetch(self) -> Result<BearerToken, std::io::Error> {
        let (count, step) = {
            let mut state = self.state.lock().unwrap();
            state.fetches.push(self.time.now());
            let next = state.script.pop_front();
            (state.fetches.len(), next.unwrap_or_else(state.otherwise))
        };
        let lifetime = match step {
            Script::Token(lifetime) => lifetime,
            Script::Same(token) => return Ok(token),
            Script::Fail => return Err(std::io::Error::other("the endpoint is down")),
            Script::Panic => panic!("the fetch function has a bug"),
            Script::Hang => std::future::pending().await,
            Script::When(signal) => {
                signal.await.unwrap();
                Some(HOUR)
            }
            Script::Slow(duration) => {
                self.time.sleep(duration).await;
                Some(HOUR)
            }
        };
        let token = BearerToken::new(format!("token-{count}")).unwrap();
        Ok(match lifetime {
            Some(lifetime) => token.expires_at(self.time.now() + lifetime),
            None => token,
        })
    }
}

pub(crate) fn one_hour() -> Script {
    Script::Token(Some(HOUR))
}

/// The number of the token that the source gives without time passing.
pub(crate) fn number(endpoint: &Endpoint, source: &impl TokenSource) -> u32 {
    number_of(&endpoint.time.block_on(source.token()).unwrap())
}

pub(crate) fn number_of(token: &BearerToken) -> u32 {
    let header = token.header_value();
    let text = header.to_str().unwrap();
    text.strip_prefix("Bearer token-").unwrap().parse().unwrap()
}

/// A caller that waits for its token.
pub(crate) fn waiting(source: &impl TokenSource) -> TokenFuture {
    let mut future = source.token();
    assert!(poll(&mut future).is_pending(), "the caller does not wait");
    future
}

pub(crate) fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(noop_waker_ref()))
}

#[test]
fn nothing_is_fetched_before_the_first_request() {
    let endpoint = Endpoint::new(one_hour);
    let source = endpoint.source();
    endpoint.time.advance(HOUR);
    assert_eq!(endpoint.fetches(), 0);
    assert_eq!(number(&endpoint, &source), 1);
}

#[test]
fn ten_thousand_callers_cost_one_fetch() {
    let endpoint = Endpoint::new(one_hour);
    let (go, signal) = oneshot::channel();
    endpoint.script([Script::When(signal)]);
    let source = endpoint.source();
    let callers: Vec<_> = (0..10_000).map(|_| waiting(&source)).collect();
    go.send(()).unwrap();
    let tokens = endpoint.time.block_on(join_all(callers));
    assert!(
        tokens
            .into_iter()
            .all(|token| number_of(&token.unwrap()) == 1)
    );
    assert_eq!(endpoint.fetches(), 1);
}

#[test]
fn whoever_is_cancelled_the_others_get_the_token_of_that_fetch() {
    for time in [VirtualTime::new, VirtualTime::caller_driven] {
        // Of four callers, each subset stays once. The other callers leave, at one of three moments.
        for stay in 1_u32..16 {
            for polls_before in 0..3 {
                let endpoint = Endpoint::on(time(), one_hour);
                let (go, signal) = oneshot::channel();
                endpoint.script([Script::When(signal)]);
                let source = endpoint.source();
                let mut callers: Vec<_> = (0..4).map(|_| waiting(&source)).collect();
                for _ in 0..polls_before {
                    endpoint.time.run();
                    assert!(callers.iter_mut().all(|caller| poll(caller).is_pending()));
                }
                let mut index = 0;
                callers.retain(|_| {
                    index += 1;
                    stay & (1 << (index - 1)) != 0
                });
                go.send(()).unwrap();
                for token in endpoint.time.block_on(join_all(callers)) {
                    assert_eq!(number_of(&token.unwrap()), 1, "stay {stay:b}");
                }
                assert_eq!(endpoint.fetches(), 1, "stay {stay:b}");
            }
        }
    }
}

#[test]
fn a_fetch_that_ends_after_all_callers_are_gone_counts() {
    let endpoint = Endpoint::new(one_hour);
    let (go, signal) = oneshot::channel();
    endpoint.script([Script::When(signal)]);
    let source = endpoint.source();
    drop(waiting(&source));
    endpoint.time.run();
    go.send(()).unwrap();
    endpoint.time.run();
    assert_eq!(number(&endpoint, &source), 1);
    assert_eq!(endpoint.fetches(), 1);
}

#[test]
fn with_no_runtime_the_next_caller_resumes_the_fetch_that_all_have_left() {
    let endpoint = Endpoint::on(VirtualTime::caller_driven(), one_hour);
    let (go, signal) = oneshot::channel();
    endpoint.script([Script::When(signal)]);
    let source = endpoint.source();
    drop(waiting(&source));
    go.send(()).unwrap();
    assert_eq!(number(&endpoint, &source), 1);
    assert_eq!(endpoint.fetches(), 1);
}

#[test]
fn a_token_is_refreshed_in_the_background_while_the_old_one_is_served() {
    let endpoint = Endpoint::new(one_hour);
    let (go, signal) = oneshot::channel();
    endpoint.script([Script::Token(Some(HOUR)), Script::When(signal)]);
    let source = endpoint.source();
    assert_eq!(number(&endpoint, &source), 1);
    // The refresh begins a fifth of the lifetime before the end of service, or up to three quarters of the
    // lifetime earlier.
    endpoint.time.advance(2 * MINUTE + 49 * SECOND);
    assert_eq!(number(&endpoint, &source), 1);
    endpoint.time.run();
    assert_eq!(endpoint.fetches(), 1, "too early");
    endpoint.time.advance(45 * MINUTE + SECOND);
    assert!(source.token().now_or_never().is_some(), "a caller waits");
    endpoint.time.run();
    assert_eq!(endpoint.fetches(), 2);
    for _ in 0..10 {
        let token = source.token().now_or_never().expect("a caller waits");
        assert_eq!(number_of(&token.unwrap()), 1);
        endpoint.time.run();
    }
    go.send(()).unwrap();
    endpoint.time.run();
    let token = source.token().now_or_never().expect("a caller waits");
    assert_eq!(number_of(&token.unwrap()), 2);
    assert_eq!(endpoint.fetches(), 2);
}

#[test]
fn clients_that_start_together_do_not_refresh_together() {
    let mut refreshed_after = Vec::new();
    for seed in 0..40 {
        let endpoint = Endpoint::new(one_hour);
        let source = endpoint.builder().random_seed(seed).build();
        number(&endpoint, &source);
        let start = endpoint.last_fetch();
        while endpoint.fetches() == 1 {
            endpoint.time.advance(SECOND);
            number(&endpoint, &source);
            endpoint.time.run();
        }
        refreshed_after.push(endpoint.last_fetch() - start);
    }
    let (earliest, latest) = (refreshed_after.iter().min(), refreshed_after.iter().max());
    assert!(
        *earliest.unwrap() >= 2 * MINUTE + 50 * SECOND,
        "{earliest:?}"
    );
    assert!(*latest.unwrap() <= 47 * MINUTE + 51 * SECOND, "{latest:?}");
    assert!(*latest.unwrap() - *earliest.unwrap() > 30 * MINUTE);
}

#[test]
fn a_token_is_not_served_in_the_last_moments_of_its_life() {
    for (lifetime, margin) in [(HOUR, 10 * SECOND), (100 * SECOND, 5 * SECOND)] {
        let endpoint = Endpoint::new(|| Script::Hang);
        endpoint.script([Script::Token(Some(lifetime))]);
        let source = endpoint.source();
        assert_eq!(number(&endpoint, &source), 1);
        endpoint.time.advance(lifetime - margin - SECOND);
        assert_eq!(number(&endpoint, &source), 1, "{lifetime:?}");
        endpoint.time.advance(SECOND);
        drop(waiting(&source));
    }
}

#[test]
fn how_long_before_its_expiry_a_token_is_served_is_a_setting() {
    let endpoint = Endpoint::new(|| Script::Hang);
    endpoint.script([one_hour()]);
    let builder = endpoint.builder().expiry_margin(MINUTE);
    let source = builder.build();
    assert_eq!(number(&endpoint, &source), 1);
    endpoint.time.advance(HOUR - MINUTE - SECOND);
    let token = source.token().now_or_never().expect("it is good").unwrap();
    assert_eq!(number_of(&token), 1);
    endpoint.time.advance(SECOND);
    drop(waiting(&source));
}

/// The time until the refresh of a token that was just fetched and lives for an hour.
fn due(settings: impl Fn(RefreshingTokenBuilder) -> RefreshingTokenBuilder) -> Duration {
    let endpoint = Endpoint::new(one_hour);
    let source = settings(endpoint.builder()).build();
    assert_eq!(number(&endpoint, &source), 1);
    source.status().next_refresh().unwrap() - endpoint.time.now()
}

#[test]
fn how_long_before_the_end_of_service_a_refresh_begins_is_a_setting() {
    let after = |ahead| due(|builder| builder.startup_jitter(0.0).refresh_ahead(ahead));
    let service = HOUR - 10 * SECOND;
    assert_eq!(after(MINUTE), service - MINUTE);
    assert_eq!(
        after(HOUR),
        service - HOUR / 5,
        "a fifth of the lifetime at most"
    );
}

#[test]
fn a_seed_makes_what_is_random_the_same_each_time() {
    let [first, again, other] = [1, 1, 2].map(|seed| due(|builder| builder.random_seed(seed)));
    assert_eq!(first, again);
    assert_ne!(first, other);
}

#[test]
fn a_token_without_expiry_is_kept() {
    let endpoint = Endpoint::new(|| Script::Token(None));
    let source = endpoint.source();
    for _ in 0..1_000 {
        assert_eq!(number(&endpoint, &source), 1);
        endpoint.time.advance(24 * HOUR);
    }
}

#[test]
fn a_token_that_expired_while_the_machine_slept_is_not_served() {
    let endpoint = Endpoint::new(one_hour);
    let source = endpoint.source();
    assert_eq!(number(&endpoint, &source), 1);
    endpoint.time.suspend(2 * HOUR);
    // The source reads the wall clock about once a second.
    endpoint.time.advance(SECOND);
    assert_eq!(number(&endpoint, &source), 2);
}

#[test]
fn after_a_sleep_that_nobody_saw_the_next_401_fixes_it() {
    let endpoint = Endpoint::new(one_hour);
    let source = endpoint.source();
    assert_eq!(number(&endpoint, &source), 1);
    // For a second from now, the source serves the token without reading the wall clock.
    assert_eq!(number(&endpoint, &source), 1);
    endpoint.time.suspend(2 * HOUR);
    let token = endpoint.time.block_on(source.token()).unwrap();
    token.reject();
    assert_eq!(number(&endpoint, &source), 2);
}

#[test]
fn with_no_runtime_one_caller_drives_the_refresh_and_the_others_are_served() {
    let endpoint = Endpoint::on(VirtualTime::caller_driven(), one_hour);
    let (go, signal) = oneshot::channel();
    endpoint.script([Script::Token(Some(HOUR)), Script::When(signal)]);
    let source = endpoint.source();
    assert_eq!(number(&endpoint, &source), 1);
    endpoint.time.advance(56 * MINUTE);
    let driver = waiting(&source);
    for _ in 0..10 {
        let token = source
            .token()
            .now_or_never()
            .expect("a second caller waits");
        assert_eq!(number_of(&token.unwrap()), 1);
        endpoint.time.advance(SECOND);
    }
    go.send(()).unwrap();
    assert_eq!(number_of(&endpoint.time.block_on(driver).unwrap()), 2);
    assert_eq!(number(&endpoint, &source), 2);
    assert_eq!(endpoint.fetches(), 2);
}

#[test]
fn with_no_runtime_another_caller_takes_over_from_one_who_leaves() {
    let endpoint = Endpoint::on(VirtualTime::caller_driven(), one_hour);
    let (go, signal) = oneshot::channel();
    endpoint.script([Script::Token(Some(HOUR)), Script::When(signal)]);
    let source = endpoint.source();
    number(&endpoint, &source);
    endpoint.time.advance(56 * MINUTE);
    drop(waiting(&source));
    endpoint.time.advance(SECOND);
    let driver = waiting(&source);
    go.send(()).unwrap();
    assert_eq!(number_of(&endpoint.time.block_on(driver).unwrap()), 2);
    assert_eq!(endpoint.fetches(), 2);
}

#[test]
fn refresh_now_fetches_although_the_token_is_good_and_others_are_served_meanwhile() {
    let endpoint = Endpoint::new(one_hour);
    let (go, signal) = oneshot::channel();
    endpoint.script([Script::Token(Some(HOUR)), Script::When(signal)]);
    let source = endpoint.source();
    assert_eq!(number(&endpoint, &source), 1);
    let (first, second) = (source.refresh_now(), source.refresh_now());
    endpoint.time.run();
    assert_eq!(number(&endpoint, &source), 1);
    go.send(()).unwrap();
    assert_eq!(number_of(&endpoint.time.block_on(first).unwrap()), 2);
    assert_eq!(number_of(&endpoint.time.block_on(second).unwrap()), 2);
    assert_eq!(number(&endpoint, &source), 2);
    assert_eq!(endpoint.fetches(), 2);
}

#[test]
fn a_refresh_that_nobody_waits_for_counts() {
    let endpoint = Endpoint::new(one_hour);
    let source = endpoint.source();
    assert_eq!(number(&endpoint, &source), 1);
    drop(source.refresh_now());
    endpoint.time.run();
    assert_eq!(number(&endpoint, &source), 2);
}

#[test]
fn an_invalidated_token_is_not_served_again_even_if_no_other_can_be_had() {
    let endpoint = Endpoint::new(|| Script::Fail);
    endpoint.script([Script::Token(Some(HOUR))]);
    let source = endpoint.source();
    assert_eq!(number(&endpoint, &source), 1);
    source.clone().invalidate();
    assert!(endpoint.time.block_on(source.token()).is_err());
}

#[test]
fn a_first_token_is_served_without_a_fetch() {
    let endpoint = Endpoint::new(one_hour);
    let first = BearerToken::new("token-0").unwrap();
    let source = endpoint
        .builder()
        .first_token(first.expires_at(endpoint.time.now() + HOUR))
        .build();
    assert_eq!(number(&endpoint, &source), 0);
    endpoint.time.advance(HOUR);
    assert_eq!(number(&endpoint, &source), 1);
}

#[test]
fn a_fetch_in_the_background_goes_on_without_a_handle_up_to_its_time_limit() {
    let endpoint = Endpoint::new(|| Script::Hang);
    endpoint.script([Script::Token(Some(HOUR))]);
    let source = endpoint.source();
    number(&endpoint, &source);
    drop(source.refresh_now());
    drop(source);
    endpoint
        .time
        .advance(30 * SECOND - Duration::from_millis(1));
    assert_eq!(endpoint.time.tasks(), 1);
    endpoint.time.advance(Duration::from_millis(1));
    assert_eq!(endpoint.time.tasks(), 0);
}

#[test]
fn a_request_that_waits_keeps_its_source_alive() {
    for time in [VirtualTime::new(), VirtualTime::caller_driven()] {
        let endpoint = Endpoint::on(time, one_hour);
        let (go, signal) = oneshot::channel();
        endpoint.script([Script::When(signal)]);
        let source = endpoint.source();
        let caller = waiting(&source);
        drop(source);
        endpoint.time.run();
        go.send(()).unwrap();
        assert_eq!(number_of(&endpoint.time.block_on(caller).unwrap()), 1);
    }
}

#[test]
fn a_fetch_whose_task_is_dropped_is_begun_anew_and_is_no_failure() {
    let endpoint = Endpoint::new(one_hour);
    endpoint.script([Script::Hang]);
    let source = endpoint.source();
    let caller = waiting(&source);
    endpoint.time.run();
    endpoint.time.drop_tasks();
    assert_eq!(number_of(&endpoint.time.block_on(caller).unwrap()), 2);
    assert_eq!(endpoint.fetches(), 2);
    assert_eq!(source.status().failures(), 0);
}

#[test]
fn tokio_runs_the_fetch_in_the_background() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (go, signal) = oneshot::channel::<()>();
        let signal = signal.shared();
        let source = RefreshingToken::new(move || {
            let signal = signal.clone();
            async move {
                signal.await.unwrap();
                BearerToken::new("token-1")
            }
        });
        drop(waiting(&source));
        go.send(()).unwrap();
        // Nobody waits. The background task runs when this task yields.
        while source.token().now_or_never().is_none() {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn with_no_runtime_at_all_the_default_source_works() {
    let source = RefreshingToken::new(|| async { BearerToken::new("token-1") });
    let token = futures::executor::block_on(source.token()).unwrap();
    assert_eq!(number_of(&token), 1);
}

/// A caller that was not polled after its fetch ended in the background.
fn ended_but_unpolled() -> (Endpoint, RefreshingToken, TokenFuture) {
    let endpoint = Endpoint::new(one_hour);
    let (go, signal) = oneshot::channel();
    endpoint.script([Script::When(signal)]);
    let source = endpoint.source();
    let caller = waiting(&source);
    go.send(()).unwrap();
    endpoint.time.run();
    (endpoint, source, caller)
}

#[test]
fn a_caller_who_is_polled_late_gets_no_token_that_is_over_by_then() {
    type Meanwhile = fn(&Endpoint, &RefreshingToken);
    let cases: [(&str, Meanwhile); 3] = [
        ("expired by the clock on the wall", |endpoint, _| {
            endpoint.time.suspend(2 * HOUR);
        }),
        ("in the last moments of its life", |endpoint, _| {
            endpoint.time.advance(HOUR - SECOND);
        }),
        ("rejected and replaced", |endpoint, source| {
            endpoint.time.block_on(source.token()).unwrap().reject();
            assert_eq!(number(endpoint, source), 2);
        }),
    ];
    for (name, meanwhile) in cases {
        let (endpoint, source, caller) = ended_but_unpolled();
        meanwhile(&endpoint, &source);
        let token = endpoint.time.block_on(caller).unwrap();
        assert_eq!(number_of(&token), 2, "{name}");
    }
}

/// A request that was made for one account must not go out as another account.
#[test]
fn a_caller_who_is_polled_after_a_sign_out_gets_an_error() {
    let (endpoint, source, caller) = ended_but_unpolled();
    source.invalidate();
    number(&endpoint, &source);
    let error = endpoint.time.block_on(caller).unwrap_err();
    assert_eq!(error.kind(), tower_bearer::SourceErrorKind::Invalidated);
}

#[test]
fn a_refresh_that_is_taken_late_gives_no_expired_token() {
    let endpoint = Endpoint::new(one_hour);
    let source = endpoint.source();
    let refresh = source.refresh_now();
    endpoint.time.advance(2 * HOUR);
    assert_eq!(number_of(&endpoint.time.block_on(refresh).unwrap()), 2);
}

#[test]
fn a_refresh_is_ahead_of_expiry_by_the_clock_on_the_wall_too() {
    let endpoint = Endpoint::new(one_hour);
    let source = endpoint.source();
    number(&endpoint, &source);
    endpoint.time.suspend(57 * MINUTE);
    endpoint.time.advance(SECOND);
    assert_eq!(number(&endpoint, &source), 1);
    endpoint.time.run();
    assert_eq!(endpoint.fetches(), 2);
}

#[test]
fn the_largest_settings_do_not_switch_the_limits_off() {
    let endpoint = Endpoint::new(one_hour);
    let builder = endpoint.builder();
    let source = builder
        .rejection_backoff(Duration::MAX, Duration::MAX)
        .build();
    for _ in 0..100 {
        endpoint.time.block_on(source.token()).unwrap().reject();
    }
    // The first two replacements are immediate.
    assert_eq!(endpoint.fetches(), 3);
    for seed in 0..20 {
        let endpoint = Endpoint::new(|| Script::Fail);
        let builder = endpoint.builder().random_seed(seed);
        let source = builder.backoff(Duration::MAX, Duration::MAX).build();
        for _ in 0..100 {
            assert!(endpoint.time.block_on(source.token()).is_err());
        }
        assert_eq!(endpoint.fetches(), 1);
    }
}
