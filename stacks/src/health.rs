//! A gRPC server: [`start`].

use std::{io, vec};

use futures::stream;
use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer},
};

use crate::Server;

/// Starts a server with the service `grpc.health.v1.Health`, for callers with a token. The server serves
/// until the runtime ends.
///
/// Both methods reject a bad token at once. With a good token, `Watch` sends a message and then breaks off
/// with `UNAUTHENTICATED` in trailers, as if the token had expired.
///
/// # Errors
///
/// If the address cannot be bound.
pub async fn start(accepted: &str) -> io::Result<Server> {
    let (server, listener) = Server::bind(accepted).await?;
    let service = TowerToHyperService::new(HealthServer::new(Guarded(server.clone())));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let http2 = http2::Builder::new(TokioExecutor::new());
            tokio::spawn(http2.serve_connection(TokioIo::new(stream), service.clone()));
        }
    });
    Ok(server)
}

struct Guarded(Server);

impl Guarded {
    fn admit<T>(&self, call: Request<T>) -> Result<(), Status> {
        if self.0.lets_in(&call.into_parts().0.into_headers()) {
            return Ok(());
        }
        Err(Status::unauthenticated("not a valid token"))
    }
}

const SERVING: HealthCheckResponse = HealthCheckResponse {
    status: ServingStatus::Serving as i32,
};

#[async_trait::async_trait]
impl Health for Guarded {
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
