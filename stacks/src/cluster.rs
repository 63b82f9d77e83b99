//! A stand-in for the API server of a Kubernetes cluster: [`start`].

use std::{future::ready, io};

use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kube::client::Body;
use serde_json::{Value, json};

use crate::Server;

/// Starts a stand-in with a single pod, in the namespace `default`. A request to create a pod succeeds, but
/// adds no pod. The stand-in serves until the runtime ends.
///
/// # Errors
///
/// If the address cannot be bound.
pub async fn start(accepted: &str) -> io::Result<Server> {
    let (cluster, listener) = Server::bind(accepted).await?;
    let server = cluster.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let server = server.clone();
            let service = service_fn(move |request| ready(answer(&server, &request)));
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok(cluster)
}

fn answer(server: &Server, request: &Request<Incoming>) -> http::Result<Response<String>> {
    let (status, body) = if server.lets_in(request.headers()) {
        resource(request.method(), request.uri().path())
    } else {
        failure(StatusCode::UNAUTHORIZED, "Unauthorized")
    };
    let response = Response::builder().status(status);
    let response = response.header(CONTENT_TYPE, "application/json");
    response.body(body.to_string())
}

fn resource(method: &Method, path: &str) -> (StatusCode, Value) {
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "the-only-pod", "namespace": "default" },
    });
    match (method, path) {
        (&Method::GET, "/api/v1/namespaces/default/pods") => {
            let list = json!({
                "apiVersion": "v1",
                "kind": "PodList",
                "metadata": { "resourceVersion": "1" },
                "items": [pod],
            });
            (StatusCode::OK, list)
        }
        (&Method::POST, "/api/v1/namespaces/default/pods") => (StatusCode::CREATED, pod),
        _ => failure(StatusCode::NOT_FOUND, "NotFound"),
    }
}

/// A failure, as the API server reports it.
fn failure(status: StatusCode, reason: &str) -> (StatusCode, Value) {
    let body = json!({
        "apiVersion": "v1",
        "kind": "Status",
        "metadata": {},
        "status": "Failure",
        "message": reason,
        "reason": reason,
        "code": status.as_u16(),
    });
    (status, body)
}

/// Copies a request to send it again, for `RetryRejected::with_clone`. `None` if the body is a stream.
#[must_use]
pub fn copy(request: &Request<Body>) -> Option<Request<Body>> {
    let mut copy = Request::new(request.body().try_clone()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}
