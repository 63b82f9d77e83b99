//! No block of memory that is freed still holds a secret of a token request, whatever the grant, the answer
//! of the server, or the point at which the request is dropped.
//!
//! The HTTP client of these tests wipes what it holds. So any secret that the scan finds is a copy of this
//! crate.

use std::{
    convert::Infallible,
    future::ready,
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response, StatusCode};
use hyper::body::{Body, Frame};
use secrecy::{SecretString, zeroize::Zeroizing};
use tower::Service;
use tower_bearer::{BearerToken, StaticToken, TokenRequest};

use crate::support::{
    Task,
    allocator::{MARK, found},
    token_endpoint::URL,
};

/// A secret in a buffer that neither grows nor shrinks.
fn secret(owner: char) -> Zeroizing<String> {
    fill("SECRET", owner)
}

/// Fills `template`. In `template`, `SECRET` stands for a secret of `owner`.
fn fill(template: &str, owner: char) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(4096));
    for (index, part) in template.split("SECRET").enumerate() {
        if index > 0 {
            text.push_str(MARK);
            text.push(owner);
            text.push_str("-with-a-tail");
        }
        text.push_str(part);
    }
    text
}

fn source(owner: char) -> StaticToken {
    StaticToken::new(BearerToken::new(secret(owner)).unwrap())
}

/// Each grant, with each way to authenticate the client that fits the grant.
fn requests(owner: char) -> Vec<TokenRequest> {
    let with_secret = TokenRequest::client_credentials(URL, "id", secret(owner)).unwrap();
    let refresh = || TokenRequest::refresh_token(URL, "id", secret(owner)).unwrap();
    let exchange = || TokenRequest::token_exchange(URL, source(owner)).unwrap();
    vec![
        with_secret.clone(),
        with_secret.clone().secret_in_body(),
        with_secret.clone().client_secret(secret(owner)),
        with_secret.param("password", secret(owner)).scope("a"),
        TokenRequest::client_credentials_by_assertion(URL, "id", source(owner)).unwrap(),
        refresh(),
        refresh().client_secret(secret(owner)),
        refresh().on_rotation(|_: SecretString| ready(Ok::<_, Infallible>(()))),
        refresh().on_rotation(|_: SecretString| ready(Err("disk full"))),
        exchange(),
        exchange().client_assertion(source(owner)),
        TokenRequest::jwt_bearer(URL, source(owner)).unwrap(),
    ]
}

const ANSWERS: [(u16, &str); 16] = [
    (
        200,
        r#"{"access_token":"SECRET","token_type":"Bearer","expires_in":3600}"#,
    ),
    (
        200,
        r#"{"access_token":"SECRET\u002d\/","refresh_token":"SECRET\u002d-2"}"#,
    ),
    (200, r#"{"access_token":"SECRET","token_type":"SECRET"}"#),
    (
        200,
        r#"{"access_token":"SECRET two","refresh_token":"SECRET-2"}"#,
    ),
    (200, r#"{"access_token":["SECRET"]}"#),
    (
        200,
        r#"{"access_token":"SECRET","error":"SECRET","error_description":"SECRET\u0000"}"#,
    ),
    (200, r#"{"access_token":"SECRET""#),
    (200, "SECRET"),
    (200, "\"SECRET\u{e9}"),
    (204, ""),
    (
        400,
        r#"{"error":"invalid_grant","error_description":"SECRET is wrong"}"#,
    ),
    (
        401,
        r#"{"error":"invalid_client\u0020","error_description":"your SECRET"}"#,
    ),
    (401, r#"{"error":"SECRET"}"#),
    (302, "SECRET"),
    (429, "<html>SECRET</html>"),
    (503, r#"{"SECRET":"SECRET"}"#),
];

/// Answers with a body in pieces of the size `piece`. Waits for ever at the step with the number
/// `stops_at`: 0 is readiness, 1 is the response, and later steps are pieces of the body.
#[derive(Clone)]
struct Endpoint {
    status: u16,
    body: Zeroizing<String>,
    piece: usize,
    stops_at: usize,
}

struct Pieces {
    rest: Bytes,
    piece: usize,
    left: usize,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(left) = self.left.checked_sub(1) else {
            return Poll::Pending;
        };
        self.left = left;
        let length = self.piece.min(self.rest.len());
        let piece = self.rest.split_to(length);
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }
}

impl Service<Request<Bytes>> for Endpoint {
    type Response = Response<Pieces>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Pieces>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        match self.stops_at {
            0 => Poll::Pending,
            _ => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let mut response = Response::new(Pieces {
            rest: Bytes::from_owner(Zeroizing::new(self.body.as_bytes().to_vec())),
            piece: self.piece,
            left: self.stops_at.saturating_sub(2),
        });
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap();
        if self.stops_at == 1 {
            return Box::pin(async move {
                let _held = request;
                std::future::pending().await
            });
        }
        Box::pin(ready(Ok(response)))
    }
}

#[test]
fn every_grant_leaves_nothing_whatever_the_answer() {
    for (status, template) in ANSWERS {
        let endpoint = Endpoint {
            status,
            body: fill(template, 'A'),
            piece: 7,
            stops_at: usize::MAX,
        };
        for (index, request) in requests('A').into_iter().enumerate() {
            let before = found('A');
            let fetch = request.over(endpoint.clone());
            // Fetch twice, since the first fetch may leave a refresh token for the second fetch.
            drop(fetch().now_or_never().unwrap());
            drop(fetch().now_or_never().unwrap());
            drop(fetch);
            assert_eq!(found('A') - before, 0, "{status} {template} {index}");
        }
    }
}

#[test]
fn a_response_that_a_program_read_itself_leaves_nothing() {
    // An error may repeat a secret of the request. `from_token_response` does not know the request, so it
    // cannot leave the secret out.
    let repeats = |template: &str| template.contains("\"error\":") && !template.contains("access");
    for (status, template) in ANSWERS {
        if repeats(template) {
            continue;
        }
        let body = fill(template, 'B');
        let status = StatusCode::from_u16(status).unwrap();
        drop(BearerToken::from_token_response(
            status,
            &http::HeaderMap::new(),
            body.as_bytes(),
        ));
        assert_eq!(found('B'), 0, "{status} {template}");
    }
}

#[test]
fn a_fetch_that_is_dropped_at_any_point_leaves_nothing() {
    for stops_at in 0..40 {
        let endpoint = Endpoint {
            status: 200,
            body: fill(ANSWERS[1].1, 'C'),
            piece: 5,
            stops_at,
        };
        for (index, request) in requests('C').into_iter().enumerate() {
            let mut fetch = Task::new(request.fetch(endpoint.clone()));
            drop(fetch.poll());
            drop(fetch);
            assert_eq!(found('C'), 0, "point {stops_at}, request {index}");
        }
    }
}

#[test]
fn a_fetch_that_is_dropped_in_the_hook_leaves_nothing() {
    let endpoint = Endpoint {
        status: 200,
        body: fill(ANSWERS[1].1, 'D'),
        piece: 4096,
        stops_at: usize::MAX,
    };
    let hook = |token: SecretString| async move {
        let _token = token;
        std::future::pending::<Result<(), Infallible>>().await
    };
    let request = TokenRequest::refresh_token(URL, "id", secret('D')).unwrap();
    let fetch = request.on_rotation(hook).over(endpoint);
    // The first fetch is dropped after the response, the second fetch before its request.
    drop(Task::waiting(fetch()));
    drop(Task::waiting(fetch()));
    drop(fetch);
    assert_eq!(found('D'), 0);
}

#[test]
fn a_subject_that_is_waited_for_leaves_nothing() {
    let (answer, token) = futures::channel::oneshot::channel::<BearerToken>();
    let token = token.shared();
    let subject = tower_bearer::source_fn(move || token.clone());
    let endpoint = Endpoint {
        status: 200,
        body: fill(ANSWERS[0].1, 'E'),
        piece: 4096,
        stops_at: usize::MAX,
    };
    let request = TokenRequest::token_exchange(URL, subject).unwrap();
    let fetch = request
        .client_id("id")
        .client_secret(secret('E'))
        .over(endpoint);
    drop(Task::waiting(fetch()));
    let mut waiting = Task::waiting(fetch());
    answer.send(BearerToken::new(secret('E')).unwrap()).unwrap();
    waiting.finish().unwrap();
    drop((waiting, fetch));
    assert_eq!(found('E'), 0);
}

#[test]
fn a_request_that_is_refused_or_never_sent_leaves_nothing() {
    assert!(TokenRequest::client_credentials("http://id.example", "id", secret('F')).is_err());
    assert!(TokenRequest::refresh_token("", "id", secret('F')).is_err());
    drop(requests('F'));
    drop(
        requests('F')
            .pop()
            .map(|request| request.scope("x").clone()),
    );
    assert_eq!(found('F'), 0);
}

/// A secret in a `String` that the caller gives away, so that only the crate can wipe it.
fn given(template: &str, owner: char) -> String {
    mem::take(&mut *fill(template, owner))
}

#[test]
fn a_secret_that_is_given_away_with_a_url_that_is_refused_is_wiped() {
    let url = "http://id.example";
    assert!(TokenRequest::client_credentials(url, "id", given("SECRET", 'G')).is_err());
    assert!(TokenRequest::refresh_token(url, "id", given("SECRET", 'G')).is_err());
    assert_eq!(found('G'), 0);
}

#[test]
fn a_secret_with_a_control_character_is_wiped() {
    let endpoint = Endpoint {
        status: 200,
        body: fill(ANSWERS[0].1, 'H'),
        piece: 4096,
        stops_at: usize::MAX,
    };
    let invalid = || given("SECRET\n", 'H');
    assert!(TokenRequest::client_credentials(URL, "id", invalid()).is_err());
    assert!(TokenRequest::refresh_token(URL, "id", invalid()).is_err());
    for request in requests('H') {
        for request in [
            request.clone().client_secret(invalid()),
            request.client_secret(invalid()).secret_in_body(),
        ] {
            let fetch = request.over(endpoint.clone());
            assert!(fetch().now_or_never().unwrap().is_err());
            assert!(fetch().now_or_never().unwrap().is_err());
        }
    }
    drop(endpoint);
    assert_eq!(found('H'), 0);
}
