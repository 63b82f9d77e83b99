//! Tokens that huskarl fetches (RFC 6749 §4.4). huskarl has what the feature `oauth2` leaves out: discovery,
//! flows with a user, `DPoP`, mTLS, signed client assertions.
//! `cargo run -p tower-bearer-token-servers --example huskarl`
//!
//! Give `RefreshingToken` the grant, not huskarl's cache: two caches would each judge the expiry.
//! huskarl leaves copies of the client secret and of the token in freed memory: the binary `freed_memory`
//! counts the copies.
#![allow(clippy::print_stdout)]

use std::{sync::Arc, time::Duration};

use http::Request;
use http_body_util::{BodyExt, Full, Limited};
use huskarl::{
    core::{
        EndpointUrl, Error,
        client_auth::ClientSecret,
        error::RetryAdvice,
        http::{HttpClient, HttpResponse, Idempotency},
        platform::MaybeSendBoxFuture,
        secrets::{ProvidedSecret, SecretString},
    },
    grant::client_credentials::{ClientCredentialsGrant, ClientCredentialsGrantParameters},
    prelude::*,
};
use hyper::body::Bytes;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_bearer::{
    BearerAuthLayer, BearerToken, BoxError, RefreshingToken, SourceError, SourceErrorKind::Failed,
};
use tower_bearer_token_servers::Demo;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (server, url) = Demo::start().await?;
    let http = Client::builder(TokioExecutor::new()).build_http();
    let secret = ProvidedSecret::new(SecretString::new("s3cret"));
    let grant = ClientCredentialsGrant::builder()
        .client_id("example")
        .client_auth(
            ClientSecret::builder()
                .client_secret(secret)
                .prefer_basic_auth(true)
                .build(),
        )
        .token_endpoint(format!("{url}/token").parse::<EndpointUrl>()?)
        .http_client(Transport(http.clone()))
        .build();
    let grant = Arc::new(grant);
    let source = RefreshingToken::new(move || fetch(grant.clone()));
    let mut api = ServiceBuilder::new()
        .layer(BearerAuthLayer::new(source))
        .service(http);

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

async fn fetch(grant: Arc<ClientCredentialsGrant>) -> Result<BearerToken, SourceError> {
    let parameters = ClientCredentialsGrantParameters::new();
    let response = grant.exchange(parameters).await.map_err(|error| {
        let advice = error.retry_advice();
        let error = SourceError::with_source(Failed, "huskarl got no token", error);
        match advice {
            RetryAdvice::No => error.permanent(),
            RetryAdvice::Retry { after: Some(wait) } => error.with_retry_after(wait),
            _ => error,
        }
    })?;
    let token = BearerToken::new(response.access_token().token().expose_secret())?;
    Ok(match response.raw_token_response().expires_in {
        Some(seconds) => token.expires_in(Duration::from_secs(seconds)),
        None => token,
    })
}

/// The transport of huskarl, over the client that the requests go through. The crate `huskarl-reqwest` has a
/// ready-made transport.
struct Transport(Client<HttpConnector, Full<Bytes>>);

impl HttpClient for Transport {
    fn execute(
        &self,
        request: Request<Bytes>,
        _: Idempotency,
    ) -> MaybeSendBoxFuture<'_, Result<HttpResponse, Error>> {
        Box::pin(async move {
            let retry = |error: BoxError| Error::new(RetryAdvice::RETRY, error);
            let sent = self.0.request(request.map(Full::new)).await;
            let (head, body) = sent.map_err(|error| retry(error.into()))?.into_parts();
            let body = Limited::new(body, 64 * 1024)
                .collect()
                .await
                .map_err(retry)?;
            Ok(HttpResponse {
                status: head.status,
                headers: head.headers,
                body: body.to_bytes(),
            })
        })
    }
}
