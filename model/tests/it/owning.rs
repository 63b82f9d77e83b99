//! The task that owns a fetch is dropped, a caller is cancelled, or a refresh begins while a fetch ends.
//! The tests try each await point, in many orders.

use std::sync::Arc;

use shuttle::{
    future::{block_on, spawn},
    thread,
};
use tower_bearer::{BearerToken, RefreshingTokenBuilder, Runtime, TokenSource};

use crate::support::{
    Driven, HOUR, SECOND, Woken, World, ask, check, check_both, check_few, go, join, number,
    poll_times,
};

/// No task of this world is polled more often. So a drop at the poll with this number comes after the end
/// of the fetch.
const POLLS: usize = 4;

const ALL: [Driven; 4] = [
    Driven::InTheBackground,
    Driven::ByCallers,
    Driven::BySomeInTheBackground,
    Driven::WhereThereIsARuntime,
];

/// Two callers, of which the first has a runtime. Shuttle chooses the order in which they come.
fn callers(
    world: &World,
    source: &tower_bearer::RefreshingToken,
) -> [thread::JoinHandle<usize>; 2] {
    let with_runtime = {
        let world = world.clone();
        go(source, move |source| {
            world.enter_runtime();
            ask(source)
        })
    };
    [with_runtime, go(source, ask)]
}

#[test]
fn a_task_that_is_dropped_at_any_await_point_costs_no_waiter_its_token() {
    for driven in ALL {
        for at in 0..=POLLS {
            check_few(move || {
                let world = World::dropping(driven, Some(HOUR), Some(at));
                let source = world.source();
                let tokens = join(callers(&world, &source));
                world.finish_tasks();
                assert!(at < POLLS || world.losses() == 0, "more await points");
                let most = 1 + world.losses();
                assert!(world.fetches() <= most, "begun anew without a loss");
                assert!(tokens.iter().all(|token| (1..=most).contains(token)));
                assert_eq!(world.most_alive(), 1, "two fetches at a time");
                assert_eq!(world.alive(), 0, "the user's future is kept");
            });
        }
    }
}

#[test]
fn a_waiter_may_enter_while_a_task_is_lost_at_any_await_point() {
    for at in 0..=POLLS {
        for has_runtime in [false, true] {
            check_few(move || {
                let driven = Driven::WhereThereIsARuntime;
                let world = World::dropping(driven, Some(HOUR), Some(at));
                let source = world.source();
                world.enter_runtime();
                // The task of this fetch runs from here on, and is lost while the other caller comes.
                let first = source.token();
                let enters = {
                    let world = world.clone();
                    go(&source, move |source| {
                        if has_runtime {
                            world.enter_runtime();
                        }
                        ask(source)
                    })
                };
                assert!(number(&block_on(first).unwrap()) <= 1 + world.losses());
                join([enters]);
                world.finish_tasks();
                assert!(world.fetches() <= 1 + world.losses());
                assert_eq!(world.most_alive(), 1, "two fetches at a time");
                assert_eq!(world.alive(), 0, "the user's future is kept");
            });
        }
    }
}

#[test]
fn a_refresh_whose_task_is_dropped_at_any_await_point_is_begun_anew() {
    for at in 0..=POLLS {
        check_few(move || {
            let world = World::dropping(Driven::InTheBackground, Some(HOUR), Some(at));
            let first = BearerToken::new("0").unwrap();
            let expiry = world.now() + HOUR;
            let builder = |builder: RefreshingTokenBuilder| builder.startup_jitter(0.0);
            let source = world.source_from(first.expires_at(expiry), builder);
            world.pass(HOUR * 5 / 6);
            join([(); 2].map(|()| go(&source, ask)));
            world.finish_tasks();
            world.pass(SECOND);
            ask(&source);
            world.finish_tasks();
            assert!(ask(&source) >= 1, "no refresh has ended");
            assert!(world.fetches() <= 1 + world.losses());
            assert_eq!(world.alive(), 0, "the user's future is kept");
        });
    }
}

#[test]
fn a_caller_who_is_cancelled_at_any_await_point_takes_nothing_from_the_others() {
    for driven in ALL {
        for polls in 0..=POLLS {
            check_few(move || {
                let world = World::new(driven, Some(HOUR));
                let source = world.source();
                let leaves = go(&source, move |source| {
                    poll_times(&Arc::default(), &mut source.token(), polls);
                });
                assert_eq!(join(callers(&world, &source)), [1, 1]);
                join([leaves]);
                world.finish_tasks();
                assert_eq!(world.fetches(), 1);
                assert_eq!(world.alive(), 0, "the user's future is kept");
            });
        }
    }
}

/// The other caller stays, and the fetch hangs. So nothing else clears a waker that was left behind.
#[test]
fn a_caller_who_is_cancelled_at_any_await_point_leaves_no_waker_behind() {
    for driven in ALL {
        for polls in 0..=POLLS {
            check_few(move || {
                let world = World::new(driven, Some(HOUR));
                world.hang(1);
                let source = world.source();
                let woken = Arc::new(Woken::default());
                let leaves = {
                    let woken = Arc::clone(&woken);
                    go(&source, move |source| {
                        poll_times(&woken, &mut source.token(), polls);
                    })
                };
                let stays = go(&source, |source| {
                    let mut token = source.token();
                    poll_times(&Arc::default(), &mut token, POLLS);
                    token
                });
                join([leaves]);
                let stays = join([stays]);
                assert_eq!(Arc::strong_count(&woken), 1, "its waker is kept");
                drop(stays);
                for task in world.take_tasks() {
                    task.abort();
                }
            });
        }
    }
}

#[test]
fn a_refresh_that_races_with_the_end_of_a_fetch_joins_it_or_begins_one_more() {
    check_both(|driven| {
        let world = World::new(driven, Some(HOUR));
        let source = world.source();
        let first = source.token();
        let refreshes = go(&source, |source| {
            number(&block_on(source.refresh_now()).unwrap())
        });
        assert!(number(&block_on(first).unwrap()) <= 2);
        let refreshed = join([refreshes])[0];
        world.finish_tasks();
        assert!((1..=2).contains(&world.fetches()));
        assert_eq!(refreshed, world.fetches(), "not the newest");
        assert_eq!(ask(&source), refreshed);
        assert_eq!(world.most_alive(), 1, "two fetches at a time");
    });
}

#[test]
fn what_keeps_a_token_fresh_ends_with_the_last_handle_whenever_that_goes() {
    check_both(|driven| {
        let world = World::new(driven, Some(HOUR));
        let source = world.source();
        let kept = spawn(source.keep_fresh());
        let caller = go(&source, ask);
        drop(source);
        join([caller]);
        block_on(kept).unwrap();
        world.finish_tasks();
        assert_eq!(world.alive(), 0, "the user's future is kept");
    });
}

/// Only `keep_fresh` waits for the fetch that it begins.
#[test]
fn what_keeps_a_token_fresh_ends_without_a_caller() {
    check(|| {
        let world = World::new(Driven::InTheBackground, Some(HOUR));
        let source = world.source();
        let kept = spawn(source.keep_fresh());
        thread::yield_now();
        drop(source);
        block_on(kept).unwrap();
        world.finish_tasks();
        assert_eq!(world.alive(), 0, "the user's future is kept");
    });
}
