//! The events of the feature `tracing`: each event is recorded, and no event has a secret.

use std::{convert::Infallible, fmt};

use http::{HeaderValue, Response, StatusCode};
use tower::Layer;
use tower_bearer::{
    BearerAuthLayer, BearerToken, FileToken, RefreshingToken, Runtime, SourceError,
    SourceErrorKind, StaticToken, TokenFuture, TokenSource, UseToken,
};
use tracing::{Event, Metadata, Subscriber, span};

use crate::{
    sources::refreshing::{Endpoint, HOUR, MINUTE, SECOND, Script, one_hour},
    support::{
        Asking, Server, Task,
        events::{Log, NOT_REPLACED, REJECTED, REPLACED},
        get, make_ready, send, status, token,
        virtual_time::VirtualTime,
    },
};

fn fetch(endpoint: &Endpoint, source: &impl TokenSource) {
    drop(endpoint.time.block_on(source.token()));
}

const STARTED: &str = "DEBUG tower_bearer message=token fetch started";
const WITHOUT_TOKEN: &str =
    "DEBUG tower_bearer message=a request goes out without the token reason=";

#[test]
fn a_fetch_that_succeeds_tells_that_it_started_and_how_long_the_token_lives() {
    for (lifetime, shown) in [(Some(HOUR), "Some(3600s)"), (None, "None")] {
        let events = Log::of(|| {
            let endpoint = Endpoint::new(one_hour);
            endpoint.script([Script::Token(lifetime)]);
            fetch(&endpoint, &endpoint.source());
        });
        let succeeded =
            format!("DEBUG tower_bearer message=token fetch succeeded lifetime={shown}");
        assert_eq!(events, [STARTED, &succeeded]);
    }
}

#[test]
fn a_fetched_token_that_has_already_expired_is_a_warning() {
    let events = Log::of(|| {
        let endpoint = Endpoint::new(one_hour);
        endpoint.script([Script::Token(Some(std::time::Duration::ZERO))]);
        let source = endpoint.source();
        endpoint.time.block_on(source.token()).unwrap();
    });
    let expired = "WARN tower_bearer message=the fetched token has already expired by this machine's clock, \
                   and is used all the same";
    assert_eq!(events, [STARTED, expired]);
}

#[test]
fn a_fetch_that_fails_tells_the_kind_of_failure() {
    let rejected = token("rejected");
    rejected.reject();
    for (script, reason, text) in [
        (
            Script::Fail,
            "Failed",
            "the token could not be fetched: the endpoint is down",
        ),
        (
            Script::Panic,
            "Panicked",
            "the function that fetches the token panicked",
        ),
        (
            Script::Same(rejected),
            "Rejected",
            "a server has already rejected the token that was fetched",
        ),
    ] {
        let events = Log::of(|| {
            let endpoint = Endpoint::new(one_hour);
            endpoint.script([script]);
            fetch(&endpoint, &endpoint.source());
        });
        let failed = "WARN tower_bearer message=token fetch failed";
        let failed = format!("{failed} reason={reason} error={text}");
        assert_eq!(events, [STARTED, &failed]);
    }
}

#[test]
fn a_fetch_that_takes_too_long_tells_so() {
    let events = Log::of(|| {
        let endpoint = Endpoint::new(|| Script::Hang);
        let source = endpoint.source();
        let _waiting = Task::waiting(source.token());
        endpoint.time.advance(30 * SECOND);
    });
    let failed = "WARN tower_bearer message=token fetch failed reason=TimedOut error=";
    assert_eq!(events[0], STARTED);
    assert!(events[1].starts_with(failed), "{events:?}");
}

#[test]
fn a_fetch_that_a_waiter_ends_tells_so_once() {
    let events = Log::of(|| {
        let endpoint = Endpoint::new(|| Script::Hang);
        let source = endpoint.source();
        let mut waiting = Task::waiting(source.token());
        endpoint.time.run();
        // The timer of the waiter fires first, and the timer of the fetch after it.
        endpoint.time.stall(30 * SECOND);
        waiting.finish().unwrap_err();
        endpoint.time.run();
        endpoint.time.advance(SECOND);
        assert_eq!(endpoint.time.tasks(), 0);
    });
    assert_eq!(events.len(), 2, "{events:?}");
}

#[test]
fn a_request_in_the_back_off_tells_why_and_how_long_it_is() {
    let events = Log::of(|| {
        let endpoint = Endpoint::new(|| Script::Fail);
        let source = endpoint.source();
        fetch(&endpoint, &source);
        fetch(&endpoint, &source);
    });
    let [_, _, backing_off] = &events[..] else {
        panic!("{events:?}");
    };
    let expected =
        "DEBUG tower_bearer message=no token, backing off reason=Failed retry_after=Some(";
    assert!(backing_off.starts_with(expected), "{backing_off}");
    assert!(backing_off.ends_with("ms)"), "{backing_off}");
}

#[test]
fn a_refresh_in_the_background_tells_as_much() {
    let events = Log::of(|| {
        let endpoint = Endpoint::new(one_hour);
        let source = endpoint.source();
        fetch(&endpoint, &source);
        endpoint.otherwise(|| Script::Fail);
        endpoint.time.advance(HOUR - 5 * MINUTE);
        fetch(&endpoint, &source);
        endpoint.time.run();
    });
    let failed = "WARN tower_bearer message=token fetch failed reason=Failed error=";
    assert_eq!(events[2], STARTED);
    assert!(events[3].starts_with(failed), "{events:?}");
}

#[test]
fn a_token_that_a_server_rejects_is_told_and_no_other() {
    for (challenge, told) in [
        (r#"Bearer error="invalid_token""#, &[REJECTED][..]),
        (r#"Bearer error="insufficient_scope""#, &[]),
    ] {
        let events = Log::of(|| {
            let server = Server::answering(move |_| {
                let mut response = status(StatusCode::UNAUTHORIZED);
                let value = HeaderValue::from_static(challenge);
                response.headers_mut().insert("www-authenticate", value);
                response
            });
            let layer = BearerAuthLayer::new(StaticToken::new(token("abc")));
            send(&mut layer.layer(server), get("https://api.example.com/")).unwrap();
        });
        assert_eq!(events, told);
    }
}

#[cfg(feature = "retry")]
#[test]
fn a_rejected_token_whose_source_has_another_token_is_told() {
    use crate::support::retrying::{old_then_new, takes};

    for (source, told) in [
        (
            Box::new(old_then_new()) as Box<dyn TokenSource>,
            &[REJECTED, REPLACED][..],
        ),
        (Box::new(token("old")), &[REJECTED, NOT_REPLACED]),
    ] {
        let events = Log::of(|| {
            let layer = BearerAuthLayer::new(source).retry_rejected();
            send(
                &mut layer.layer(takes("new")),
                get("https://api.example.com/"),
            )
            .unwrap();
        });
        assert_eq!(events, told);
    }
}

#[test]
fn a_refusal_to_send_in_plaintext_tells_the_scheme_and_the_host() {
    for (uri, shown) in [
        (
            "http://api.example.com/path?query",
            "scheme=\"http\" host=\"api.example.com\"",
        ),
        (
            "ws://[2001:db8::1]:80/",
            "scheme=\"ws\" host=\"[2001:db8::1]\"",
        ),
    ] {
        let events = Log::of(|| {
            let layer = BearerAuthLayer::new(StaticToken::new(token("abc")));
            send(&mut layer.layer(Server::ok()), get(uri)).unwrap_err();
        });
        let expected = "WARN tower_bearer message=refused to send the token in plaintext";
        assert_eq!(events, [format!("{expected} {shown}")]);
    }
}

#[test]
fn a_request_that_goes_without_the_token_tells_why() {
    let with = |chosen: Option<UseToken>| {
        let mut request = get("https://api.example.com/");
        let own = HeaderValue::from_static("Basic dTpw");
        request.headers_mut().insert("authorization", own);
        if let Some(chosen) = chosen {
            request.extensions_mut().insert(chosen);
        }
        request
    };
    for (request, reason) in [
        (with(None), "KeepExisting"),
        (with(Some(UseToken::none())), "UseToken"),
        (get("https://api.example.com/"), "Absent"),
    ] {
        let events = Log::of(|| {
            let absent =
                || TokenFuture::ready(Err(SourceError::new(SourceErrorKind::Absent, "none")));
            let layer = BearerAuthLayer::new(Asking(absent))
                .keep_existing()
                .anonymous_if_absent();
            send(&mut layer.layer(Server::ok()), request).unwrap();
        });
        let passed = "DEBUG tower_bearer message=a request goes out without the token";
        assert_eq!(events, [format!("{passed} reason={reason}")]);
    }
}

#[test]
fn a_request_that_has_to_wait_for_its_token_tells_so() {
    let events = Log::of(|| {
        let endpoint = Endpoint::new(one_hour);
        let mut service = BearerAuthLayer::new(endpoint.source()).layer(Server::ok());
        make_ready(&mut service);
        let _waiting = tower::Service::call(&mut service, get("https://api.example.com/"));
    });
    let waits = "DEBUG tower_bearer message=a request waits for a token";
    assert_eq!(events, [waits]);
}

#[test]
fn a_request_whose_token_is_at_hand_tells_nothing() {
    let endpoint = Endpoint::new(one_hour);
    let source = endpoint.source();
    fetch(&endpoint, &source);
    let events = Log::of(|| {
        let mut service = BearerAuthLayer::new(source.clone()).layer(Server::ok());
        for _ in 0..3 {
            send(&mut service, get("https://api.example.com/")).unwrap();
        }
    });
    assert_eq!(events, [""; 0]);
}

#[test]
fn a_request_outside_every_origin_tells_why() {
    let cases = [
        (
            "https://api.example.com:8443/",
            "OtherPort",
            "scheme=https host=api.example.com port=8443",
        ),
        (
            "http://api.example.com/",
            "OtherScheme",
            "scheme=http host=api.example.com",
        ),
        (
            "http://localhost:8443/",
            "OtherScheme",
            "scheme=http host=localhost port=8443",
        ),
        (
            "https://127.0.0.1:8443/",
            "OtherLoopback",
            "scheme=https host=127.0.0.1 port=8443",
        ),
        (
            "https://api.example.com./",
            "OtherHost",
            "scheme=https host=api.example.com.",
        ),
        (
            "https://127.0.0.1.evil.example/",
            "OtherHost",
            "scheme=https host=127.0.0.1.evil.example",
        ),
        ("/pkg.Service/Method", "NoHost", ""),
        (
            "api.example.com:443",
            "NoScheme",
            "host=api.example.com port=443",
        ),
    ];
    for (uri, reason, fields) in cases {
        let events = Log::of(|| {
            let layer = BearerAuthLayer::new(StaticToken::new(token("ours")));
            let layer = layer.for_origin("https://api.example.com").unwrap();
            let layer = layer.for_origin("https://localhost:8443").unwrap();
            send(&mut layer.layer(Server::ok()), get(uri)).unwrap();
        });
        assert_eq!(
            events
                .iter()
                .map(|event| event.replace('"', ""))
                .collect::<Vec<_>>(),
            [format!("{WITHOUT_TOKEN}{reason} {fields}").trim_end()],
            "{uri}"
        );
    }
    // The reason is `OtherLoopback` only if the origin is another name of this machine.
    let events = Log::of(|| {
        let layer = BearerAuthLayer::new(StaticToken::new(token("ours")));
        let layer = layer.for_origin("https://api.example.com").unwrap();
        send(&mut layer.layer(Server::ok()), get("http://localhost/")).unwrap();
    });
    assert!(events[0].contains("OtherHost"), "{events:?}");
}

/// A token, a response body and a password. They share no text, so that the test can tell which one leaks.
const SECRETS: [&str; 3] = [
    "7Fjfp0ZBr1KtDRbnfVdmIw",
    "hunter2-hunter2-hunter2",
    "pa55w0rd-pa55w0rd",
];

/// Like the error of an HTTP client: `Debug` shows everything, and `Display` shows only what happened.
#[derive(Debug)]
#[expect(dead_code, reason = "for `Debug`")]
struct Talkative([&'static str; 3]);

impl fmt::Display for Talkative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("400 Bad Request")
    }
}

impl std::error::Error for Talkative {}

fn fails() {
    let time = VirtualTime::new();
    let source = RefreshingToken::builder(|| async { Err::<BearerToken, _>(Talkative(SECRETS)) })
        .runtime(time.clone())
        .build();
    for _ in 0..3 {
        time.block_on(source.token()).unwrap_err();
    }
}

fn panics() {
    let time = VirtualTime::new();
    let fetch = || async {
        if true {
            std::panic::resume_unwind(Box::new(SECRETS.concat()));
        }
        Ok::<BearerToken, Infallible>(token("unreachable"))
    };
    let source = RefreshingToken::builder(fetch)
        .runtime(time.clone())
        .build();
    time.block_on(source.token()).unwrap_err();
}

/// Fetches a token, sends it to a server that rejects it and quotes it in the response, and fetches another
/// token.
fn is_rejected() {
    let time = VirtualTime::new();
    let clock = time.clone();
    let fetch = move || {
        let at = clock.now() + HOUR;
        async move { Ok::<_, Infallible>(token(SECRETS[0]).expires_at(at)) }
    };
    let source = RefreshingToken::builder(fetch)
        .runtime(time.clone())
        .build();
    time.block_on(source.token()).unwrap();
    let server = Server::answering(|request| {
        let [token, body, _] = SECRETS;
        assert_eq!(
            request.headers()["authorization"],
            format!("Bearer {token}")
        );
        let challenge = format!(r#"Bearer error="invalid_token", error_description="{body}""#);
        Response::builder()
            .status(StatusCode::UNAUTHORIZED)
            .header("www-authenticate", challenge)
            .body(format!("{body}: {token}"))
            .unwrap()
    });
    let mut service = BearerAuthLayer::new(source).layer(server);
    let uri = format!(
        "https://me:{}@api.example.com/?token={}",
        SECRETS[2], SECRETS[0]
    );
    send(&mut service, get(&uri)).unwrap();
    make_ready(&mut service);
    let again = tower::Service::call(&mut service, get(&uri));
    time.block_on(again).unwrap();
}

fn is_refused() {
    let [token_text, _, password] = SECRETS;
    let layer = BearerAuthLayer::new(StaticToken::new(token(token_text)));
    let mut service = layer.clone().layer(Server::ok());
    let origin = "https://api.example.com";
    let mut for_origin = layer.for_origin(origin).unwrap().layer(Server::ok());
    for authority in [
        format!("me:{password}@api.example.com"),
        format!("{password}@api.example.com:8080"),
        format!("me:{password}@[2001:db8::1]:8080"),
        format!("me:x@{password}@api.example.com"),
        format!("api.example.com:{password}"),
    ] {
        let uri = format!("http://{authority}/{token_text}?token={token_text}");
        // Some of these texts are not URIs.
        if let Ok(uri) = uri.parse::<http::Uri>() {
            let mut request = get("/");
            *request.uri_mut() = uri;
            send(&mut for_origin, request.clone()).unwrap();
            send(&mut service, request).unwrap_err();
        }
    }
}

/// Reads a file with a token, and again when the file does not hold a token any more.
fn reads_a_file() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("token");
    let time = VirtualTime::caller_driven();
    std::fs::write(&path, SECRETS[0]).unwrap();
    let source = FileToken::builder(&path)
        .runtime(time.clone())
        .build()
        .unwrap();
    for text in [
        SECRETS[0].to_owned(),
        format!("{} {}", SECRETS[0], SECRETS[1]),
    ] {
        std::fs::write(&path, text).unwrap();
        time.advance(MINUTE);
        futures::executor::block_on(source.token()).unwrap();
    }
}

#[test]
fn no_event_shows_a_token_a_response_body_or_a_password_in_a_url() {
    let events = Log::of(|| {
        fails();
        panics();
        is_rejected();
        is_refused();
        reads_a_file();
    });
    for expected in [
        "token fetch started",
        "token fetch succeeded",
        "reason=Failed error=the token could not be fetched: 400 Bad Request",
        "token fetch failed reason=Panicked",
        "token fetch failed reason=Invalid",
        "no token, backing off",
        "a server rejected the token",
        "refused to send the token in plaintext",
        "a request goes out without the token",
    ] {
        assert!(
            events.iter().any(|event| event.contains(expected)),
            "{expected}: {events:#?}"
        );
    }
    for event in &events {
        for part in SECRETS
            .iter()
            .flat_map(|secret| secret.as_bytes().windows(5))
        {
            let part = std::str::from_utf8(part).unwrap();
            assert!(!event.contains(part), "{part}: {event}");
        }
    }
}

/// A subscriber with a bug.
struct Panics;

impl Subscriber for Panics {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "tower_bearer"
    }

    fn event(&self, _: &Event<'_>) {
        panic!("the subscriber has a bug");
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[test]
fn a_subscriber_that_panics_costs_no_waiter_its_token() {
    tracing::subscriber::with_default(Panics, || {
        let endpoint = Endpoint::new(one_hour);
        let source = endpoint.source();
        let waiters = (0..10).map(|_| source.token());
        let results = endpoint.time.block_on(futures::future::join_all(waiters));
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        endpoint.script([Script::Fail]);
        endpoint.time.block_on(source.refresh_now()).unwrap_err();
        source.invalidate();
        endpoint.time.advance(std::time::Duration::from_secs(60));
        endpoint.time.block_on(source.token()).unwrap();
    });
}
