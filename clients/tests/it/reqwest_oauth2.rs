//! The client for a token endpoint in src/guide/reqwest.md: it fetches a token, and takes no secret along a
//! redirect.

use http_body_util::Full;
use tower_bearer::TokenRequest;

use crate::{
    reqwest_server::{Answer, Server},
    support::text,
};

async fn fetch(server: &Server) -> Result<String, String> {
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let http_client = tower::service_fn(move |request: http::Request<reqwest::Body>| {
        let client = client.clone();
        async move {
            client
                .execute(request.try_into()?)
                .await
                .map(http::Response::from)
        }
    });
    let request = TokenRequest::client_credentials(&server.url, "my-client", "s3cret").unwrap();
    let fetched = request.secret_in_body().fetch(http_client).await;
    fetched
        .map(|token| text(&token))
        .map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_plain_reqwest_client_fetches() {
    let server = Server::start(|request| {
        let expected = "grant_type=client_credentials&client_secret=s3cret&client_id=my-client";
        assert_eq!(
            request.headers()["content-length"],
            expected.len().to_string().as_str()
        );
        assert_eq!(request.body(), expected);
        Answer::new(Full::from(r#"{"access_token":"access"}"#))
    })
    .await;
    assert_eq!(fetch(&server).await.unwrap(), "Bearer access");
}

#[tokio::test]
async fn a_redirect_is_an_error_and_the_secret_stays() {
    let other = Server::ok().await;
    let location = other.url.clone();
    let server = Server::start(move |_| {
        let mut answer = Answer::default();
        *answer.status_mut() = http::StatusCode::PERMANENT_REDIRECT;
        answer
            .headers_mut()
            .insert("location", location.parse().unwrap());
        answer
    })
    .await;
    let error = fetch(&server).await.unwrap_err();
    assert!(
        error.contains("308 Permanent Redirect: a redirect"),
        "{error}"
    );
    assert_eq!(other.hops("authorization").len(), 0);
}
