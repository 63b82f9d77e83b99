//! A client of kube with the layer in place of kube's own `auth_layer`.

use std::fs;

use http::{Request, Version};
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config, Error,
    api::{ListParams, PostParams},
    client::{Body, ClientBuilder, ConfigExt},
};
use tower::{ServiceBuilder, retry::RetryLayer};
use tower_bearer::{
    BearerAuthLayer, BearerToken, ErrorKind, FileToken, RetryRejected, RotatingToken,
    SourceErrorKind, TokenSource, source_fn,
};
use tower_bearer_stacks::{Server, cluster};

use crate::{fixed, ours, token};

fn config(cluster: &Server) -> Config {
    Config::new(cluster.url().parse().unwrap())
}

fn http() -> HttpClient<HttpConnector, Body> {
    HttpClient::builder(TokioExecutor::new()).build_http()
}

fn client<T: TokenSource + 'static>(cluster: &Server, layer: BearerAuthLayer<T>) -> Client {
    let config = config(cluster);
    let stack = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .layer(layer)
        .service(http());
    ClientBuilder::new(stack, config.default_namespace).build()
}

async fn pods(client: &Client) -> kube::Result<Vec<String>> {
    let api: Api<Pod> = Api::default_namespaced(client.clone());
    let pods = api.list(&ListParams::default()).await?;
    let names = pods.into_iter().filter_map(|pod| pod.metadata.name);
    Ok(names.collect())
}

#[tokio::test]
async fn calls_carry_the_token_in_place_of_kubes_own() {
    let cluster = cluster::start("first").await.unwrap();
    let source = RotatingToken::new(token("first"));
    let client = client(&cluster, BearerAuthLayer::new(source.clone()));
    assert_eq!(pods(&client).await.unwrap(), ["the-only-pod"]);
    cluster.accept("second");
    source.rotate(token("second"));
    assert_eq!(pods(&client).await.unwrap(), ["the-only-pod"]);
    assert_eq!(cluster.seen(), ["Bearer first", "Bearer second"]);
}

#[tokio::test]
async fn a_401_is_kubes_error_and_marks_the_token() {
    let cluster = cluster::start("another").await.unwrap();
    let ours = token("ours");
    let source = RotatingToken::new(ours.clone());
    let client = client(&cluster, BearerAuthLayer::new(source));
    match pods(&client).await {
        Err(Error::Api(status)) => assert_eq!(status.code, 401),
        other => panic!("{other:?}"),
    }
    assert!(ours.is_rejected());
}

#[tokio::test]
async fn a_service_accounts_token_that_is_replaced_on_disk_costs_no_failed_call() {
    let cluster = cluster::start("first").await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    fs::write(&path, "first\n").unwrap();
    let config = config(&cluster);
    let layer = BearerAuthLayer::new(FileToken::new(&path).unwrap());
    let stack = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .layer(RetryLayer::new(RetryRejected::with_clone(cluster::copy)))
        .layer(layer.for_origin(cluster.url()).unwrap().retry_rejected())
        .service(http());
    let client = ClientBuilder::new(stack, "default").build();
    assert_eq!(pods(&client).await.unwrap(), ["the-only-pod"]);

    fs::write(&path, "second\n").unwrap();
    cluster.accept("second");
    // A request with a body, since the retry has to send the body again as well.
    let api: Api<Pod> = Api::default_namespaced(client);
    let pod = api.create(&PostParams::default(), &Pod::default()).await;
    assert_eq!(pod.unwrap().metadata.name.unwrap(), "the-only-pod");
    let expected = ["Bearer first", "Bearer first", "Bearer second"];
    assert_eq!(cluster.seen(), expected);
}

#[test]
fn the_copy_that_is_sent_again_is_the_whole_request() {
    let request = Request::post("http://cluster.example.com/api")
        .version(Version::HTTP_2)
        .header("accept", "application/json")
        .extension("of the caller")
        .body(Body::from(b"pod".to_vec()))
        .unwrap();
    let copied = cluster::copy(&request).unwrap();
    assert_eq!(copied.method(), request.method());
    assert_eq!(copied.uri(), request.uri());
    assert_eq!(copied.version(), request.version());
    assert_eq!(copied.headers(), request.headers());
    let extension = copied.extensions().get::<&str>();
    assert_eq!(extension, Some(&"of the caller"));
}

#[tokio::test]
async fn the_layer_belongs_below_the_base_uri_where_it_sees_the_cluster() {
    let cluster = cluster::start("ours").await.unwrap();
    let layer = BearerAuthLayer::new(fixed("ours"));
    let here = layer.clone().for_origin(cluster.url()).unwrap();
    let elsewhere = layer.for_origin("https://cluster.example.com").unwrap();
    let below = client(&cluster, here.clone());
    assert_eq!(pods(&below).await.unwrap(), ["the-only-pod"]);
    let to_another = client(&cluster, elsewhere);
    assert!(matches!(pods(&to_another).await, Err(Error::Api(_))));

    let config = config(&cluster);
    let stack = ServiceBuilder::new()
        .layer(here)
        .layer(config.base_uri_layer())
        .service(http());
    let above = ClientBuilder::new(stack, "default").build();
    assert!(matches!(pods(&above).await, Err(Error::Api(_))));
    assert_eq!(cluster.seen(), ["Bearer ours", "", ""]);
}

#[tokio::test]
async fn a_plaintext_cluster_on_another_machine_gets_no_token() {
    let config = Config::new("http://cluster.example.com".parse().unwrap());
    let stack = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .layer(BearerAuthLayer::new(fixed("ours")))
        .service(http());
    let client = ClientBuilder::new(stack, "default").build();
    let error = pods(&client).await.unwrap_err();
    assert_eq!(ours(&error).kind(), ErrorKind::InsecureTransport);
}

#[tokio::test]
async fn why_there_is_no_token_is_in_the_chain_of_kubes_error() {
    let cluster = cluster::start("ours").await.unwrap();
    let source = source_fn(|| async { Err::<BearerToken, _>("the vault is sealed") });
    let client = client(&cluster, BearerAuthLayer::new(source));
    let error = pods(&client).await.unwrap_err();
    assert_eq!(ours(&error).kind(), ErrorKind::NoToken);
    let of_source = ours(&error).source_error().unwrap();
    assert_eq!(of_source.kind(), SourceErrorKind::Failed);
    assert!(cluster.seen().is_empty());
}
