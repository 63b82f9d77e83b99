//! kube with the layer in place of kube's own authentication, and a token file like the file that the
//! kubelet projects for a service account: `cargo run -p tower-bearer-stacks --example kube`.
//!
//! The program prints what it does, checks each statement, and fails if a statement is not true.
#![allow(clippy::print_stdout)]

use std::fs;

use hyper_util::{client::legacy::Client as HttpClient, rt::TokioExecutor};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config,
    api::ListParams,
    client::{ClientBuilder, ConfigExt},
};
use tower::{BoxError, ServiceBuilder, retry::RetryLayer};
use tower_bearer::{BearerAuthLayer, FileToken, RetryRejected};
use tower_bearer_stacks::cluster;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let cluster = cluster::start("first").await?;
    let directory = tempfile::tempdir()?;
    // In a pod: /var/run/secrets/kubernetes.io/serviceaccount/token, and `Config::incluster`.
    let path = directory.path().join("token");
    fs::write(&path, "first")?;
    let config = Config::new(cluster.url().parse()?);

    let auth = BearerAuthLayer::new(FileToken::new(&path)?)
        .for_origin(cluster.url())?
        .retry_rejected();
    let stack = ServiceBuilder::new()
        // Above the layer, since the layer looks at where a request goes.
        .layer(config.base_uri_layer())
        .layer(RetryLayer::new(RetryRejected::with_clone(cluster::copy)))
        .layer(auth)
        // With TLS: `config.rustls_https_connector()`.
        .service(HttpClient::builder(TokioExecutor::new()).build_http());
    let client = ClientBuilder::new(stack, config.default_namespace).build();

    println!("1. The cluster at {} takes the first token.", cluster.url());
    check(pods(&client).await? == ["the-only-pod"], "pods are listed")?;
    check(cluster.seen() == ["Bearer first"], "with that token")?;

    println!("2. The file has the second token, and the cluster takes no other token.");
    fs::write(&path, "second")?;
    cluster.accept("second");
    check(pods(&client).await? == ["the-only-pod"], "pods are listed")?;
    let seen = ["Bearer first", "Bearer first", "Bearer second"];
    check(cluster.seen() == seen, "after a 401 that kube did not see")?;

    println!("3. The cluster takes neither token.");
    cluster.accept("third");
    match pods(&client).await {
        Err(kube::Error::Api(status)) => check(status.code == 401, "kube says so")?,
        other => return Err(format!("not the cluster's answer: {other:?}").into()),
    }

    println!("All checks passed.");
    Ok(())
}

async fn pods(client: &Client) -> kube::Result<Vec<String>> {
    let api: Api<Pod> = Api::default_namespaced(client.clone());
    let pods = api.list(&ListParams::default()).await?;
    let names = pods.into_iter().filter_map(|pod| pod.metadata.name);
    Ok(names.collect())
}

fn check(holds: bool, what: &str) -> Result<(), BoxError> {
    if !holds {
        return Err(format!("does not hold: {what}").into());
    }
    println!("   ok: {what}");
    Ok(())
}
