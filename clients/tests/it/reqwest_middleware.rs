//! The layer as a middleware of reqwest-middleware, over real HTTP on loopback.

use std::{
    convert::Infallible,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderValue, Method, header::AUTHORIZATION};
use reqwest::{Body, Client};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};
use reqwest_retry::{RetryDecision, RetryError, RetryPolicy, RetryTransientMiddleware};
use tower::Layer;
use tower_bearer::{
    BearerAuthLayer, BearerToken, Error, ErrorKind, RefreshingToken, RotatingToken, SourceError,
    SourceErrorKind, StaticToken, TokenFuture, TokenSource,
};

use crate::{
    reqwest_server::{Server, carries, direct, redirect, status},
    support::{
        self, Asking, Counting, get, ours,
        retrying::{always_another, old_then_new},
        send, token, values,
    },
};

fn client<T: TokenSource + 'static>(layer: BearerAuthLayer<T>) -> ClientWithMiddleware {
    over(direct().build().unwrap(), layer)
}

fn over<T: TokenSource + 'static>(
    client: Client,
    layer: BearerAuthLayer<T>,
) -> ClientWithMiddleware {
    ClientBuilder::new(client).with(layer).build()
}

fn retrying<T: TokenSource + 'static>(source: T) -> ClientWithMiddleware {
    client(BearerAuthLayer::new(source).retry_rejected())
}

fn failing() -> impl TokenSource {
    Asking(|| TokenFuture::ready(Err(SourceError::new(SourceErrorKind::Failed, "none"))))
}

/// This crate's error within a client's error, which reqwest-retry may have wrapped once more.
fn our_error(error: &reqwest_middleware::Error) -> Option<&Error> {
    let found = Error::find(error);
    let by_downcast = downcast(error);
    assert_eq!(
        found.map(std::ptr::from_ref),
        by_downcast.map(std::ptr::from_ref)
    );
    found
}

fn downcast(error: &reqwest_middleware::Error) -> Option<&Error> {
    let reqwest_middleware::Error::Middleware(error) = error else {
        return None;
    };
    match error.downcast_ref() {
        Some(RetryError::Error(error) | RetryError::WithRetries { err: error, .. }) => {
            downcast(error)
        }
        None => error.downcast_ref(),
    }
}

#[tokio::test]
async fn our_error_is_found_at_any_depth_of_middlewares_and_keeps_its_text() {
    let refused =
        "refused to send a bearer token over plaintext http to api.example.com: use https";
    let layer = BearerAuthLayer::new(StaticToken::new(token("abc")));
    let plain = client(layer.clone());
    let retried = ClientBuilder::new(direct().build().unwrap())
        .with(RetryTransientMiddleware::new_with_policy(AtOnce(2)))
        .with(RetryTransientMiddleware::new_with_policy(AtOnce(2)))
        .with(layer)
        .build();
    for client in [plain, retried] {
        let error = client
            .get("http://api.example.com/")
            .send()
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), refused);
        let found = our_error(&error).unwrap();
        assert_eq!(found.to_string(), refused);
        let error: Box<dyn std::error::Error + Send + Sync> = error.into();
        assert!(Error::find(&*error).is_some(), "as the error of a program");
    }
}

#[tokio::test]
async fn a_request_carries_the_token_of_its_time() {
    let server = Server::ok().await;
    let source = RotatingToken::new(token("first"));
    let client = client(BearerAuthLayer::new(source.clone()));
    client.get(&server.url).send().await.unwrap();
    source.rotate(token("second"));
    client.get(&server.url).send().await.unwrap();
    assert_eq!(server.authorizations(), ["Bearer first", "Bearer second"]);
}

type Layered = BearerAuthLayer<Counting<StaticToken>>;

type Settings = fn(Layered) -> Layered;

const SETTINGS: [(&str, Settings); 9] = [
    ("none", |layer| layer),
    ("origin", in_scope),
    ("plaintext", BearerAuthLayer::danger_allow_plaintext),
    ("keep", BearerAuthLayer::keep_existing),
    ("header", |layer| layer.header_name(X_TOKEN)),
    ("origin, plaintext", |layer| {
        in_scope(layer).danger_allow_plaintext()
    }),
    ("origin, keep", |layer| in_scope(layer).keep_existing()),
    ("header, keep", |layer| {
        layer.header_name(X_TOKEN).keep_existing()
    }),
    ("all", |layer| {
        let layer = in_scope(layer).danger_allow_plaintext();
        layer.header_name(X_TOKEN).keep_existing()
    }),
];

const X_TOKEN: http::HeaderName = http::HeaderName::from_static("x-token");

fn in_scope(layer: Layered) -> Layered {
    let layer = layer.for_origin("https://api.example.com").unwrap();
    layer.for_origin("http://plain.example.com:8080").unwrap()
}

const URLS: [&str; 10] = [
    "https://api.example.com/",
    "https://API.example.com:443/path?query",
    "https://api.example.com:8443/",
    "https://sub.api.example.com/",
    "https://api.example.com./",
    "http://api.example.com/",
    "http://plain.example.com:8080/",
    "http://localhost:8080/",
    "http://127.0.0.1/",
    "http://[::1]/",
];

/// Both headers as they went out, or `None` if the request was refused; and how often the source
/// was asked.
type Outcome = (Option<[String; 2]>, usize);

#[tokio::test]
async fn the_settings_do_what_they_do_in_a_tower_stack() {
    let source = || Counting::new(StaticToken::new(token("ours")));
    let proxy = Server::internet(&[]).await;
    let http = proxy.as_proxy().build().unwrap();
    let mut outcomes = std::collections::BTreeMap::<_, usize>::new();
    for (name, settings) in SETTINGS {
        for url in URLS {
            for own in ["authorization", "x-token", "x-other"] {
                let counting = source();
                let server = support::Server::ok();
                let layer = settings(BearerAuthLayer::new(counting.clone()));
                let mut request = get(url);
                let value = "Bearer own".parse().unwrap();
                request.headers_mut().insert(own, value);
                let sent = send(&mut layer.layer(server.clone()), request);
                let headers = |request| {
                    ["authorization", "x-token"].map(|name| values(request, name).concat())
                };
                let tower: Outcome = match sent {
                    Ok(_) => (Some(headers(&server.seen()[0])), counting.asked()),
                    Err(error) => {
                        assert_eq!(ours(&error).kind(), ErrorKind::InsecureTransport);
                        (None, counting.asked())
                    }
                };

                let counting = source();
                let layer = settings(BearerAuthLayer::new(counting.clone()));
                let before = proxy.seen().len();
                let client = over(http.clone(), layer);
                let sent = client.get(url).header(own, "Bearer own").send().await;
                let middleware: Outcome = match sent {
                    Ok(_) => {
                        let last = |name| proxy.fields(name).pop().unwrap();
                        let headers = ["authorization", "x-token"].map(last);
                        (Some(headers), counting.asked())
                    }
                    Err(error) => {
                        let error = our_error(&error).expect("an error of this crate");
                        assert_eq!(error.kind(), ErrorKind::InsecureTransport);
                        assert_eq!(proxy.seen().len(), before);
                        (None, counting.asked())
                    }
                };
                assert_eq!(middleware, tower, "{name}: {url} with its own {own}");
                *outcomes.entry(tower).or_default() += 1;
            }
        }
    }
    // The outcomes differ: our token, the request's own or none, under either name, or a refusal.
    assert!(outcomes.len() >= 6, "{outcomes:?}");
}

#[tokio::test]
async fn a_source_without_a_token_stops_the_request() {
    let server = Server::ok().await;
    let client = client(BearerAuthLayer::new(failing()));
    let error = client.get(&server.url).send().await.unwrap_err();
    let error = our_error(&error).expect("an error of this crate");
    assert_eq!(error.kind(), ErrorKind::NoToken);
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_401_marks_the_token_that_was_sent() {
    let server = Server::taking("new").await;
    let old = token("old");
    let client = client(BearerAuthLayer::new(StaticToken::new(old.clone())));
    let response = client.get(&server.url).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 401);
    assert!(old.is_rejected());
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_401_that_blames_something_else_marks_and_retries_nothing() {
    let server = Server::start(|_| {
        let mut response = status(401);
        let challenge = "Bearer error=\"insufficient_scope\"".parse().unwrap();
        response.headers_mut().insert("www-authenticate", challenge);
        response
    })
    .await;
    let sent = token("t");
    let handed_out = sent.clone();
    let source = Asking(move || {
        let token = if handed_out.is_rejected() {
            token("u")
        } else {
            handed_out.clone()
        };
        token.into()
    });
    retrying(source).get(&server.url).send().await.unwrap();
    assert!(!sent.is_rejected());
    assert_eq!(server.authorizations(), ["Bearer t"]);
}

#[tokio::test]
async fn a_rejected_request_is_retried_with_the_other_token_and_is_otherwise_the_same() {
    let server = Server::taking("new").await;
    let request = retrying(old_then_new())
        .put(format!("{}/path?query", server.url))
        .header("x-first", "1")
        .bearer_auth("own")
        .body("body");
    let response = request.send().await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    assert_eq!(server.authorizations(), ["Bearer old", "Bearer new"]);
    for request in server.seen() {
        assert_eq!(request.method(), Method::PUT);
        assert_eq!(request.uri(), "/path?query");
        assert_eq!(request.headers()["x-first"], "1");
        assert_eq!(request.body(), "body");
    }
}

/// A request that was made for one account must not go out as another account.
#[tokio::test]
async fn a_request_whose_account_is_signed_out_before_the_401_is_not_retried() {
    let fetches = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&fetches);
    let source = RefreshingToken::new(move || {
        let number = count.fetch_add(1, Ordering::SeqCst);
        async move { BearerToken::new(["alice", "bob"][number]) }
    });
    let signs_out = source.clone();
    let server = Server::start(move |request| {
        let is_alice = carries(request, "alice");
        if is_alice {
            signs_out.invalidate();
        }
        status(if is_alice { 401 } else { 200 })
    })
    .await;
    let response = retrying(source).get(&server.url).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 401);
    assert_eq!(server.authorizations(), ["Bearer alice"]);
    let fetches = fetches.load(Ordering::SeqCst);
    assert_eq!(fetches, 1, "nobody asks for another token");
}

/// A response that a middleware made has no URL of its own, so it counts as the response of the server.
#[tokio::test]
async fn a_401_that_a_mock_below_the_layer_made_is_a_401_of_the_server() {
    struct Mock;

    #[async_trait::async_trait]
    impl Middleware for Mock {
        async fn handle(
            &self,
            request: reqwest::Request,
            _: &mut http::Extensions,
            _: Next<'_>,
        ) -> reqwest_middleware::Result<reqwest::Response> {
            let is_good = request.headers()[AUTHORIZATION] == "Bearer new";
            let response = http::Response::builder().status(if is_good { 200 } else { 401 });
            Ok(response.body("").unwrap().into())
        }
    }

    let layer = BearerAuthLayer::new(old_then_new()).retry_rejected();
    let client = ClientBuilder::new(direct().build().unwrap())
        .with(layer)
        .with(Mock)
        .build();
    let response = client
        .post("https://api.example.com/")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status().as_u16(), 200);
}

#[tokio::test]
async fn a_request_is_retried_once_and_no_more() {
    let server = Server::taking("none of them").await;
    let client = retrying(always_another());
    let response = client.get(&server.url).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 401);
    assert_eq!(server.authorizations(), ["Bearer 0", "Bearer 1"]);
}

#[tokio::test]
async fn the_token_of_the_retry_is_marked_as_well() {
    let server = Server::taking("none of them").await;
    let (old, new) = (token("old"), token("new"));
    let handed_out = [old.clone(), new.clone()];
    let source = Asking(move || {
        let [old, new] = &handed_out;
        if old.is_rejected() { new } else { old }.clone().into()
    });
    retrying(source).get(&server.url).send().await.unwrap();
    assert!(old.is_rejected() && new.is_rejected());
}

#[tokio::test]
async fn nothing_is_retried_without_the_setting_or_another_token_or_a_401() {
    let not_set = client(BearerAuthLayer::new(old_then_new()));
    let only_one = retrying(StaticToken::new(token("old")));
    let same_text = retrying(Asking(|| token("old").into()));
    let old = token("old");
    let none_any_more = retrying(Asking(move || {
        if old.is_rejected() {
            return failing().token();
        }
        old.clone().into()
    }));
    let (first, other) = (token("old"), token("other"));
    other.reject();
    let all_rejected = retrying(Asking(move || {
        let token = if first.is_rejected() { &other } else { &first };
        token.clone().into()
    }));
    for (client, why) in [
        (not_set, "not set"),
        (all_rejected, "another that was rejected as well"),
        (only_one, "only one token"),
        (same_text, "the same text in a new token"),
        (none_any_more, "the source fails"),
    ] {
        let server = Server::taking("new").await;
        let response = client.get(&server.url).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 401, "{why}");
        assert_eq!(server.authorizations(), ["Bearer old"], "{why}");
    }

    let server = Server::start(|_| status(403)).await;
    let client = retrying(old_then_new());
    client.get(&server.url).send().await.unwrap();
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_streaming_body_is_sent_whole_and_never_retried() {
    let server = Server::taking("new").await;
    let response = retrying(old_then_new())
        .post(&server.url)
        .body(stream())
        .send()
        .await
        .unwrap();
    assert_eq!(response.status().as_u16(), 401);
    assert_eq!(server.authorizations(), ["Bearer old"]);
    assert_eq!(server.seen()[0].body(), "chunk, chunk");
}

fn stream() -> Body {
    let chunks = ["chunk, ", "chunk"].map(Ok::<_, Infallible>);
    Body::wrap_stream(futures::stream::iter(chunks))
}

/// Tries again at once, this many times.
struct AtOnce(u32);

impl RetryPolicy for AtOnce {
    fn should_retry(&self, _: SystemTime, past_retries: u32) -> RetryDecision {
        if past_retries < self.0 {
            RetryDecision::Retry {
                execute_after: SystemTime::UNIX_EPOCH,
            }
        } else {
            RetryDecision::DoNotRetry
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Retry {
    Above,
    Below,
}

impl Retry {
    /// Up to three tries.
    fn client<T: TokenSource + 'static>(self, layer: BearerAuthLayer<T>) -> ClientWithMiddleware {
        let retry = RetryTransientMiddleware::new_with_policy(AtOnce(2));
        let client = ClientBuilder::new(direct().build().unwrap());
        match self {
            Self::Above => client.with(retry).with(layer),
            Self::Below => client.with(layer).with(retry),
        }
        .build()
    }
}

#[tokio::test]
async fn with_reqwest_retry_above_each_try_gets_the_token_of_its_time_and_below_all_get_one() {
    for (place, expected) in [
        (Retry::Above, ["Bearer 0", "Bearer 1", "Bearer 2"]),
        (Retry::Below, ["Bearer 0"; 3]),
    ] {
        let server = Server::start(|_| status(503)).await;
        let client = place.client(BearerAuthLayer::new(always_another()));
        client.get(&server.url).send().await.unwrap();
        assert_eq!(server.authorizations(), expected, "{place:?}");
    }
}

#[tokio::test]
async fn with_reqwest_retry_above_the_retry_belongs_to_its_try_and_below_it_has_tries_of_its_own() {
    for (place, expected_status, expected) in [
        (Retry::Above, 503, &["old", "old", "new", "new"] as &[_]),
        (Retry::Below, 200, &["old", "old", "new", "new", "new"]),
    ] {
        let count = Arc::new(AtomicUsize::new(0));
        let server = Server::start(move |_| {
            let answers = [503, 401, 503, 503, 200];
            status(answers[count.fetch_add(1, Ordering::SeqCst)])
        })
        .await;
        let client = place.client(BearerAuthLayer::new(old_then_new()).retry_rejected());
        let response = client.get(&server.url).send().await.unwrap();
        assert_eq!(response.status().as_u16(), expected_status, "{place:?}");
        let expected: Vec<_> = expected
            .iter()
            .map(|token| format!("Bearer {token}"))
            .collect();
        assert_eq!(server.authorizations(), expected, "{place:?}");
    }
}

#[tokio::test]
async fn reqwest_retry_does_not_retry_a_401() {
    for place in [Retry::Above, Retry::Below] {
        let server = Server::taking("new").await;
        let client = place.client(BearerAuthLayer::new(old_then_new()));
        client.get(&server.url).send().await.unwrap();
        assert_eq!(server.authorizations(), ["Bearer old"], "{place:?}");
    }
}

#[tokio::test]
async fn reqwest_retry_does_not_retry_what_was_refused_or_has_no_token_and_our_error_is_in_its_own()
{
    let asked = Counting::new(Arc::new(failing()));
    let server = Server::ok().await;
    for (url, kind) in [
        ("http://api.example.com/", ErrorKind::InsecureTransport),
        (server.url.as_str(), ErrorKind::NoToken),
    ] {
        for place in [Retry::Above, Retry::Below] {
            let client = place.client(BearerAuthLayer::new(asked.clone()));
            let error = client.get(url).send().await.unwrap_err();
            assert_eq!(our_error(&error).unwrap().kind(), kind, "{place:?}");
        }
    }
    // The source is asked once for each place, and never for a request that was refused.
    assert_eq!(asked.asked(), 2);
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn reqwest_retry_takes_no_streaming_body_at_all() {
    for place in [Retry::Above, Retry::Below] {
        let server = Server::ok().await;
        let client = place.client(BearerAuthLayer::new(old_then_new()));
        let request = client.post(&server.url).body(stream());
        let error = request.send().await.unwrap_err();
        assert!(our_error(&error).is_none());
        assert!(server.seen().is_empty(), "{place:?}");
    }
}

#[tokio::test]
async fn a_caller_who_leaves_during_the_wait_for_a_token_sends_nothing() {
    let server = Server::ok().await;
    let source = RotatingToken::empty();
    let client = client(BearerAuthLayer::new(source.clone()));
    let mut request = support::Task::waiting(client.get(&server.url).send());
    assert!(request.poll().is_pending());
    drop(request);
    source.rotate(token("t"));
    client.get(&server.url).send().await.unwrap();
    assert_eq!(server.seen().len(), 1);
    assert!(carries(&server.seen()[0], "t"));
}

#[tokio::test]
async fn to_localhost_through_a_proxy_the_token_leaves_the_machine_in_plaintext() {
    let proxy = Server::ok().await;
    let layer = || BearerAuthLayer::new(StaticToken::new(token("t")));
    let through = over(proxy.as_proxy().build().unwrap(), layer());
    through.get("http://localhost/").send().await.unwrap();
    let hops = proxy.hops("authorization");
    let sent = ("http://localhost/".to_owned(), "Bearer t".to_owned());
    assert_eq!(hops, [sent], "the docs say so");
}

#[tokio::test]
async fn a_timeout_of_reqwest_covers_a_try_and_not_the_wait_for_the_token() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let source = RotatingToken::empty();
    let client = client(BearerAuthLayer::new(source.clone()));
    let request = client.get(url).timeout(Duration::ZERO);
    let request = support::Task::waiting(request.send());
    source.rotate(token("t"));
    let error = request.into_future().await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
}

#[tokio::test]
async fn a_default_header_of_the_client_is_none_of_the_requests_own() {
    let server = Server::ok().await;
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer default"));
    let client = direct().default_headers(headers).build().unwrap();
    let layer = BearerAuthLayer::new(StaticToken::new(token("t"))).keep_existing();
    over(client, layer).get(&server.url).send().await.unwrap();
    assert_eq!(server.authorizations(), ["Bearer t"]);
}

#[tokio::test]
async fn a_success_takes_the_mark_off_that_the_token_had_when_it_was_sent() {
    let ours = token("ours");
    let client = client(BearerAuthLayer::new(StaticToken::new(ours.clone())));
    for (code, expected) in [(200, false), (204, false), (403, true), (500, true)] {
        ours.reject();
        let server = Server::start(move |_| status(code)).await;
        client.get(&server.url).send().await.unwrap();
        assert_eq!(ours.is_rejected(), expected, "{code}");
    }

    client.get(&Server::ok().await.url).send().await.unwrap();
    assert!(!ours.is_rejected());
    let marked = ours.clone();
    let server = Server::start(move |_| {
        marked.reject();
        status(200)
    })
    .await;
    client.get(&server.url).send().await.unwrap();
    assert!(ours.is_rejected(), "the token was marked after the request");
}

#[tokio::test]
async fn a_success_after_a_redirect_takes_the_mark_off_only_within_the_origin() {
    let elsewhere = Server::ok().await;
    let to_elsewhere = elsewhere.url.clone();
    let server = Server::start(move |request| match request.uri().path() {
        "/within" => redirect(302, "/end"),
        "/away" => redirect(302, &to_elsewhere),
        _ => status(200),
    })
    .await;
    let ours = token("ours");
    let client = client(BearerAuthLayer::new(StaticToken::new(ours.clone())));
    for (path, expected) in [("away", true), ("within", false)] {
        ours.reject();
        let url = format!("{}/{path}", server.url);
        client.get(url).send().await.unwrap();
        assert_eq!(ours.is_rejected(), expected, "{path}");
    }
}

#[tokio::test]
async fn a_full_header_map_is_an_error() {
    let server = Server::ok().await;
    let client = client(BearerAuthLayer::new(StaticToken::new(token("ours"))));
    let mut request = client.get(&server.url).build().unwrap();
    for n in 0.. {
        let name = http::HeaderName::try_from(format!("x-{n}")).unwrap();
        let value = HeaderValue::from_static("");
        if request.headers_mut().try_insert(name, value).is_err() {
            break;
        }
    }
    let error = client.execute(request).await.unwrap_err();
    assert_eq!(our_error(&error).unwrap().kind(), ErrorKind::TooManyHeaders);
}
