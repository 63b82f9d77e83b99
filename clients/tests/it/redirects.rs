//! A token and a redirect follower of tower-http, above the layer and below it.

use std::task::Poll;

use http::{HeaderValue, StatusCode};
use tower::{Service, ServiceBuilder};
use tower_bearer::{BearerAuthLayer, BoxError, ErrorKind, StaticToken};
use tower_http::follow_redirect::{
    FollowRedirectLayer,
    policy::{Limited, Standard},
};

use crate::support::{Req, Res, Server, Task, get, make_ready, ours, token};

fn layer() -> BearerAuthLayer<StaticToken> {
    BearerAuthLayer::new(StaticToken::new(token("ours")))
}

fn bound() -> BearerAuthLayer<StaticToken> {
    layer().for_origin("https://api.example.com").unwrap()
}

/// Redirects from the API to a foreign host and from there back again, then answers.
fn redirecting() -> Server {
    Server::answering(|request| {
        let location = match request.uri().to_string().as_str() {
            "https://api.example.com/" => "https://evil.example.net/",
            "https://evil.example.net/" => "https://api.example.com/back",
            _ => return Res::default(),
        };
        let mut response = Res::default();
        *response.status_mut() = StatusCode::FOUND;
        let location = HeaderValue::from_static(location);
        response.headers_mut().insert("location", location);
        response
    })
}

/// Sends one request and drives the redirects.
fn follow<S>(mut service: S) -> Result<Res, BoxError>
where
    S: Service<Req, Response = Res, Error = BoxError>,
{
    make_ready(&mut service);
    let mut task = Task::new(service.call(get("https://api.example.com/")));
    loop {
        let wakes = task.wakes();
        if let Poll::Ready(result) = task.poll() {
            return result;
        }
        assert!(task.wakes() > wakes, "nobody wakes the request");
    }
}

#[test]
fn a_redirect_follower_above_does_not_take_the_token_to_a_foreign_host() {
    let server = redirecting();
    let bearer = bound();
    // Its own filter for credentials is off: what it copies has no token yet.
    let above = FollowRedirectLayer::with_policy(Limited::new(10));
    follow(
        ServiceBuilder::new()
            .layer(above)
            .layer(bearer)
            .service(server.clone()),
    )
    .unwrap();
    assert_eq!(server.authorizations(), ["Bearer ours", "", "Bearer ours"]);
}

#[test]
fn a_redirect_follower_below_that_filters_credentials_does_not_either() {
    let server = redirecting();
    let bearer = bound();
    let below = FollowRedirectLayer::<Standard>::new();
    follow(
        ServiceBuilder::new()
            .layer(bearer)
            .layer(below)
            .service(server.clone()),
    )
    .unwrap();
    // What it has dropped once, it does not send again.
    assert_eq!(server.authorizations(), ["Bearer ours", "", ""]);
}

#[test]
fn a_redirect_to_plaintext_is_refused() {
    let server = Server::answering(|_| {
        let mut response = Res::default();
        *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
        let location = HeaderValue::from_static("http://api.example.com/");
        response.headers_mut().insert("location", location);
        response
    });
    let error = follow(
        ServiceBuilder::new()
            .layer(FollowRedirectLayer::new())
            .layer(layer())
            .service(server.clone()),
    )
    .unwrap_err();
    assert_eq!(ours(&error).kind(), ErrorKind::InsecureTransport);
    assert_eq!(server.authorizations(), ["Bearer ours"]);
}
