//! `invalidate` at any moment.

use shuttle::{future::block_on, thread};
use tower_bearer::{SourceErrorKind, TokenSource};

use crate::support::{World, ask, ask_or_invalidated, check_both, go, join, number};

#[test]
fn a_refresh_and_an_invalidation_may_come_at_any_moment() {
    check_both(|driven| {
        let world = World::new(driven, None);
        let source = world.source();
        ask(&source);
        let refreshes = go(&source, |source| match block_on(source.refresh_now()) {
            Ok(token) => assert!(number(&token) >= 2),
            Err(error) => assert_eq!(error.kind(), SourceErrorKind::Invalidated),
        });
        let invalidates = go(&source, |source| {
            source.invalidate();
            assert!(ask(source) >= 2, "the first token after it was to go");
        });
        let caller = go(&source, |source| {
            ask_or_invalidated(source);
        });
        join([refreshes, invalidates, caller]);
        assert!(ask(&source) >= 2);
        assert_eq!(world.most_alive(), 1, "two fetches at a time");
    });
}

#[test]
fn whoever_comes_after_an_invalidation_does_not_get_the_old_token() {
    check_both(|driven| {
        let world = World::new(driven, None);
        let source = world.source();
        ask(&source);
        let invalidates = go(&source, |source| {
            source.invalidate();
            ask(source)
        });
        let callers = world.later_callers(&source);
        join(callers);
        assert_eq!(join([invalidates]), [2]);
        assert_eq!(ask(&source), 2);
        assert_eq!(world.fetches(), 2);
    });
}

/// The first fetch may end before, during or after the invalidation.
#[test]
fn what_a_fetch_brings_that_began_before_an_invalidation_is_not_served_after_it() {
    check_both(|driven| {
        let world = World::new(driven, None);
        let source = world.source();
        let waits = go(&source, ask_or_invalidated);
        let invalidates = {
            let world = world.clone();
            go(&source, move |source| {
                let begun = world.fetches();
                source.invalidate();
                let token = ask(source);
                assert!(token > begun, "{token} of {begun}");
                Some(token)
            })
        };
        let results = join([waits, invalidates]);
        assert!(ask(&source) >= results[1].unwrap());
        assert_eq!(world.most_alive(), 1, "two fetches at a time");
    });
}

/// The waiters asked before the invalidation. Their requests are for the first account, and must not go
/// out as another account.
#[test]
fn who_waits_when_a_source_is_invalidated_gets_no_token_of_a_later_account() {
    check_both(|driven| {
        let world = World::new(driven, None);
        let source = world.source();
        let waiters = [(); 2].map(|()| {
            let token = source.token();
            thread::spawn(move || match block_on(token) {
                Ok(token) => assert_eq!(number(&token), 1, "of a later account"),
                Err(error) => assert_eq!(error.kind(), SourceErrorKind::Invalidated),
            })
        });
        let invalidates = go(&source, |source| {
            source.invalidate();
            assert!(ask(source) >= 1);
        });
        join(waiters);
        join([invalidates]);
        assert_eq!(world.most_alive(), 1, "two fetches at a time");
    });
}

/// As above, but the fetch for the first account fails.
#[test]
fn who_waits_for_a_fetch_that_fails_gets_no_token_of_a_later_account() {
    check_both(|driven| {
        let world = World::new(driven, None);
        world.fail(1);
        let source = world.source();
        let waits = source.token();
        let waits = thread::spawn(move || block_on(waits).unwrap_err().kind());
        let invalidates = go(&source, |source| {
            source.invalidate();
            let _ = block_on(source.refresh_now());
        });
        let kind = waits.join().unwrap();
        assert!([SourceErrorKind::Failed, SourceErrorKind::Invalidated].contains(&kind));
        join([invalidates]);
    });
}
