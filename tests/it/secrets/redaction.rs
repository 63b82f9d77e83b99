//! No `Debug`, no `Display` and no error ever shows a token.

use std::{
    convert::Infallible,
    error::Error as StdError,
    fmt::{self, Debug, Display},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::FutureExt;
use http::{Request, StatusCode};
use tower::{Layer, Service};
use tower_bearer::{
    BearerAuthLayer, BearerToken, CallerDriven, EnvToken, FileToken, RefreshingToken,
    RotatingToken, SourceError, SourceErrorKind, StaticToken, TokenFuture, TokenReplaced,
    TokenSource, first_of, source_fn,
};

use crate::support::{Asking, Respond, Server, get, in_child, poll, status};

const SECRET: &str = "7Fjfp0ZBr1KtDRbnfVdmIw";

fn token() -> BearerToken {
    BearerToken::new(SECRET).unwrap()
}

/// Fails if four bytes in a row of the secret are shown.
fn assert_hidden(name: &str, shown: &str) {
    let windows = SECRET.as_bytes().windows(4);
    for part in windows.map(|part| std::str::from_utf8(part).unwrap()) {
        assert!(!shown.contains(part), "{name} shows the token: {shown}");
    }
}

fn assert_debug_hidden(name: &str, value: &dyn Debug) {
    assert_hidden(name, &format!("{value:?}"));
    assert_hidden(name, &format!("{value:#?}"));
}

fn assert_chain_hidden(name: &str, error: &(dyn StdError + 'static)) {
    let mut next = Some(error);
    while let Some(error) = next {
        assert_hidden(name, &error.to_string());
        assert_debug_hidden(name, &error);
        next = error.source();
    }
}

fn request() -> Request<()> {
    Request::get("https://api.example.com/").body(()).unwrap()
}

#[test]
fn no_type_that_holds_a_token_shows_it() {
    let fetch = || async { Ok::<_, Infallible>(token()) };
    let refreshing = RefreshingToken::new(fetch);
    futures::executor::block_on(refreshing.token()).unwrap();
    let builder = RefreshingToken::builder(fetch).first_token(token());
    let rotating = RotatingToken::new(token());
    let layer = BearerAuthLayer::new(rotating.clone()).retry_rejected();
    let shared: Arc<dyn TokenSource> = Arc::new(rotating.clone());
    let values: [(&str, &dyn Debug); 14] = [
        ("BearerToken", &token()),
        ("BearerToken", &token().expires_in(Duration::from_secs(60))),
        ("StaticToken", &StaticToken::new(token())),
        ("RotatingToken", &rotating),
        ("RefreshingToken", &refreshing),
        ("RefreshingTokenBuilder", &builder),
        ("SourceFn", &source_fn(fetch)),
        ("Chain", &first_of(StaticToken::new(token()))),
        ("TokenFuture", &TokenFuture::from(token())),
        (
            "TokenFuture",
            &TokenFuture::boxed(std::future::ready(Ok(token()))),
        ),
        ("BearerAuthLayer", &layer),
        ("BearerAuth", &layer.layer(Respond)),
        ("BearerAuth", &BearerAuthLayer::new(shared).layer(Respond)),
        ("CallerDriven", &CallerDriven::new()),
    ];
    for (name, value) in values {
        assert_debug_hidden(name, value);
    }
}

/// Tests each setting, since a setting may hold a source or a token.
#[test]
fn no_builder_and_no_source_under_other_settings_shows_it() {
    let fetch = |_| async { Ok::<_, Infallible>(token()) };
    let renewing = RefreshingToken::renewing_builder(fetch)
        .first_token(token().expires_in(Duration::from_secs(60)))
        .runtime(CallerDriven::new());
    assert_debug_hidden("RefreshingTokenBuilder", &renewing);
    let renewing = renewing.build();
    assert_debug_hidden("RefreshingToken", &renewing);
    let layer = BearerAuthLayer::new(renewing)
        .for_origin("https://api.example.com")
        .unwrap()
        .keep_existing()
        .grpc_status()
        .header_name(http::HeaderName::from_static("proxy-authorization"));
    assert_debug_hidden("BearerAuthLayer", &layer);
    assert_debug_hidden("BearerAuth", &layer.layer(Respond));
    let boxed: Box<dyn TokenSource> = Box::new(token());
    assert_debug_hidden("BearerAuthLayer", &BearerAuthLayer::new(boxed));
}

/// Tests what `Debug` and `Display` show instead, since users read it in logs.
#[test]
fn what_is_shown_is_what_a_user_looks_for() {
    let ours = token();
    assert_eq!(
        format!("{ours:?}"),
        "BearerToken { token: [redacted], expiry: None, rejected: false }"
    );
    ours.reject();
    assert!(format!("{ours:?}").ends_with("rejected: true }"));
    let rotating = format!("{:?}", RotatingToken::new(ours.clone()));
    assert!(
        rotating.starts_with("RotatingToken { current: Some(BearerToken {"),
        "{rotating}"
    );
    let shown = |future: &TokenFuture| format!("{future:?}");
    assert_eq!(shown(&ours.into()), "TokenFuture(a token)");
    let waits = TokenFuture::boxed(std::future::pending());
    assert_eq!(shown(&waits), "TokenFuture(pending)");
    let fetch = || async { Ok::<_, Infallible>(token()) };
    assert_eq!(format!("{:?}", source_fn(fetch)), "SourceFn { .. }");
    let builder = RefreshingToken::builder(fetch).runtime(CallerDriven::new());
    let shown = format!("{builder:?}");
    assert!(
        shown.starts_with("RefreshingTokenBuilder {") && shown.contains("CallerDriven"),
        "{shown}"
    );
    let refreshing = builder.build();
    futures::executor::block_on(refreshing.token()).unwrap();
    let shown = format!("{refreshing:?}");
    assert!(
        shown.starts_with("RefreshingToken {") && shown.contains("BearerToken {"),
        "{shown}"
    );
    assert_eq!(format!("{:?}", CallerDriven::new()), "CallerDriven");
    #[cfg(feature = "tokio")]
    assert_eq!(
        format!("{:?}", tower_bearer::TokioRuntime::new()),
        "TokioRuntime"
    );
}

#[test]
fn a_layer_a_service_and_a_chain_show_their_settings() {
    let layer = BearerAuthLayer::new(StaticToken::new(token()))
        .header_name(http::HeaderName::from_static("x-key"))
        .rejected_when(|_, _, _| false);
    let service = layer.clone().layer(Respond);
    for shown in [format!("{layer:?}"), format!("{service:?}")] {
        assert!(shown.starts_with("BearerAuth"), "{shown}");
        assert!(shown.contains(r#"header: "x-key""#), "{shown}");
        assert!(
            shown.contains("rejected_when: Some(RejectedWhen)"),
            "{shown}"
        );
    }
    assert!(format!("{service:?}").contains("inner: Respond"));
    let chain = first_of(StaticToken::new(token())).or(StaticToken::new(token()));
    assert_eq!(format!("{chain:?}"), "Chain { sources: 2, .. }");
}

#[test]
fn the_status_of_a_source_does_not_show_it() {
    let fails = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&fails);
    let source = RefreshingToken::builder(move || {
        let fails = told.load(Ordering::SeqCst);
        async move {
            if fails {
                return Err(WithBody(SECRET.into()));
            }
            Ok(token().expires_in(Duration::from_secs(3600)))
        }
    })
    .runtime(CallerDriven::new())
    .build();
    assert_debug_hidden("SourceStatus", &source.status());
    futures::executor::block_on(source.token()).unwrap();
    assert!(source.status().expiry().is_some());
    assert_debug_hidden("SourceStatus", &source.status());
    fails.store(true, Ordering::SeqCst);
    futures::executor::block_on(source.refresh_now()).unwrap_err();
    let status = source.status();
    assert_eq!(status.failures(), 1);
    assert_debug_hidden("SourceStatus", &status);
    assert_hidden("SourceError", &status.last_error().unwrap().to_string());
    assert_debug_hidden("RefreshingToken", &source);
}

/// A server may repeat the token in its challenge.
#[test]
fn what_a_server_said_of_a_token_does_not_show_it() {
    let ours = token();
    let other = BearerToken::new("other").unwrap();
    let tokens = AtomicBool::new(false);
    let source = {
        let (ours, other) = (ours.clone(), other.clone());
        move || {
            let is_later = tokens.swap(true, Ordering::SeqCst);
            let token = if is_later { &other } else { &ours };
            token.clone().into()
        }
    };
    let layer = BearerAuthLayer::new(Asking(source)).retry_rejected();
    let mut service = layer.layer(Server::answering(|_| {
        let mut response = status(StatusCode::UNAUTHORIZED);
        let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{SECRET}\"");
        let challenge = challenge.parse().unwrap();
        response.headers_mut().insert("www-authenticate", challenge);
        response
    }));
    let response = service
        .call(get("https://api.example.com/"))
        .now_or_never()
        .unwrap()
        .unwrap();
    let replaced = response.extensions().get::<TokenReplaced>().unwrap();
    assert_debug_hidden("TokenReplaced", replaced);
    let rejection = ours.rejection().expect("the token is rejected");
    assert_eq!(rejection.challenges().len(), 1);
    assert_debug_hidden("Rejection", &rejection);
    assert_eq!(
        format!("{rejection:?}"),
        "Rejection { status: 401, challenges: 1 }"
    );
    assert_debug_hidden("BearerToken", &ours);
}

#[test]
fn a_response_future_does_not_show_it_in_any_state() {
    let source = RotatingToken::empty();
    let mut service = BearerAuthLayer::new(source.clone()).layer(Respond);
    let mut waiting = service.call(request());
    assert!(poll(&mut waiting).is_pending());
    assert_debug_hidden("waiting for a token", &waiting);
    source.rotate(token());
    let mut ready = service.call(request());
    assert_debug_hidden("waiting for the response", &ready);
    assert!(poll(&mut ready).is_ready() && poll(&mut waiting).is_ready());
    assert_debug_hidden("finished", &ready);
    let refused = service.call(Request::get("http://api.example.com/").body(()).unwrap());
    assert_debug_hidden("refused", &refused);
}

#[test]
fn a_response_future_that_holds_a_refusal_back_does_not_show_it() {
    let asked = AtomicBool::new(false);
    let once = move || {
        if asked.swap(true, Ordering::Relaxed) {
            return TokenFuture::boxed(std::future::pending());
        }
        token().into()
    };
    let layer = BearerAuthLayer::new(Asking(once)).retry_rejected();
    let mut service = layer.layer(Server::answering(|request| {
        let mut response = status(StatusCode::UNAUTHORIZED);
        *response.headers_mut() = request.headers().clone();
        response
    }));
    let mut held_back = service.call(get("https://api.example.com/"));
    assert!(poll(&mut held_back).is_pending());
    assert_eq!(
        format!("{held_back:?}"),
        "ResponseFuture(waiting for another token)"
    );
}

#[test]
fn a_token_future_does_not_show_it_in_any_state() {
    let error = SourceError::with_source(
        SourceErrorKind::Failed,
        "it failed",
        WithBody(SECRET.into()),
    );
    let mut failed = TokenFuture::ready(Err(error));
    assert_debug_hidden("an error", &failed);
    assert!(poll(&mut failed).is_ready());
    assert_debug_hidden("taken", &failed);
    let taken = poll(&mut failed).map(Result::unwrap_err);
    assert_debug_hidden("taken twice", &taken);
}

#[test]
fn a_secret_in_an_origin_is_not_shown() {
    let layer = BearerAuthLayer::new(StaticToken::new(token()));
    for origin in [
        format!("https://user:{SECRET}@api.example.com"),
        format!("https://api.example.com/{SECRET}"),
        format!("https://api.example.com?token={SECRET}"),
        format!("https://api.example.com#{SECRET}"),
        format!("{SECRET}://api.example.com"),
        format!("https://api.example.com:{SECRET}"),
        format!("https://*.{SECRET}"),
        format!("https://{SECRET} "),
        SECRET.into(),
    ] {
        let error = layer.clone().for_origin(&origin).expect_err(&origin);
        assert_chain_hidden("InvalidOrigin", &error);
    }
}

#[test]
fn a_request_that_carries_it_does_not_show_it() {
    let mut service = BearerAuthLayer::new(StaticToken::new(token())).layer(tower::service_fn(
        |request: Request<()>| async move {
            assert!(request.headers().contains_key("authorization"));
            assert_debug_hidden("Request", &request);
            Ok::<_, Infallible>(http::Response::new(()))
        },
    ));
    service.call(request()).now_or_never().unwrap().unwrap();
}

#[test]
fn an_environment_variable_is_not_shown() {
    let bad = format!("{SECRET} {SECRET}");
    let mut latin = SECRET.as_bytes().to_vec();
    latin.push(0xe9);
    let variables = [
        ("GOOD", SECRET.as_ref()),
        ("BAD", bad.as_ref()),
        #[cfg(unix)]
        (
            "LATIN",
            std::os::unix::ffi::OsStrExt::from_bytes(&latin[..]),
        ),
    ];
    in_child(
        "secrets::redaction::an_environment_variable_is_not_shown",
        &variables,
        || {
            assert_debug_hidden("EnvToken", &EnvToken::new("GOOD").unwrap());
            assert_chain_hidden("EnvToken", &EnvToken::new("BAD").unwrap_err());
            assert_chain_hidden("EnvToken", &EnvToken::nonstandard("BAD").unwrap_err());
            assert_chain_hidden("EnvToken", &EnvToken::new("LATIN").unwrap_err());
        },
    );
}

#[test]
fn a_file_is_not_shown() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("token");
    std::fs::write(&path, SECRET).unwrap();
    let source = FileToken::new(&path).unwrap();
    assert_debug_hidden("FileToken", &source);
    let shown = format!("{source:?}");
    let names = path.to_str().unwrap();
    assert!(
        shown.contains(names) && shown.contains("BearerToken {"),
        "{shown}"
    );
    assert_debug_hidden("FileTokenBuilder", &FileToken::builder(&path));
    std::fs::write(&path, format!("{SECRET}\0")).unwrap();
    assert_chain_hidden("FileToken", &FileToken::new(&path).unwrap_err());
}

#[test]
fn the_error_of_an_invalid_token_does_not_show_it() {
    for ending in ["\n", " x", "\u{e9}", "\0", ":", "=a"] {
        let error = BearerToken::new(format!("{SECRET}{ending}")).unwrap_err();
        assert_chain_hidden("InvalidToken", &error);
        assert_chain_hidden("SourceError", &SourceError::from(error));
    }
    let long = SECRET.repeat(4_000);
    assert_chain_hidden("InvalidToken", &BearerToken::nonstandard(long).unwrap_err());
}

/// Like the error of an HTTP client: `Debug` shows the response, and `Display` does not.
struct WithBody(String);

impl Debug for WithBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WithBody({})", self.0)
    }
}

impl Display for WithBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the response could not be parsed")
    }
}

impl StdError for WithBody {}

#[test]
fn a_response_body_in_the_error_of_a_fetch_is_not_shown() {
    let fetch = || async { Err::<BearerToken, _>(WithBody(SECRET.into())) };
    let refreshing = RefreshingToken::builder(fetch)
        .runtime(CallerDriven::new())
        .build();
    let errors = [
        futures::executor::block_on(source_fn(fetch).token()).unwrap_err(),
        futures::executor::block_on(refreshing.token()).unwrap_err(),
        futures::executor::block_on(refreshing.refresh_now()).unwrap_err(),
        SourceError::with_source(
            SourceErrorKind::Failed,
            "it failed",
            WithBody(SECRET.into()),
        ),
    ];
    for error in errors {
        assert_debug_hidden("SourceError", &error);
        assert_hidden("SourceError", &error.to_string());
        assert!(error.source().is_some(), "the source is kept");
        let source = source_fn(move || {
            let error = error.clone();
            async { Err::<BearerToken, _>(error) }
        });
        let mut service = BearerAuthLayer::new(source).layer(Respond);
        let error = futures::executor::block_on(service.call(request())).unwrap_err();
        assert_debug_hidden("Error", &error);
        assert_hidden("Error", &error.to_string());
    }
}

#[test]
fn a_panic_in_a_fetch_does_not_put_its_message_in_the_error() {
    let fetch = || async {
        if true {
            std::panic::resume_unwind(Box::new(format!("bad response: {SECRET}")));
        }
        Ok::<_, Infallible>(token())
    };
    let source = RefreshingToken::builder(fetch)
        .runtime(CallerDriven::new())
        .build();
    let error = futures::executor::block_on(source.token()).unwrap_err();
    assert_chain_hidden("SourceError", &error);
}

#[test]
fn a_refusal_shows_the_host_and_nothing_else_of_the_uri() {
    let mut service = BearerAuthLayer::new(StaticToken::new(token())).layer(Respond);
    let uri = format!("http://user:{SECRET}@api.example.com/{SECRET}?token={SECRET}");
    let request = Request::get(uri).body(()).unwrap();
    let error = service.call(request).now_or_never().unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        "refused to send a bearer token over plaintext http to api.example.com: use https"
    );
    assert_chain_hidden("Error", &*error);
}
