//! `with_data` and `data`: the data of a token goes where the token goes. The `Drop` of the data is foreign
//! code, and never runs under a lock of this crate.

use std::{
    any::Any,
    convert::Infallible,
    future::ready,
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

use futures::FutureExt;
use http::Response;
use tower::{Layer, service_fn};
use tower_bearer::{
    BearerAuthLayer, BearerToken, CallerDriven, RefreshingToken, RotatingToken, Runtime,
    SourceError, SourceErrorKind, StaticToken, TokenSource,
};

use crate::support::{
    Manual, Task, allocator::allocations_in, get, send, token, virtual_time::VirtualTime,
};

#[derive(Debug, PartialEq)]
struct RefreshToken(&'static str);

#[derive(Debug, PartialEq)]
struct QuotaProject(u32);

#[test]
fn data_is_found_by_its_type_and_by_no_other() {
    let token = token("abc").with_data(RefreshToken("r1"));
    assert_eq!(token.data(), Some(&RefreshToken("r1")));
    assert_eq!(token.data::<QuotaProject>(), None);
    assert_eq!(token.data::<&'static str>(), None);
    assert!(token.data::<Box<dyn Any + Send + Sync>>().is_none());
    assert!(token.data::<Arc<dyn Any + Send + Sync>>().is_none());
    assert_eq!(crate::support::token("abc").data::<RefreshToken>(), None);
}

#[test]
fn a_token_has_one_value_of_each_type() {
    let token = token("abc")
        .with_data(RefreshToken("r1"))
        .with_data(QuotaProject(7))
        .with_data(RefreshToken("r2"));
    assert_eq!(token.data(), Some(&RefreshToken("r2")));
    assert_eq!(token.data(), Some(&QuotaProject(7)));
}

#[test]
fn a_shared_or_a_boxed_value_is_found_as_what_was_given() {
    let shared = Arc::new(QuotaProject(7));
    let boxed: Box<dyn Any + Send + Sync> = Box::new(QuotaProject(8));
    let token = token("abc")
        .with_data(Arc::clone(&shared))
        .with_data(boxed)
        .with_data(());
    assert!(Arc::ptr_eq(token.data().unwrap(), &shared));
    let boxed: &Box<dyn Any + Send + Sync> = token.data().unwrap();
    assert_eq!((**boxed).downcast_ref(), Some(&QuotaProject(8)));
    assert_eq!(token.data(), Some(&()));
    assert!(token.data::<QuotaProject>().is_none());
}

#[test]
fn data_survives_a_clone_and_an_expiry_given_later() {
    let token = token("abc").with_data(RefreshToken("r1"));
    let minute = Duration::from_secs(60);
    for token in [
        token.clone(),
        token.clone().expires_in(minute),
        token.clone().expires_at(std::time::Instant::now()),
        token.clone().expires_at_time(std::time::SystemTime::now()),
        token.expires_in(minute).clone(),
    ] {
        assert_eq!(token.data(), Some(&RefreshToken("r1")));
    }
}

#[test]
fn data_leaves_the_token_the_same_token() {
    let plain = token("abc").expires_in(Duration::from_secs(60));
    let with = plain.clone().with_data(RefreshToken("r1"));
    assert!(plain.is_same(&with) && with.is_same(&plain));
    assert_eq!(plain.data::<RefreshToken>(), None, "the other clone");
    assert_eq!(plain.expiry(), with.expiry());
    let value = with.header_value();
    assert!(value.is_sensitive());
    assert_eq!(
        value.as_bytes().as_ptr(),
        plain.header_value().as_bytes().as_ptr(),
        "no copy of the secret"
    );
    plain.reject();
    assert!(with.is_rejected());
    let other = with.clone().with_data(RefreshToken("r2"));
    assert!(other.is_rejected());
    assert_eq!(with.data(), Some(&RefreshToken("r1")));
}

#[test]
fn debug_shows_no_data() {
    let token = token("abc").with_data(RefreshToken("tGzv3JOkF0XG5Qx2TlKWIA"));
    for shown in [
        format!("{token:?}"),
        format!("{:?}", StaticToken::new(token.clone())),
        format!("{:?}", RotatingToken::new(token.clone())),
    ] {
        assert!(!shown.contains("tGzv") && !shown.contains("RefreshToken"));
    }
}

#[test]
fn the_secret_is_the_text_that_the_token_was_made_of() {
    let long = "x".repeat(65_536);
    for text in ["7Fjfp0ZBr1KtDRbnfVdmIw", "a", "Bearer", "a==", &long] {
        let token = BearerToken::new(text).unwrap();
        assert_eq!(token.expose_secret(), text);
        assert_eq!(token.expires_in(Duration::ZERO).expose_secret(), text);
    }
    let token = BearerToken::nonstandard("id:4711,\"x\"").unwrap();
    assert_eq!(token.expose_secret(), "id:4711,\"x\"");
    let value = token.header_value();
    let within = value.as_bytes().as_ptr_range();
    let exposed = token.expose_secret().as_bytes().as_ptr_range();
    assert!(
        within.start < exposed.start && within.end == exposed.end,
        "no copy"
    );
}

#[test]
fn a_token_is_as_large_as_a_pointer_and_data_costs_a_request_nothing() {
    assert_eq!(size_of::<BearerToken>(), size_of::<usize>());
    let token = token("abc").with_data(RefreshToken("r1"));
    let inner = service_fn(|_| async { Ok::<_, Infallible>(Response::<String>::default()) });
    let mut service = BearerAuthLayer::new(StaticToken::new(token)).layer(inner);
    let mut request = get("https://api.example.com/");
    request.headers_mut().reserve(1);
    let (count, _) = allocations_in(|| send(&mut service, request).unwrap());
    assert_eq!(count, 0);
}

#[test]
fn a_fetch_gets_the_data_of_the_token_before() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let source = RefreshingToken::renewing_builder(move |previous: Option<BearerToken>| {
        let refresh_token = previous
            .as_ref()
            .and_then(BearerToken::data::<RefreshToken>);
        noted
            .lock()
            .unwrap()
            .push(refresh_token.map(|token| token.0));
        let next = if refresh_token.is_some() { "r2" } else { "r1" };
        ready(BearerToken::new("abc").map(|token| token.with_data(RefreshToken(next))))
    })
    .runtime(CallerDriven::new())
    .build();
    for _ in 0..3 {
        source.refresh_now().now_or_never().unwrap().unwrap();
    }
    assert_eq!(*seen.lock().unwrap(), [None, Some("r1"), Some("r2")]);
}

/// Data that asks the source in its `Drop`. If the `Drop` ran under the lock of the source, it would wait
/// for ever.
struct AsksInDrop {
    source: Weak<OnceLock<RefreshingToken>>,
    dropped: Arc<AtomicUsize>,
}

impl Drop for AsksInDrop {
    fn drop(&mut self) {
        if let Some(source) = self.source.upgrade().as_ref().and_then(|it| it.get()) {
            let _ = source.status();
            let _ = source.token().now_or_never();
        }
        self.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

/// A source with fetches that wait for the test, and with tokens that ask the source when they are dropped.
struct Asked {
    source: Arc<OnceLock<RefreshingToken>>,
    time: VirtualTime,
    endpoint: Manual,
    dropped: Arc<AtomicUsize>,
}

impl Asked {
    fn new() -> Self {
        let (endpoint, time) = (Manual::default(), VirtualTime::new());
        let answers = endpoint.clone();
        let source = RefreshingToken::builder(move || answers.token())
            .runtime(time.clone())
            .build();
        Self {
            source: Arc::new(OnceLock::from(source)),
            time,
            endpoint,
            dropped: Arc::default(),
        }
    }

    fn source(&self) -> &RefreshingToken {
        self.source.get().unwrap()
    }

    fn token(&self, text: &str) -> BearerToken {
        token(text).with_data(AsksInDrop {
            source: Arc::downgrade(&self.source),
            dropped: Arc::clone(&self.dropped),
        })
    }

    /// Begins a fetch, and lets the endpoint answer it.
    fn fetch(&self, answer: BearerToken) -> Result<BearerToken, SourceError> {
        let mut fetched = Task::waiting(self.source().refresh_now());
        self.time.run();
        self.endpoint.answer(Ok(answer));
        self.time.run();
        fetched.finish()
    }

    fn dropped(&self) -> usize {
        self.dropped.load(Ordering::SeqCst)
    }
}

/// Runs `test`, and fails if `test` does not end within a minute.
fn ends(test: impl FnOnce() + Send + 'static) {
    let (sender, receiver) = mpsc::channel();
    let test = std::thread::spawn(move || {
        test();
        sender.send(()).unwrap();
    });
    let end = receiver.recv_timeout(Duration::from_secs(60));
    assert_ne!(
        end,
        Err(RecvTimeoutError::Timeout),
        "data was dropped under a lock"
    );
    test.join().unwrap();
}

#[test]
fn the_data_of_a_token_that_is_replaced_may_ask_the_source_in_its_drop() {
    ends(|| {
        let asked = Asked::new();
        drop(asked.fetch(asked.token("first")).unwrap());
        assert_eq!(asked.dropped(), 0);
        drop(asked.fetch(asked.token("second")).unwrap());
        asked.source().token().now_or_never().unwrap().unwrap();
        assert_eq!(asked.dropped(), 1);
    });
}

#[test]
fn the_data_of_a_fetched_token_that_is_rejected_may_ask_the_source_in_its_drop() {
    ends(|| {
        let asked = Asked::new();
        let rejected = asked.token("rejected");
        rejected.reject();
        let error = asked.fetch(rejected).unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::Rejected);
        assert_eq!(asked.dropped(), 0, "kept for the next fetch");
        drop(asked.fetch(asked.token("next")).unwrap());
        assert_eq!(asked.dropped(), 1);
    });
}

#[test]
fn the_data_of_a_fetched_token_that_is_expired_may_ask_the_source_in_its_drop() {
    ends(|| {
        let asked = Asked::new();
        drop(asked.fetch(asked.token("good")).unwrap());
        let expired = asked.token("expired").expires_in(Duration::ZERO);
        let error = asked.fetch(expired).unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::Expired);
        // The source keeps the last token that any fetch gave, since the next fetch may need it.
        assert_eq!(asked.dropped(), 0);
        drop(asked.fetch(asked.token("next")).unwrap());
        asked.source().token().now_or_never().unwrap().unwrap();
        assert_eq!(asked.dropped(), 2);
    });
}

#[test]
fn the_data_of_a_token_of_another_account_may_ask_the_source_in_its_drop() {
    ends(|| {
        let asked = Asked::new();
        drop(asked.fetch(asked.token("held")).unwrap());
        let _late = Task::waiting(asked.source().refresh_now());
        asked.time.run();
        asked.source().invalidate();
        assert_eq!(asked.dropped(), 1, "the token that was held");
        asked.endpoint.answer(Ok(asked.token("late")));
        asked.time.run();
        assert_eq!(asked.dropped(), 2, "the token that came late");
    });
}

#[test]
fn the_data_of_a_token_whose_service_ends_may_ask_the_source_in_its_drop() {
    ends(|| {
        let asked = Asked::new();
        let minute = Duration::from_secs(60);
        let now = asked.time.now();
        drop(
            asked
                .fetch(asked.token("first").expires_at(now + minute))
                .unwrap(),
        );
        asked.time.advance(minute * 2);
        let mut waiting = Task::waiting(asked.source().token());
        asked.time.run();
        asked.endpoint.answer(Ok(asked.token("second")));
        asked.time.run();
        drop(waiting.finish().unwrap());
        asked.source().token().now_or_never().unwrap().unwrap();
        assert_eq!(asked.dropped(), 1);
    });
}

#[test]
fn data_may_ask_a_rotating_token_in_its_drop() {
    struct Asks(RotatingToken, Arc<AtomicUsize>);

    impl Drop for Asks {
        fn drop(&mut self) {
            let now = self.0.token().now_or_never().unwrap().unwrap();
            assert_eq!(now.expose_secret(), "second");
            self.1.fetch_add(1, Ordering::SeqCst);
        }
    }

    ends(|| {
        let (source, dropped) = (RotatingToken::empty(), Arc::new(AtomicUsize::new(0)));
        let asks = Asks(source.clone(), Arc::clone(&dropped));
        source.rotate(token("first").with_data(asks));
        source.rotate(token("second"));
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
    });
}
