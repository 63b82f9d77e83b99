//! A token and a redirect follower of tower-http, above the layer and below it.

use std::task::Poll;

use http::{HeaderValue, StatusCode};
use tower::{Service, ServiceBuilder};
use tower_bearer::{
    BearerAuthLayer, BearerToken, BoxError, ErrorKind, SourceError, SourceErrorKind, StaticToken,
    UseToken, source_fn,
};
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

/// Redirects from the API to a foreign host and back to the API, then answers.
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
fn follow<S>(service: S) -> Result<Res, BoxError>
where
    S: Service<Req, Response = Res, Error = BoxError>,
{
    drive(service, get("https://api.example.com/"))
}

fn follow_with<S>(service: S, chosen: UseToken) -> Result<Res, BoxError>
where
    S: Service<Req, Response = Res, Error = BoxError>,
{
    let mut request = get("https://api.example.com/");
    request.extensions_mut().insert(chosen);
    drive(service, request)
}

fn drive<S>(mut service: S, request: Req) -> Result<Res, BoxError>
where
    S: Service<Req, Response = Res, Error = BoxError>,
{
    make_ready(&mut service);
    let mut task = Task::new(service.call(request));
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
    // The follower's own filter for credentials is off: the request that it copies has no token yet.
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
    // The follower does not restore a header that it has dropped.
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

/// Redirects from the API to another path of the API.
fn redirecting_within() -> Server {
    Server::answering(|request| {
        let mut response = Res::default();
        if request.uri().path() == "/" {
            *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
            let location = HeaderValue::from_static("/moved");
            response.headers_mut().insert("location", location);
        }
        response
    })
}

/// Each extension, with the `Authorization` that it leads to.
fn chosen() -> [(UseToken, &'static str); 2] {
    let tenant = UseToken::new(token("tenant"));
    [(tenant, "Bearer tenant"), (UseToken::none(), "")]
}

#[test]
fn a_redirect_follower_above_takes_what_a_request_says_for_itself_along_within_the_origin_only() {
    for (chosen, first) in chosen() {
        let server = redirecting_within();
        let stack = ServiceBuilder::new()
            .layer(FollowRedirectLayer::new())
            .layer(bound());
        follow_with(stack.service(server.clone()), chosen.clone()).unwrap();
        assert_eq!(server.authorizations(), [first, first]);

        // The hop that leaves the origin loses the extension, so the hop back to the origin carries the
        // layer's own token.
        let server = redirecting();
        let stack = ServiceBuilder::new()
            .layer(FollowRedirectLayer::new())
            .layer(bound());
        follow_with(stack.service(server.clone()), chosen).unwrap();
        assert_eq!(server.authorizations(), [first, "", "Bearer ours"]);
    }
}

/// tower-http 0.6 drops all extensions.
#[test]
fn an_older_redirect_follower_above_does_not_take_it_along() {
    for (chosen, first) in chosen() {
        let server = redirecting_within();
        let stack = ServiceBuilder::new()
            .layer(tower_http_06::follow_redirect::FollowRedirectLayer::new())
            .layer(bound());
        follow_with(stack.service(server.clone()), chosen).unwrap();
        assert_eq!(server.authorizations(), [first, "Bearer ours"]);
    }
}

#[test]
fn a_redirect_follower_below_sends_the_token_of_the_request_or_none() {
    for (chosen, first) in chosen() {
        let (new, old) = (redirecting_within(), redirecting_within());
        let stack = ServiceBuilder::new()
            .layer(bound())
            .layer(FollowRedirectLayer::new());
        follow_with(stack.service(new.clone()), chosen.clone()).unwrap();
        let stack = ServiceBuilder::new()
            .layer(bound())
            .layer(tower_http_06::follow_redirect::FollowRedirectLayer::new());
        follow_with(stack.service(old.clone()), chosen).unwrap();
        for server in [new, old] {
            assert_eq!(server.authorizations(), [first, first]);
        }
    }
}

/// What the documentation of `UseToken` says to do.
#[test]
fn a_layer_without_a_token_of_its_own_lets_no_request_go_out_in_another_name() {
    let without = || {
        let none = || async {
            Err::<BearerToken, _>(SourceError::new(
                SourceErrorKind::Absent,
                "the request names no tenant",
            ))
        };
        BearerAuthLayer::new(source_fn(none))
    };
    for (chosen, first) in chosen() {
        let server = redirecting_within();
        let stack = ServiceBuilder::new()
            .layer(tower_http_06::follow_redirect::FollowRedirectLayer::new())
            .layer(without());
        let error = follow_with(stack.service(server.clone()), chosen).unwrap_err();
        assert_eq!(ours(&error).kind(), ErrorKind::NoToken);
        assert_eq!(server.authorizations(), [first]);
    }
}
