//! A [`Runtime`] in virtual time for one thread's share of the fleet.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant, SystemTime},
};

use futures::future::BoxFuture;
use tower_bearer::Runtime;

/// A clone shares the clock and the tasks.
#[derive(Clone)]
pub(crate) struct Clock(Arc<Shared>);

struct Shared {
    start: Instant,
    /// Milliseconds since `start`. Read without a lock, since each request reads it.
    now: AtomicU64,
    timers: Mutex<Timers>,
    runnable: Mutex<VecDeque<Arc<Task>>>,
}

#[derive(Default)]
struct Timers {
    queue: BinaryHeap<Reverse<(u64, usize)>>,
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

struct Task {
    future: Mutex<Option<BoxFuture<'static, ()>>>,
    shared: Arc<Shared>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        let shared = Arc::clone(&self.shared);
        lock(&shared.runnable).push_back(self);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared {
            start: Instant::now(),
            now: AtomicU64::new(0),
            timers: Mutex::default(),
            runnable: Mutex::default(),
        }))
    }

    /// Seconds since the start.
    pub(crate) fn seconds(&self) -> u64 {
        self.0.now.load(Ordering::Relaxed) / 1_000
    }

    pub(crate) fn seconds_at(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.0.start).as_secs()
    }

    /// Runs what can run, then moves from timer to timer until a second has passed.
    pub(crate) fn tick(&self) {
        let end = (self.seconds() + 1) * 1_000;
        loop {
            self.run();
            let mut timers = lock(&self.0.timers);
            let due = timers.queue.peek().map(|Reverse((at, _))| *at);
            if due.is_none_or(|at| at > end) {
                break;
            }
            if let Some(Reverse((at, index))) = timers.queue.pop() {
                self.0.now.store(at, Ordering::Relaxed);
                let waker = timers.wakers[index].take();
                timers.free.push(index);
                drop(timers);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
        }
        self.0.now.store(end, Ordering::Relaxed);
    }

    fn run(&self) {
        loop {
            let Some(task) = lock(&self.0.runnable).pop_front() else {
                return;
            };
            let waker = Waker::from(Arc::clone(&task));
            let mut slot = lock(&task.future);
            if let Some(future) = slot.as_mut() {
                if future
                    .as_mut()
                    .poll(&mut Context::from_waker(&waker))
                    .is_ready()
                {
                    *slot = None;
                }
            }
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({} s)", self.seconds())
    }
}

impl Runtime for Clock {
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        let task = Task {
            future: Mutex::new(Some(task)),
            shared: Arc::clone(&self.0),
        };
        lock(&self.0.runnable).push_back(Arc::new(task));
        Ok(())
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let shared = Arc::clone(&self.0);
        let end = shared.now.load(Ordering::Relaxed) + millis(duration);
        let mut begun = false;
        Box::pin(std::future::poll_fn(move |cx| {
            if shared.now.load(Ordering::Relaxed) >= end {
                return Poll::Ready(());
            }
            // Each sleep here is polled by one task, whose waker does not change.
            if !begun {
                begun = true;
                let mut timers = lock(&shared.timers);
                let waker = Some(cx.waker().clone());
                let index = if let Some(index) = timers.free.pop() {
                    timers.wakers[index] = waker;
                    index
                } else {
                    timers.wakers.push(waker);
                    timers.wakers.len() - 1
                };
                timers.queue.push(Reverse((end, index)));
            }
            Poll::Pending
        }))
    }

    fn now(&self) -> Instant {
        self.0.start + Duration::from_millis(self.0.now.load(Ordering::Relaxed))
    }

    fn system_now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.0.now.load(Ordering::Relaxed))
    }
}
