//! Requests over real HTTP on this machine, with hyper's server and hyper-util's client.

use std::{
    collections::HashSet,
    convert::Infallible,
    future::Future,
    io::{self, Read, Write},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use bytes::Bytes;
use futures::{channel::oneshot, future::join_all};
use http::{Request, Response, StatusCode, Uri, header::WWW_AUTHENTICATE};
use http_body_util::Empty;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use tokio::net::{TcpListener, TcpStream};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_bearer::{BearerAuthLayer, BoxError, ErrorKind, RotatingToken, StaticToken};

use crate::support::{ours, text, token};

type Body = Empty<Bytes>;

/// An API server that accepts some tokens, and answers 401 otherwise.
#[derive(Clone)]
struct Api {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    accepted: HashSet<String>,
    /// The `authorization` and the `x-case` of each request, in the order in which the requests came.
    seen: Vec<(String, String)>,
    /// Each request to `/slow` tells the test that it has arrived, and waits until the test lets it go.
    slow: Vec<(oneshot::Sender<()>, oneshot::Receiver<()>)>,
}

impl Api {
    async fn start(accepted: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = Self {
            address: listener.local_addr().unwrap(),
            state: Arc::default(),
        };
        for token in accepted {
            api.accept(token);
        }
        let server = api.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let server = server.clone();
                let answer = service_fn(move |request| server.clone().answer(request));
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
                tokio::spawn(connection);
            }
        });
        api
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let header = |name: &str| match request.headers().get(name) {
            Some(value) => value.to_str().unwrap().to_owned(),
            None => String::new(),
        };
        let authorization = header("authorization");
        let (accepted, slow) = {
            let mut state = self.state.lock().unwrap();
            let seen = (authorization.clone(), header("x-case"));
            state.seen.push(seen);
            let slow = (request.uri().path() == "/slow").then(|| state.slow.remove(0));
            (state.accepted.contains(&authorization), slow)
        };
        if let Some((arrived, go)) = slow {
            arrived.send(()).unwrap();
            go.await.unwrap();
        }
        let mut response = Response::new(Body::new());
        if !accepted {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            let challenge = "Bearer error=\"invalid_token\"".parse().unwrap();
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        Ok(response)
    }

    fn accept(&self, token: &str) {
        let accepted = &mut self.state.lock().unwrap().accepted;
        accepted.insert(format!("Bearer {token}"));
    }

    fn revoke(&self, token: &str) {
        let accepted = &mut self.state.lock().unwrap().accepted;
        assert!(accepted.remove(&format!("Bearer {token}")));
    }

    /// Expects a request to `/slow`. The receiver tells that the request has arrived, and the sender lets
    /// it go.
    fn expect_slow(&self) -> (oneshot::Receiver<()>, oneshot::Sender<()>) {
        let ((arrived, is_there), (let_go, go)) = (oneshot::channel(), oneshot::channel());
        self.state.lock().unwrap().slow.push((arrived, go));
        (is_there, let_go)
    }

    fn seen(&self) -> Vec<(String, String)> {
        self.state.lock().unwrap().seen.clone()
    }

    fn get(&self, path: &str) -> Request<Body> {
        get(&format!("http://{}{path}", self.address))
    }
}

fn get(uri: &str) -> Request<Body> {
    Request::get(uri).body(Body::new()).unwrap()
}

fn client() -> Client<hyper_util::client::legacy::connect::HttpConnector, Body> {
    Client::builder(TokioExecutor::new()).build_http()
}

/// Sends a request through a clone of `stack`.
async fn status<S>(stack: &S, request: Request<Body>) -> StatusCode
where
    S: Service<Request<Body>, Response = Response<Incoming>, Error = BoxError> + Clone,
{
    let response = stack.clone().oneshot(request).await;
    response.expect("the request is answered").status()
}

#[tokio::test]
async fn a_server_lets_in_who_has_the_layer_and_nobody_else() {
    let api = Api::start(&["7Fjfp0ZBr1KtDRbnfVdmIw"]).await;
    let without = client().request(api.get("/")).await.unwrap();
    assert_eq!(without.status(), StatusCode::UNAUTHORIZED);

    let source = StaticToken::new(token("7Fjfp0ZBr1KtDRbnfVdmIw"));
    let stack = ServiceBuilder::new()
        .layer(BearerAuthLayer::new(source))
        .service(client());
    assert_eq!(status(&stack, api.get("/")).await, StatusCode::OK);
}

#[tokio::test]
async fn the_field_on_the_wire_is_authorization_bearer_and_the_token() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let wire = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
        stream.write_all(answer).unwrap();
        String::from_utf8(head).unwrap()
    });

    let source = StaticToken::new(token("-._~+/09azAZ=="));
    let stack = ServiceBuilder::new()
        .layer(BearerAuthLayer::new(source))
        .service(client());
    let answer = status(&stack, get(&format!("http://{address}/v1"))).await;
    assert_eq!(answer, StatusCode::NO_CONTENT);

    let head = wire.join().unwrap();
    let fields = head
        .split("\r\n")
        .filter(|line| line.to_ascii_lowercase().contains("authorization"));
    let fields: Vec<_> = fields.collect();
    assert_eq!(fields, ["authorization: Bearer -._~+/09azAZ=="]);
}

#[tokio::test]
async fn a_token_is_replaced_without_a_failed_request() {
    let api = Api::start(&["first"]).await;
    let source = RotatingToken::new(token("first"));
    let stack = ServiceBuilder::new()
        .layer(BearerAuthLayer::new(source.clone()))
        .service(client());
    assert_eq!(status(&stack, api.get("/")).await, StatusCode::OK);

    let (is_there, let_go) = api.expect_slow();
    let (under_way, slow_request) = (stack.clone(), api.get("/slow"));
    let slow = tokio::spawn(async move { status(&under_way, slow_request).await });
    is_there.await.unwrap();

    api.accept("second");
    source.rotate(token("second"));
    api.revoke("first");
    assert_eq!(status(&stack, api.get("/")).await, StatusCode::OK);
    let_go.send(()).unwrap();
    assert_eq!(slow.await.unwrap(), StatusCode::OK);

    let authorizations = api
        .seen()
        .into_iter()
        .map(|(authorization, _)| authorization);
    let authorizations: Vec<_> = authorizations.collect();
    assert_eq!(
        authorizations,
        ["Bearer first", "Bearer first", "Bearer second"]
    );
}

#[tokio::test]
async fn a_401_of_a_server_marks_the_token_that_was_sent() {
    let api = Api::start(&["second"]).await;
    let [first, second] = ["first", "second"].map(token);
    let source = RotatingToken::new(first.clone());
    let stack = ServiceBuilder::new()
        .layer(BearerAuthLayer::new(source.clone()))
        .service(client());

    let (is_there, let_go) = api.expect_slow();
    let (under_way, slow_request) = (stack.clone(), api.get("/slow"));
    let slow = tokio::spawn(async move { status(&under_way, slow_request).await });
    is_there.await.unwrap();
    source.rotate(second.clone());
    assert_eq!(status(&stack, api.get("/")).await, StatusCode::OK);
    assert!(!first.is_rejected());

    let_go.send(()).unwrap();
    assert_eq!(slow.await.unwrap(), StatusCode::UNAUTHORIZED);
    assert!(first.is_rejected());
    assert!(!second.is_rejected(), "the 401 is late");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_during_rotations_carry_a_token_that_is_not_older_than_they_are() {
    const TASKS: usize = 8;
    const ROTATIONS: usize = 20;

    let api = Api::start(&["number-0"]).await;
    let source = RotatingToken::new(token("number-0"));
    let stack = ServiceBuilder::new()
        .layer(BearerAuthLayer::new(source.clone()))
        .service(client());
    let newest = Arc::new(AtomicUsize::new(0));
    let tasks = (0..TASKS).map(|_| {
        let (api, stack, newest) = (api.clone(), stack.clone(), Arc::clone(&newest));
        tokio::spawn(async move {
            let mut at_least = 0;
            while at_least < ROTATIONS {
                at_least = newest.load(Ordering::SeqCst);
                let mut request = api.get("/");
                request.headers_mut().insert("x-case", at_least.into());
                assert_eq!(status(&stack, request).await, StatusCode::OK);
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();

    for number in 1..=ROTATIONS {
        let before = api.seen().len();
        while api.seen().len() < before + TASKS {
            assert!(tasks.iter().all(|task| !task.is_finished()), "one failed");
            tokio::task::yield_now().await;
        }
        let name = format!("number-{number}");
        api.accept(&name);
        source.rotate(token(&name));
        newest.store(number, Ordering::SeqCst);
    }
    for task in join_all(tasks).await {
        task.unwrap();
    }

    for (authorization, at_least) in api.seen() {
        let sent: usize = authorization["Bearer number-".len()..].parse().unwrap();
        let at_least: usize = at_least.parse().unwrap();
        assert!(sent >= at_least, "token {sent} after rotation {at_least}");
    }
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<TokioIo<TcpStream>>> + Send>>;

#[tokio::test]
async fn a_token_in_plaintext_to_another_machine_does_not_even_cost_a_connection() {
    let secret = token("ours");
    let api = Api::start(&["ours"]).await;
    let connections = Arc::new(AtomicUsize::new(0));
    // This connector connects every host to the same server, as a resolver that lies would.
    let (count, address) = (Arc::clone(&connections), api.address);
    let connector = tower::service_fn(move |_: Uri| -> Connecting {
        count.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move { Ok(TokioIo::new(TcpStream::connect(address).await?)) })
    });
    let client = Client::builder(TokioExecutor::new()).build::<_, Body>(connector);
    let layer = BearerAuthLayer::new(StaticToken::new(secret.clone()));

    let stack = ServiceBuilder::new()
        .layer(layer.clone())
        .service(client.clone());
    let error = stack
        .oneshot(get("http://api.example.com/"))
        .await
        .unwrap_err();
    assert_eq!(ours(&error).kind(), ErrorKind::InsecureTransport);
    assert_eq!(connections.load(Ordering::SeqCst), 0);
    assert!(api.seen().is_empty());

    // With `danger_allow_plaintext`, the connector does connect.
    let stack = ServiceBuilder::new()
        .layer(layer.danger_allow_plaintext())
        .service(client);
    let insisting = status(&stack, get("http://api.example.com/")).await;
    assert_eq!(insisting, StatusCode::OK);
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    assert_eq!(api.seen()[0].0, text(&secret));
}
