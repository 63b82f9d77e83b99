//! `invalidate` at any moment.

use shuttle::future::block_on;

use crate::support::{World, ask, check_both, go, join, number};

#[test]
fn a_refresh_and_an_invalidation_may_come_at_any_moment() {
    check_both(|driven| {
        let world = World::new(driven, None);
        let source = world.source();
        ask(&source);
        let refreshes = go(&source, |source| {
            number(&block_on(source.refresh_now()).unwrap())
        });
        let invalidates = go(&source, |source| {
            source.invalidate();
            ask(source)
        });
        let callers = [(); 2].map(|()| go(&source, ask));
        join(callers);
        for token in join([refreshes, invalidates]) {
            assert!(token >= 2, "the first token after it was to go");
        }
        assert!(ask(&source) >= 2);
        assert!(world.fetches() <= 4);
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
