//! Requests over HTTP/2, where many requests share a connection, and a table keeps header fields.

use std::{
    convert::Infallible,
    io::{Read, Write},
    net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream},
    sync::{Arc, Mutex},
    task::{Context, Poll},
    thread,
};

use bytes::Bytes;
use futures::{channel::oneshot, future::join_all};
use http::{HeaderName, Request, Response, StatusCode, Version, header::AUTHORIZATION};
use http_body_util::Empty;
use hyper::{body::Incoming, client::conn::http1, server::conn, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::net::{TcpListener, TcpStream};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_bearer::{BearerAuthLayer, BoxError, RotatingToken, StaticToken};

use crate::support::token;

type Body = Empty<Bytes>;

/// A server that accepts a single token, and counts its connections.
#[derive(Clone)]
struct Api {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    accepted: &'static str,
    connections: usize,
    /// The version and the token of each request.
    seen: Vec<(Version, String)>,
    /// Each request to `/slow` tells the test that it has arrived, and waits until the test lets it go.
    slow: Vec<(oneshot::Sender<()>, oneshot::Receiver<()>)>,
}

impl Api {
    async fn start(version: Version, accepted: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = Self {
            address: listener.local_addr().unwrap(),
            state: Arc::default(),
        };
        api.accept(accepted);
        let server = api.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let server = server.clone();
                server.state.lock().unwrap().connections += 1;
                let stream = TokioIo::new(stream);
                let answer = service_fn(move |request| server.clone().answer(request));
                if version == Version::HTTP_2 {
                    let http2 = conn::http2::Builder::new(TokioExecutor::new());
                    tokio::spawn(http2.serve_connection(stream, answer));
                } else {
                    let http1 = conn::http1::Builder::new();
                    tokio::spawn(http1.serve_connection(stream, answer));
                }
            }
        });
        api
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let authorization = request.headers().get(AUTHORIZATION);
        let authorization = authorization.map_or("", |value| value.to_str().unwrap());
        let (accepted, slow) = {
            let mut state = self.state.lock().unwrap();
            let seen = (request.version(), authorization.to_owned());
            state.seen.push(seen);
            let slow = (request.uri().path() == "/slow").then(|| state.slow.remove(0));
            (state.accepted, slow)
        };
        if let Some((arrived, go)) = slow {
            arrived.send(()).unwrap();
            go.await.unwrap();
        }
        let mut response = Response::new(Body::new());
        if authorization.strip_prefix("Bearer ") != Some(accepted) {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        Ok(response)
    }

    fn accept(&self, token: &'static str) {
        self.state.lock().unwrap().accepted = token;
    }

    /// Expects a request to `/slow`. The receiver tells that the request has arrived, and the sender lets
    /// it go.
    fn expect_slow(&self) -> (oneshot::Receiver<()>, oneshot::Sender<()>) {
        let ((arrived, is_there), (let_go, go)) = (oneshot::channel(), oneshot::channel());
        self.state.lock().unwrap().slow.push((arrived, go));
        (is_there, let_go)
    }

    fn connections(&self) -> usize {
        self.state.lock().unwrap().connections
    }

    fn seen(&self) -> Vec<(Version, String)> {
        self.state.lock().unwrap().seen.clone()
    }

    fn get(&self, path: &str) -> Request<Body> {
        get(&format!("http://{}{path}", self.address))
    }
}

fn get(uri: &str) -> Request<Body> {
    Request::get(uri).body(Body::new()).unwrap()
}

/// A client that speaks HTTP/2 from the first byte on, as gRPC clients do ("prior knowledge").
fn client() -> Client<HttpConnector, Body> {
    Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http()
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
async fn a_token_is_replaced_while_the_connection_goes_on() {
    const AT_ONCE: usize = 20;

    let api = Api::start(Version::HTTP_2, "first").await;
    let source = RotatingToken::new(token("first"));
    let stack = ServiceBuilder::new()
        .layer(BearerAuthLayer::new(source.clone()))
        .service(client());
    for name in ["first", "second"] {
        source.rotate(token(name));
        api.accept(name);
        let requests = (0..AT_ONCE).map(|_| status(&stack, api.get("/")));
        assert_eq!(join_all(requests).await, [StatusCode::OK; AT_ONCE]);
    }

    let expected = |name| vec![(Version::HTTP_2, format!("Bearer {name}")); AT_ONCE];
    assert_eq!(api.seen(), [expected("first"), expected("second")].concat());
    assert_eq!(api.connections(), 1);
}

#[tokio::test]
async fn a_401_marks_the_token_of_its_own_stream() {
    let api = Api::start(Version::HTTP_2, "second").await;
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
    assert_eq!(api.connections(), 1);
}

/// A service of a connection of hyper. The connection itself is neither a service nor `Clone`.
struct Http1(http1::SendRequest<Body>);

impl Service<Request<Body>> for Http1 {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = futures::future::BoxFuture<'static, hyper::Result<Response<Incoming>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

#[tokio::test]
async fn a_bare_connection_of_hyper_takes_the_layer_under_a_buffer() {
    let api = Api::start(Version::HTTP_11, "ours").await;
    let stream = TcpStream::connect(api.address).await.unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let stack = ServiceBuilder::new()
        .layer(BearerAuthLayer::new(StaticToken::new(token("ours"))))
        .buffer(8)
        .service(Http1(sender));
    for _ in 0..3 {
        // The URI names no host: the caller opened the connection, and knows the host.
        assert_eq!(status(&stack, get("/v1")).await, StatusCode::OK);
    }
    let expected = (Version::HTTP_11, "Bearer ours".to_owned());
    assert_eq!(api.seen(), vec![expected; 3]);
}

#[tokio::test]
async fn a_bare_http2_connection_of_hyper_takes_the_layer_as_it_is() {
    let api = Api::start(Version::HTTP_2, "ours").await;
    let stream = TokioIo::new(TcpStream::connect(api.address).await.unwrap());
    let http2 = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = http2.handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let inner = tower::service_fn(move |request| sender.clone().send_request(request));
    let stack = ServiceBuilder::new()
        .layer(BearerAuthLayer::new(StaticToken::new(token("ours"))))
        .service(inner);
    let requests = (0..3).map(|_| status(&stack, api.get("/")));
    assert_eq!(join_all(requests).await, [StatusCode::OK; 3]);
    let expected = (Version::HTTP_2, "Bearer ours".to_owned());
    assert_eq!(api.seen(), vec![expected; 3]);
}

/// The form of a header field in HPACK (RFC 7541 §6). The numbers are indexes of the table. The fields
/// above 61 were added on this connection.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Field {
    /// The name and the value are in the table.
    Indexed(usize),
    /// The field is added to the table.
    Added(Option<usize>),
    /// The field is not added to the table. A proxy may add it to the table of its own connection.
    NotAdded(Option<usize>),
    /// The field must not be added to any table on the way.
    NeverIndexed(Option<usize>),
}

fn fields(mut block: &[u8]) -> Vec<Field> {
    let mut fields = Vec::new();
    while let Some(&first) = block.first() {
        let (kind, prefix): (fn(Option<usize>) -> Field, _) = match first.leading_zeros() {
            0 => {
                fields.push(Field::Indexed(integer(&mut block, 7)));
                continue;
            }
            1 => (Field::Added, 6),
            2 => {
                // This entry changes the size of the table.
                integer(&mut block, 5);
                continue;
            }
            3 => (Field::NeverIndexed, 4),
            _ => (Field::NotAdded, 4),
        };
        let name = integer(&mut block, prefix);
        if name == 0 {
            skip_text(&mut block);
        }
        skip_text(&mut block);
        fields.push(kind((name > 0).then_some(name)));
    }
    fields
}

/// Reads an integer (RFC 7541 §5.1).
fn integer(block: &mut &[u8], prefix: u32) -> usize {
    let mut next = || {
        let (first, rest) = block.split_first().unwrap();
        *block = rest;
        usize::from(*first)
    };
    let limit = (1 << prefix) - 1;
    let mut value = next() & limit;
    if value == limit {
        for shift in (0..).step_by(7) {
            let byte = next();
            value += (byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
    }
    value
}

/// Skips a string (RFC 7541 §5.2).
fn skip_text(block: &mut &[u8]) {
    let length = integer(block, 7);
    *block = &block[length..];
}

/// Answers each request with 204. Returns the header blocks of the requests.
fn serve_http2(mut stream: StdStream, requests: usize) -> Vec<Vec<u8>> {
    const SETTINGS: u8 = 4;
    const HEADERS: u8 = 1;
    const ACK: u8 = 1;
    const END_STREAM_AND_HEADERS: u8 = 0x5;

    let mut preface = [0; 24];
    stream.read_exact(&mut preface).unwrap();
    stream
        .write_all(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0])
        .unwrap();
    let mut blocks = Vec::new();
    while blocks.len() < requests {
        // The head of a frame has the length, the type, the flags and the stream (RFC 9113 §4.1).
        let mut head = [0; 9];
        stream.read_exact(&mut head).unwrap();
        let [high, middle, low, kind, flags, id @ ..] = head;
        let length = u32::from_be_bytes([0, high, middle, low]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).unwrap();
        if kind == SETTINGS && flags & ACK == 0 {
            let ack = [0, 0, 0, SETTINGS, ACK, 0, 0, 0, 0];
            stream.write_all(&ack).unwrap();
        }
        if kind == HEADERS {
            assert_eq!(flags, END_STREAM_AND_HEADERS, "no padding and no priority");
            blocks.push(payload);
            // `:status: 204` has the index 9 in the table.
            let [a, b, c, d] = id;
            let head = [0, 0, 1, HEADERS, END_STREAM_AND_HEADERS, a, b, c, d, 0x89];
            stream.write_all(&head).unwrap();
        }
    }
    blocks
}

#[tokio::test]
async fn the_token_stays_out_of_every_header_table() {
    const AUTHORIZATION_IN_TABLE: usize = 23;
    const OTHER: HeaderName = HeaderName::from_static("x-api-token");
    const REQUESTS: usize = 3;

    for name in [AUTHORIZATION, OTHER] {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let uri = format!("http://{}/", listener.local_addr().unwrap());
        let server = thread::spawn(move || serve_http2(listener.accept().unwrap().0, REQUESTS));
        let layer = BearerAuthLayer::new(StaticToken::new(token("ours")));
        let stack = ServiceBuilder::new()
            .layer(layer.header_name(name.clone()))
            .service(client());
        for _ in 0..REQUESTS {
            let mut request = get(&uri);
            // The first request adds this field to the table. It would add the token as well.
            let public = "some other value".parse().unwrap();
            request.headers_mut().insert("x-public", public);
            assert_eq!(status(&stack, request).await, StatusCode::NO_CONTENT);
        }
        for (number, block) in server.join().unwrap().iter().enumerate() {
            let fields = fields(block);
            println!("{name}, request {number}: {fields:?}");
            let never = |field: &&Field| matches!(field, Field::NeverIndexed(_));
            let never: Vec<_> = fields.iter().filter(never).collect();
            assert_eq!(never.len(), 1, "the token, and nothing else");
            if name == AUTHORIZATION {
                assert_eq!(*never[0], Field::NeverIndexed(Some(AUTHORIZATION_IN_TABLE)));
            }
            if number > 0 {
                let indexed = |field: &&Field| matches!(field, Field::Indexed(_));
                let indexed = fields.iter().filter(indexed).count();
                assert_eq!(
                    indexed,
                    fields.len() - 1,
                    "all but the token are in the table"
                );
            }
        }
    }
}
