//! `Chain`: who wins, what is passed over and what is not, and until when the winner is remembered.

use std::{
    error::Error as StdError,
    fs, hint, io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{executor::block_on, future::FutureExt};
use http::StatusCode;
use tempfile::TempDir;
use tower::Layer;
use tower_bearer::{
    BearerAuthLayer, BearerToken, Chain, EnvToken, FileToken, RotatingToken, SourceError,
    SourceErrorKind, StaticToken, TokenFuture, TokenSource, first_of, source_fn,
};

use crate::{
    sources::refreshing::{Endpoint, Script, one_hour},
    support::{
        Asking, Manual, Server, Task, get, send, status, text, token, virtual_time::VirtualTime,
    },
};

type Answer = Result<BearerToken, SourceError>;

/// A source whose answer can be changed, and which counts how often it is asked.
#[derive(Clone)]
struct Scripted {
    answer: Arc<Mutex<Answer>>,
    asked: Arc<AtomicUsize>,
}

impl Scripted {
    fn set(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl TokenSource for Scripted {
    fn token(&self) -> TokenFuture {
        self.asked.fetch_add(1, Ordering::SeqCst);
        TokenFuture::ready(self.answer.lock().unwrap().clone())
    }
}

fn scripted(answer: Answer) -> Scripted {
    let answer = Arc::new(Mutex::new(answer));
    let asked = Arc::default();
    Scripted { answer, asked }
}

fn error(kind: SourceErrorKind) -> SourceError {
    SourceError::new(kind, format!("it is {kind:?}"))
}

fn with(text: &str) -> Scripted {
    scripted(Ok(token(text)))
}

fn without(kind: SourceErrorKind) -> Scripted {
    scripted(Err(error(kind)))
}

fn ask(chain: &Chain) -> Answer {
    chain.token().now_or_never().expect("it does not wait")
}

fn header(chain: &Chain) -> String {
    text(&ask(chain).unwrap())
}

/// The error and all its causes, as a program would print them.
fn report(error: &SourceError) -> String {
    let mut shown = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        shown = format!("{shown}: {error}");
        cause = error.source();
    }
    shown
}

const NOT_SET: &str = "TOWER_BEARER_TEST_NOT_SET";

#[test]
fn the_first_source_that_has_a_token_wins() {
    let (absent, first, second) = (without(SourceErrorKind::Absent), with("a"), with("b"));
    let chain = first_of(absent.clone())
        .or(first.clone())
        .or(second.clone());
    assert_eq!(header(&chain), "Bearer a");
    assert_eq!((absent.asked(), first.asked(), second.asked()), (1, 1, 0));
}

#[test]
fn a_variable_that_is_not_set_and_a_file_that_is_not_there_are_passed_over() {
    let folder = TempDir::new().unwrap();
    let chain = first_of(EnvToken::new(NOT_SET))
        .or(FileToken::new(folder.path().join("token")))
        .or(StaticToken::new(token("guest")));
    assert_eq!(header(&chain), "Bearer guest");
}

#[test]
fn a_file_that_holds_no_token_is_an_error_and_not_passed_over() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("token");
    fs::write(&path, "two words").unwrap();
    let guest = with("guest");
    let chain = first_of(EnvToken::new(NOT_SET))
        .or(FileToken::new(&path))
        .or(guest.clone());
    let failure = ask(&chain).unwrap_err();
    assert_eq!(failure.kind(), SourceErrorKind::Invalid);
    assert_eq!(guest.asked(), 0);
    assert_eq!(
        report(&failure),
        format!(
            "no source has a token: environment variable {NOT_SET} is not set; token file {} does \
             not hold a bearer token: token has a forbidden byte at offset 3 (space)",
            path.display()
        )
    );
}

#[test]
fn only_an_absent_source_is_passed_over() {
    for kind in [
        SourceErrorKind::Invalid,
        SourceErrorKind::Expired,
        SourceErrorKind::Failed,
        SourceErrorKind::TimedOut,
        SourceErrorKind::Panicked,
        SourceErrorKind::Rejected,
        SourceErrorKind::Closed,
    ] {
        let next = with("next");
        let chain = first_of(without(kind)).or(next.clone());
        let failure = ask(&chain).unwrap_err();
        assert_eq!((failure.kind(), next.asked()), (kind, 0));
        assert_eq!(report(&failure), format!("it is {kind:?}"));
    }
}

#[test]
fn with_no_token_anywhere_the_error_lists_each_source_and_why() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("token");
    let chain = first_of(EnvToken::new(NOT_SET)).or(FileToken::new(&path));
    let failure = ask(&chain).unwrap_err();
    assert_eq!(failure.kind(), SourceErrorKind::Absent);
    let expected = format!(
        "no source has a token: environment variable {NOT_SET} is not set; token file {} does not \
         exist: ",
        path.display()
    );
    assert!(
        report(&failure).starts_with(&expected),
        "{}",
        report(&failure)
    );
    // And as part of another chain it is passed over.
    assert_eq!(header(&first_of(chain).or(with("next"))), "Bearer next");
}

#[test]
fn the_error_of_a_source_after_absent_ones_keeps_its_cause_and_its_next_try() {
    let endpoint = Endpoint::on(VirtualTime::caller_driven(), || Script::Fail);
    let chain = first_of(EnvToken::new(NOT_SET)).or(endpoint.source());
    let first = endpoint.time.block_on(chain.token()).unwrap_err();
    let backing_off = ask(&chain).unwrap_err();
    assert_eq!(first.retry_after(), None);
    assert!(backing_off.retry_after().is_some());
    for failure in [first, backing_off] {
        assert_eq!(failure.kind(), SourceErrorKind::Failed);
        let shown = report(&failure);
        assert!(
            shown.starts_with("no source has a token: environment variable"),
            "{shown}"
        );
        assert!(shown.ends_with(": the endpoint is down"), "{shown}");
        let mut cause = failure.source();
        while let Some(error) = cause.filter(|cause| !cause.is::<io::Error>()) {
            cause = error.source();
        }
        assert!(cause.is_some(), "the endpoint's own error is kept");
    }
}

#[test]
fn the_winner_is_asked_alone_until_its_token_is_rejected() {
    let (first, second) = (without(SourceErrorKind::Absent), with("b1"));
    let chain = first_of(first.clone()).or(second.clone());
    assert_eq!(header(&chain), "Bearer b1");
    // An earlier one that has a token by now does not matter, nor a new token of the winner.
    first.set(Ok(token("a1")));
    second.set(Ok(token("b2")));
    for _ in 0..3 {
        assert_eq!(header(&chain), "Bearer b2");
    }
    assert_eq!((first.asked(), second.asked()), (1, 4));
    ask(&chain).unwrap().reject();
    assert_eq!(header(&chain), "Bearer a1");
    let asked = second.asked();
    assert_eq!(header(&chain), "Bearer a1");
    assert_eq!(second.asked(), asked, "the new winner is asked alone");
}

#[test]
fn a_response_401_makes_a_chain_under_a_layer_search_anew() {
    let (first, second) = (without(SourceErrorKind::Absent), with("b"));
    let chain = first_of(first.clone()).or(second);
    let server = Server::answering(|request| {
        let revoked = request.headers()["authorization"] == "Bearer b";
        status(if revoked {
            StatusCode::UNAUTHORIZED
        } else {
            StatusCode::OK
        })
    });
    let mut service = BearerAuthLayer::new(chain).layer(server.clone());
    send(&mut service, get("https://api.example.com/")).unwrap();
    first.set(Ok(token("a")));
    send(&mut service, get("https://api.example.com/")).unwrap();
    assert_eq!(server.authorizations(), ["Bearer b", "Bearer a"]);
}

#[test]
fn a_rejected_token_is_passed_over_for_a_later_one_that_is_not() {
    let (first, second) = (with("a"), with("b"));
    let chain = first_of(first).or(second);
    ask(&chain).unwrap().reject();
    assert_eq!(header(&chain), "Bearer b");
}

#[test]
fn with_nothing_better_the_first_rejected_token_is_sent_again() {
    let tokens = [token("a"), token("b")];
    tokens.iter().for_each(BearerToken::reject);
    let [a, b] = tokens.map(|token| scripted(Ok(token)));
    let broken = without(SourceErrorKind::Failed);
    let unreached = with("c");
    let chain = first_of(without(SourceErrorKind::Absent))
        .or(a.clone())
        .or(b)
        .or(broken.clone())
        .or(unreached.clone());
    for asked in 1..=3 {
        assert_eq!(header(&chain), "Bearer a");
        assert_eq!(broken.asked(), asked, "searched anew each time");
    }
    assert_eq!(
        unreached.asked(),
        0,
        "a broken source is not passed over now either"
    );
    a.set(Ok(token("a2")));
    assert_eq!(header(&chain), "Bearer a2");
}

#[test]
fn a_winner_that_has_nothing_any_more_makes_the_search_start_anew() {
    let (first, second) = (with("a"), with("b"));
    let chain = first_of(first.clone()).or(second);
    assert_eq!(header(&chain), "Bearer a");
    first.set(Err(error(SourceErrorKind::Absent)));
    assert_eq!(header(&chain), "Bearer b");
}

#[test]
fn a_winner_that_fails_is_an_error_and_stays_the_winner() {
    let (first, second, third) = (without(SourceErrorKind::Absent), with("b"), with("c"));
    let chain = first_of(first.clone()).or(second.clone()).or(third.clone());
    assert_eq!(header(&chain), "Bearer b");
    first.set(Ok(token("a")));
    second.set(Err(error(SourceErrorKind::Failed)));
    assert_eq!(report(&ask(&chain).unwrap_err()), "it is Failed");
    second.set(Ok(token("b2")));
    assert_eq!(header(&chain), "Bearer b2");
    assert_eq!((first.asked(), third.asked()), (1, 0));
}

#[test]
fn a_refreshing_winner_replaces_its_own_token_before_others_are_asked() {
    let endpoint = Endpoint::on(VirtualTime::caller_driven(), one_hour);
    let other = with("other");
    let chain = first_of(endpoint.source()).or(other.clone());
    let next = || endpoint.time.block_on(chain.token()).unwrap();
    let first = next();
    assert_eq!(text(&first), "Bearer token-1");
    first.reject();
    assert_eq!(text(&next()), "Bearer token-2");
    assert_eq!(other.asked(), 0);
    // What it cannot replace is passed over.
    endpoint.otherwise(|| Script::Fail);
    next().reject();
    assert_eq!(text(&next()), "Bearer other");
}

#[test]
fn a_source_that_could_not_be_made_is_not_made_again() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("token");
    let rotating = RotatingToken::new(token("r1"));
    let chain = first_of(FileToken::new(&path)).or(rotating.clone());
    fs::write(&path, "late").unwrap();
    assert_eq!(header(&chain), "Bearer r1");
    ask(&chain).unwrap().reject();
    rotating.rotate(token("r2"));
    assert_eq!(header(&chain), "Bearer r2");
}

#[test]
fn clones_share_the_winner_and_a_longer_chain_does_not() {
    let (first, second) = (without(SourceErrorKind::Absent), with("b"));
    let chain = first_of(first.clone()).or(second);
    let clone = chain.clone();
    assert_eq!(header(&chain), "Bearer b");
    assert_eq!(header(&clone), "Bearer b");
    assert_eq!(first.asked(), 1);
    assert_eq!(header(&clone.or(with("c"))), "Bearer b");
    assert_eq!(first.asked(), 2);
}

#[test]
fn sources_that_wait_are_asked_one_after_the_other() {
    let (first, second) = (Manual::default(), Manual::default());
    let chain = first_of(first.clone()).or(second.clone());
    let mut search = Task::waiting(chain.token());
    first.answer(Err(error(SourceErrorKind::Absent)));
    assert!(search.poll().is_pending());
    second.answer(Ok(token("b1")));
    assert_eq!(text(&search.finish().unwrap()), "Bearer b1");
    // Now the winner alone.
    let mut next = Task::waiting(chain.token());
    second.answer(Ok(token("b2")));
    assert_eq!(text(&next.finish().unwrap()), "Bearer b2");
}

#[test]
fn a_search_that_ends_late_does_not_displace_the_winner_of_another() {
    let (first, second) = (without(SourceErrorKind::Absent), Manual::default());
    let chain = first_of(first.clone()).or(second.clone());
    // It has asked the first, which has nothing yet, and waits for the second.
    let mut late = Task::waiting(chain.token());
    first.set(Ok(token("a")));
    assert_eq!(header(&chain), "Bearer a");
    second.answer(Ok(token("b")));
    assert_eq!(text(&late.finish().unwrap()), "Bearer b");
    assert_eq!(header(&chain), "Bearer a");
}

#[test]
fn a_rejected_token_that_expires_during_the_search_is_not_sent_again() {
    let expiring = token("a").expires_in(Duration::from_millis(1));
    expiring.reject();
    let slow = Manual::default();
    let chain = first_of(scripted(Ok(expiring.clone()))).or(slow.clone());
    let mut search = Task::waiting(chain.token());
    while !expiring.is_expired() {
        hint::spin_loop();
    }
    slow.answer(Err(error(SourceErrorKind::Failed)));
    let error = search.finish().unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Expired);
}

#[test]
fn a_source_that_waits_for_its_first_token_holds_back_a_rejected_one_as_well() {
    let (first, second) = (with("a"), RotatingToken::empty());
    let chain = first_of(first).or(second.clone());
    ask(&chain).unwrap().reject();
    let mut search = Task::waiting(chain.token());
    assert!(search.poll().is_pending());
    second.rotate(token("b"));
    assert_eq!(text(&search.finish().unwrap()), "Bearer b");
}

#[test]
fn a_search_that_is_dropped_disturbs_no_other() {
    let (first, second) = (Manual::default(), with("b"));
    let chain = first_of(first.clone()).or(second);
    let mut other = Task::waiting(chain.token());
    drop(Task::waiting(chain.token()));
    first.answer(Err(error(SourceErrorKind::Absent)));
    assert_eq!(text(&other.finish().unwrap()), "Bearer b");
}

#[test]
fn a_source_function_may_be_absent_too() {
    let absent = source_fn(|| async {
        Err::<BearerToken, _>(SourceError::new(SourceErrorKind::Absent, "no keychain"))
    });
    let chain = first_of(absent).or(Asking(|| token("b").into()));
    assert_eq!(header(&chain), "Bearer b");
}

#[test]
fn a_rejection_and_an_outage_of_an_earlier_source_do_not_add_up_to_a_total_outage() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let earlier = source_fn(move || {
        let kind = match counted.fetch_add(1, Ordering::SeqCst) {
            0 => SourceErrorKind::Absent,
            _ => SourceErrorKind::Failed,
        };
        async move { Err::<BearerToken, _>(SourceError::new(kind, "the vault has none")) }
    });
    let second = StaticToken::new(BearerToken::new("second").unwrap());
    let chain = first_of(earlier).or(second);
    block_on(chain.token()).unwrap().reject();
    for _ in 0..3 {
        assert_eq!(
            block_on(chain.token()).unwrap().header_value(),
            "Bearer second"
        );
    }
}

#[test]
fn a_source_is_asked_once_for_each_request() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let token = BearerToken::new("only").unwrap();
    let given = token.clone();
    let chain = first_of(source_fn(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        let token = given.clone();
        async move { Ok::<_, SourceError>(token) }
    }));
    block_on(chain.token()).unwrap();
    token.reject();
    block_on(chain.token()).unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}
