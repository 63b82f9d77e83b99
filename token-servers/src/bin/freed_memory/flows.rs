//! A flow with each crate.

use std::{fmt, io};

use ::huskarl::{
    core::{
        EndpointUrl, Error,
        client_auth::ClientSecret as HuskarlSecret,
        http::{HttpClient, HttpResponse, Idempotency},
        platform::MaybeSendBoxFuture,
        secrets::{ProvidedSecret, SecretString},
    },
    grant::client_credentials::{ClientCredentialsGrant, ClientCredentialsGrantParameters},
    prelude::*,
};
use ::oauth2::{
    AuthType, ClientId, ClientSecret, HttpRequest, TokenResponse, TokenUrl, basic::BasicClient,
};
use bytes::Bytes;
use futures::executor::block_on;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header::AUTHORIZATION};
use http_body_util::{BodyExt, Full};
use tower_bearer::{BearerToken, BoxError, TokenRequest};
use zeroize::{Zeroize, Zeroizing};

use crate::allocator::{SECRET, SECRET_IN_BASE64, TOKEN};

const URL: &str = "https://id.example/token";

#[derive(Clone, Copy)]
pub(crate) enum Method {
    Basic,
    Post,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Basic => "client_secret_basic",
            Self::Post => "client_secret_post",
        })
    }
}

/// The secret as a program may have it: in a buffer that the program gives away.
fn secret() -> String {
    SECRET.to_owned()
}

fn answer() -> Vec<u8> {
    let text = Zeroizing::new(format!(
        r#"{{"access_token":"{TOKEN}","token_type":"Bearer","expires_in":3600,"scope":"read"}}"#
    ));
    text.as_bytes().to_vec()
}

/// Fails if the secret is not where the method puts it: then the count would mean nothing.
fn check(method: Method, headers: &HeaderMap, body: &[u8]) {
    let header = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let in_header = header.is_some_and(|value| holds(value, SECRET_IN_BASE64));
    let expected = match method {
        Method::Basic => (true, false),
        Method::Post => (false, true),
    };
    assert_eq!((in_header, holds(body, SECRET)), expected);
}

fn holds(bytes: &[u8], text: &str) -> bool {
    memchr::memmem::find(bytes, text.as_bytes()).is_some()
}

pub(crate) fn oauth2(method: Method) {
    let client = BasicClient::new(ClientId::new("example".into()))
        .set_client_secret(ClientSecret::new(secret()))
        .set_token_uri(TokenUrl::new(URL.into()).unwrap())
        .set_auth_type(match method {
            Method::Basic => AuthType::BasicAuth,
            Method::Post => AuthType::RequestBody,
        });
    let transport = |mut request: HttpRequest| async move {
        check(method, request.headers(), request.body());
        request.body_mut().zeroize();
        // The crate takes a plain `Vec`, which nobody wipes.
        Ok::<_, io::Error>(Response::new(answer()))
    };
    let request = client.exchange_client_credentials();
    let response = block_on(request.request_async(&transport)).unwrap();
    BearerToken::new(response.access_token().secret()).unwrap();
}

struct Transport(Method);

impl HttpClient for Transport {
    fn execute(
        &self,
        request: Request<Bytes>,
        _: Idempotency,
    ) -> MaybeSendBoxFuture<'_, Result<HttpResponse, Error>> {
        check(self.0, request.headers(), request.body());
        if let Ok(mut body) = request.into_body().try_into_mut() {
            body.as_mut().zeroize();
        }
        Box::pin(async {
            Ok(HttpResponse {
                status: StatusCode::OK,
                headers: HeaderMap::new(),
                body: Bytes::from_owner(Zeroizing::new(answer())),
            })
        })
    }
}

pub(crate) fn huskarl(method: Method) {
    let secret = ProvidedSecret::new(SecretString::new(Zeroizing::new(secret()).as_str()));
    let secret = HuskarlSecret::builder()
        .client_secret(secret)
        .prefer_basic_auth(matches!(method, Method::Basic))
        .build();
    let grant = ClientCredentialsGrant::builder()
        .client_id("example")
        .client_auth(secret)
        .token_endpoint(URL.parse::<EndpointUrl>().unwrap())
        .http_client(Transport(method))
        .build();
    let parameters = ClientCredentialsGrantParameters::new();
    let response = block_on(grant.exchange(parameters)).unwrap();
    BearerToken::new(response.access_token().token().expose_secret()).unwrap();
}

pub(crate) fn tower_bearer(method: Method) {
    let request = TokenRequest::client_credentials(URL, "example", secret()).unwrap();
    let request = match method {
        Method::Basic => request,
        Method::Post => request.secret_in_body(),
    };
    let transport = tower::service_fn(move |request: Request<Full<Bytes>>| async move {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        check(method, &head.headers, &body);
        let answer = Bytes::from_owner(Zeroizing::new(answer()));
        Ok::<_, BoxError>(Response::new(Full::new(answer)))
    });
    block_on(request.fetch(transport)).unwrap();
}
