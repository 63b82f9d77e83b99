//! The layer as a middleware of reqwest-middleware, over real HTTP on loopback.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::{HeaderName, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use reqwest::{Body, Client};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use tower_bearer::{
    BearerAuthLayer, BearerToken, Error, ErrorKind, RotatingToken, StaticToken, TokenSource,
};

use crate::support::{Asking, token};

/// A server, and the fields that its requests came with.
struct Server {
    url: String,
    seen: Arc<Mutex<Vec<http::HeaderMap>>>,
}

impl Server {
    async fn start(
        answer: impl Fn(&Request<Incoming>) -> Response<Full<Bytes>> + Clone + Send + Sync + 'static,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<_>>> = Arc::default();
        let log = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, log) = (answer.clone(), Arc::clone(&log));
                let service = hyper::service::service_fn(move |request| {
                    log.lock().unwrap().push(Request::headers(&request).clone());
                    let response = answer(&request);
                    async { Ok::<_, Infallible>(response) }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { url, seen }
    }

    /// Takes one token only.
    async fn taking(good: &'static str) -> Self {
        Self::start(move |request| {
            let authorization = request.headers().get("authorization");
            let is_good = authorization.is_some_and(|value| value == &format!("Bearer {good}"));
            status(if is_good { 200 } else { 401 })
        })
        .await
    }

    async fn redirecting(to: &str) -> Self {
        let to = to.to_owned();
        Self::start(move |_| {
            let mut response = status(302);
            response
                .headers_mut()
                .insert("location", to.parse().unwrap());
            response
        })
        .await
    }

    /// Empty where a request came without.
    fn fields(&self, name: &str) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
        seen.iter()
            .map(|headers| headers.get(name).map(text).unwrap_or_default())
            .collect()
    }

    fn authorizations(&self) -> Vec<String> {
        self.fields("authorization")
    }
}

fn status(code: u16) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

fn client<T: TokenSource>(layer: BearerAuthLayer<T>) -> ClientWithMiddleware {
    ClientBuilder::new(Client::new()).with(layer).build()
}

fn bearer(text: &str) -> String {
    format!("Bearer {text}")
}

/// Hands out `old` until it is rejected, then `new`.
fn old_then_new() -> impl TokenSource {
    let (old, new) = (token("old"), token("new"));
    Asking(move || {
        let token = if old.is_rejected() { &new } else { &old };
        token.clone().into()
    })
}

#[tokio::test]
async fn a_request_carries_the_token_of_its_time() {
    let server = Server::start(|_| status(200)).await;
    let source = RotatingToken::new(token("first"));
    let client = client(BearerAuthLayer::new(source.clone()));
    client.get(&server.url).send().await.unwrap();
    source.rotate(token("second"));
    client
        .get(&server.url)
        .bearer_auth("other")
        .send()
        .await
        .unwrap();
    assert_eq!(server.authorizations(), [bearer("first"), bearer("second")]);
}

#[tokio::test]
async fn the_settings_are_those_of_a_tower_stack() {
    let server = Server::start(|_| status(200)).await;
    let layer = || BearerAuthLayer::new(StaticToken::new(token("ours")));
    let keeping = client(layer().keep_existing());
    keeping
        .get(&server.url)
        .bearer_auth("own")
        .send()
        .await
        .unwrap();
    let in_scope = client(layer().for_origin(&server.url).unwrap());
    in_scope.get(&server.url).send().await.unwrap();
    let out_of_scope = client(layer().for_origin("https://api.example.com").unwrap());
    out_of_scope.get(&server.url).send().await.unwrap();
    assert_eq!(
        server.authorizations(),
        [bearer("own"), bearer("ours"), String::new()]
    );
    let renamed = client(layer().header_name(HeaderName::from_static("x-token")));
    renamed.get(&server.url).send().await.unwrap();
    assert_eq!(server.fields("x-token").last(), Some(&bearer("ours")));
}

#[tokio::test]
async fn plaintext_to_another_machine_is_refused() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let source = Asking(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        token("t").into()
    });
    let request = client(BearerAuthLayer::new(source)).get("http://api.example.com/");
    let reqwest_middleware::Error::Middleware(error) = request.send().await.unwrap_err() else {
        panic!("not refused by a middleware");
    };
    let error = error
        .downcast_ref::<Error>()
        .expect("an error of this crate");
    assert_eq!(error.kind(), ErrorKind::InsecureTransport);
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_401_marks_the_token_that_was_sent() {
    let server = Server::taking("new").await;
    let old = token("old");
    let source = StaticToken::new(old.clone());
    let response = client(BearerAuthLayer::new(source))
        .get(&server.url)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status().as_u16(), 401);
    assert!(old.is_rejected());
    assert_eq!(server.seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_rejected_request_is_replayed_once_if_there_is_another_token() {
    let server = Server::taking("new").await;
    let replaying = client(BearerAuthLayer::new(old_then_new()).replay_rejected());
    let response = replaying
        .post(&server.url)
        .body("text")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status().as_u16(), 200);
    assert_eq!(server.authorizations(), [bearer("old"), bearer("new")]);

    // Never twice, though each is another.
    let server = Server::taking("none of them").await;
    let count = AtomicUsize::new(0);
    let source = Asking(move || token(&count.fetch_add(1, Ordering::SeqCst).to_string()).into());
    let replaying = client(BearerAuthLayer::new(source).replay_rejected());
    replaying.get(&server.url).send().await.unwrap();
    assert_eq!(server.authorizations(), [bearer("0"), bearer("1")]);

    // Not with the same one.
    let server = Server::taking("new").await;
    let only = StaticToken::new(token("old"));
    let replaying = client(BearerAuthLayer::new(only).replay_rejected());
    replaying.get(&server.url).send().await.unwrap();
    assert_eq!(server.authorizations(), [bearer("old")]);
}

#[tokio::test]
async fn a_streaming_body_is_never_replayed() {
    let server = Server::taking("new").await;
    let chunks = futures::stream::iter([Ok::<_, Infallible>("chunk")]);
    let replaying = client(BearerAuthLayer::new(old_then_new()).replay_rejected());
    let request = replaying.post(&server.url).body(Body::wrap_stream(chunks));
    let response = request.send().await.unwrap();
    assert_eq!(response.status().as_u16(), 401);
    assert_eq!(server.authorizations(), [bearer("old")]);
}

/// Two servers on loopback differ in their port. One on `localhost` is another host, too.
#[tokio::test]
async fn reqwest_takes_authorization_off_when_a_redirect_leads_to_another_port_or_host() {
    for host in ["127.0.0.1", "localhost"] {
        let other = Server::start(|_| status(200)).await;
        let to = other.url.replace("127.0.0.1", host);
        let server = Server::redirecting(&to).await;
        for layer in [
            BearerAuthLayer::new(StaticToken::new(token("t"))),
            BearerAuthLayer::new(StaticToken::new(token("t")))
                .for_origin(&server.url)
                .unwrap(),
        ] {
            client(layer).get(&server.url).send().await.unwrap();
        }
        assert_eq!(server.authorizations(), [bearer("t"), bearer("t")]);
        assert_eq!(other.authorizations(), ["", ""], "{host}");
    }
}

#[tokio::test]
async fn reqwest_leaves_a_header_of_another_name_on_unless_it_follows_no_redirect() {
    let other = Server::start(|_| status(200)).await;
    let server = Server::redirecting(&other.url).await;
    let layer = || {
        BearerAuthLayer::new(StaticToken::new(token("t")))
            .header_name(HeaderName::from_static("x-token"))
    };
    client(layer()).get(&server.url).send().await.unwrap();
    assert_eq!(
        other.fields("x-token"),
        [bearer("t")],
        "the docs say that it leaks"
    );
    let none = Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let client = ClientBuilder::new(none).with(layer()).build();
    client.get(&server.url).send().await.unwrap();
    assert_eq!(other.fields("x-token").len(), 1);
}

#[tokio::test]
async fn the_401_of_a_server_that_never_saw_the_token_does_not_mark_it() {
    let other = Server::taking("another").await;
    let server = Server::redirecting(&other.url).await;
    let sent: BearerToken = token("t");
    let layer = BearerAuthLayer::new(StaticToken::new(sent.clone())).replay_rejected();
    let response = client(layer).get(&server.url).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 401);
    assert_eq!(other.authorizations(), [""]);
    assert!(!sent.is_rejected());
}
