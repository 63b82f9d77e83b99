//! The layer needs no runtime: its futures run on any executor.

use std::{future::ready, thread};

use futures::{
    executor::{LocalPool, block_on},
    task::LocalSpawnExt,
};
use tower::{Layer, Service, ServiceExt};
use tower_bearer::{BearerAuthLayer, BoxError, RotatingToken, StaticToken, source_fn};

use crate::support::{Res, Server, get, token};

const URI: &str = "https://api.example.com/v1";

fn assert_no_tokio() {
    assert!(tokio::runtime::Handle::try_current().is_err());
}

#[test]
fn a_request_runs_outside_tokio() {
    let server = Server::answering(|_| {
        assert_no_tokio();
        Res::default()
    });
    let at_once = BearerAuthLayer::new(StaticToken::new(token("at-once")));
    block_on(at_once.layer(server.clone()).oneshot(get(URI))).unwrap();
    let fetched = source_fn(|| {
        assert_no_tokio();
        ready(Ok::<_, BoxError>(token("fetched")))
    });
    let fetched = BearerAuthLayer::new(fetched);
    block_on(fetched.layer(server.clone()).oneshot(get(URI))).unwrap();
    assert_eq!(
        server.authorizations(),
        ["Bearer at-once", "Bearer fetched"]
    );
}

#[test]
fn a_request_that_waits_is_woken_from_another_thread() {
    let source = RotatingToken::empty();
    let server = Server::ok();
    let mut service = BearerAuthLayer::new(source.clone()).layer(server.clone());
    let response = block_on(async {
        let request = service.ready().await?.call(get(URI));
        let rotating = thread::spawn(move || {
            assert_no_tokio();
            source.rotate(token("ours"));
        });
        let response = request.await;
        rotating.join().unwrap();
        response
    });
    response.unwrap();
    assert_eq!(server.authorizations(), ["Bearer ours"]);
}

#[test]
fn a_request_and_what_it_waits_for_run_on_one_thread() {
    let source = RotatingToken::empty();
    let server = Server::ok();
    let service = BearerAuthLayer::new(source.clone()).layer(server.clone());
    let mut pool = LocalPool::new();
    let spawner = pool.spawner();
    let request = spawner
        .spawn_local_with_handle(service.oneshot(get(URI)))
        .unwrap();
    pool.run_until_stalled();
    assert!(server.seen().is_empty());

    let rotating = async move { source.rotate(token("ours")) };
    spawner.spawn_local(rotating).unwrap();
    pool.run_until(request).unwrap();
    assert_eq!(server.authorizations(), ["Bearer ours"]);
}
