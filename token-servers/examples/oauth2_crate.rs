//! Tokens that the crate `oauth2` fetches (RFC 6749 §4.4), for what the feature `oauth2` does not do:
//! `cargo run -p tower-bearer-token-servers --example oauth2_crate`.
//!
//! That crate leaves copies of the client secret and of the token in freed memory: the binary `freed_memory`
//! counts the copies.
#![allow(clippy::print_stdout)]

use std::io;

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use oauth2::{
    ClientId, ClientSecret, EndpointNotSet, EndpointSet, HttpRequest, HttpResponse,
    RequestTokenError, TokenResponse, TokenUrl,
    basic::{BasicClient, BasicErrorResponseType::Extension},
};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_bearer::{
    BearerAuthLayer, BearerToken, BoxError, RefreshingToken, SourceError, SourceErrorKind::Failed,
};
use tower_bearer_token_servers::Demo;

type OAuth =
    BasicClient<EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (server, url) = Demo::start().await?;
    let oauth = BasicClient::new(ClientId::new("example".into()))
        .set_client_secret(ClientSecret::new("s3cret".into()))
        .set_token_uri(TokenUrl::new(format!("{url}/token"))?);
    let source = RefreshingToken::new(move || fetch(oauth.clone()));
    let mut api = ServiceBuilder::new()
        .layer(BearerAuthLayer::new(source))
        .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());

    for (revoke, expected) in [(false, (200, 1)), (true, (401, 1)), (false, (200, 2))] {
        if revoke {
            server.revoke();
        }
        let request = Request::get(format!("{url}/api")).body(Full::default())?;
        let status = api.ready().await?.call(request).await?.status().as_u16();
        println!("{status}, {} fetched so far", server.issued());
        if (status, server.issued()) != expected {
            return Err(format!("expected {expected:?}").into());
        }
    }
    Ok(())
}

async fn fetch(oauth: OAuth) -> Result<BearerToken, SourceError> {
    let request = oauth.exchange_client_credentials();
    let response = request.request_async(&send).await.map_err(|error| {
        // Leave out the error itself: `Parse` holds the response body, which may hold a token.
        match error {
            RequestTokenError::ServerResponse(response) => {
                let code = response.error();
                let error = SourceError::new(Failed, format!("the endpoint says {code}"));
                // Another try does not help against a code of RFC 6749, such as `invalid_client`. It may
                // help against a server's own code.
                if matches!(code, Extension(_)) {
                    error
                } else {
                    error.permanent()
                }
            }
            RequestTokenError::Request(error) => {
                SourceError::with_source(Failed, "no answer", error)
            }
            _ => SourceError::new(Failed, "the endpoint's answer is not a token"),
        }
    })?;
    let token = BearerToken::new(response.access_token().secret())?;
    Ok(match response.expires_in() {
        Some(lifetime) => token.expires_in(lifetime),
        None => token,
    })
}

async fn send(request: HttpRequest) -> io::Result<HttpResponse> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let sent = client.request(request.map(Full::from)).await;
    let (head, body) = sent.map_err(io::Error::other)?.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    Ok(Response::from_parts(head, body.to_vec()))
}
