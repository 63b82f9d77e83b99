//! If a way to spawn a request compiles with Tower's `Timeout` in the layer's place, it compiles with the
//! layer and an `Arc<dyn TokenSource>`. Each way is a function, which is compiled for both.
//!
//! rustc forgets lifetimes within an `async` block before it checks whether the block is `Send`
//! (rust-lang/rust#110338). If the service had a bound of `'static` on the source, this check would fail
//! for each block that holds the service across an `await`.

use std::{future::ready, sync::Arc, time::Duration};

use futures::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{self, FuturesUnordered},
};
use tokio::{
    sync::Mutex,
    task::{JoinSet, spawn, yield_now},
};
use tower::{
    Layer, Service, ServiceBuilder, ServiceExt,
    timeout::Timeout,
    util::{BoxCloneService, BoxCloneSyncService, BoxService},
};
use tower_bearer::{BearerAuth, BearerAuthLayer, BoxError, StaticToken, TokenSource};

use crate::support::{Req, Res, Server, token};

const SECOND: Duration = Duration::from_secs(1);

type Bearer<S> = BearerAuth<S, Arc<dyn TokenSource>>;

fn get() -> Req {
    crate::support::get("https://api.example.com/")
}

fn timeout<S>(inner: S) -> Timeout<S> {
    Timeout::new(inner, SECOND)
}

fn bearer<S>(inner: S) -> Bearer<S> {
    let source: Arc<dyn TokenSource> = Arc::new(StaticToken::new(token("abc")));
    BearerAuthLayer::new(source).layer(inner)
}

async fn call<S: Service<Req>>(mut service: S) -> Result<S::Response, S::Error> {
    service.ready().await?.call(get()).await
}

async fn call_a_clone<S: Service<Req> + Clone>(service: &S) -> Result<S::Response, S::Error> {
    service.clone().oneshot(get()).await
}

async fn call_by_reference<S: Service<Req>>(service: &mut S) -> Result<S::Response, S::Error> {
    service.ready().await?.call(get()).await
}

/// Defines a function for each way. It spawns a request to `$wrap` around the inner service `$inner`.
/// `$error` is a bound on the error of the inner service.
macro_rules! ways {
    ($module:ident, $wrap:ident, $($error:tt)*) => {
        mod $module {
            use super::{$wrap as wrap, *};

            macro_rules! way {
                ($name:ident, $inner:ident => $body:expr) => {
                    pub(super) fn $name<S>($inner: S)
                    where
                        S: Service<Req, Response = Res, $($error)*> + Clone + Send + Sync + 'static,
                        S::Error: Into<BoxError> + Send + Sync,
                        S::Future: Send + 'static,
                    {
                        drop($body);
                    }
                };
            }

            way!(oneshot, s => spawn(wrap(s).oneshot(get())));
            way!(made_within, s => spawn(async move { wrap(s).oneshot(get()).await }));
            way!(clones, s => {
                let s = wrap(s);
                spawn(async move { s.clone().oneshot(get()).await?; s.oneshot(get()).await })
            });
            way!(ready_call, s => {
                let mut s = wrap(s);
                spawn(async move { s.ready().await?.call(get()).await })
            });
            way!(ready_then_call, s => {
                let mut s = wrap(s);
                spawn(async move {
                    let ready = s.ready().await?;
                    let response = ready.call(get());
                    response.await
                })
            });
            way!(ready_oneshot, s => {
                let s = wrap(s);
                spawn(async move { s.ready_oneshot().await?.call(get()).await })
            });
            way!(twice, s => {
                let mut s = wrap(s);
                spawn(async move { s.ready().await?.call(get()).await?; s.ready().await?.call(get()).await })
            });
            way!(call_all, s => {
                let s = wrap(s);
                spawn(async move {
                    let mut all = s.call_all(stream::iter([get()]));
                    all.next().await
                })
            });
            way!(call_all_unordered, s => {
                let s = wrap(s);
                spawn(async move {
                    s.call_all(stream::iter([get()])).unordered().collect::<Vec<_>>().await
                })
            });
            way!(call_all_itself, s => {
                spawn(wrap(s).call_all(stream::iter([get()])).collect::<Vec<_>>())
            });
            way!(buffer, s => {
                let s = ServiceBuilder::new().buffer(4).service(wrap(s));
                spawn(async move { s.oneshot(get()).await })
            });
            way!(limits, s => {
                let s = ServiceBuilder::new().load_shed().concurrency_limit(4).service(wrap(s));
                spawn(async move { s.oneshot(get()).await })
            });
            way!(under_timeout, s => {
                let s = ServiceBuilder::new().timeout(SECOND).service(wrap(s));
                spawn(async move { s.oneshot(get()).await })
            });
            way!(box_service, s => {
                let mut s = BoxService::new(wrap(s));
                spawn(async move { s.ready().await?.call(get()).await })
            });
            way!(box_clone_service, s => {
                let s = BoxCloneService::new(wrap(s));
                spawn(async move { s.clone().oneshot(get()).await })
            });
            way!(box_clone_sync_service, s => {
                let s = BoxCloneSyncService::new(wrap(s));
                spawn(async move { s.clone().oneshot(get()).await })
            });
            way!(boxed_clone, s => spawn(wrap(s).boxed_clone().oneshot(get())));
            way!(map_err, s => {
                let s = wrap(s).map_err(|error: BoxError| error.to_string());
                spawn(s.oneshot(get()))
            });
            way!(join_all, s => {
                let s = wrap(s);
                spawn(async move {
                    futures::future::join_all([s.clone().oneshot(get()), s.oneshot(get())]).await
                })
            });
            way!(futures_unordered, s => {
                let s = wrap(s);
                spawn(async move {
                    let responses = FuturesUnordered::from_iter([s.clone().oneshot(get()), s.oneshot(get())]);
                    responses.collect::<Vec<_>>().await
                })
            });
            way!(select, s => {
                let s = wrap(s);
                spawn(async move {
                    tokio::select! {
                        response = s.oneshot(get()) => response.map(drop),
                        () = ready(()) => Ok(()),
                    }
                })
            });
            way!(limited_in_time, s => {
                let s = wrap(s);
                spawn(async move { tokio::time::timeout(SECOND, s.oneshot(get())).await })
            });
            way!(join_set, s => JoinSet::new().spawn(wrap(s).oneshot(get())));
            way!(boxed_future, s => {
                let future: BoxFuture<'static, Result<Res, BoxError>> = wrap(s).oneshot(get()).boxed();
                spawn(future)
            });
            way!(boxed_block, s => {
                let future: BoxFuture<'static, Result<Res, BoxError>> =
                    async move { wrap(s).oneshot(get()).await }.boxed();
                spawn(future)
            });
            way!(generic_function, s => spawn(call(wrap(s))));
            way!(generic_function_within, s => spawn(async move { call(wrap(s)).await }));
            way!(by_shared_reference, s => {
                spawn(async move { let s = wrap(s); call_a_clone(&s).await })
            });
            way!(by_mutable_reference, s => {
                spawn(async move { let mut s = wrap(s); call_by_reference(&mut s).await })
            });
            way!(behind_a_lock, s => {
                let s = Arc::new(Mutex::new(wrap(s)));
                spawn(async move { s.lock().await.ready().await?.call(get()).await })
            });
            way!(the_response_afterwards, s => {
                let s = wrap(s);
                spawn(async move {
                    let response = s.oneshot(get()).await?;
                    yield_now().await;
                    Ok::<_, BoxError>(response)
                })
            });
            way!(hidden_by_a_function, s => {
                let mut s = hidden(s);
                spawn(async move { s.ready().await?.call(get()).await })
            });
            way!(within_a_generic_function, s => spawn(within(s)));

            fn hidden<S>(
                inner: S,
            ) -> impl Service<Req, Response = Res, Error = BoxError, Future: Send> + Clone + Send
            where
                S: Service<Req, Response = Res, $($error)*> + Clone + Send + Sync + 'static,
                S::Error: Into<BoxError> + Send + Sync,
                S::Future: Send + 'static,
            {
                wrap(inner)
            }

            async fn within<S>(inner: S) -> Result<Res, BoxError>
            where
                S: Service<Req, Response = Res, $($error)*> + Clone + Send + Sync + 'static,
                S::Error: Into<BoxError> + Send + Sync,
                S::Future: Send + 'static,
            {
                let mut service = wrap(inner);
                service.ready().await?.call(get()).await?;
                service.oneshot(get()).await
            }

            pub(super) fn all<S>(inner: &S)
            where
                S: Service<Req, Response = Res, $($error)*> + Clone + Send + Sync + 'static,
                S::Error: Into<BoxError> + Send + Sync,
                S::Future: Send + 'static,
            {
                for way in [
                    oneshot, made_within, clones, ready_call, ready_then_call, ready_oneshot, twice,
                    call_all, call_all_unordered, call_all_itself, buffer, limits, under_timeout,
                    box_service, box_clone_service, box_clone_sync_service, boxed_clone, map_err,
                    join_all, futures_unordered, select, limited_in_time, join_set, boxed_future,
                    boxed_block, generic_function, generic_function_within, by_shared_reference,
                    by_mutable_reference, behind_a_lock, the_response_afterwards,
                    hidden_by_a_function, within_a_generic_function,
                ] {
                    way(inner.clone());
                }
            }
        }
    };
}

ways!(towers_with_any_error, timeout,);
ways!(ours_with_any_error, bearer,);
ways!(towers_with_a_box_error, timeout, Error = BoxError);
ways!(ours_with_a_box_error, bearer, Error = BoxError);

#[tokio::test]
async fn every_way_to_spawn_a_generic_stack_under_timeout_is_one_under_this_layer() {
    let server = Server::ok();
    towers_with_any_error::all(&server);
    ours_with_any_error::all(&server);
    towers_with_a_box_error::all(&server);
    ours_with_a_box_error::all(&server);
}

/// If the inner service is a concrete type with the error `BoxError`, rustc does not accept some `async`
/// blocks that hold the future across an `await` as `Send`, under `Timeout` and under this layer alike.
/// With a boxed future, rustc accepts the block.
macro_rules! around_a_box_error {
    ($name:ident, $wrap:ident) => {
        async fn $name(server: Server) {
            let s = $wrap(server);
            let direct = spawn(s.clone().oneshot(get()));
            let mut one = s.clone();
            let ready_call = spawn(async move { one.ready().await?.call(get()).await });
            let one = s.clone();
            let boxed = spawn(async move { one.oneshot(get()).boxed().await });
            let one = BoxCloneSyncService::new(s.clone());
            let type_erased = spawn(async move { one.oneshot(get()).await });
            let all = spawn(async move {
                let all = s.call_all(stream::iter([get()])).boxed();
                all.collect::<Vec<_>>().await.remove(0)
            });
            for response in [direct, ready_call, boxed, type_erased, all] {
                response.await.unwrap().unwrap();
            }
        }
    };
}
around_a_box_error!(towers_around_a_box_error, timeout);
around_a_box_error!(ours_around_a_box_error, bearer);

#[tokio::test]
async fn around_an_inner_box_error_a_boxed_future_can_be_spawned() {
    let server = Server::ok();
    towers_around_a_box_error(server.clone()).await;
    ours_around_a_box_error(server.clone()).await;
    let authorizations = server.authorizations();
    assert_eq!(authorizations[..5], [""; 5]);
    assert_eq!(authorizations[5..], ["Bearer abc"; 5]);
}
