//! Many callers of the same source.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use shuttle::{future::block_on, thread};
use tower_bearer::{BearerToken, RefreshingToken, SourceErrorKind, TokenSource};

use crate::support::{Driven, HOUR, SECOND, World, ask, check_both, go, join, number, poll_once};

#[test]
fn concurrent_callers_cost_one_fetch() {
    check_both(|driven| {
        let world = World::new(driven, Some(HOUR));
        let source = world.source();
        let callers = [(); 3].map(|()| go(&source, ask));
        assert_eq!(join(callers), [1, 1, 1]);
        assert_eq!(world.fetches(), 1);
    });
}

#[test]
fn a_failure_reaches_every_waiter() {
    check_both(|driven| {
        let world = World::new(driven, None);
        let fetch = || async {
            shuttle::future::yield_now().await;
            Err::<BearerToken, _>("down")
        };
        let source = RefreshingToken::builder(fetch).runtime(world).build();
        let callers = [(); 3].map(|()| {
            go(&source, |source| {
                block_on(source.token()).unwrap_err().kind()
            })
        });
        assert_eq!(join(callers), [SourceErrorKind::Failed; 3]);
    });
}

/// With a runtime, no request waits. Without a runtime, at most the request that drives the fetch waits.
#[test]
fn a_refresh_ahead_of_expiry_costs_one_fetch_and_gives_all_a_token() {
    check_both(|driven| {
        let world = World::new(driven, Some(HOUR));
        let source = world.source();
        assert_eq!(ask(&source), 1);
        world.pass(HOUR * 11 / 12);
        let callers = [(); 3].map(|()| go(&source, ask));
        for token in join(callers) {
            assert!((1..=2).contains(&token));
        }
        for task in world.take_tasks() {
            block_on(task).unwrap();
        }
        assert_eq!(ask(&source), 2);
        assert_eq!(world.fetches(), 2);
    });
}

#[test]
fn whoever_comes_after_a_refresh_gets_its_token() {
    check_both(|driven| {
        let world = World::new(driven, None);
        let source = world.source();
        ask(&source);
        let refreshes = go(&source, |source| {
            let token = number(&block_on(source.refresh_now()).unwrap());
            assert!(ask(source) >= token, "an older one");
            token
        });
        let callers = world.later_callers(&source);
        join(callers);
        assert_eq!(join([refreshes]), [2]);
        assert_eq!(ask(&source), 2);
        assert_eq!(world.fetches(), 2);
    });
}

fn gives_up(driven: Driven, hangs: bool) {
    let world = World::new(driven, None);
    world.hang(usize::from(hangs));
    let source = world.source_with(|builder| builder.backoff(SECOND, SECOND));
    let left = Arc::new(AtomicUsize::new(2));
    let callers = [(); 2].map(|()| {
        let left = Arc::clone(&left);
        go(&source, move |source| {
            let result = block_on(source.token());
            left.fetch_sub(1, Ordering::SeqCst);
            result.map_err(|error| error.kind())
        })
    });
    while left.load(Ordering::SeqCst) > 0 {
        world.pass(31 * SECOND);
        // If callers drive the fetch, the next caller ends a fetch that is past its time limit.
        let _ = poll_once(&mut source.token());
        thread::yield_now();
    }
    for result in join(callers) {
        match result {
            Ok(token) => assert!(!hangs || number(&token) > 1),
            Err(kind) => assert_eq!(kind, SourceErrorKind::TimedOut),
        }
    }
    // The fetch that hangs may have begun only now.
    world.hang(0);
    world.pass(31 * SECOND);
    let _ = block_on(source.token());
    world.pass(2 * SECOND);
    ask(&source);
}

#[test]
fn all_hear_of_it_when_a_fetch_that_hangs_is_given_up() {
    check_both(|driven| gives_up(driven, true));
}

#[test]
fn a_fetch_may_end_at_the_moment_when_it_is_given_up() {
    check_both(|driven| gives_up(driven, false));
}
