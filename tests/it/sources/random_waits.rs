//! Random events around requests that wait for a fetch, on runtimes that run, refuse or drop its task.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant, SystemTime},
};

use futures::{
    FutureExt,
    channel::oneshot,
    future::BoxFuture,
    task::{ArcWake, waker},
};
use tower_bearer::{
    BearerToken, BoxError, RefreshingToken, Runtime, SourceError, SourceErrorKind, TokenFuture,
    TokenSource,
};

use crate::{
    sources::refreshing::{MINUTE, SECOND},
    support::virtual_time::VirtualTime,
};

/// What the runtime does with tasks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Tasks {
    Run,
    /// There are no timers, either.
    Refused,
    SometimesRefused,
    SometimesDropped,
}

#[derive(Clone)]
struct World {
    tasks: Tasks,
    time: VirtualTime,
    random: Arc<Mutex<fastrand::Rng>>,
    /// Whether tasks are refused or dropped at the moment.
    is_odd: Arc<AtomicBool>,
    /// The number of sign-outs so far.
    account: Arc<AtomicUsize>,
    fetches: Arc<AtomicUsize>,
    /// The fetches under way. The value says how a fetch ends.
    open: Arc<Mutex<Vec<oneshot::Sender<usize>>>>,
    /// What may happen before a task is taken, as if another thread came between.
    between: Arc<Mutex<Option<RefreshingToken>>>,
}

impl World {
    fn new(tasks: Tasks, seed: u64) -> Self {
        Self {
            tasks,
            time: VirtualTime::new(),
            random: Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))),
            is_odd: Arc::new(AtomicBool::new(tasks == Tasks::Refused)),
            account: Arc::default(),
            fetches: Arc::default(),
            open: Arc::default(),
            between: Arc::default(),
        }
    }

    /// A number below `end`.
    fn below(&self, end: usize) -> usize {
        self.random.lock().unwrap().usize(..end)
    }

    fn millis(&self, end: usize) -> Duration {
        Duration::from_millis(self.below(end).try_into().unwrap())
    }

    fn account(&self) -> usize {
        self.account.load(Ordering::SeqCst)
    }

    fn source(&self, seed: u64) -> RefreshingToken {
        let world = self.clone();
        RefreshingToken::builder(move || world.fetch())
            .runtime(self.clone())
            .random_seed(seed)
            .build()
    }

    /// The text of a token begins with the number of its account.
    fn fetch(&self) -> impl Future<Output = Result<BearerToken, BoxError>> + Send + use<> {
        let number = self.fetches.fetch_add(1, Ordering::SeqCst);
        let text = format!("{}-{number}", self.account());
        let (end, ends) = oneshot::channel();
        self.open.lock().unwrap().push(end);
        let time = self.time.clone();
        async move {
            let token = BearerToken::new(text)?;
            match ends.await? {
                0..4 => Ok(token.expires_at(time.now() + 10 * MINUTE)),
                4 => Ok(token.expires_at(time.now() + 30 * SECOND)),
                5 => Ok(token),
                6 => Ok(token.expires_at(time.now())),
                7 => {
                    token.reject();
                    Ok(token)
                }
                _ => Err("the endpoint is down".into()),
            }
        }
    }

    fn end_a_fetch(&self) {
        let mut open = self.open.lock().unwrap();
        if open.is_empty() {
            return;
        }
        let index = self.below(open.len());
        let end = open.swap_remove(index);
        drop(open);
        // The fetch may be gone.
        let _ = end.send(self.below(10));
    }

    fn sign_out(&self, source: &RefreshingToken) {
        source.invalidate();
        self.account.fetch_add(1, Ordering::SeqCst);
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

impl Runtime for World {
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        // Taken out meanwhile, so that nothing comes between twice.
        let between = self.between.lock().unwrap().take();
        if let Some(source) = between {
            match self.below(12) {
                0 => self.sign_out(&source),
                1 => drop(source.token()),
                2 => self.end_a_fetch(),
                _ => {}
            }
            self.time.run();
            *self.between.lock().unwrap() = Some(source);
        }
        match self.tasks {
            Tasks::Refused | Tasks::SometimesRefused if self.is_odd.load(Ordering::SeqCst) => {
                Err(task)
            }
            Tasks::SometimesDropped if self.is_odd.load(Ordering::SeqCst) => Ok(()),
            _ => self.time.spawn(task),
        }
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        match self.tasks {
            Tasks::Refused => std::future::pending().boxed(),
            _ => self.time.sleep(duration),
        }
    }

    fn now(&self) -> Instant {
        self.time.now()
    }

    fn system_now(&self) -> SystemTime {
        self.time.system_now()
    }
}

#[derive(Default)]
struct Wakes(AtomicBool);

impl ArcWake for Wakes {
    fn wake_by_ref(wakes: &Arc<Self>) {
        wakes.0.store(true, Ordering::SeqCst);
    }
}

struct Waiter {
    token: TokenFuture,
    /// The account when the waiter asked.
    account: usize,
    wants_new: bool,
    /// True before the first poll.
    is_woken: Arc<Wakes>,
}

impl Waiter {
    fn new(world: &World, source: &RefreshingToken) -> Self {
        let (account, wants_new) = (world.account(), world.below(6) == 0);
        Self {
            account,
            wants_new,
            token: if wants_new {
                source.refresh_now()
            } else {
                source.token()
            },
            is_woken: Arc::new(Wakes(AtomicBool::new(true))),
        }
    }

    fn is_woken(&self) -> bool {
        self.is_woken.0.load(Ordering::SeqCst)
    }

    fn poll(&mut self) -> Poll<Result<BearerToken, SourceError>> {
        self.is_woken.0.store(false, Ordering::SeqCst);
        let waker: Waker = waker(Arc::clone(&self.is_woken));
        self.token.poll_unpin(&mut Context::from_waker(&waker))
    }
}

struct Test {
    world: World,
    source: RefreshingToken,
    waiters: Vec<Waiter>,
    /// The tokens that the waiters got.
    given: Vec<BearerToken>,
}

impl Test {
    fn new(tasks: Tasks, seed: u64) -> Self {
        let world = World::new(tasks, seed);
        let source = world.source(seed);
        *world.between.lock().unwrap() = Some(source.clone());
        Self {
            world,
            source,
            waiters: Vec::new(),
            given: Vec::new(),
        }
    }

    /// Polls a waiter. If it has its answer, judges the answer and drops the waiter.
    fn poll(&mut self, index: usize) -> bool {
        let waiter = &mut self.waiters[index];
        let Poll::Ready(result) = waiter.poll() else {
            return false;
        };
        let account = waiter.account;
        match result {
            Ok(token) => {
                let text = token.expose_secret();
                let of = text.split_once('-').unwrap().0;
                assert_eq!(of, account.to_string(), "of another account");
                self.given.push(token);
            }
            Err(error) if error.kind() == SourceErrorKind::Invalidated => {
                assert!(account < self.world.account(), "nobody has signed out");
            }
            Err(_) => {}
        }
        self.waiters.swap_remove(index);
        true
    }

    fn any(&self) -> Option<usize> {
        let count = self.waiters.len();
        (count > 0).then(|| self.world.below(count))
    }

    fn step(&mut self) {
        let world = self.world.clone();
        match world.below(20) {
            0..5 => {
                self.waiters.push(Waiter::new(&world, &self.source));
                // A waiter that is polled late waits for longer, which `all_hear_of_a_token` does not allow for.
                if world.tasks == Tasks::Run {
                    self.poll(self.waiters.len() - 1);
                }
            }
            5..9 => {
                self.any().map(|index| self.poll(index));
            }
            9 => {
                self.any().map(|index| self.waiters.swap_remove(index));
            }
            10..13 => world.end_a_fetch(),
            13 => world.time.advance(world.millis(12_000)),
            14 => world.time.stall(world.millis(40_000)),
            15 => world.time.run(),
            16 if world.below(3) == 0 => world.sign_out(&self.source),
            17 if !self.given.is_empty() => {
                let index = world.below(self.given.len());
                self.given.swap_remove(index).reject();
            }
            18 if matches!(
                world.tasks,
                Tasks::SometimesRefused | Tasks::SometimesDropped
            ) =>
            {
                world.is_odd.fetch_not(Ordering::SeqCst);
            }
            19 if world.tasks == Tasks::SometimesDropped => world.time.drop_tasks(),
            _ => {}
        }
    }

    /// Whoever waits since before a sign-out is woken by it, and hears of it.
    fn all_hear_of_a_sign_out(&mut self) {
        let now = self.world.account();
        while let Some(index) = self.waiters.iter().position(|waiter| waiter.account < now) {
            assert!(self.waiters[index].is_woken());
            assert!(self.poll(index), "it waits on");
        }
    }

    /// If a new request has a good token at once, whoever waits for a token is woken and gets a token.
    fn all_hear_of_a_token(&mut self) {
        let between = self.world.between.lock().unwrap().take();
        self.world.time.advance(Duration::ZERO);
        let at_once = self.source.token().now_or_never();
        if matches!(at_once, Some(Ok(token)) if !token.is_rejected()) {
            while let Some(index) = self.waiters.iter().position(|waiter| !waiter.wants_new) {
                assert!(self.waiters[index].is_woken());
                assert!(self.poll(index), "it waits on");
            }
        }
        *self.world.between.lock().unwrap() = between;
    }

    /// Once each fetch gives a token, every waiter has its answer, although only woken waiters are polled.
    fn all_end(mut self) {
        let world = self.world.clone();
        world.between.lock().unwrap().take();
        if world.tasks == Tasks::SometimesDropped {
            world.is_odd.store(false, Ordering::SeqCst);
        }
        for _ in 0..5_000 {
            for end in std::mem::take(&mut *world.open.lock().unwrap()) {
                let _ = end.send(0);
            }
            world.time.run();
            let mut index = 0;
            while index < self.waiters.len() {
                if !self.waiters[index].is_woken() || !self.poll(index) {
                    index += 1;
                }
            }
            if self.waiters.is_empty() {
                return;
            }
            if world.tasks != Tasks::Refused {
                world.time.advance(Duration::from_millis(50));
            }
        }
        panic!("{} waiters wait on", self.waiters.len());
    }
}

#[test]
fn whatever_happens_a_waiter_hears_of_it_and_gets_no_token_of_another_account() {
    for seed in 0..500 {
        for tasks in [
            Tasks::Run,
            Tasks::Refused,
            Tasks::SometimesRefused,
            Tasks::SometimesDropped,
        ] {
            // Shown if the test fails.
            println!("{tasks:?}, seed {seed}");
            let mut test = Test::new(tasks, seed);
            for _ in 0..400 {
                test.step();
                if test.world.below(5) == 0 {
                    test.all_hear_of_a_sign_out();
                    if tasks == Tasks::Run {
                        test.all_hear_of_a_token();
                    }
                }
            }
            test.all_end();
        }
    }
}
