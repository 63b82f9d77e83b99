//! Fetch functions with state, fetch functions that get the previous token, and the status of a source.

use std::{
    cell::Cell,
    error::Error,
    fmt,
    sync::{Arc, Mutex},
};

use futures::{FutureExt, channel::oneshot, executor::block_on};
use http::{HeaderValue, StatusCode, header::WWW_AUTHENTICATE};
use tower::Layer;
use tower_bearer::{
    BearerAuthLayer, BearerToken, CallerDriven, InvalidToken, RefreshingToken, SourceError,
    SourceErrorKind, TokenSource, source_fn,
};

use crate::{
    sources::refreshing::{Endpoint, HOUR, MINUTE, SECOND, Script, number, one_hour},
    support::{Server, get, poll, send, status, text, token},
};

/// The texts of the tokens that a fetch function was given.
type Seen = Arc<Mutex<Vec<Option<String>>>>;

fn renewing(seen: &Seen) -> RefreshingToken {
    let seen = Arc::clone(seen);
    RefreshingToken::renewing(move |previous: Option<BearerToken>| {
        let mut seen = seen.lock().unwrap();
        seen.push(previous.map(|token| text(&token)));
        let number = seen.len();
        async move { BearerToken::new(format!("token-{number}")) }
    })
}

#[test]
fn a_renewing_fetch_gets_the_token_before_until_the_user_signs_out() {
    let seen = Seen::default();
    let source = renewing(&seen);
    block_on(source.token()).unwrap();
    block_on(source.refresh_now()).unwrap();
    block_on(source.token()).unwrap().reject();
    block_on(source.token()).unwrap();
    source.invalidate();
    block_on(source.token()).unwrap();
    let expected = [None, Some("Bearer token-1"), Some("Bearer token-2"), None];
    assert_eq!(
        *seen.lock().unwrap(),
        expected.map(|text| text.map(str::to_owned))
    );
}

#[test]
fn a_renewing_fetch_gets_a_first_token_also_if_it_has_expired() {
    let seen = Seen::default();
    let own = Arc::clone(&seen);
    let source = RefreshingToken::renewing_builder(move |previous: Option<BearerToken>| {
        own.lock().unwrap().push(previous.map(|token| text(&token)));
        async { BearerToken::new("new") }
    })
    .first_token(token("stored").expires_in(std::time::Duration::ZERO))
    .build();
    assert_eq!(text(&block_on(source.token()).unwrap()), "Bearer new");
    assert_eq!(*seen.lock().unwrap(), [Some("Bearer stored".to_owned())]);
}

#[test]
fn a_renewing_fetch_gets_a_token_that_was_rejected_before_it_was_fetched() {
    // A server that gives the same access token again, with a refresh token that replaces the last.
    let numbers = Arc::new(Mutex::new(Vec::new()));
    let own = Arc::clone(&numbers);
    let source = RefreshingToken::renewing_builder(move |previous: Option<BearerToken>| {
        let before = previous
            .as_ref()
            .and_then(BearerToken::data::<u32>)
            .copied();
        own.lock().unwrap().push(before);
        let same = previous.map_or_else(|| BearerToken::new("same"), Ok);
        async move { Ok::<_, InvalidToken>(same?.with_data(before.unwrap_or_default() + 1)) }
    })
    .rejection_backoff(std::time::Duration::ZERO, std::time::Duration::ZERO)
    .build();
    block_on(source.token()).unwrap().reject();
    for _ in 0..2 {
        let error = block_on(source.refresh_now()).unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::Rejected);
    }
    assert_eq!(*numbers.lock().unwrap(), [None, Some(1), Some(2)]);

    // A sign-out forgets it.
    source.invalidate();
    block_on(source.token()).unwrap();
    assert_eq!(numbers.lock().unwrap()[3], None);
}

/// With the refresh token in the data of that token, the fetch would sign the account in again.
#[test]
fn a_renewing_fetch_does_not_get_a_token_that_was_signed_out_even_if_a_fetch_gives_it_again() {
    let seen = Seen::default();
    let own = Arc::clone(&seen);
    let kept = token("kept");
    let source = RefreshingToken::renewing(move |previous: Option<BearerToken>| {
        own.lock().unwrap().push(previous.map(|token| text(&token)));
        let kept = kept.clone();
        async { Ok::<_, InvalidToken>(kept) }
    });
    block_on(source.token()).unwrap();
    source.invalidate();
    for _ in 0..2 {
        let error = block_on(source.refresh_now()).unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::Rejected);
    }
    assert_eq!(*seen.lock().unwrap(), [None, None, None]);
}

/// The fetch began before the sign-out. It gives a token that was rejected before.
#[test]
fn a_renewing_fetch_does_not_get_a_rejected_token_of_a_fetch_that_began_before_a_sign_out() {
    let seen = Seen::default();
    let own = Arc::clone(&seen);
    let rejected = token("rejected");
    rejected.reject();
    let (go, signal) = oneshot::channel::<()>();
    let mut first = Some((signal, rejected));
    let source = RefreshingToken::renewing_builder(move |previous: Option<BearerToken>| {
        own.lock().unwrap().push(previous.map(|token| text(&token)));
        let first = first.take();
        async {
            let Some((signal, rejected)) = first else {
                return BearerToken::new("new");
            };
            signal.await.unwrap();
            Ok(rejected)
        }
    })
    .runtime(CallerDriven::new())
    .build();
    let mut before = source.token();
    assert!(poll(&mut before).is_pending());
    source.invalidate();
    go.send(()).unwrap();
    assert_eq!(text(&block_on(source.token()).unwrap()), "Bearer new");
    assert_eq!(*seen.lock().unwrap(), [None, None]);
}

#[test]
fn a_renewing_fetch_hears_what_the_server_said() {
    // Azure revokes a token before its expiry, and says which claims the next token needs.
    const REVOKED: &str = r#"Bearer realm="", error="insufficient_claims", claims="eyJuYmYiOjF9""#;
    const EXPIRED: &str = r#"Bearer error='invalid_token', scope="read write""#;

    let said = Arc::new(Mutex::new(Vec::new()));
    let own = Arc::clone(&said);
    let source = RefreshingToken::renewing(move |previous: Option<BearerToken>| {
        if let Some(rejection) = previous.and_then(|token| token.rejection()) {
            let parameters = ["error", "claims", "scope"].map(|name| rejection.parameter(name));
            let challenges = rejection.challenges().to_vec();
            let heard = (rejection.status(), challenges, parameters);
            own.lock().unwrap().push(heard);
        }
        async { BearerToken::new("t") }
    });
    for (code, challenge) in [
        (StatusCode::UNAUTHORIZED, REVOKED),
        (StatusCode::FORBIDDEN, EXPIRED),
    ] {
        let server = Server::answering(move |_| {
            let mut response = status(code);
            let challenge = HeaderValue::from_static(challenge);
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            response
        });
        let mut service = BearerAuthLayer::new(source.clone()).layer(server);
        block_on(source.token()).unwrap();
        send(&mut service, get("https://api.example.com/")).unwrap();
        block_on(source.token()).unwrap();
    }
    let owned = |texts: [Option<&str>; 3]| texts.map(|text| text.map(str::to_owned));
    let expected = [
        (
            StatusCode::UNAUTHORIZED,
            vec![HeaderValue::from_static(REVOKED)],
            owned([Some("insufficient_claims"), Some("eyJuYmYiOjF9"), None]),
        ),
        (
            StatusCode::FORBIDDEN,
            vec![HeaderValue::from_static(EXPIRED)],
            owned([Some("invalid_token"), None, Some("read write")]),
        ),
    ];
    assert_eq!(*said.lock().unwrap(), expected);
}

#[test]
fn a_fetch_function_may_have_state_of_one_thread_at_a_time() {
    // `Cell` is not `Sync`.
    let count = Cell::new(0);
    let source = RefreshingToken::new(move || {
        count.set(count.get() + 1);
        let text = format!("token-{}", count.get());
        async { BearerToken::new(text) }
    });
    for number in 1..4 {
        let given = block_on(source.refresh_now()).unwrap();
        assert_eq!(text(&given), format!("Bearer token-{number}"));
    }
}

#[test]
fn the_status_tells_expiry_next_refresh_and_the_last_error() {
    let endpoint = Endpoint::new(one_hour);
    let source = endpoint.builder().startup_jitter(0.0).build();
    let status = source.status();
    assert_eq!((status.expiry(), status.failures()), (None, 0));
    number(&endpoint, &source);
    let start = endpoint.last_fetch();
    let status = source.status();
    assert_eq!(status.expiry(), Some(start + HOUR));
    assert_eq!(
        status.next_refresh(),
        Some(start + 47 * MINUTE + 50 * SECOND)
    );
    endpoint.otherwise(|| Script::Fail);
    endpoint.time.block_on(source.refresh_now()).unwrap_err();
    let status = source.status();
    assert_eq!(status.failures(), 1);
    let error = status.last_error().unwrap();
    assert_eq!(error.kind(), SourceErrorKind::Failed);
}

#[derive(Debug)]
struct InvalidGrant(u32);

impl fmt::Display for InvalidGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the grant is dead ({})", self.0)
    }
}

impl Error for InvalidGrant {}

#[test]
fn an_error_in_the_back_off_keeps_its_cause_and_that_it_is_permanent() {
    let source = RefreshingToken::new(|| async {
        let error = SourceError::with_source(
            SourceErrorKind::Failed,
            "the token endpoint says no",
            InvalidGrant(7),
        );
        Err::<BearerToken, _>(error.permanent())
    });
    let first = block_on(source.token()).unwrap_err();
    let later = block_on(source.token()).unwrap_err();
    for error in [first, later] {
        assert!(error.is_permanent());
        assert_eq!(error.cause::<InvalidGrant>().unwrap().0, 7);
    }
    assert_eq!(source.status().failures(), 1);
}

#[test]
fn a_source_fn_that_asks_itself_gets_an_error_and_no_overflow() {
    let cell: Arc<Mutex<Option<Arc<dyn TokenSource>>>> = Arc::default();
    let own = Arc::clone(&cell);
    let in_poll = source_fn(move || {
        let own = own.lock().unwrap().clone().unwrap();
        async move { own.token().await }
    });
    *cell.lock().unwrap() = Some(Arc::new(in_poll));
    let source = cell.lock().unwrap().clone().unwrap();
    let error = block_on(source.token()).unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Recursive);
    assert!(
        error.to_string().contains("waits for that very token"),
        "{error}"
    );

    let own = Arc::clone(&cell);
    let in_call = source_fn(move || {
        let own = own.lock().unwrap().clone().unwrap();
        let token = own.token().now_or_never();
        async move { token.unwrap() }
    });
    *cell.lock().unwrap() = Some(Arc::new(in_call));
    let source = cell.lock().unwrap().clone().unwrap();
    let error = block_on(source.token()).unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Recursive);
    cell.lock().unwrap().take();
}

/// The task of a buffer asks the source, and the fetch polls what the buffer gives back.
#[test]
fn a_source_fn_that_polls_its_own_future_from_another_task_gets_an_error_and_no_overflow() {
    let cell: Arc<Mutex<Option<Arc<dyn TokenSource>>>> = Arc::default();
    let own = Arc::clone(&cell);
    let calls = Arc::new(Mutex::new(0));
    let count = Arc::clone(&calls);
    let through_a_buffer = source_fn(move || {
        *count.lock().unwrap() += 1;
        assert!(*count.lock().unwrap() < 10, "without end");
        let own = own.lock().unwrap().clone().unwrap();
        async move {
            let asked = std::thread::spawn(move || own.token()).join().unwrap();
            asked.await
        }
    });
    *cell.lock().unwrap() = Some(Arc::new(through_a_buffer));
    let source = cell.lock().unwrap().clone().unwrap();
    let error = block_on(source.token()).unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Recursive);
    assert_eq!(*calls.lock().unwrap(), 2);
    cell.lock().unwrap().take();
}

#[test]
fn a_source_fn_may_ask_another_source_fn() {
    let inner = source_fn(|| async { BearerToken::new("inner") });
    let outer = source_fn(move || inner.token());
    assert_eq!(text(&block_on(outer.token()).unwrap()), "Bearer inner");
}

#[test]
fn a_token_is_a_source_of_itself() {
    let good = token("good");
    assert!(block_on(good.token()).unwrap().is_same(&good));
    let over = good.expires_in(std::time::Duration::ZERO);
    assert_eq!(
        block_on(over.token()).unwrap_err().kind(),
        SourceErrorKind::Expired
    );
}
