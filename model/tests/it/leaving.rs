//! Callers, drivers and handles that go away, or stay and do nothing.

use shuttle::{future::block_on, thread};
use tower_bearer::TokenSource;

use crate::support::{
    Driven, HOUR, SECOND, World, ask, check, check_both, go, join, number, poll_once,
};

#[test]
fn a_caller_who_leaves_takes_nothing_from_the_others() {
    check_both(|driven| {
        let world = World::new(driven, Some(HOUR));
        let source = world.source();
        let leaves = go(&source, |source| {
            let mut token = source.token();
            let _ = poll_once(&mut token);
            thread::yield_now();
        });
        let callers = [(); 2].map(|()| go(&source, ask));
        assert_eq!(join(callers), [1, 1]);
        join([leaves]);
        assert_eq!(world.fetches(), 1);
    });
}

#[test]
fn a_caller_who_stays_and_is_not_polled_holds_up_nobody() {
    check_both(|driven| {
        let world = World::new(driven, Some(HOUR));
        let source = world.source();
        let stays = go(&source, |source| {
            let mut token = source.token();
            let _ = poll_once(&mut token);
            token
        });
        let callers = [(); 2].map(|()| go(&source, ask));
        assert_eq!(join(callers), [1, 1]);
        drop(join([stays]));
        assert_eq!(world.fetches(), 1);
    });
}

#[test]
fn the_next_caller_resumes_a_fetch_that_all_have_left() {
    check_both(|driven| {
        let world = World::new(driven, Some(HOUR));
        let source = world.source();
        let leave = [(); 2].map(|()| {
            go(&source, |source| {
                let mut token = source.token();
                let _ = poll_once(&mut token);
            })
        });
        join(leave);
        assert_eq!(ask(&source), 1);
        assert_eq!(world.fetches(), 1);
    });
}

/// No request waits for a refresh ahead of expiry, so only the next caller can notice that nobody drives
/// the fetch.
#[test]
fn a_refresh_ahead_is_taken_up_again_when_its_driver_has_left() {
    check(|| {
        let world = World::new(Driven::ByCallers, Some(HOUR));
        let source = world.source();
        assert_eq!(ask(&source), 1);
        world.pass(HOUR * 11 / 12);
        let leave = [(); 2].map(|()| {
            let world = world.clone();
            go(&source, move |source| {
                let mut token = source.token();
                let _ = poll_once(&mut token);
                world.pass(SECOND);
            })
        });
        join(leave);
        // One of these callers drives the fetch to its end, unless the fetch has ended already.
        let callers = [(); 2].map(|()| go(&source, ask));
        join(callers);
        assert_eq!(ask(&source), 2);
        assert_eq!(world.fetches(), 2);
    });
}

#[test]
fn whoever_waits_gets_a_token_although_the_last_handle_has_gone() {
    check_both(|driven| {
        let world = World::new(driven, Some(HOUR));
        let source = world.source();
        let caller = {
            let token = source.token();
            thread::spawn(move || number(&block_on(token).unwrap()))
        };
        drop(source.refresh_now());
        drop(source);
        let got = caller.join().unwrap();
        // The caller gets the second token if the first fetch has ended before `refresh_now`, and the
        // caller is polled late.
        assert!((1..=world.fetches()).contains(&got));
    });
}

/// A fetch that is cut off may lose a rotated refresh token.
#[test]
fn a_fetch_in_the_background_is_finished_without_a_handle() {
    check(|| {
        let world = World::new(Driven::InTheBackground, None);
        let source = world.source();
        drop(source.refresh_now());
        let handles = [(); 2].map(|()| {
            go(&source, |source| {
                let mut token = source.token();
                let _ = poll_once(&mut token);
            })
        });
        drop(source);
        join(handles);
        for task in world.take_tasks() {
            block_on(task).unwrap();
        }
        assert_eq!(world.fetches(), 1);
        assert_eq!(world.alive(), 0, "the user's future is kept");
    });
}
