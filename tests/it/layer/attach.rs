//! What the layer changes in a request that gets a token, and what it leaves alone.

use std::{
    error::Error as _,
    fmt,
    future::{Ready, ready},
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use http::{
    HeaderName, HeaderValue, Method, Request, StatusCode, Version,
    header::{ACCEPT, AUTHORIZATION, PROXY_AUTHORIZATION},
};
use tower::{Layer, Service, limit::ConcurrencyLimit};
use tower_bearer::{
    BearerAuthLayer, BearerToken, BoxError, ErrorKind, RotatingToken, SourceError, SourceErrorKind,
    StaticToken, TokenFuture, TokenSource, source_fn,
};

use crate::support::{
    Asking, Counting, Manual, Req, Res, Server, Task, get, make_ready, ours, send, status, text,
    token, values,
};

const URI: &str = "https://api.example.com/v1";

fn fixed(text: &str) -> StaticToken {
    StaticToken::new(token(text))
}

#[test]
fn an_authorization_header_that_is_there_is_overwritten() {
    let cases: [(&str, &[&str]); 3] = [
        ("none", &[]),
        ("one", &["Bearer own"]),
        ("several", &["Bearer own", "Basic b3duOm93bg=="]),
    ];
    for (case, existing) in cases {
        let server = Server::ok();
        let mut request = get(URI);
        for value in existing {
            let value = HeaderValue::from_static(value);
            request.headers_mut().append(AUTHORIZATION, value);
        }
        send(
            &mut BearerAuthLayer::new(fixed("ours")).layer(server.clone()),
            request,
        )
        .unwrap();
        let sent = values(&server.seen()[0], "authorization");
        assert_eq!(sent, ["Bearer ours"], "{case}");
    }
}

#[test]
fn keep_existing_leaves_a_request_alone_that_has_the_header() {
    let server = Server::answering(|_| status(StatusCode::UNAUTHORIZED));
    let ours = token("ours");
    let source = Counting::new(StaticToken::new(ours.clone()));
    let layer = BearerAuthLayer::new(source.clone()).keep_existing();

    let mut request = get(URI);
    let own = HeaderValue::from_static("Bearer own");
    request.headers_mut().insert(AUTHORIZATION, own);
    send(&mut layer.layer(server.clone()), request).unwrap();

    let seen = server.seen();
    let sent = &seen[0].headers()[AUTHORIZATION];
    assert_eq!(sent, "Bearer own");
    assert!(!sent.is_sensitive(), "the caller's value is not touched");
    assert_eq!(source.asked(), 0);
    assert!(!ours.is_rejected(), "the 401 is for the caller's token");
}

#[test]
fn keep_existing_looks_at_the_header_that_the_token_would_go_under() {
    let cases = [
        ("none", AUTHORIZATION, None, "Bearer ours"),
        (
            "another",
            AUTHORIZATION,
            Some(PROXY_AUTHORIZATION),
            "Bearer ours",
        ),
        (
            "the same",
            PROXY_AUTHORIZATION,
            Some(PROXY_AUTHORIZATION),
            "Bearer own",
        ),
    ];
    for (case, header, existing, expected) in cases {
        let server = Server::ok();
        let layer = BearerAuthLayer::new(fixed("ours"))
            .keep_existing()
            .header_name(header.clone());
        let mut request = get(URI);
        if let Some(existing) = existing {
            let own = HeaderValue::from_static("Bearer own");
            request.headers_mut().insert(existing, own);
        }
        send(&mut layer.layer(server.clone()), request).unwrap();
        assert_eq!(server.seen()[0].headers()[&header], expected, "{case}");
    }
}

#[test]
fn the_token_goes_under_the_header_that_was_chosen_and_no_other() {
    let custom = HeaderName::from_static("x-forwarded-authorization");
    for header in [AUTHORIZATION, PROXY_AUTHORIZATION, custom] {
        let server = Server::ok();
        let layer = BearerAuthLayer::new(fixed("ours")).header_name(header.clone());
        let mut request = get(URI);
        let own = HeaderValue::from_static("Basic b3duOm93bg==");
        for other in [AUTHORIZATION, PROXY_AUTHORIZATION] {
            request.headers_mut().insert(other, own.clone());
        }
        send(&mut layer.layer(server.clone()), request).unwrap();

        for (name, value) in server.seen()[0].headers() {
            let expected = if name == header {
                "Bearer ours"
            } else {
                "Basic b3duOm93bg=="
            };
            assert_eq!(value, expected, "{name} when the token goes under {header}");
        }
        assert!(server.seen()[0].headers().contains_key(&header), "{header}");
    }
}

#[test]
fn the_header_is_marked_sensitive_whether_or_not_the_token_was_waited_for() {
    let server = Server::ok();
    send(
        &mut BearerAuthLayer::new(fixed("ours")).layer(server.clone()),
        get(URI),
    )
    .unwrap();

    let manual = Manual::default();
    let mut service = BearerAuthLayer::new(manual.clone()).layer(server.clone());
    make_ready(&mut service);
    let mut task = Task::waiting(service.call(get(URI)));
    manual.answer(Ok(token("ours")));
    task.finish().unwrap();

    assert_eq!(server.authorizations(), ["Bearer ours", "Bearer ours"]);
    for request in server.seen() {
        assert!(request.headers()[AUTHORIZATION].is_sensitive());
        // `Debug` is what a log of the request shows.
        assert!(!format!("{request:?}").contains("ours"));
    }
}

#[test]
fn nothing_else_of_the_request_changes() {
    #[derive(Clone, Debug, PartialEq)]
    struct Extension(&'static str);

    let server = Server::ok();
    let mut request = Request::builder()
        .method(Method::PATCH)
        .uri("https://api.example.com:8443/a%20b?c=d")
        .version(Version::HTTP_2)
        .header(ACCEPT, "text/plain")
        .header(ACCEPT, "text/html")
        .header("x-trace", "4711")
        .extension(Extension("kept"))
        .body("the body".to_owned())
        .unwrap();
    send(
        &mut BearerAuthLayer::new(fixed("ours")).layer(server.clone()),
        request.clone(),
    )
    .unwrap();

    let mut sent = server.seen().remove(0);
    assert_eq!(
        sent.headers_mut().remove(AUTHORIZATION).unwrap(),
        "Bearer ours"
    );
    assert_eq!(sent.headers(), request.headers());
    assert_eq!(sent.method(), request.method());
    assert_eq!(sent.uri(), request.uri());
    assert_eq!(sent.version(), request.version());
    assert_eq!(sent.body(), request.body());
    let extension = sent.extensions_mut().remove::<Extension>();
    assert_eq!(extension, request.extensions_mut().remove::<Extension>());
    assert!(sent.extensions().is_empty(), "nothing is added");
}

/// A source of a user. Each call gives a new token. Every second token has to be waited for.
#[derive(Default)]
struct Numbered(AtomicUsize);

impl TokenSource for Numbered {
    fn token(&self) -> TokenFuture {
        let number = self.0.fetch_add(1, Ordering::SeqCst);
        let token = token(&format!("number-{number}"));
        match number % 2 {
            0 => TokenFuture::ready(Ok(token)),
            _ => TokenFuture::boxed(ready(Ok(token))),
        }
    }
}

#[test]
fn the_source_is_asked_once_for_each_request() {
    let server = Server::ok();
    let mut service = BearerAuthLayer::new(Numbered::default()).layer(server.clone());
    for _ in 0..4 {
        send(&mut service, get(URI)).unwrap();
    }
    let expected = [
        "Bearer number-0",
        "Bearer number-1",
        "Bearer number-2",
        "Bearer number-3",
    ];
    assert_eq!(server.authorizations(), expected);
}

#[test]
fn a_source_without_a_token_stops_the_request() {
    fn absent() -> SourceError {
        SourceError::new(SourceErrorKind::Absent, "no token today")
    }
    for (case, at_once) in [("at once", true), ("later", false)] {
        let source = Asking(move || {
            if at_once {
                TokenFuture::ready(Err(absent()))
            } else {
                TokenFuture::boxed(ready(Err(absent())))
            }
        });
        let server = Server::ok();
        let mut service = BearerAuthLayer::new(source).layer(server.clone());
        let error = send(&mut service, get(URI)).unwrap_err();
        let error = ours(&error);

        assert_eq!(error.kind(), ErrorKind::NoToken, "{case}");
        let reason = error.source_error().expect(case);
        assert_eq!(reason.kind(), SourceErrorKind::Absent, "{case}");
        assert_eq!(reason.to_string(), "no token today", "{case}");
        let source = error.source().and_then(|e| e.downcast_ref::<SourceError>());
        assert!(source.is_some_and(|e| e.kind() == reason.kind()), "{case}");
        assert!(server.seen().is_empty(), "{case}");
    }
}

/// An error that the test can tell from an equal error.
#[derive(Clone, Debug)]
struct OwnError(Arc<()>);

impl fmt::Display for OwnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the inner service's own error")
    }
}

impl std::error::Error for OwnError {}

/// A service that fails with `error`, of any type.
#[derive(Clone)]
struct Failing<E> {
    ready: Poll<Result<(), E>>,
    error: E,
}

impl<E: Clone> Service<Req> for Failing<E> {
    type Response = Res;
    type Error = E;
    type Future = Ready<Result<Res, E>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
        self.ready.clone()
    }

    fn call(&mut self, _: Req) -> Self::Future {
        ready(Err(self.error.clone()))
    }
}

#[test]
fn the_inner_services_error_passes_through_untouched() {
    let error = OwnError(Arc::default());
    let is_the_same = |other: &BoxError| {
        let other = other.downcast_ref::<OwnError>();
        other.is_some_and(|other| Arc::ptr_eq(&other.0, &error.0))
    };

    let mut service = BearerAuthLayer::new(fixed("ours")).layer(Failing {
        ready: Poll::Ready(Ok(())),
        error: error.clone(),
    });
    let from_call = send(&mut service, get(URI)).unwrap_err();
    assert!(is_the_same(&from_call), "{from_call:?}");

    // An error that is already boxed is not boxed again.
    let boxed = error.clone();
    let boxing = tower::service_fn(move |_: Req| {
        let boxed = boxed.clone();
        ready(Err::<Res, BoxError>(boxed.into()))
    });
    let mut service = BearerAuthLayer::new(fixed("ours")).layer(boxing);
    let from_box = send(&mut service, get(URI)).unwrap_err();
    assert!(is_the_same(&from_box), "{from_box:?}");

    let mut service = BearerAuthLayer::new(fixed("ours")).layer(Failing {
        ready: Poll::Ready(Err(error.clone())),
        error: error.clone(),
    });
    let Poll::Ready(Err(from_ready)) = service.poll_ready(&mut Context::from_waker(Waker::noop()))
    else {
        panic!("poll_ready hides the error");
    };
    assert!(is_the_same(&from_ready), "{from_ready:?}");
}

#[test]
fn the_service_is_ready_when_the_inner_service_is() {
    let error = OwnError(Arc::default());
    // The source has no token yet. Still, the service does not wait in `poll_ready`.
    let layer = BearerAuthLayer::new(RotatingToken::empty());
    let cx = &mut Context::from_waker(Waker::noop());
    let ready_when = |ready| {
        layer.layer(Failing {
            ready,
            error: error.clone(),
        })
    };
    assert!(ready_when(Poll::Pending).poll_ready(cx).is_pending());
    let ready = ready_when(Poll::Ready(Ok(()))).poll_ready(cx);
    assert!(matches!(ready, Poll::Ready(Ok(()))));
}

#[test]
fn clones_of_a_layer_and_of_its_services_share_the_source() {
    let source = Counting::new(fixed("ours"));
    let server = Server::ok();
    // The source need not be `Clone`.
    let layer = BearerAuthLayer::new(Box::new(source.clone()) as Box<dyn TokenSource>);
    let mut first = layer.clone().layer(server.clone());
    let mut second = first.clone();
    let mut third = layer.layer(server.clone());

    send(&mut first, get(URI)).unwrap();
    send(&mut second, get(URI)).unwrap();
    send(&mut third, get(URI)).unwrap();
    assert_eq!(source.asked(), 3);
    assert_eq!(server.authorizations(), ["Bearer ours"; 3]);
}

#[test]
fn a_shared_or_boxed_source_is_a_source() {
    fn sent<T: TokenSource + 'static>(source: T) -> Vec<String> {
        let server = Server::ok();
        send(
            &mut BearerAuthLayer::new(source).layer(server.clone()),
            get(URI),
        )
        .unwrap();
        server.authorizations()
    }

    let shared: Arc<dyn TokenSource> = Arc::new(fixed("shared"));
    assert_eq!(sent(shared), ["Bearer shared"]);
    let boxed: Box<dyn TokenSource> = Box::new(fixed("boxed"));
    assert_eq!(sent(boxed), ["Bearer boxed"]);
    assert_eq!(sent(Arc::new(Box::new(fixed("both")))), ["Bearer both"]);
}

#[test]
fn a_source_fn_is_called_for_each_request() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let source = source_fn(move || {
        let number = counter.fetch_add(1, Ordering::SeqCst);
        async move { BearerToken::new(format!("call-{number}")) }
    });
    let server = Server::ok();
    let mut service = BearerAuthLayer::new(source).layer(server.clone());
    send(&mut service, get(URI)).unwrap();
    send(&mut service, get(URI)).unwrap();
    assert_eq!(server.authorizations(), ["Bearer call-0", "Bearer call-1"]);
}

fn error_of<E>(error: impl Fn() -> E + Send + Sync + 'static) -> SourceError
where
    E: Into<BoxError> + Send + 'static,
{
    let source = source_fn(move || ready(Err(error())));
    Task::new(source.token()).finish().unwrap_err()
}

#[test]
fn a_source_fn_may_fail_with_an_error_of_any_type() {
    let cases = [
        ("a type", error_of(|| io::Error::other("the cause"))),
        ("a text", error_of(|| "the cause")),
        ("a box", error_of(|| BoxError::from("the cause"))),
    ];
    for (case, error) in cases {
        assert_eq!(error.kind(), SourceErrorKind::Failed, "{case}");
        assert_eq!(
            error.source().expect(case).to_string(),
            "the cause",
            "{case}"
        );
    }
    let error = error_of(|| io::Error::new(io::ErrorKind::NotFound, "gone"));
    let cause = error.source().and_then(|e| e.downcast_ref::<io::Error>());
    assert_eq!(cause.unwrap().kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_source_error_from_a_source_fn_stays_what_it_is() {
    let absent = || SourceError::new(SourceErrorKind::Absent, "nothing there");
    let cases = [
        ("plain", error_of(absent)),
        ("boxed", error_of(move || BoxError::from(absent()))),
    ];
    for (case, error) in cases {
        assert_eq!(error.kind(), SourceErrorKind::Absent, "{case}");
        assert_eq!(error.to_string(), "nothing there", "{case}");
        assert!(error.source().is_none(), "{case}");
    }
}

#[test]
fn an_expired_token_is_not_sent() {
    let expired = token("expired").expires_at(Instant::now());
    let of_fn = expired.clone();
    let sources: [(&str, Box<dyn TokenSource>); 2] = [
        ("static", Box::new(StaticToken::new(expired))),
        (
            "function",
            Box::new(source_fn(move || ready(Ok::<_, BoxError>(of_fn.clone())))),
        ),
    ];
    for (case, source) in sources {
        let server = Server::ok();
        let mut service = BearerAuthLayer::new(source).layer(server.clone());
        let error = send(&mut service, get(URI)).unwrap_err();
        let reason = ours(&error).source_error().expect(case);
        assert_eq!(reason.kind(), SourceErrorKind::Expired, "{case}");
        assert!(server.seen().is_empty(), "{case}");
    }
}

#[test]
fn a_static_token_is_sent_until_its_expiry_even_if_it_was_rejected() {
    let server = Server::ok();
    let token = token("ours").expires_in(Duration::from_secs(24 * 60 * 60));
    token.reject();
    let mut service = BearerAuthLayer::new(StaticToken::new(token.clone())).layer(server.clone());
    send(&mut service, get(URI)).unwrap();
    assert_eq!(server.authorizations(), [text(&token)]);
}

/// A request with as many headers as a map holds. `own` is one of the headers, if there is an `own`.
fn full(own: Option<&HeaderName>) -> Req {
    let mut request = get(URI);
    let headers = request.headers_mut();
    let own = own.map(|name| (name.clone(), HeaderValue::from_static("Basic b3du")));
    headers.extend(own);
    for n in 0.. {
        let name = HeaderName::try_from(format!("x-{n}")).unwrap();
        if headers
            .try_insert(name, HeaderValue::from_static(""))
            .is_err()
        {
            break;
        }
    }
    assert_eq!(headers.keys_len(), 24_576);
    request
}

fn assert_no_room(error: &BoxError) {
    assert_eq!(ours(error).kind(), ErrorKind::TooManyHeaders);
    assert_eq!(
        error.to_string(),
        "no room for the bearer token: the request has too many headers"
    );
}

#[test]
fn a_full_header_map_is_an_error_that_gives_back_what_was_reserved() {
    for name in [AUTHORIZATION, PROXY_AUTHORIZATION] {
        let server = Server::ok();
        let layer = BearerAuthLayer::new(fixed("ours")).header_name(name);
        let mut service = layer.layer(ConcurrencyLimit::new(server.clone(), 1));
        make_ready(&mut service);
        let mut response = Task::new(service.call(full(None)));
        make_ready(&mut service.get_ref().clone());
        assert_no_room(&response.finish().unwrap_err());
        assert!(server.seen().is_empty());
    }
}

#[test]
fn a_full_header_map_is_an_error_also_after_a_wait_for_the_token() {
    let (source, server) = (RotatingToken::empty(), Server::ok());
    let layer = BearerAuthLayer::new(source.clone());
    let mut service = layer.layer(ConcurrencyLimit::new(server.clone(), 1));
    make_ready(&mut service);
    let mut response = Task::waiting(service.call(full(None)));
    source.rotate(token("ours"));
    assert_no_room(&response.finish().unwrap_err());
    make_ready(&mut service);
    assert!(server.seen().is_empty());
}

#[test]
fn in_a_full_header_map_the_header_is_overwritten_if_it_is_there() {
    for name in [AUTHORIZATION, PROXY_AUTHORIZATION] {
        let server = Server::ok();
        let layer = BearerAuthLayer::new(fixed("ours")).header_name(name.clone());
        send(&mut layer.layer(server.clone()), full(Some(&name))).unwrap();
        assert_eq!(values(&server.seen()[0], name.as_str()), ["Bearer ours"]);
    }
}
