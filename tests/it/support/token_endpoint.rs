//! A service in place of a token endpoint. It records each request, and answers as the test says.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use tower::Service;

pub(crate) const URL: &str = "https://id.example/oauth2/token";
pub(crate) const TOKEN: &str =
    r#"{"access_token":"access","token_type":"Bearer","expires_in":3600}"#;

#[derive(Clone)]
pub(crate) struct TokenEndpoint {
    seen: Arc<Mutex<Vec<Request<Bytes>>>>,
    answer: Arc<dyn Fn(usize) -> Response<String> + Send + Sync>,
}

impl TokenEndpoint {
    /// `answer` gets the number of the request, from 1.
    pub(crate) fn new(answer: impl Fn(usize) -> Response<String> + Send + Sync + 'static) -> Self {
        Self {
            seen: Arc::default(),
            answer: Arc::new(answer),
        }
    }

    pub(crate) fn saying(status: u16, body: &'static str) -> Self {
        Self::new(move |_| answer(status, body))
    }

    pub(crate) fn ok() -> Self {
        Self::saying(200, TOKEN)
    }

    pub(crate) fn seen(&self) -> Vec<Request<Bytes>> {
        self.seen.lock().unwrap().clone()
    }

    /// The forms that were sent, in order.
    pub(crate) fn forms(&self) -> Vec<String> {
        let seen = self.seen();
        let text = |request: &Request<Bytes>| String::from_utf8(request.body().to_vec()).unwrap();
        seen.iter().map(text).collect()
    }
}

pub(crate) fn answer(status: u16, body: &str) -> Response<String> {
    let mut response = Response::new(body.to_owned());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

impl Service<Request<Bytes>> for TokenEndpoint {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let number = {
            let mut seen = self.seen.lock().unwrap();
            seen.push(request);
            seen.len()
        };
        ready(Ok((self.answer)(number)))
    }
}
