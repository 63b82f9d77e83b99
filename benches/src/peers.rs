//! The real crates, as far as they run without a server of their own.

use std::{convert::Infallible, sync::Arc};

use http::{Extensions, Request, Response};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tower::{BoxError, Layer};

use crate::{Bare, TOKEN, Visitor};

pub(crate) fn visit(
    wanted: impl Fn(&str) -> bool,
    visitor: &mut impl Visitor,
) -> Result<(), BoxError> {
    let name = "cf-gears-toolkit-auth";
    if wanted(name) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let layer = runtime.block_on(cf_gears())?;
        let _entered = runtime.enter();
        visitor.visit(
            name,
            layer.layer(Bare::<cf_gears_toolkit_http::HttpError>::new()),
        );
    }
    Ok(())
}

/// It takes its token from an OAuth2 endpoint only, so there is one, which is asked once.
async fn cf_gears() -> Result<cf_gears_toolkit_auth::BearerAuthLayer, BoxError> {
    use cf_gears_toolkit_auth::{OAuthClientConfig, SecretString, TokenProvider};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}/token", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(|_: Request<_>| async {
                let body = format!(
                    r#"{{"access_token":"{TOKEN}","token_type":"Bearer","expires_in":36000}}"#
                );
                let response = Response::builder().header("content-type", "application/json");
                Ok::<_, http::Error>(response.body(Full::new(Bytes::from(body)))?)
            });
            let connection = hyper::server::conn::http1::Builder::new();
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
        }
    });
    let provider = TokenProvider::new(OAuthClientConfig {
        token_endpoint: Some(endpoint.parse()?),
        client_id: "bench".into(),
        client_secret: SecretString::new("bench"),
        http_config: Some(cf_gears_toolkit_http::HttpClientConfig::for_testing()),
        ..OAuthClientConfig::default()
    })?;
    provider.get().await?;
    Ok(cf_gears_toolkit_auth::BearerAuthLayer::new(provider))
}
