//! A 401 at any moment.

use shuttle::{future::block_on, thread};
use tower_bearer::TokenSource;

use crate::support::{HOUR, SECOND, World, ask, check_both, go, join, number};

#[test]
fn rejections_of_one_token_cost_one_fetch_however_late_they_come() {
    check_both(|driven| {
        let world = World::new(driven, Some(HOUR));
        let source = world.source();
        let old = block_on(source.token()).unwrap();
        let late = old.clone();
        old.reject();
        let rejects_late = thread::spawn(move || late.reject());
        let callers = [(); 2].map(|()| go(&source, ask));
        assert_eq!(join(callers), [2, 2]);
        rejects_late.join().unwrap();
        assert_eq!(ask(&source), 2, "a late rejection evicts a newer token");
        assert_eq!(world.fetches(), 2);
    });
}

#[test]
fn a_rejection_while_the_next_token_comes_costs_no_further_fetch() {
    check_both(|driven| {
        let world = World::new(driven, Some(HOUR));
        let source = world.source();
        let old = block_on(source.token()).unwrap();
        let refreshes = go(&source, |source| {
            number(&block_on(source.refresh_now()).unwrap())
        });
        let rejects = {
            let world = world.clone();
            go(&source, move |source| {
                // Otherwise the rejection may begin the fetch.
                while world.fetches() < 2 {
                    thread::yield_now();
                }
                old.reject();
                ask(source)
            })
        };
        let caller = {
            let world = world.clone();
            go(&source, move |source| {
                world.pass(2 * SECOND);
                ask(source)
            })
        };
        assert_eq!(join([refreshes, rejects]), [2, 2]);
        assert!((1..=2).contains(&join([caller])[0]));
        assert_eq!(ask(&source), 2);
        assert_eq!(world.fetches(), 2);
    });
}
