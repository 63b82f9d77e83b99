//! `keep_fresh`, polled by hand: what wakes the future, what the future does then, and when it ends.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
    time::{Duration, Instant, SystemTime},
};

use futures::{channel::oneshot, future::BoxFuture};
use tower_bearer::{RefreshingToken, Runtime, SourceErrorKind};

use crate::{
    sources::refreshing::{Endpoint, HOUR, MINUTE, SECOND, Script, number, one_hour, waiting},
    support::{Task, virtual_time::VirtualTime},
};

/// A source that refreshes each token after 47 minutes and 50 seconds.
fn source(endpoint: &Endpoint) -> RefreshingToken {
    let builder = endpoint.builder().refresh_jitter(0.0).startup_jitter(0.0);
    builder.build()
}

/// A `keep_fresh` that is polled as by an executor: at first, and then whenever it is woken.
struct Kept<F> {
    task: Task<F>,
    seen: Option<usize>,
}

impl<F: Future<Output = ()>> Kept<F> {
    fn new(future: F) -> Self {
        let task = Task::new(future);
        Self { task, seen: None }
    }

    fn is_woken(&self) -> bool {
        self.seen != Some(self.task.wakes())
    }

    fn poll_if_woken(&mut self) {
        if self.is_woken() {
            self.seen = Some(self.task.wakes());
            assert!(self.task.poll().is_pending(), "it ended");
        }
    }

    /// Polls the future for as long as it is woken. The future must not end.
    fn settle(&mut self, endpoint: &Endpoint) {
        while self.is_woken() {
            self.poll_if_woken();
            endpoint.time.run();
        }
    }

    fn advance(&mut self, endpoint: &Endpoint, duration: Duration) {
        endpoint.time.advance(duration);
        self.settle(endpoint);
    }
}

#[test]
fn the_end_of_the_last_handle_wakes_it_and_ends_it() {
    let endpoint = Endpoint::new(one_hour);
    let source = source(&endpoint);
    let other = source.clone();
    let mut kept = Kept::new(source.keep_fresh());
    kept.settle(&endpoint);
    assert_eq!(endpoint.fetches(), 1);
    drop(source);
    assert!(!kept.is_woken(), "there is another handle");
    drop(other);
    assert!(kept.is_woken(), "no timer has to end first");
    kept.task.finish();
}

#[test]
fn it_ends_at_once_if_no_handle_is_left_when_it_is_first_polled() {
    let endpoint = Endpoint::new(one_hour);
    let source = source(&endpoint);
    let mut kept = Kept::new(source.keep_fresh());
    drop(source);
    kept.task.finish();
    assert_eq!(endpoint.fetches(), 0);
}

#[test]
fn a_sign_out_wakes_it_and_it_fetches_the_next_token() {
    let endpoint = Endpoint::new(one_hour);
    let source = source(&endpoint);
    let mut kept = Kept::new(source.keep_fresh());
    kept.settle(&endpoint);
    source.invalidate();
    assert!(kept.is_woken());
    kept.settle(&endpoint);
    assert_eq!(endpoint.fetches(), 2);
}

#[test]
fn a_refresh_by_hand_puts_its_next_refresh_off() {
    let endpoint = Endpoint::new(one_hour);
    let source = source(&endpoint);
    let mut kept = Kept::new(source.keep_fresh());
    kept.settle(&endpoint);
    kept.advance(&endpoint, 40 * MINUTE);
    endpoint.time.block_on(source.refresh_now()).unwrap();
    assert_eq!(endpoint.fetches(), 2);
    for _ in 0..40 {
        kept.advance(&endpoint, MINUTE);
    }
    assert_eq!(endpoint.fetches(), 2);
    kept.advance(&endpoint, 8 * MINUTE);
    assert_eq!(endpoint.fetches(), 3);
}

/// While the machine sleeps, the monotonic clock and every timer stand still.
#[test]
fn a_machine_that_slept_is_noticed_within_a_minute() {
    let endpoint = Endpoint::new(one_hour);
    let source = source(&endpoint);
    let mut kept = Kept::new(source.keep_fresh());
    kept.settle(&endpoint);
    endpoint.time.suspend(8 * HOUR);
    kept.advance(&endpoint, MINUTE);
    assert_eq!(endpoint.fetches(), 2);
}

#[test]
fn it_sleeps_until_a_refresh_is_due_and_looks_at_the_clock_once_a_minute() {
    let endpoint = Endpoint::new(one_hour);
    let source = source(&endpoint);
    let mut kept = Kept::new(source.keep_fresh());
    kept.settle(&endpoint);
    let mut polls = 0;
    for _ in 0..47 * 60 {
        endpoint.time.advance(SECOND);
        polls += u32::from(kept.is_woken());
        kept.settle(&endpoint);
    }
    assert_eq!(polls, 47);
    assert_eq!(endpoint.fetches(), 1);
}

/// While a refresh runs, `keep_fresh` listens to it.
#[test]
fn while_a_refresh_runs_it_sleeps_and_hears_at_once_of_its_end() {
    let endpoint = Endpoint::new(one_hour);
    endpoint.script([one_hour(), Script::Slow(20 * SECOND)]);
    let source = source(&endpoint);
    let mut kept = Kept::new(source.keep_fresh());
    kept.settle(&endpoint);
    kept.advance(&endpoint, 47 * MINUTE + 50 * SECOND);
    assert_eq!(endpoint.fetches(), 2);
    let mut polls = 0;
    for _ in 0..20_000 - 1 {
        endpoint.time.advance(Duration::from_millis(1));
        polls += u32::from(kept.is_woken());
        kept.settle(&endpoint);
    }
    // Each poll checks whether the fetch still shows signs of life.
    assert!((1..=20).contains(&polls), "{polls}");
    endpoint.time.advance(Duration::from_millis(1));
    assert!(kept.is_woken());
    kept.settle(&endpoint);
    assert_eq!(number(&endpoint, &source), 2);
}

#[test]
fn a_refresh_that_is_lost_while_a_token_is_good_is_begun_anew() {
    let endpoint = Endpoint::new(|| Script::Hang);
    endpoint.script([one_hour()]);
    let source = source(&endpoint);
    let mut kept = Kept::new(source.keep_fresh());
    kept.settle(&endpoint);
    kept.advance(&endpoint, 47 * MINUTE + 50 * SECOND);
    assert_eq!(endpoint.fetches(), 2);
    endpoint.time.drop_tasks();
    kept.settle(&endpoint);
    kept.advance(&endpoint, SECOND);
    assert_eq!(endpoint.fetches(), 3);
    assert_eq!(source.status().failures(), 0);
}

#[test]
fn a_failed_refresh_is_tried_again_after_its_back_off_without_a_request() {
    let endpoint = Endpoint::new(|| Script::Fail);
    let source = source(&endpoint);
    let mut kept = Kept::new(source.keep_fresh());
    kept.settle(&endpoint);
    for _ in 0..10 * 60 {
        kept.advance(&endpoint, SECOND);
    }
    // The back-off is up to 30 s.
    let fetches = endpoint.fetches();
    assert!((10..200).contains(&fetches), "{fetches}");
    endpoint.otherwise(one_hour);
    for _ in 0..31 {
        kept.advance(&endpoint, SECOND);
    }
    assert!(source.status().expiry().is_some());
}

/// If a runtime drops every task, a loop without a pause would take a whole core.
#[test]
fn after_a_lost_fetch_it_waits_for_a_second() {
    let endpoint = Endpoint::new(|| Script::Hang);
    let source = source(&endpoint);
    let mut kept = Kept::new(source.keep_fresh());
    kept.settle(&endpoint);
    assert_eq!(endpoint.fetches(), 1);
    for lost in 1..10 {
        endpoint.time.drop_tasks();
        kept.settle(&endpoint);
        assert_eq!(endpoint.fetches(), lost, "at once");
        kept.advance(&endpoint, SECOND - Duration::from_millis(1));
        assert_eq!(endpoint.fetches(), lost, "too early");
        kept.advance(&endpoint, Duration::from_millis(1));
        assert_eq!(endpoint.fetches(), lost + 1);
    }
}

/// Behaves like a runtime that was shut down. Each lost task is a change, which wakes `keep_fresh`.
#[derive(Clone, Debug)]
struct Dropping {
    time: VirtualTime,
    has_timers: bool,
    dropped: Arc<AtomicUsize>,
}

impl Runtime for Dropping {
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        self.dropped.fetch_add(1, Ordering::SeqCst);
        drop(task);
        Ok(())
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        if self.has_timers {
            self.time.sleep(duration)
        } else {
            Box::pin(std::future::pending())
        }
    }

    fn now(&self) -> Instant {
        self.time.now()
    }

    fn system_now(&self) -> SystemTime {
        self.time.system_now()
    }
}

#[test]
fn where_every_task_is_dropped_it_tries_once_a_second_and_does_not_spin() {
    let endpoint = Endpoint::new(one_hour);
    let dropped = Arc::new(AtomicUsize::new(0));
    let runtime = Dropping {
        time: endpoint.time.clone(),
        has_timers: true,
        dropped: Arc::clone(&dropped),
    };
    let source = endpoint.builder().runtime(runtime).build();
    let mut kept = Kept::new(source.keep_fresh());
    for second in 1..=10 {
        for _ in 0..10 {
            kept.poll_if_woken();
        }
        assert!(!kept.is_woken(), "it spins");
        assert_eq!(dropped.load(Ordering::SeqCst), second);
        endpoint.time.advance(SECOND);
    }
    drop(source);
    assert!(kept.is_woken());
    kept.task.finish();
}

#[test]
fn where_nothing_measures_time_a_change_after_the_pause_ends_it_and_none_before() {
    let endpoint = Endpoint::new(one_hour);
    let dropped = Arc::new(AtomicUsize::new(0));
    let runtime = Dropping {
        time: endpoint.time.clone(),
        has_timers: false,
        dropped: Arc::clone(&dropped),
    };
    let source = endpoint.builder().runtime(runtime).build();
    let mut kept = Kept::new(source.keep_fresh());
    kept.settle(&endpoint);
    let dropped = || dropped.load(Ordering::SeqCst);
    assert_eq!(dropped(), 1);
    drop(source.refresh_now());
    kept.settle(&endpoint);
    assert_eq!(dropped(), 2, "in the pause");
    endpoint.time.advance(SECOND);
    drop(source.refresh_now());
    kept.settle(&endpoint);
    assert_eq!(dropped(), 4, "after it");
}

#[test]
fn a_fetch_that_hangs_is_given_up_at_its_time_limit_and_begun_anew() {
    let endpoint = Endpoint::new(one_hour);
    endpoint.script([Script::Hang]);
    let source = source(&endpoint);
    let mut kept = Kept::new(source.keep_fresh());
    kept.settle(&endpoint);
    kept.advance(&endpoint, 30 * SECOND);
    assert_eq!(source.status().failures(), 1);
    let error = source.status().last_error().cloned().unwrap();
    assert_eq!(error.kind(), SourceErrorKind::TimedOut);
    kept.advance(&endpoint, SECOND);
    assert_eq!(number(&endpoint, &source), 2);
}

struct Nothing;

impl Wake for Nothing {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn one_that_is_dropped_leaves_nothing_behind() {
    let endpoint = Endpoint::new(one_hour);
    let source = source(&endpoint);
    number(&endpoint, &source);
    for doing in [one_hour, || Script::Hang] {
        endpoint.otherwise(doing);
        source.invalidate();
        let task = Arc::new(Nothing);
        let waker = Waker::from(Arc::clone(&task));
        let mut kept = Box::pin(source.keep_fresh());
        for _ in 0..3 {
            let polled = kept.as_mut().poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending());
            endpoint.time.run();
        }
        drop(waker);
        assert!(Arc::strong_count(&task) > 1, "its waker is kept");
        drop(kept);
        assert_eq!(Arc::strong_count(&task), 1, "its waker is dropped");
    }
}

#[test]
fn one_that_is_dropped_leaves_the_fetch_to_the_requests() {
    let endpoint = Endpoint::new(one_hour);
    let (go, signal) = oneshot::channel();
    endpoint.script([Script::When(signal)]);
    let source = source(&endpoint);
    let mut kept = Kept::new(source.keep_fresh());
    kept.settle(&endpoint);
    let caller = waiting(&source);
    drop(kept);
    go.send(()).unwrap();
    endpoint.time.block_on(caller).unwrap();
    assert_eq!(endpoint.fetches(), 1);
}
