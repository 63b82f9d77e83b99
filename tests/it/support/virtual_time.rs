//! A [`Runtime`] for tests. Its time moves, and its tasks run, only when the test says so.

use std::{
    collections::{BTreeMap, btree_map::OccupiedEntry},
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant, SystemTime},
};

use futures::future::{BoxFuture, FutureExt};
use tower_bearer::Runtime;

/// A clone shares the clock and the tasks.
#[derive(Clone)]
pub(crate) struct VirtualTime {
    shared: Arc<Shared>,
    /// Whether `spawn` takes tasks.
    background: bool,
}

struct Shared {
    start: Instant,
    wall_start: SystemTime,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    elapsed: Duration,
    /// How long the machine slept. Meanwhile the wall clock went on, and the monotonic clock stood still.
    slept: Duration,
    timers: BTreeMap<(Duration, u64), Waker>,
    next_timer: u64,
    tasks: Vec<Task>,
}

struct Task {
    future: BoxFuture<'static, ()>,
    woken: Arc<Flag>,
}

/// A timer. Like the timers of real runtimes, it wakes nobody after it is dropped.
struct Sleep {
    clock: VirtualTime,
    end: Duration,
    id: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut state = this.clock.shared.state.lock().unwrap();
        if state.elapsed >= this.end {
            return Poll::Ready(());
        }
        let next = state.next_timer;
        state.next_timer += 1;
        let id = *this.id.get_or_insert(next);
        let waker = cx.waker().clone();
        let before = state.timers.insert((this.end, id), waker);
        drop(state);
        drop(before);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let mut state = self.clock.shared.state.lock().unwrap();
            let waker = state.timers.remove(&(self.end, id));
            drop(state);
            // This may drop the last reference to a task, and with it timers that take the lock.
            drop(waker);
        }
    }
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl VirtualTime {
    pub(crate) fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                start: Instant::now(),
                wall_start: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
                state: Mutex::default(),
            }),
            background: true,
        }
    }

    /// A runtime with a clock, but without tasks and timers.
    pub(crate) fn caller_driven() -> Self {
        Self {
            background: false,
            ..Self::new()
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.shared.state.lock().unwrap().elapsed
    }

    /// How many tasks have not ended.
    pub(crate) fn tasks(&self) -> usize {
        self.shared.state.lock().unwrap().tasks.len()
    }

    /// Drops all tasks, as a runtime does when it shuts down.
    pub(crate) fn drop_tasks(&self) {
        let tasks = std::mem::take(&mut self.shared.state.lock().unwrap().tasks);
        drop(tasks);
    }

    /// Runs the tasks until none can go on.
    pub(crate) fn run(&self) {
        loop {
            let runnable = {
                let mut state = self.shared.state.lock().unwrap();
                let is_woken = |task: &Task| task.woken.0.swap(false, Ordering::SeqCst);
                state
                    .tasks
                    .iter()
                    .position(is_woken)
                    .map(|index| state.tasks.remove(index))
            };
            // The lock is released before the poll: a task may spawn, sleep and ask for the time.
            let Some(mut task) = runnable else { return };
            let waker = Waker::from(Arc::clone(&task.woken));
            if task
                .future
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
            {
                self.shared.state.lock().unwrap().tasks.push(task);
            }
        }
    }

    /// Moves time on from timer to timer, and runs the tasks at each timer.
    pub(crate) fn advance(&self, duration: Duration) {
        self.run();
        let end = self.elapsed() + duration;
        loop {
            let mut state = self.shared.state.lock().unwrap();
            let due = state
                .timers
                .first_entry()
                .filter(|timer| timer.key().0 <= end)
                .map(OccupiedEntry::remove_entry);
            let Some(((at, _), waker)) = due else {
                state.elapsed = end;
                return;
            };
            state.elapsed = state.elapsed.max(at);
            drop(state);
            waker.wake();
            self.run();
        }
    }

    /// Moves time on while nobody drives the runtime, as between two calls of `block_on`: no timer fires
    /// and no task runs.
    pub(crate) fn stall(&self, duration: Duration) {
        self.shared.state.lock().unwrap().elapsed += duration;
    }

    /// Puts the machine to sleep: no timer fires, no task runs, and the monotonic clock stands still.
    pub(crate) fn suspend(&self, duration: Duration) {
        self.shared.state.lock().unwrap().slept += duration;
    }

    /// Runs tasks until `future` is done, without moving time.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        for _ in 0..1_000 {
            self.run();
            if let Some(output) = future.as_mut().now_or_never() {
                return output;
            }
        }
        panic!("the future waits for time to pass");
    }
}

impl fmt::Debug for VirtualTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VirtualTime({:?})", self.elapsed())
    }
}

impl Runtime for VirtualTime {
    fn spawn(&self, future: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        if !self.background {
            return Err(future);
        }
        let woken = Arc::new(Flag(AtomicBool::new(true)));
        let mut state = self.shared.state.lock().unwrap();
        state.tasks.push(Task { future, woken });
        Ok(())
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        if !self.background {
            return std::future::pending().boxed();
        }
        let end = self.elapsed() + duration;
        let clock = self.clone();
        let id = None;
        Sleep { clock, end, id }.boxed()
    }

    fn now(&self) -> Instant {
        self.shared.start + self.elapsed()
    }

    fn system_now(&self) -> SystemTime {
        let state = self.shared.state.lock().unwrap();
        self.shared.wall_start + state.elapsed + state.slept
    }
}
