//! Compiles the code of the page `guide::migration` that the crate's own doctests cannot compile.

use std::{
    collections::BTreeSet,
    sync::{Arc, RwLock},
};

use hyper_util::{client::legacy::Client as HttpClient, rt::TokioExecutor};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder, ConfigExt},
};
use tonic::transport::Channel;
// The page has the name of tonic's own example.
use tonic_health::pb::health_client::HealthClient as GreeterClient;
use tower::{BoxError, ServiceBuilder};
use tower_bearer::{BearerAuthLayer, FileToken};

const PAGE: &str = include_str!("../../../src/guide/migration.md");
const THIS_FILE: &str = include_str!("migration.rs");

fn tonic_before(channel: Channel, token: Arc<RwLock<String>>) {
    let client = GreeterClient::with_interceptor(channel, move |mut request: tonic::Request<()>| {
        let value = format!("Bearer {}", token.read().unwrap());
        request
            .metadata_mut()
            .insert("authorization", value.parse().unwrap());
        Ok(request)
    });
    drop(client);
}

fn tonic_after(channel: Channel, source: FileToken, url: &'static str) -> Result<(), BoxError> {
    let stack = ServiceBuilder::new()
        .layer(BearerAuthLayer::new(source).for_origin(url)?.grpc_status())
        .service(channel);
    let client = GreeterClient::with_origin(stack, url.parse()?);
    drop(client);
    Ok(())
}

fn kube_before(config: Config) -> Result<(), BoxError> {
    let http_client = HttpClient::builder(TokioExecutor::new()).build_http::<Body>();
    let stack = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .service(http_client);
    drop(stack);
    Ok(())
}

fn kube_after(config: Config) -> Result<Client, BoxError> {
    let http_client = HttpClient::builder(TokioExecutor::new()).build_http();
    let path = "/var/run/secrets/kubernetes.io/serviceaccount/token";
    let auth = BearerAuthLayer::new(FileToken::new(path)?).for_origin_of(&config.cluster_url)?;
    let stack = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .layer(auth)
        .service(http_client);
    let client = ClientBuilder::new(stack, config.default_namespace).build();
    Ok(client)
}

/// The text without the differences that a formatter makes.
fn squeezed(text: &str) -> String {
    text.split_whitespace().collect()
}

#[test]
fn the_code_of_the_migration_page_for_tonic_and_kube_compiles() {
    // A block counts if it uses the crate that its section names.
    let mut compiled = BTreeSet::new();
    let mut section = "";
    let mut lines = PAGE.lines();
    while let Some(line) = lines.next() {
        if let Some(title) = line.strip_prefix("# From ") {
            section = title;
        }
        if line != "```ignore" || !(section.contains("tonic") || section.contains("kube")) {
            continue;
        }
        let block = lines.by_ref().take_while(|line| *line != "```");
        let (comments, code): (Vec<_>, Vec<_>) = block.partition(|line| line.starts_with("//"));
        let code = code.join("\n");
        assert!(squeezed(THIS_FILE).contains(&squeezed(&code)), "{code}");
        let when = if comments[0].starts_with("// After") {
            "after"
        } else {
            "before"
        };
        compiled.insert((section, when));
    }
    let expected = ["a tonic interceptor", "kube's own authentication"]
        .into_iter()
        .flat_map(|section| [(section, "after"), (section, "before")]);
    assert_eq!(compiled, expected.collect());
    // They need a channel and a cluster: to compile them is enough.
    let _ = (tonic_before, tonic_after, kube_before, kube_after);
}
