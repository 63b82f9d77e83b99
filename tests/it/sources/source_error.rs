//! `SourceError`: what a fetch function can say by an error, and what the clones of an error share.

use std::{
    error::Error as _,
    fmt,
    io::{Error as IoError, ErrorKind},
    time::Duration,
};

use tower_bearer::{BearerToken, SourceError, SourceErrorKind, StaticToken, TokenSource};

use crate::support::{Task, token};

const KINDS: [SourceErrorKind; 10] = [
    SourceErrorKind::Absent,
    SourceErrorKind::Invalid,
    SourceErrorKind::Expired,
    SourceErrorKind::Failed,
    SourceErrorKind::TimedOut,
    SourceErrorKind::Panicked,
    SourceErrorKind::Rejected,
    SourceErrorKind::Recursive,
    SourceErrorKind::Invalidated,
    SourceErrorKind::Closed,
];

fn refused() -> IoError {
    IoError::from(ErrorKind::ConnectionRefused)
}

#[test]
fn a_source_of_ones_own_may_fail_with_any_kind_and_message() {
    for kind in KINDS {
        let plain = SourceError::new(kind, "no session: log in first");
        let caused = SourceError::with_source(kind, String::from("no session"), refused());
        assert_eq!((plain.kind(), caused.kind()), (kind, kind));
        assert_eq!(plain.to_string(), "no session: log in first");
        assert_eq!(caused.to_string(), "no session");
        assert!(plain.source().is_none());
        assert_eq!(
            caused.source().unwrap().to_string(),
            refused().to_string(),
            "the message does not repeat it"
        );
        for error in [plain, caused] {
            assert_eq!(error.retry_after(), None);
            assert!(!error.is_permanent());
        }
    }
}

#[test]
fn what_is_said_of_an_error_changes_nothing_else_of_it() {
    let wait = Duration::from_secs(60);
    let error = SourceError::with_source(SourceErrorKind::TimedOut, "busy", refused());
    let told = [
        (error.clone().with_retry_after(wait), Some(wait), false),
        (error.clone().permanent(), None, true),
        (
            error.clone().permanent().with_retry_after(wait),
            Some(wait),
            true,
        ),
        (
            error.clone().with_retry_after(wait).permanent(),
            Some(wait),
            true,
        ),
        (
            error
                .clone()
                .with_retry_after(Duration::from_secs(1))
                .with_retry_after(wait),
            Some(wait),
            false,
        ),
    ];
    for (told, retry_after, permanent) in told {
        assert_eq!(told.retry_after(), retry_after);
        assert_eq!(told.is_permanent(), permanent);
        assert_eq!(told.kind(), SourceErrorKind::TimedOut);
        assert_eq!(told.to_string(), "busy");
        assert!(told.cause::<IoError>().is_some());
    }
}

/// Otherwise, the batch loop in the documentation of `RefreshingToken` would sleep for years.
#[test]
fn a_time_to_wait_is_at_most_a_quarter_of_an_hour() {
    let quarter = Duration::from_secs(15 * 60);
    let error = SourceError::new(SourceErrorKind::Failed, "busy");
    for (says, waits) in [
        (Duration::ZERO, Duration::ZERO),
        (
            quarter - Duration::from_nanos(1),
            quarter - Duration::from_nanos(1),
        ),
        (quarter, quarter),
        (quarter + Duration::from_nanos(1), quarter),
        (Duration::from_secs(99_999_999), quarter),
        (Duration::MAX, quarter),
    ] {
        let error = error.clone().with_retry_after(says);
        assert_eq!(error.retry_after(), Some(waits), "{says:?}");
    }
}

/// All requests that waited for the same fetch share its error, so a clone copies nothing. If a request
/// adds something to its clone, the other clones stay as they are.
#[test]
fn a_clone_shares_the_cause_and_is_told_things_of_its_own() {
    let error = SourceError::with_source(SourceErrorKind::Failed, "no connection", refused());
    let clone = error.clone();
    let cause = |error: &SourceError| std::ptr::from_ref(error.cause::<IoError>().unwrap());
    assert_eq!(cause(&error), cause(&clone));
    let permanent = clone.permanent();
    assert!(permanent.is_permanent() && !error.is_permanent());
    assert_eq!(cause(&error), cause(&permanent));
    drop(permanent);
    assert_eq!(error.cause::<IoError>().unwrap().kind(), refused().kind());
}

/// An error that has a cause.
#[derive(Debug)]
struct Wrapped(Box<dyn std::error::Error + Send + Sync>);

impl fmt::Display for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("wrapped")
    }
}

impl std::error::Error for Wrapped {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}

#[test]
fn a_cause_is_found_however_deep_and_the_first_of_its_type() {
    let inner = SourceError::with_source(SourceErrorKind::Failed, "inner", refused());
    let middle = Wrapped(Box::new(Wrapped(Box::new(inner))));
    let error = SourceError::with_source(SourceErrorKind::Invalid, "outer", middle);
    assert_eq!(error.cause::<IoError>().unwrap().kind(), refused().kind());
    let first = error.cause::<Wrapped>().unwrap();
    assert!(first.0.is::<Wrapped>(), "the outer of the two");
    let inner = error.cause::<SourceError>().unwrap();
    assert_eq!(inner.to_string(), "inner", "not the error itself");
    assert!(error.cause::<fmt::Error>().is_none());
    assert!(
        SourceError::new(SourceErrorKind::Failed, "alone")
            .cause::<IoError>()
            .is_none()
    );
}

#[test]
fn an_invalid_token_is_an_error_of_a_source_with_its_reason() {
    let error = SourceError::from(BearerToken::new("two words").unwrap_err());
    assert_eq!(error.kind(), SourceErrorKind::Invalid);
    let reason = error.cause::<tower_bearer::InvalidToken>().unwrap();
    assert_eq!(reason.offset(), Some(3));
}

#[test]
fn a_source_with_one_token_says_when_that_has_expired() {
    let past = token("old").expires_in(Duration::ZERO);
    let error = Task::new(StaticToken::new(past).token())
        .finish()
        .unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Expired);
    assert!(!error.is_permanent());
}
