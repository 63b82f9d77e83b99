//! Shared by the examples: a server on loopback, a client's GET, and a check.
// Each example uses a part of this module.
#![allow(clippy::print_stdout, dead_code, missing_docs, unreachable_pub)]

use std::{
    convert::Infallible,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use bytes::Bytes;
use futures::{StreamExt, channel::mpsc};
use http::{
    HeaderValue, Request, Response,
    header::{AUTHORIZATION, WWW_AUTHENTICATE},
};
use http_body_util::{BodyExt, Empty, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::net::TcpListener;
use tower::{Service, ServiceExt};
use tower_bearer::BoxError;

/// How many connections the servers of this program have accepted.
pub static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);

/// Starts a server for HTTP/1.1 and HTTP/2 on loopback. Gives its URL, without a slash at the end.
///
/// `answer` gets the request and the text of its bearer token, and gives a status and a text. A 401
/// has a Bearer challenge, as RFC 6750 §3 demands.
pub async fn serve(
    answer: fn(&Request<Incoming>, Option<&str>) -> (u16, String),
) -> Result<String, BoxError> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            CONNECTIONS.fetch_add(1, SeqCst);
            let service = service_fn(move |request: Request<Incoming>| async move {
                let field = request.headers().get(AUTHORIZATION);
                let token = field.and_then(|field| field.to_str().ok()?.strip_prefix("Bearer "));
                let (status, text) = answer(&request, token);
                let mut response = Response::new(Full::<Bytes>::from(text));
                *response.status_mut() = status.try_into().unwrap_or_default();
                if status == 401 {
                    let challenge = HeaderValue::from_static("Bearer");
                    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
                }
                Ok::<_, Infallible>(response)
            });
            let http = auto::Builder::new(TokioExecutor::new());
            tokio::spawn(async move {
                // An error only says that the client closed the connection.
                let _ = http.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Ok(url)
}

/// Sends a GET request. Gives the status and the text of the response, such as `401: no token`.
pub async fn get<S>(client: S, url: &str) -> Result<String, BoxError>
where
    S: Service<Request<Empty<Bytes>>, Response = Response<Incoming>, Error: Into<BoxError>>,
{
    let request = Request::get(url).body(Empty::new())?;
    let response = client.oneshot(request).await.map_err(Into::into)?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await?.to_bytes();
    Ok(format!("{status}: {}", String::from_utf8(body.into())?))
}

/// Prints `what` if it holds, and fails if it does not.
pub fn check(holds: bool, what: &str) -> Result<(), BoxError> {
    if !holds {
        return Err(format!("does not hold: {what}").into());
    }
    println!("   ok: {what}");
    Ok(())
}

/// Tasks that send request after request, until their `Workers` is dropped.
pub struct Workers {
    number: usize,
    /// The number of a worker, and how a request of this worker ended.
    answers: mpsc::UnboundedReceiver<(usize, Result<String, BoxError>)>,
}

impl Workers {
    pub fn start<S>(number: usize, client: &S, url: &str) -> Self
    where
        S: Service<Request<Empty<Bytes>>, Response = Response<Incoming>, Error = BoxError>,
        S: Clone + Send + 'static,
        S::Future: Send,
    {
        let (report, answers) = mpsc::unbounded();
        for worker in 0..number {
            let (client, url, report) = (client.clone(), url.to_owned(), report.clone());
            tokio::spawn(async move {
                while !report.is_closed() {
                    let said = get(client.clone(), &url).await;
                    let _ = report.unbounded_send((worker, said));
                }
            });
        }
        Self { number, answers }
    }

    /// Waits until each worker gets the answer `wanted`, and gives the number of answers. Fails if an
    /// answer is not a 200, or if a worker still waits after very many answers.
    pub async fn until_all_got(&mut self, wanted: &str) -> Result<usize, BoxError> {
        let (mut got, mut requests) = (vec![false; self.number], 0);
        while got.contains(&false) {
            let (worker, said) = self.answers.next().await.ok_or("the workers are gone")?;
            match said? {
                said if said.starts_with("200") => got[worker] |= said == wanted,
                said => return Err(format!("a worker got {said}").into()),
            }
            requests += 1;
            if requests == 50_000 {
                return Err(format!("not every worker got {wanted}").into());
            }
        }
        Ok(requests)
    }
}
