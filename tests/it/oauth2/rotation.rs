//! A server may replace the refresh token at each use. The new refresh token must never be lost.

use std::{
    future::{Future, ready},
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, channel::oneshot};
use http::{Request, Response};
use http_body_util::StreamBody;
use hyper::body::Frame;
use secrecy::{ExposeSecret, SecretString};
use tower::service_fn;
use tower_bearer::{BoxError, RefreshingToken, SourceErrorKind, TokenRequest, TokenSource};

use crate::support::{
    Task, text,
    token_endpoint::{TokenEndpoint, URL, answer},
    virtual_time::VirtualTime,
};

fn request() -> TokenRequest {
    TokenRequest::refresh_token(URL, "id", "refresh-0").unwrap()
}

/// An endpoint that gives `refresh-1` with the first access token, `refresh-2` with the second, and so on.
fn rotating() -> TokenEndpoint {
    TokenEndpoint::new(|number| {
        let body = format!(r#"{{"access_token":"a{number}","refresh_token":"refresh-{number}"}}"#);
        answer(200, &body)
    })
}

/// The refresh tokens that were sent.
fn spent(endpoint: &TokenEndpoint) -> Vec<String> {
    let value = |form: String| {
        let (_, after) = form.split_once("&refresh_token=").unwrap();
        after.split('&').next().unwrap().to_owned()
    };
    endpoint.forms().into_iter().map(value).collect()
}

type Told = Arc<Mutex<Vec<String>>>;

/// A hook that records each refresh token. `fails` gets the number of the call, and says whether the call
/// fails.
fn noting(
    told: &Told,
    fails: impl Fn(usize) -> bool + Send + Sync + 'static,
) -> impl Fn(SecretString) -> std::future::Ready<io::Result<()>> + Send + Sync + 'static {
    let told = Arc::clone(told);
    move |token: SecretString| {
        let mut told = told.lock().unwrap();
        told.push(token.expose_secret().to_owned());
        let failure = fails(told.len()).then(|| io::Error::other("disk full"));
        ready(failure.map_or(Ok(()), Err))
    }
}

fn now<F: Future>(future: F) -> F::Output {
    future.now_or_never().expect("nothing waits")
}

#[test]
fn each_fetch_spends_the_refresh_token_of_the_one_before() {
    let endpoint = rotating();
    let told = Told::default();
    let request = request().on_rotation(noting(&told, |_| false));
    let (one, other) = (request.clone().over(endpoint.clone()), request);
    now(one()).unwrap();
    now(one()).unwrap();
    now(other.scope("more").fetch(endpoint.clone())).unwrap();
    assert_eq!(spent(&endpoint), ["refresh-0", "refresh-1", "refresh-2"]);
    assert_eq!(
        *told.lock().unwrap(),
        ["refresh-1", "refresh-2", "refresh-3"]
    );
}

#[test]
fn a_server_that_does_not_rotate_is_sent_the_same_again_and_the_hook_is_not_told() {
    for body in [
        r#"{"access_token":"a"}"#,
        r#"{"access_token":"a","refresh_token":"refresh-0"}"#,
        r#"{"access_token":"a","refresh_token":""}"#,
        r#"{"access_token":"a","refresh_token":null}"#,
    ] {
        let endpoint = TokenEndpoint::saying(200, body);
        let told = Told::default();
        let fetch = request()
            .on_rotation(noting(&told, |_| true))
            .over(endpoint.clone());
        now(fetch()).unwrap();
        now(fetch()).unwrap();
        assert_eq!(spent(&endpoint), ["refresh-0", "refresh-0"]);
        assert!(told.lock().unwrap().is_empty());
    }
}

#[test]
fn the_new_refresh_token_is_kept_and_told_before_the_rest_is_judged() {
    for rest in [
        r#""access_token":"no token""#,
        r#""token_type":"DPoP","access_token":"a""#,
        r#""error":"invalid_grant""#,
        r#""x":1"#,
    ] {
        let body = format!(r#"{{"refresh_token":"refresh-1",{rest}}}"#);
        let endpoint = TokenEndpoint::new(move |_| answer(200, &body));
        let told = Told::default();
        let fetch = request()
            .on_rotation(noting(&told, |_| false))
            .over(endpoint.clone());
        now(fetch()).unwrap_err();
        now(fetch()).unwrap_err();
        assert_eq!(*told.lock().unwrap(), ["refresh-1"], "{rest}");
        assert_eq!(spent(&endpoint), ["refresh-0", "refresh-1"], "{rest}");
    }
}

/// A connection may be closed without the `close_notify` of TLS.
#[test]
fn the_new_refresh_token_is_kept_although_the_answer_breaks_off_after_it() {
    for (body, expected) in [
        (
            r#"{"access_token":"a","refresh_token":"refresh-1"}"#,
            "refresh-1",
        ),
        (
            r#"{"access_token":"a","refresh_token":"refresh-1""#,
            "refresh-0",
        ),
    ] {
        let sent = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&sent);
        let http = service_fn(move |request: Request<Bytes>| {
            noted.lock().unwrap().push(request.into_body());
            let frames = [Ok(Frame::data(Bytes::from(body))), Err("no close_notify")];
            ready(Ok::<_, BoxError>(Response::new(StreamBody::new(
                futures::stream::iter(frames),
            ))))
        });
        let told = Told::default();
        let fetch = request().on_rotation(noting(&told, |_| false)).over(http);
        for _ in 0..2 {
            let error = now(fetch()).unwrap_err();
            assert_eq!(error.to_string(), "the token endpoint's answer was cut off");
        }
        let second = String::from_utf8(sent.lock().unwrap()[1].to_vec()).unwrap();
        assert!(
            second.contains(&format!("&refresh_token={expected}&")),
            "{second}"
        );
        assert_eq!(
            told.lock().unwrap().len(),
            usize::from(expected == "refresh-1")
        );
    }
}

#[test]
fn a_refresh_token_in_an_error_response_is_not_taken() {
    let body = r#"{"refresh_token":"refresh-1","error":"invalid_grant"}"#;
    let endpoint = TokenEndpoint::saying(400, body);
    let fetch = request().over(endpoint.clone());
    now(fetch()).unwrap_err();
    now(fetch()).unwrap_err();
    assert_eq!(spent(&endpoint), ["refresh-0", "refresh-0"]);
}

#[test]
fn a_hook_that_fails_fails_the_fetch_and_is_told_again_before_the_token_is_spent() {
    let endpoint = rotating();
    let told = Told::default();
    let fetch = request()
        .on_rotation(noting(&told, |call| call < 3))
        .over(endpoint.clone());
    for _ in 0..2 {
        let error = now(fetch()).unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::Failed);
        assert_eq!(
            error.to_string(),
            "the new refresh token could not be stored"
        );
        assert_eq!(error.cause::<io::Error>().unwrap().to_string(), "disk full");
        assert_eq!(spent(&endpoint), ["refresh-0"]);
    }
    now(fetch()).unwrap();
    assert_eq!(spent(&endpoint), ["refresh-0", "refresh-1"]);
    let expected = ["refresh-1", "refresh-1", "refresh-1", "refresh-2"];
    assert_eq!(*told.lock().unwrap(), expected);
}

#[test]
fn a_fetch_that_is_dropped_in_the_hook_has_kept_the_new_refresh_token() {
    let endpoint = rotating();
    let told = Told::default();
    let noted = noting(&told, |_| false);
    let (release, released) = oneshot::channel::<()>();
    let released = released.shared();
    let fetch = request()
        .on_rotation(move |token| {
            let (noted, released) = (noted(token), released.clone());
            async move {
                released.await.ok();
                noted.await
            }
        })
        .over(endpoint.clone());
    drop(Task::waiting(fetch()));
    drop(Task::waiting(fetch()));
    assert_eq!(spent(&endpoint), ["refresh-0"]);
    release.send(()).unwrap();
    now(fetch()).unwrap();
    assert_eq!(spent(&endpoint), ["refresh-0", "refresh-1"]);
    let expected = ["refresh-1", "refresh-1", "refresh-1", "refresh-2"];
    assert_eq!(*told.lock().unwrap(), expected);
}

#[test]
fn a_late_answer_does_not_displace_a_newer_refresh_token() {
    let endpoint = rotating();
    let (open, gate) = oneshot::channel::<()>();
    let gate = Arc::new(Mutex::new(Some(gate)));
    let inner = endpoint.clone();
    // The first response is late, as over a slow network.
    let slow = service_fn(move |request| {
        let gate = gate.lock().unwrap().take();
        let response = tower::Service::call(&mut inner.clone(), request);
        async move {
            if let Some(gate) = gate {
                gate.await.ok();
            }
            response.await
        }
    });
    let request = request();
    let mut late = Task::waiting(request.clone().fetch(slow));
    let fetch = request.over(endpoint.clone());
    now(fetch()).unwrap();
    open.send(()).unwrap();
    late.finish().unwrap();
    now(fetch()).unwrap();
    assert_eq!(spent(&endpoint), ["refresh-0", "refresh-0", "refresh-2"]);
}

#[test]
fn neither_a_rejection_nor_a_sign_out_of_the_access_token_loses_the_refresh_token() {
    let endpoint = rotating();
    let time = VirtualTime::new();
    let source = RefreshingToken::builder(request().over(endpoint.clone()))
        .runtime(time.clone())
        .build();
    time.block_on(source.token()).unwrap().reject();
    time.block_on(source.token()).unwrap();
    source.invalidate();
    time.block_on(source.token()).unwrap();
    assert_eq!(spent(&endpoint), ["refresh-0", "refresh-1", "refresh-2"]);
}

#[test]
fn a_hook_that_panics_or_never_ends_is_told_again_before_the_token_is_spent() {
    for panics in [true, false] {
        let endpoint = rotating();
        let told = Told::default();
        let noted = noting(&told, |_| false);
        let times = Arc::clone(&told);
        let fetch = request()
            .on_rotation(move |token: SecretString| {
                let stored = noted(token);
                let is_first = times.lock().unwrap().len() == 1;
                async move {
                    match (is_first, panics) {
                        (true, true) => panic!("in the hook"),
                        (true, false) => std::future::pending().await,
                        _ => stored.await,
                    }
                }
            })
            .over(endpoint.clone());
        let time = VirtualTime::new();
        let source = RefreshingToken::builder(fetch)
            .runtime(time.clone())
            .fetch_timeout(Duration::from_secs(7))
            .build();
        let mut first = Task::waiting(source.token());
        time.advance(Duration::from_secs(if panics { 0 } else { 7 }));
        let expected = if panics {
            SourceErrorKind::Panicked
        } else {
            SourceErrorKind::TimedOut
        };
        assert_eq!(first.finish().unwrap_err().kind(), expected);
        let token = time.block_on(source.refresh_now()).unwrap();
        assert_eq!(text(&token), "Bearer a2", "panics: {panics}");
        assert_eq!(
            *told.lock().unwrap(),
            ["refresh-1", "refresh-1", "refresh-2"]
        );
        assert_eq!(spent(&endpoint), ["refresh-0", "refresh-1"]);
    }
}
