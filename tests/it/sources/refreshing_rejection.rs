//! `RefreshingToken`: what happens after a 401.

use std::time::Duration;

use futures::{FutureExt, channel::oneshot, future::join_all};
use tower_bearer::{SourceErrorKind, TokenSource};

use crate::sources::refreshing::{
    Endpoint, HOUR, MINUTE, SECOND, Script, number, number_of, one_hour, waiting,
};

#[test]
fn a_thousand_rejections_of_one_token_cost_one_fetch() {
    let endpoint = Endpoint::new(one_hour);
    let source = endpoint.source();
    let in_flight: Vec<_> = (0..1_000)
        .map(|_| endpoint.time.block_on(source.token()).unwrap())
        .collect();
    for token in &in_flight {
        token.reject();
    }
    let (go, signal) = oneshot::channel();
    endpoint.script([Script::When(signal)]);
    let callers: Vec<_> = (0..1_000).map(|_| waiting(&source)).collect();
    go.send(()).unwrap();
    for token in endpoint.time.block_on(join_all(callers)) {
        assert_eq!(number_of(&token.unwrap()), 2);
    }
    assert_eq!(endpoint.fetches(), 2);
}

#[test]
fn a_late_401_does_not_evict_a_newer_token() {
    let endpoint = Endpoint::new(one_hour);
    let source = endpoint.source();
    let old = endpoint.time.block_on(source.token()).unwrap();
    let late = old.clone();
    old.reject();
    assert_eq!(number(&endpoint, &source), 2);
    late.reject();
    assert_eq!(number(&endpoint, &source), 2);
    endpoint.time.advance(MINUTE);
    assert_eq!(number(&endpoint, &source), 2);
    assert_eq!(endpoint.fetches(), 2);
}

#[test]
fn a_rejected_token_is_sent_again_only_when_it_cannot_be_replaced() {
    let endpoint = Endpoint::new(|| Script::Fail);
    endpoint.script([Script::Token(Some(HOUR))]);
    let source = endpoint.source();
    endpoint.time.block_on(source.token()).unwrap().reject();
    let (go, signal) = oneshot::channel::<()>();
    endpoint.script([Script::When(signal)]);
    let caller = waiting(&source);
    // The fetch fails.
    drop(go);
    assert_eq!(number_of(&endpoint.time.block_on(caller).unwrap()), 1);
    assert_eq!(endpoint.fetches(), 2);
    // The rejected token is never sent past its expiry.
    endpoint.time.advance(HOUR);
    let error = endpoint.time.block_on(source.token()).unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Failed);
}

#[test]
fn one_spurious_401_and_an_outage_do_not_add_up_to_a_total_outage() {
    let endpoint = Endpoint::new(|| Script::Fail);
    endpoint.script([Script::Token(Some(HOUR))]);
    let source = endpoint.source();
    endpoint.time.block_on(source.token()).unwrap().reject();
    for _ in 0..600 {
        assert_eq!(number(&endpoint, &source), 1);
        endpoint.time.advance(SECOND);
    }
    endpoint.otherwise(one_hour);
    endpoint.time.advance(30 * SECOND);
    // Until a fetch succeeds, no request waits for a replacement: this fetch runs in the background.
    assert_eq!(number(&endpoint, &source), 1);
    endpoint.time.run();
    assert!(
        number(&endpoint, &source) > 1,
        "the source does not recover"
    );
}

#[test]
fn a_server_that_rejects_everything_costs_few_fetches_in_a_day() {
    let endpoint = Endpoint::new(|| Script::Token(Some(24 * HOUR)));
    let source = endpoint.source();
    let mut begun = Vec::new();
    for _ in 0..24 * 3600 {
        let token = endpoint.time.block_on(source.token()).unwrap();
        if begun.last() != Some(&endpoint.last_fetch()) {
            begun.push(endpoint.last_fetch());
        }
        token.reject();
        endpoint.time.advance(SECOND);
    }
    let gaps: Vec<_> = begun
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).as_secs())
        .collect();
    // The first two rejected tokens are replaced at once, at the next request.
    assert_eq!(gaps[..9], [1, 1, 10, 20, 40, 80, 160, 300, 300]);
    assert!(gaps[7..].iter().all(|&gap| gap == 300), "{gaps:?}");
    println!(
        "fetches in a day of nothing but 401: {}",
        endpoint.fetches()
    );
    assert_eq!(endpoint.fetches(), 294);
}

#[test]
fn a_token_that_lasted_ends_the_growth() {
    let endpoint = Endpoint::new(one_hour);
    let source = endpoint.source();
    for gap in [0, 10, 20, 40, 80] {
        endpoint.time.advance(gap * SECOND);
        endpoint.time.block_on(source.token()).unwrap().reject();
        number(&endpoint, &source);
    }
    let rejected_in_a_row = endpoint.fetches();
    for _ in 0..400 {
        endpoint.time.advance(SECOND);
        number(&endpoint, &source);
    }
    endpoint.time.block_on(source.token()).unwrap().reject();
    number(&endpoint, &source);
    assert_eq!(
        endpoint.fetches(),
        rejected_in_a_row + 1,
        "replaced at once"
    );
    endpoint.time.block_on(source.token()).unwrap().reject();
    endpoint.time.advance(10 * SECOND);
    number(&endpoint, &source);
    assert_eq!(
        endpoint.fetches(),
        rejected_in_a_row + 2,
        "the first interval again"
    );
}

#[test]
fn a_fetch_that_gives_the_rejected_token_again_is_an_error_that_says_so() {
    let endpoint = Endpoint::new(one_hour);
    let source = endpoint.source();
    let token = endpoint.time.block_on(source.token()).unwrap();
    token.reject();
    endpoint.otherwise(|| Script::Hang);
    endpoint.script([Script::Same(token)]);
    let error = endpoint.time.block_on(source.refresh_now()).unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Rejected);
    assert_eq!(
        error.to_string(),
        "a server has already rejected the token that was fetched"
    );
    // The source does not fetch in a loop: it backs off.
    assert_eq!(number(&endpoint, &source), 1);
    assert_eq!(endpoint.fetches(), 2);
}

#[test]
fn a_rejection_while_a_refresh_is_under_way_waits_for_it() {
    let endpoint = Endpoint::new(one_hour);
    let source = endpoint.source();
    let token = endpoint.time.block_on(source.token()).unwrap();
    let refresh = source.refresh_now();
    token.reject();
    let caller = source.token();
    assert_eq!(number_of(&endpoint.time.block_on(caller).unwrap()), 2);
    assert_eq!(number_of(&endpoint.time.block_on(refresh).unwrap()), 2);
    assert_eq!(endpoint.fetches(), 2);
}

#[test]
fn how_long_a_request_waits_for_a_replacement_is_a_setting() {
    let endpoint = Endpoint::new(|| Script::Hang);
    endpoint.script([one_hour()]);
    let source = endpoint.builder().replacement_wait(2 * SECOND).build();
    endpoint.time.block_on(source.token()).unwrap().reject();
    let mut caller = waiting(&source);
    endpoint.time.advance(SECOND);
    assert!((&mut caller).now_or_never().is_none());
    endpoint.time.advance(SECOND);
    let token = (&mut caller).now_or_never().expect("it waits").unwrap();
    assert_eq!(number_of(&token), 1);
}

#[test]
fn the_time_between_replacements_is_a_setting() {
    let endpoint = Endpoint::new(one_hour);
    let builder = endpoint.builder().startup_jitter(0.0);
    let source = builder.rejection_backoff(20 * SECOND, 30 * SECOND).build();
    let reject = || {
        let token = endpoint.time.block_on(source.token()).unwrap();
        token.reject();
        number_of(&token)
    };
    assert_eq!([reject(), reject(), reject()], [1, 2, 3]);
    for (wait, next) in [(20, 4), (30, 5), (30, 6)] {
        endpoint
            .time
            .advance(wait * SECOND - Duration::from_nanos(1));
        assert_eq!(reject(), next - 1);
        endpoint.time.advance(Duration::from_nanos(1));
        assert_eq!(reject(), next);
    }
}
