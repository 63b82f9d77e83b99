//! A [`Runtime`] in virtual time, with a queue of timers. A task runs when its timer is due. All tasks
//! run in the thread that calls [`Clock::run`].

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

/// A clone shares the time and the tasks.
#[derive(Clone)]
pub(crate) struct Clock(Arc<Shared>);

struct Shared {
    start: Instant,
    /// Milliseconds since `start`. An atomic, since each request reads the time.
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

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Milliseconds since the start.
    pub(crate) fn millis(&self) -> u64 {
        self.0.now.load(Ordering::Relaxed)
    }

    pub(crate) fn millis_at(&self, at: Instant) -> u64 {
        let elapsed = at.saturating_duration_since(self.0.start).as_millis();
        u64::try_from(elapsed).unwrap_or(u64::MAX)
    }

    pub(crate) fn sleep_until(&self, at: u64) -> BoxFuture<'static, ()> {
        self.sleep(Duration::from_millis(at.saturating_sub(self.millis())))
    }

    /// Moves the time from timer to timer until no timer is left.
    pub(crate) fn run(&self) {
        loop {
            self.run_tasks();
            let waker = {
                let mut timers = lock(&self.0.timers);
                let Some(Reverse((at, index))) = timers.queue.pop() else {
                    return;
                };
                self.0.now.store(at, Ordering::Relaxed);
                timers.free.push(index);
                timers.wakers[index].take()
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    fn run_tasks(&self) {
        loop {
            let Some(task) = lock(&self.0.runnable).pop_front() else {
                return;
            };
            let waker = Waker::from(Arc::clone(&task));
            let mut slot = lock(&task.future);
            if let Some(future) = slot.as_mut() {
                let poll = future.as_mut().poll(&mut Context::from_waker(&waker));
                if poll.is_ready() {
                    *slot = None;
                }
            }
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({} ms)", self.millis())
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
        let duration = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let end = self.millis().saturating_add(duration);
        let mut begun = false;
        Box::pin(std::future::poll_fn(move |cx| {
            if shared.now.load(Ordering::Relaxed) >= end {
                return Poll::Ready(());
            }
            // A single task polls this sleep, and its waker does not change. So keep the first waker.
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
        self.0.start + Duration::from_millis(self.millis())
    }

    fn system_now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.millis())
    }
}
