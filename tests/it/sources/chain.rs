//! `Chain`: which source wins, which sources are passed over, and that the winner stays the winner.

use std::{
    error::Error as StdError,
    fs, io,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use futures::{executor::block_on, future::FutureExt};
use http::StatusCode;
use tempfile::TempDir;
use tower::Layer;
use tower_bearer::{
    BearerAuthLayer, BearerToken, Chain, EnvToken, FileToken, RotatingToken, SourceError,
    SourceErrorKind, StaticToken, TokenFuture, TokenReplaced, TokenSource, first_of, source_fn,
};

use crate::{
    sources::refreshing::{Endpoint, Script, one_hour},
    support::{
        Asking, Manual, Server, Task, get, send, status, text, token, virtual_time::VirtualTime,
    },
};

type Answer = Result<BearerToken, SourceError>;

/// A source with an answer that a test can change. Counts the calls of `token`.
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
fn a_source_that_is_not_given_is_passed_over() {
    let guest = with("guest");
    let chain = first_of(None::<BearerToken>)
        .or(None::<FileToken>)
        .or(Some(guest.clone()))
        .or(with("next"));
    assert_eq!(header(&chain), "Bearer guest");
    let chain = first_of(Some(token("flag"))).or(guest.clone());
    assert_eq!(header(&chain), "Bearer flag");
    assert_eq!(guest.asked(), 1);
}

#[test]
fn the_error_of_a_chain_lists_what_is_not_given() {
    let flag: Option<String> = None;
    let flag = flag.map(BearerToken::new).transpose().unwrap();
    let failure = ask(&first_of(flag).or(EnvToken::new(NOT_SET))).unwrap_err();
    assert_eq!(failure.kind(), SourceErrorKind::Absent);
    assert_eq!(
        report(&failure),
        format!("no source has a token: not given; environment variable {NOT_SET} is not set")
    );
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
fn only_an_absent_source_is_passed_over_and_any_other_wins_with_its_error() {
    for kind in [
        SourceErrorKind::Invalid,
        SourceErrorKind::Expired,
        SourceErrorKind::Failed,
        SourceErrorKind::TimedOut,
        SourceErrorKind::Panicked,
        SourceErrorKind::Rejected,
        SourceErrorKind::Recursive,
        SourceErrorKind::Invalidated,
        SourceErrorKind::Closed,
    ] {
        let (winner, next) = (without(kind), with("next"));
        let chain = first_of(winner.clone()).or(next.clone());
        let failure = ask(&chain).unwrap_err();
        assert_eq!(failure.kind(), kind);
        assert_eq!(report(&failure), format!("it is {kind:?}"));
        winner.set(Err(error(SourceErrorKind::Absent)));
        assert_eq!(ask(&chain).unwrap_err().kind(), SourceErrorKind::Absent);
        assert_eq!(next.asked(), 0, "{kind:?}");
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
    // Another chain passes over this chain.
    assert_eq!(header(&first_of(chain).or(with("next"))), "Bearer next");
}

#[test]
fn the_error_of_a_source_after_absent_ones_keeps_its_cause_and_its_next_try() {
    let endpoint = Endpoint::on(VirtualTime::caller_driven(), || Script::Fail);
    let source = endpoint.source();
    endpoint.time.block_on(source.token()).unwrap_err();
    let chain = first_of(EnvToken::new(NOT_SET)).or(source);
    let failure = ask(&chain).unwrap_err();
    assert_eq!(failure.kind(), SourceErrorKind::Failed);
    assert!(failure.retry_after().is_some());
    let shown = report(&failure);
    assert!(
        shown.starts_with("no source has a token: environment variable"),
        "{shown}"
    );
    assert!(shown.ends_with(": the endpoint is down"), "{shown}");
    assert!(
        failure.cause::<io::Error>().is_some(),
        "the endpoint's own error is kept"
    );
}

#[test]
fn the_winner_is_asked_alone_also_once_its_token_is_rejected() {
    let (first, second, third) = (without(SourceErrorKind::Absent), with("b1"), with("c"));
    let chain = first_of(first.clone()).or(second.clone()).or(third.clone());
    assert_eq!(header(&chain), "Bearer b1");
    // An earlier source has a token now. That does not matter.
    first.set(Ok(token("a1")));
    second.set(Ok(token("b2")));
    assert_eq!(header(&chain), "Bearer b2");
    ask(&chain).unwrap().reject();
    assert_eq!(header(&chain), "Bearer b2");
    assert!(ask(&chain).unwrap().is_rejected());
    second.set(Ok(token("b3")));
    assert_eq!(header(&chain), "Bearer b3");
    assert_eq!((first.asked(), third.asked()), (1, 0));
}

#[test]
fn a_401_makes_no_later_request_go_out_as_somebody_else() {
    for wins in [0, 1] {
        let sources = [with("a"), with("b")];
        if wins == 1 {
            sources[0].set(Err(error(SourceErrorKind::Absent)));
        }
        let [first, second] = sources.clone();
        let server = Server::answering(|_| status(StatusCode::UNAUTHORIZED));
        let layer = BearerAuthLayer::new(first_of(first).or(second)).retry_rejected();
        let mut service = layer.layer(server.clone());
        for _ in 0..3 {
            let response = send(&mut service, get("https://api.example.com/")).unwrap();
            assert!(
                response.extensions().get::<TokenReplaced>().is_none(),
                "a retry would act as somebody else"
            );
            sources[0].set(Ok(token("a")));
        }
        let expected = ["Bearer a", "Bearer b"][wins];
        assert_eq!(server.authorizations(), [expected; 3]);
        assert_eq!(sources[1 - wins].asked(), wins);
    }
}

#[test]
fn a_token_that_was_rejected_before_the_search_wins_as_well() {
    let rejected = token("a");
    rejected.reject();
    let (first, second) = (scripted(Ok(rejected)), with("b"));
    let chain = first_of(first).or(second.clone());
    for _ in 0..2 {
        assert_eq!(header(&chain), "Bearer a");
    }
    assert_eq!(second.asked(), 0);
}

#[test]
fn a_winner_that_has_nothing_any_more_stays_the_winner() {
    let (first, second) = (with("a"), with("b"));
    let chain = first_of(first.clone()).or(second.clone());
    assert_eq!(header(&chain), "Bearer a");
    first.set(Err(error(SourceErrorKind::Absent)));
    for _ in 0..2 {
        let failure = ask(&chain).unwrap_err();
        assert_eq!(failure.kind(), SourceErrorKind::Absent);
        assert_eq!(report(&failure), "it is Absent");
    }
    first.set(Ok(token("a2")));
    assert_eq!(header(&chain), "Bearer a2");
    assert_eq!(second.asked(), 0);
}

#[test]
fn while_all_are_absent_each_request_searches_anew() {
    let (first, second) = (
        without(SourceErrorKind::Absent),
        without(SourceErrorKind::Absent),
    );
    let chain = first_of(first.clone()).or(second.clone());
    for asked in 1..=3 {
        assert_eq!(ask(&chain).unwrap_err().kind(), SourceErrorKind::Absent);
        assert_eq!((first.asked(), second.asked()), (asked, asked));
    }
    second.set(Ok(token("b")));
    assert_eq!(header(&chain), "Bearer b");
    first.set(Ok(token("a")));
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
fn a_refreshing_winner_replaces_its_own_token_and_no_other_source_does() {
    let endpoint = Endpoint::on(VirtualTime::caller_driven(), one_hour);
    let other = with("other");
    let source = endpoint.source();
    let chain = first_of(source.clone()).or(other.clone());
    let next = || endpoint.time.block_on(chain.token());
    let first = next().unwrap();
    assert_eq!(text(&first), "Bearer token-1");
    first.reject();
    assert_eq!(text(&next().unwrap()), "Bearer token-2");
    // A token that the winner cannot replace is served again.
    endpoint.otherwise(|| Script::Fail);
    next().unwrap().reject();
    assert_eq!(text(&next().unwrap()), "Bearer token-2");
    // After a sign-out there is no token, and the other source is still not asked.
    source.invalidate();
    assert_eq!(next().unwrap_err().kind(), SourceErrorKind::Failed);
    assert_eq!(other.asked(), 0);
}

#[test]
fn searches_on_many_threads_agree_on_one_winner() {
    for _ in 0..100 {
        // This source is absent for the first search that asks it.
        let asked = AtomicUsize::new(0);
        let first = Asking(move || {
            let is_first = asked.fetch_add(1, Ordering::SeqCst) == 0;
            TokenFuture::ready(if is_first {
                Err(error(SourceErrorKind::Absent))
            } else {
                Ok(token("a"))
            })
        });
        let chain = first_of(first).or(with("b"));
        let start = Barrier::new(4);
        let search = || {
            start.wait();
            header(&chain)
        };
        let found = thread::scope(|scope| {
            [(); 4]
                .map(|()| scope.spawn(search))
                .map(|search| search.join().unwrap())
        });
        let winner = header(&chain);
        assert!(found.iter().all(|header| *header == winner), "{found:?}");
    }
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
    // The next request asks only the winner.
    let mut next = Task::waiting(chain.token());
    second.answer(Ok(token("b2")));
    assert_eq!(text(&next.finish().unwrap()), "Bearer b2");
}

#[test]
fn a_search_that_ends_late_asks_the_winner_of_another() {
    let (first, second) = (without(SourceErrorKind::Absent), Manual::default());
    let chain = first_of(first.clone()).or(second.clone());
    // This search has asked the first source, which is absent so far, and waits for the second source.
    let mut late = Task::waiting(chain.token());
    first.set(Ok(token("a")));
    assert_eq!(header(&chain), "Bearer a");
    second.answer(Ok(token("b")));
    assert_eq!(text(&late.finish().unwrap()), "Bearer a");
    assert_eq!(header(&chain), "Bearer a");
}

#[test]
fn a_search_that_finds_nothing_asks_the_winner_of_another() {
    let (first, second) = (without(SourceErrorKind::Absent), Manual::default());
    let chain = first_of(first.clone()).or(second.clone());
    let mut late = Task::waiting(chain.token());
    first.set(Ok(token("a")));
    assert_eq!(header(&chain), "Bearer a");
    second.answer(Err(error(SourceErrorKind::Absent)));
    assert_eq!(text(&late.finish().unwrap()), "Bearer a");
}

#[test]
fn a_search_whose_source_fails_late_asks_the_winner_of_another() {
    let (first, second) = (without(SourceErrorKind::Absent), Manual::default());
    let chain = first_of(first.clone()).or(second.clone());
    let mut late = Task::waiting(chain.token());
    first.set(Ok(token("a")));
    assert_eq!(header(&chain), "Bearer a");
    second.answer(Err(error(SourceErrorKind::Failed)));
    assert_eq!(text(&late.finish().unwrap()), "Bearer a");
}

#[test]
fn a_source_that_waits_for_its_first_token_is_not_absent() {
    let (first, second) = (RotatingToken::empty(), with("b"));
    let chain = first_of(first.clone()).or(second.clone());
    let mut search = Task::waiting(chain.token());
    first.rotate(token("a"));
    assert_eq!(text(&search.finish().unwrap()), "Bearer a");
    assert_eq!(second.asked(), 0);
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
    let (earlier, second) = (without(SourceErrorKind::Absent), with("second"));
    let chain = first_of(earlier.clone()).or(second);
    ask(&chain).unwrap().reject();
    earlier.set(Err(error(SourceErrorKind::Failed)));
    for _ in 0..3 {
        assert_eq!(header(&chain), "Bearer second");
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
