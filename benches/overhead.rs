//! Measures the time that a request takes in each case, and over real HTTP.
//!
//! `cargo bench -p tower-bearer-benches --bench overhead`. With `--features peers`, this also measures the
//! peers that take long to build.
#![allow(missing_docs)]

use std::{convert::Infallible, error::Error, thread};

use criterion::{BatchSize, Criterion};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tower::{Layer, Service, ServiceExt};
use tower_bearer::{BearerAuthLayer, BearerToken, StaticToken};
use tower_bearer_benches::{TOKEN, Visitor, ensure_variable, request, send, visit};

struct Time<'a>(&'a mut Criterion);

impl Visitor for Time<'_> {
    fn visit<S>(&mut self, name: &str, service: S)
    where
        S: Service<Request<()>, Response = Response<()>> + Clone,
    {
        let mut group = self.0.benchmark_group("request");
        group.bench_function(name, |bencher| {
            let mut service = service.clone();
            let send = |request| send(&mut service, request);
            bencher.iter_batched(request, send, BatchSize::SmallInput);
        });
        group.finish();
    }
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    ensure_variable()?;
    let mut criterion = Criterion::default().configure_from_args();
    visit(|_| true, &mut Time(&mut criterion))?;
    over_http(&mut criterion)?;
    #[cfg(feature = "peers")]
    over_reqwest(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}

/// A whole request over a kept-alive HTTP/1 connection on loopback, without and with the layer.
fn over_http(criterion: &mut Criterion) -> Result<(), Box<dyn Error + Send + Sync>> {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
    };
    let server = runtime()?;
    let listener = server.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
    let uri: http::Uri = format!("http://{}/", listener.local_addr()?).parse()?;
    thread::spawn(move || {
        server.block_on(async {
            while let Ok((stream, _)) = listener.accept().await {
                let service = hyper::service::service_fn(|_| async {
                    Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
                });
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
    });

    let client = runtime()?;
    let http: Client<HttpConnector, Empty<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let auth = BearerAuthLayer::new(StaticToken::new(BearerToken::new(TOKEN)?)).layer(http.clone());
    let mut group = criterion.benchmark_group("HTTP/1 on loopback");
    let make = || {
        let mut request = request().map(|()| Empty::new());
        request.headers_mut().remove("content-length");
        *request.uri_mut() = uri.clone();
        request
    };
    group.bench_function("bare", |bencher| {
        bencher.iter(|| client.block_on(exchange(&http, make())))
    });
    group.bench_function("static", |bencher| {
        bencher.iter(|| client.block_on(exchange(&auth, make())))
    });
    group.finish();
    Ok(())
}

#[cfg(feature = "peers")]
fn over_reqwest(criterion: &mut Criterion) -> Result<(), Box<dyn Error + Send + Sync>> {
    use tower_bearer_benches::peers::{ours, theirs};

    // A macro, since the two versions of reqwest-middleware share no type that a function could take.
    macro_rules! bench {
        ($group:ident, $clients:expr) => {
            for (name, client) in $clients {
                $group.bench_function(name, |bencher| {
                    bencher.iter_batched(
                        || client.get("https://api.example.com/v1/files"),
                        |request| futures::executor::block_on(request.send()).is_ok(),
                        BatchSize::SmallInput,
                    );
                });
            }
        };
    }
    let mut group = criterion.benchmark_group("reqwest-middleware");
    bench!(group, ours::clients()?);
    bench!(group, theirs::clients()?);
    group.finish();
    Ok(())
}

async fn exchange<S>(service: &S, request: Request<Empty<Bytes>>)
where
    S: Service<Request<Empty<Bytes>>, Response = Response<hyper::body::Incoming>> + Clone,
    S::Error: std::fmt::Debug,
{
    if let Ok(response) = service.clone().oneshot(request).await {
        drop(response.into_body().collect().await);
    }
}
