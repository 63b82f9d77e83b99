//! A gRPC server: [`HealthServer`].

use std::{io, vec};

use futures::stream;
use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{self, Health},
};

use crate::Door;

/// The service `grpc.health.v1.Health`, for callers with a token.
///
/// `Check` refuses a token at once. `Watch` sends a message and breaks off with `UNAUTHENTICATED`, as
/// if the token had expired by then: that status is in trailers.
#[derive(Clone, Debug)]
pub struct HealthServer {
    url: String,
    door: Door,
}

impl HealthServer {
    /// Serves until the runtime ends.
    ///
    /// # Errors
    ///
    /// If the address cannot be bound.
    pub async fn start(accepted: &str) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let server = Self {
            url: format!("http://{}", listener.local_addr()?),
            door: Door::default(),
        };
        server.accept(accepted);
        let service = health_server::HealthServer::new(server.clone());
        let service = TowerToHyperService::new(service);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let http2 = http2::Builder::new(TokioExecutor::new());
                tokio::spawn(http2.serve_connection(TokioIo::new(stream), service.clone()));
            }
        });
        Ok(server)
    }

    /// Takes this token from now on, and no other.
    pub fn accept(&self, token: &str) {
        self.door.accept(token);
    }

    /// Where it is: scheme, host and port.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The `Authorization` of each call so far, empty for one that has none.
    #[must_use]
    pub fn seen(&self) -> Vec<String> {
        self.door.seen()
    }

    fn admit<T>(&self, call: Request<T>) -> Result<(), Status> {
        if self.door.lets_in(&call.into_parts().0.into_headers()) {
            return Ok(());
        }
        Err(Status::unauthenticated("not a valid token"))
    }
}

const SERVING: HealthCheckResponse = HealthCheckResponse {
    status: ServingStatus::Serving as i32,
};

#[async_trait::async_trait]
impl Health for HealthServer {
    async fn check(
        &self,
        call: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        self.admit(call)?;
        Ok(Response::new(SERVING))
    }

    type WatchStream = stream::Iter<vec::IntoIter<Result<HealthCheckResponse, Status>>>;

    async fn watch(
        &self,
        call: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.admit(call)?;
        let expired = Status::unauthenticated("the token has expired");
        Ok(Response::new(stream::iter(vec![Ok(SERVING), Err(expired)])))
    }
}
