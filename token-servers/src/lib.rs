//! A token endpoint and an API in a server on loopback, for the examples of this package.
//!
//! The tests use real servers instead: see the file `run`.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Issues the tokens `token-1`, `token-2` and so on, each good for an hour. The client is
/// `example` with the secret `s3cret`, sent as `client_secret_basic`.
#[derive(Clone, Debug, Default)]
pub struct Demo {
    issued: Arc<AtomicU32>,
    revoked_up_to: Arc<AtomicU32>,
}

impl Demo {
    /// Starts the server, and gives its URL.
    ///
    /// # Errors
    ///
    /// If no port of the loopback address is free.
    pub async fn start() -> io::Result<(Self, String)> {
        let demo = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        tokio::spawn(demo.clone().serve(listener));
        Ok((demo, url))
    }

    /// How many tokens the server has issued.
    #[must_use]
    pub fn issued(&self) -> u32 {
        self.issued.load(SeqCst)
    }

    /// Revokes every token that the server has issued.
    pub fn revoke(&self) {
        self.revoked_up_to.store(self.issued(), SeqCst);
    }

    async fn serve(self, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let demo = self.clone();
            let service = service_fn(move |request| {
                let response = demo.respond(&request);
                async { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new();
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
        }
    }

    fn respond(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let authorization = request.headers().get(header::AUTHORIZATION);
        let authorization = authorization.and_then(|value| value.to_str().ok());
        let mut response = Response::new(Full::default());
        // `example:s3cret`, encoded as in RFC 6749 §2.3.1.
        if request.uri().path() == "/token" && authorization == Some("Basic ZXhhbXBsZTpzM2NyZXQ=") {
            let number = self.issued.fetch_add(1, SeqCst) + 1;
            let body = format!(
                r#"{{"access_token":"token-{number}","token_type":"bearer","expires_in":3600}}"#
            );
            *response.body_mut() = Full::from(body);
            return response;
        }
        let number = authorization
            .and_then(|value| value.strip_prefix("Bearer token-")?.parse().ok())
            .filter(|number: &u32| *number > self.revoked_up_to.load(SeqCst));
        if number.is_none() {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        response
    }
}
