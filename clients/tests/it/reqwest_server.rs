//! What reqwest talks to: servers on loopback, and a proxy that plays every host of the internet.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use reqwest::{Client, ClientBuilder, Proxy};

pub(crate) type Answer = Response<Full<Bytes>>;

/// A server, and the requests that came in, in order.
pub(crate) struct Server {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Request<Bytes>>>>,
}

impl Server {
    pub(crate) async fn start(
        answer: impl Fn(&Request<Bytes>) -> Answer + Clone + Send + Sync + 'static,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<_>>> = Arc::default();
        let log = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, log) = (answer.clone(), Arc::clone(&log));
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let (answer, log) = (answer.clone(), Arc::clone(&log));
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        let request = Request::from_parts(head, body);
                        let response = answer(&request);
                        log.lock().unwrap().push(request);
                        Ok::<_, Infallible>(response)
                    }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { url, seen }
    }

    pub(crate) async fn ok() -> Self {
        Self::start(|_| status(200)).await
    }

    /// Accepts one token only.
    pub(crate) async fn taking(good: &'static str) -> Self {
        Self::start(move |request| status(if carries(request, good) { 200 } else { 401 })).await
    }

    /// A proxy that answers in the name of every host. `map` says which URL redirects to which. A URL that is
    /// not in `map` answers 200.
    ///
    /// These tests build reqwest without TLS, so it sends requests for https URLs to this proxy in plaintext
    /// as well. What reqwest does with a redirect depends on the URLs alone.
    pub(crate) async fn internet(map: &'static [(&'static str, &'static str)]) -> Self {
        Self::start(move |request| redirect_by(map, request).unwrap_or_else(|| status(200))).await
    }

    /// The builder of a client that reaches every host through this server.
    pub(crate) fn as_proxy(&self) -> ClientBuilder {
        Client::builder().proxy(Proxy::all(&self.url).unwrap())
    }

    pub(crate) fn seen(&self) -> Vec<Request<Bytes>> {
        self.seen.lock().unwrap().clone()
    }

    /// A field of each request so far. Empty if the request lacks the field.
    pub(crate) fn fields(&self, name: &str) -> Vec<String> {
        let seen = self.seen();
        seen.iter().map(|request| field(request, name)).collect()
    }

    pub(crate) fn authorizations(&self) -> Vec<String> {
        self.fields("authorization")
    }

    /// The URI of each request so far, and the value of a field of the request.
    pub(crate) fn hops(&self, name: &str) -> Vec<(String, String)> {
        let seen = self.seen();
        seen.iter()
            .map(|request| (request.uri().to_string(), field(request, name)))
            .collect()
    }
}

fn field(request: &Request<Bytes>, name: &str) -> String {
    let value = request.headers().get(name);
    value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
}

pub(crate) fn carries(request: &Request<Bytes>, token: &str) -> bool {
    field(request, "authorization") == format!("Bearer {token}")
}

/// The builder of a client that uses no proxy, even if a variable in the environment names one.
pub(crate) fn direct() -> ClientBuilder {
    Client::builder().no_proxy()
}

pub(crate) fn status(code: u16) -> Answer {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

pub(crate) fn redirect(code: u16, to: &str) -> Answer {
    let mut response = status(code);
    let location = to.parse().unwrap();
    response.headers_mut().insert("location", location);
    response
}

pub(crate) fn redirect_by(map: &[(&str, &str)], request: &Request<Bytes>) -> Option<Answer> {
    let uri = request.uri().to_string();
    let (_, to) = map.iter().find(|(from, _)| *from == uri)?;
    Some(redirect(302, to))
}
