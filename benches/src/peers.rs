//! The peers that take long to build.

use http::{Request, Response};
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
        visitor.visit(name, layer.layer(Bare::<toolkit_http::HttpError>::new()));
    }
    Ok(())
}

/// This layer takes its token only from an OAuth 2.0 endpoint. So this starts an endpoint, and the layer
/// asks it once.
async fn cf_gears() -> Result<toolkit_auth::BearerAuthLayer, BoxError> {
    use toolkit_auth::{OAuthClientConfig, SecretString, TokenProvider};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}/token", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(|_: Request<_>| async {
                let body = format!(
                    r#"{{"access_token":"{TOKEN}","token_type":"Bearer","expires_in":36000}}"#
                );
                let response = Response::builder().header("content-type", "application/json");
                response.body(Full::new(Bytes::from(body)))
            });
            let connection = hyper::server::conn::http1::Builder::new();
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
        }
    });
    let provider = TokenProvider::new(OAuthClientConfig {
        token_endpoint: Some(endpoint.parse()?),
        client_id: "bench".into(),
        client_secret: SecretString::new("bench"),
        http_config: Some(toolkit_http::HttpClientConfig::for_testing()),
        ..OAuthClientConfig::default()
    })?;
    provider.get().await?;
    Ok(toolkit_auth::BearerAuthLayer::new(provider))
}

/// Clients of reqwest-middleware, in which `Answer` takes the place of the network.
///
/// `reqwest-auth` needs an older version of reqwest-middleware, so each version has a bare client of its
/// own to compare with.
macro_rules! reqwest_stack {
    ($version:ident, $middleware:ident, $name:literal, $auth:expr) => {
        pub mod $version {
            use http::Extensions;
            use tower::BoxError;
            use $middleware::{
                ClientBuilder, ClientWithMiddleware, Middleware, Next, Result,
                reqwest::{Client, Request, Response},
            };

            struct Answer;

            #[async_trait::async_trait]
            impl Middleware for Answer {
                async fn handle(
                    &self,
                    _: Request,
                    _: &mut Extensions,
                    _: Next<'_>,
                ) -> Result<Response> {
                    Ok(http::Response::new("").into())
                }
            }

            /// The name and the client of each case.
            pub fn clients()
            -> std::result::Result<[(&'static str, ClientWithMiddleware); 2], BoxError> {
                let builder = || ClientBuilder::new(Client::new());
                Ok([
                    (concat!("bare, for ", $name), builder().with(Answer).build()),
                    ($name, builder().with($auth).with(Answer).build()),
                ])
            }
        }
    };
}

reqwest_stack!(ours, reqwest_middleware, "static", {
    let token = tower_bearer::BearerToken::new(crate::TOKEN)?;
    tower_bearer::BearerAuthLayer::new(tower_bearer::StaticToken::new(token))
});

reqwest_stack!(theirs, reqwest_middleware_04, "reqwest-auth", {
    let source: std::sync::Arc<dyn token_source::TokenSource> = std::sync::Arc::new(super::Field);
    reqwest_auth::AuthorizationHeaderMiddleware::from(source)
});

/// The token source of `reqwest-auth`, which wants the whole field value.
#[derive(Debug)]
struct Field;

#[async_trait::async_trait]
impl token_source::TokenSource for Field {
    async fn token(&self) -> Result<String, BoxError> {
        Ok(format!("Bearer {TOKEN}"))
    }
}
