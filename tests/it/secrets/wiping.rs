//! No block of memory that this crate frees still holds a token.

use std::{ffi::OsStr, future::ready, mem};

use futures::future::FutureExt;
use http::Request;
use secrecy::{SecretString, zeroize::Zeroizing};
use tower::{Layer, Service};
use tower_bearer::{
    BearerAuthLayer, BearerToken, EnvToken, FileToken, InvalidToken, RefreshingToken,
    RotatingToken, StaticToken, TokenFuture, TokenSource, source_fn,
};
#[cfg(feature = "retry")]
use {
    http::{HeaderValue, Response, StatusCode},
    std::{convert::Infallible, sync::Arc},
    tower::{ServiceExt, retry::RetryLayer, service_fn},
    tower_bearer::{RetryRejected, TokenReplaced},
};

use crate::support::{
    Respond,
    allocator::{MARK, found, kept_by},
    in_child, poll,
    virtual_time::VirtualTime,
};

/// A text that the scan finds as the secret of `owner`.
///
/// The buffer is large enough that it never moves, and it is wiped unless the test gives it away. So the
/// test itself leaves no copy behind.
fn secret(owner: char) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(256));
    text.push_str(MARK);
    text.push(owner);
    text.push_str("-with-a-tail-of-some-length==");
    text
}

/// Gives the buffer away, with its spare capacity.
fn take(mut secret: Zeroizing<String>) -> String {
    mem::take(&mut *secret)
}

#[test]
fn the_scan_finds_a_string_that_is_freed_as_it_is() {
    drop(take(secret('a')));
    assert_eq!(found('a'), 1);
}

#[test]
fn the_scan_finds_what_a_growing_buffer_leaves_behind() {
    let mut text = Zeroizing::new(take(secret('b')).into_boxed_str().into_string());
    assert_eq!(found('b'), 1, "shrunk to fit");
    text.push('x');
    assert_eq!(found('b'), 2, "grown");
    drop(text);
    assert_eq!(found('b'), 2, "wiped");
}

#[test]
fn the_scan_finds_what_another_thread_frees() {
    let text = take(secret('c'));
    std::thread::spawn(move || drop(text)).join().unwrap();
    assert_eq!(found('c'), 1);
}

#[test]
fn a_token_and_the_text_it_is_made_from_are_wiped() {
    let text = secret('d');
    let tokens = [
        BearerToken::new(text.as_str()).unwrap(),
        BearerToken::new(&*text).unwrap(),
        BearerToken::new(take(secret('d'))).unwrap(),
        BearerToken::new(secret('d')).unwrap(),
        BearerToken::nonstandard(take(secret('d'))).unwrap(),
        BearerToken::new(exact(&text).into_boxed_str()).unwrap(),
        BearerToken::new(SecretString::from(exact(&text))).unwrap(),
    ];
    let clones = tokens.clone();
    drop(tokens);
    drop(clones);
    drop(text);
    assert_eq!(found('d'), 0);
}

/// A copy without spare capacity, so that it becomes a box without being moved.
fn exact(text: &str) -> String {
    text.to_owned()
}

#[test]
fn spare_capacity_is_wiped_too() {
    let mut text = take(secret('e'));
    text.push_str(MARK);
    text.push('e');
    // The text that is cut off stays in the buffer.
    text.truncate(MARK.len() + 8);
    drop(BearerToken::new(text).unwrap());
    let mut text = take(secret('e'));
    text.truncate(0);
    assert!(BearerToken::new(text).is_err());
    assert_eq!(found('e'), 0);
}

#[test]
fn a_text_that_is_no_token_is_wiped() {
    for ending in ["\n", " ", "\u{e9}", "\0"] {
        let invalid = || {
            let mut text = secret('f');
            text.push_str(ending);
            text
        };
        assert!(BearerToken::new(take(invalid())).is_err());
        assert!(BearerToken::nonstandard(take(invalid())).is_err());
        assert!(BearerToken::new(invalid()).is_err());
        assert!(BearerToken::new(exact(&invalid()).into_boxed_str()).is_err());
        assert!(BearerToken::new(SecretString::from(exact(&invalid()))).is_err());
    }
    let long = Zeroizing::new(secret('f').repeat(2_000));
    assert!(BearerToken::new(take(long)).is_err());
    assert_eq!(found('f'), 0);
}

#[test]
fn a_header_value_keeps_the_bytes_and_wipes_them_when_it_is_the_last() {
    let text = secret('g');
    let source = StaticToken::new(BearerToken::new(take(secret('g'))).unwrap());
    let first = block(&source).header_value();
    let second = first.clone();
    drop(source);
    drop(first);
    assert_eq!(&second.as_bytes()["Bearer ".len()..], text.as_bytes());
    drop(second);
    assert_eq!(found('g'), 0);
}

#[test]
fn another_expiry_does_not_copy_the_token() {
    let token = BearerToken::new(take(secret('h'))).unwrap();
    let other = token.clone().expires_in(std::time::Duration::from_secs(60));
    let (value, of_other) = (token.header_value(), other.header_value());
    assert_eq!(value.as_bytes().as_ptr(), of_other.as_bytes().as_ptr());
    drop((token, other, value, of_other));
    assert_eq!(found('h'), 0);
}

#[test]
fn a_request_from_end_to_end_leaves_nothing() {
    let source = RotatingToken::new(BearerToken::new(take(secret('i'))).unwrap());
    let layer = BearerAuthLayer::new(source.clone());
    let mut service = layer.layer(Respond);
    let request = || Request::get("https://api.example.com/").body(()).unwrap();
    service.call(request()).now_or_never().unwrap().unwrap();
    // Clone the headers, as a retry or a log record does.
    let mut tried = request();
    tried
        .headers_mut()
        .insert("authorization", block(&source).header_value());
    let again = tried.headers().clone();
    source.rotate(BearerToken::new(take(secret('i'))).unwrap());
    drop(tried);
    let in_flight = service.call(request());
    drop((service, layer, source));
    drop(again);
    drop(in_flight);
    assert_eq!(found('i'), 0);
}

#[test]
fn a_bare_token_leaves_nothing() {
    let layer = BearerAuthLayer::new(BearerToken::new(take(secret('o'))).unwrap())
        .header_name(http::HeaderName::from_static("private-token"))
        .bare();
    let mut service = layer.layer(Respond);
    for _ in 0..2 {
        let request = Request::get("https://api.example.com/").body(()).unwrap();
        service.call(request).now_or_never().unwrap().unwrap();
    }
    drop((service, layer));
    assert_eq!(found('o'), 0);
}

fn block(source: &impl TokenSource) -> BearerToken {
    source.token().now_or_never().unwrap().unwrap()
}

#[test]
fn a_request_that_waits_for_its_token_leaves_nothing() {
    let source = RotatingToken::empty();
    let mut service = BearerAuthLayer::new(source.clone()).layer(Respond);
    let request = || Request::get("https://api.example.com/").body(()).unwrap();
    let mut answered = service.call(request());
    let mut dropped = service.call(request());
    assert!(poll(&mut answered).is_pending());
    assert!(poll(&mut dropped).is_pending());
    source.rotate(BearerToken::new(take(secret('j'))).unwrap());
    drop(dropped);
    assert!(poll(&mut answered).is_ready());
    drop((answered, service, source));
    assert_eq!(found('j'), 0);
}

#[test]
fn a_fetch_that_is_given_up_with_a_token_in_hand_leaves_nothing() {
    let source = source_fn(|| async {
        let token = BearerToken::new(take(secret('u')))?;
        futures::pending!();
        Ok::<_, InvalidToken>(token)
    });
    let mut finished = source.token();
    let mut dropped = source.token();
    assert!(poll(&mut finished).is_pending());
    assert!(poll(&mut dropped).is_pending());
    drop(dropped);
    assert!(poll(&mut finished).is_ready());
    assert_eq!(found('u'), 0);
}

#[test]
fn another_thread_wipes_what_it_drops_last() {
    let token = BearerToken::new(take(secret('v'))).unwrap();
    let (clone, value) = (token.clone(), token.header_value());
    drop(token);
    std::thread::spawn(move || drop((clone, value)))
        .join()
        .unwrap();
    assert_eq!(found('v'), 0);
}

#[cfg(feature = "retry")]
#[test]
fn a_request_that_is_retried_leaves_nothing() {
    let source = RotatingToken::new(BearerToken::new(take(secret('w'))).unwrap());
    let rotating = source.clone();
    let rejects_the_first = service_fn(move |request: Request<()>| {
        let is_first = request.headers()["x-try"] == "first";
        // The layer retries only with a token of another text.
        let mut other = secret('w');
        other.push('=');
        rotating.rotate(BearerToken::new(take(other)).unwrap());
        let mut response = Response::new(());
        if is_first {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        // Keep the headers, as a log record may.
        *response.headers_mut() = request.headers().clone();
        ready(Ok::<_, Infallible>(response))
    });
    let retry = RetryRejected::with_clone(|request: &Request<()>| {
        let mut clone = request.clone();
        let again = HeaderValue::from_static("again");
        clone.headers_mut().insert("x-try", again);
        Some(clone)
    });
    let auth = BearerAuthLayer::new(source).retry_rejected();
    let stack = RetryLayer::new(retry).layer(auth.layer(rejects_the_first));
    let request = Request::get("https://api.example.com/").header("x-try", "first");
    let response = stack.oneshot(request.body(()).unwrap()).now_or_never();
    let response = response.unwrap().unwrap();
    assert_eq!(response.headers()["x-try"], "again");
    assert!(response.headers().contains_key("authorization"));
    drop(response);
    assert_eq!(found('w'), 0);
}

/// A caller may keep a response for long, such as for a body that is streamed.
#[cfg(feature = "retry")]
#[test]
fn a_response_that_is_worth_a_retry_keeps_no_token() {
    // The data of a token is dropped with the token.
    let data = Arc::new(());
    let token = BearerToken::new(take(secret('z'))).unwrap();
    let source = RotatingToken::new(token.with_data(Arc::clone(&data)));
    let rotating = source.clone();
    let rejects = service_fn(move |_: Request<()>| {
        rotating.rotate(BearerToken::new("another").unwrap());
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        ready(Ok::<_, Infallible>(response))
    });
    let service = BearerAuthLayer::new(source).retry_rejected().layer(rejects);
    let request = Request::get("https://api.example.com/").body(()).unwrap();
    let response = service.oneshot(request).now_or_never();
    let response = response.unwrap().unwrap();
    assert!(response.extensions().get::<TokenReplaced>().is_some());
    assert_eq!(Arc::strong_count(&data), 1);
    assert_eq!(found('z'), 0);
}

/// Each source notes a sign-in on the token.
#[test]
fn a_token_that_many_sources_hand_out_keeps_nothing_of_them() {
    let fetch = || ready(BearerToken::new("another"));
    let token = BearerToken::new("shared").unwrap();
    let life = || {
        let builder = RefreshingToken::builder(fetch).first_token(token.clone());
        drop(builder.build());
    };
    // The sign-in of a source is dropped with that of the next source.
    life();
    life();
    assert_eq!(kept_by(life), 0);
}

/// The scan does not find a block that is never freed, so this test counts such blocks.
#[test]
fn a_token_is_wiped_rather_than_kept_for_ever() {
    let life = || {
        let empty = RotatingToken::empty();
        let mut service = BearerAuthLayer::new(empty.clone()).layer(Respond);
        let request = || Request::get("https://api.example.com/").body(()).unwrap();
        let mut waiting = service.call(request());
        assert!(poll(&mut waiting).is_pending());
        for _ in 0..3 {
            let token = BearerToken::new(take(secret('x'))).unwrap();
            let other = token.clone().expires_in(std::time::Duration::from_secs(60));
            drop((token.header_value(), other.header_value()));
            empty.rotate(token);
        }
        assert!(poll(&mut waiting).is_ready());
        assert!(service.call(request()).now_or_never().is_some());
        assert!(BearerToken::new("no token\n").is_err());
    };
    life(); // The first use of a thread fills its caches.
    assert_eq!(kept_by(life), 0);
    assert_eq!(found('x'), 0);
}

#[test]
fn every_kind_of_source_wipes_its_token() {
    let token = || BearerToken::new(take(secret('k'))).unwrap();
    drop(StaticToken::new(token()));
    drop(TokenFuture::from(token()));
    drop(TokenFuture::boxed(ready(Ok(token()))));
    let rotating = RotatingToken::new(token());
    for _ in 0..10 {
        rotating.rotate(token());
    }
    drop(rotating);
    assert_eq!(found('k'), 0);
}

#[test]
fn a_refreshing_source_wipes_old_tokens_and_the_last_one() {
    let time = VirtualTime::new();
    let source = RefreshingToken::builder(|| async { BearerToken::new(take(secret('l'))) })
        .runtime(time.clone())
        .build();
    for _ in 0..5 {
        time.block_on(source.token()).unwrap().reject();
        time.advance(std::time::Duration::from_secs(600));
    }
    drop(source.refresh_now());
    source.invalidate();
    drop(time.block_on(source.token()).unwrap());
    drop(source);
    time.run();
    assert_eq!(found('l'), 0);
}

#[test]
fn a_file_and_its_buffer_are_wiped() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("token");
    let time = VirtualTime::caller_driven();
    std::fs::write(&path, secret('m').as_bytes()).unwrap();
    let source = FileToken::builder(&path)
        .runtime(time.clone())
        .build()
        .unwrap();
    futures::executor::block_on(source.token())
        .unwrap()
        .reject();
    drop(futures::executor::block_on(source.token()).unwrap());
    // The file can be read, but does not hold a token.
    let mut broken = secret('m');
    broken.push_str(" two words");
    std::fs::write(&path, broken.as_bytes()).unwrap();
    drop(FileToken::new(&path).unwrap_err());
    drop(source);
    assert_eq!(found('m'), 0);
}

#[test]
fn the_copy_of_an_environment_variable_is_wiped() {
    let good = secret('n');
    let mut bad = secret('n');
    bad.push_str(" two words");
    let mut latin = Zeroizing::new(Vec::with_capacity(256));
    latin.extend_from_slice(good.as_bytes());
    latin.push(0xe9);
    let variables = [
        ("GOOD", OsStr::new(good.as_str())),
        ("BAD", OsStr::new(bad.as_str())),
        #[cfg(unix)]
        ("LATIN", std::os::unix::ffi::OsStrExt::from_bytes(&latin)),
    ];
    in_child(
        "secrets::wiping::the_copy_of_an_environment_variable_is_wiped",
        &variables,
        || {
            drop(EnvToken::new("GOOD").unwrap());
            drop(EnvToken::nonstandard("GOOD").unwrap());
            drop(EnvToken::new("BAD").unwrap_err());
            drop(EnvToken::new("LATIN").unwrap_err());
            assert_eq!(found('n'), 0);
            // The scan also works in the child process: it finds a copy that nobody wipes.
            drop(std::env::var("GOOD").unwrap());
            assert_eq!(found('n'), 1);
        },
    );
}
