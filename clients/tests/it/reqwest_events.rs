//! The events of the layer as a middleware of reqwest-middleware.

use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use tower_bearer::{
    BearerAuthLayer, BearerToken, RotatingToken, SourceError, SourceErrorKind, StaticToken,
    TokenFuture, TokenSource, UseToken,
};

use crate::{
    reqwest_server::{Server, direct},
    support::{
        Asking,
        events::{Log, NOT_REPLACED, REJECTED, REPLACED},
        retrying::old_then_new,
        token,
    },
};

const WITHOUT_TOKEN: &str =
    "DEBUG tower_bearer message=a request goes out without the token reason=";

fn client<T: TokenSource + 'static>(layer: BearerAuthLayer<T>) -> ClientWithMiddleware {
    ClientBuilder::new(direct().build().unwrap())
        .with(layer)
        .build()
}

fn ours() -> BearerAuthLayer<BearerToken> {
    BearerAuthLayer::new(token("ours"))
}

/// The events of this crate, in a runtime whose tasks all run on this thread.
fn events_of(f: impl AsyncFnOnce()) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut events = Log::of(|| runtime.block_on(f()));
    events.retain(|event| event.contains(" tower_bearer "));
    events
}

#[test]
fn a_rejection_and_a_replacement_are_told() {
    let only_one = || StaticToken::new(token("old"));
    let events = events_of(async || {
        let server = Server::taking("new").await;
        let get = async |client: ClientWithMiddleware| {
            client.get(&server.url).send().await.unwrap();
        };
        get(client(BearerAuthLayer::new(only_one()).retry_rejected())).await;
        get(client(
            BearerAuthLayer::new(old_then_new()).retry_rejected(),
        ))
        .await;
    });
    assert_eq!(events, [REJECTED, NOT_REPLACED, REJECTED, REPLACED]);
}

#[test]
fn a_request_that_waits_and_a_request_that_is_refused_are_told() {
    let events = events_of(async || {
        let server = Server::ok().await;
        let source = RotatingToken::empty();
        let client = client(BearerAuthLayer::new(source.clone()));
        let waiting = client.get(&server.url).send();
        let rotate = async { source.rotate(token("first")) };
        let (response, ()) = futures::join!(waiting, rotate);
        response.unwrap();
        let refused = client.get("http://api.example.com/").send();
        refused.await.unwrap_err();
    });
    let waits = "DEBUG tower_bearer message=a request waits for a token";
    let refused = "WARN tower_bearer message=refused to send the token in plaintext \
                   scheme=\"http\" host=\"api.example.com\"";
    assert_eq!(events, [waits, refused]);
}

#[test]
fn a_request_that_goes_without_the_token_tells_why() {
    let absent = || TokenFuture::ready(Err(SourceError::new(SourceErrorKind::Absent, "none")));
    let events = events_of(async || {
        let server = Server::ok().await;
        let absent = BearerAuthLayer::new(Asking(absent)).anonymous_if_absent();
        let elsewhere = ours().for_origin("https://api.example.com").unwrap();
        for request in [
            client(ours().keep_existing())
                .get(&server.url)
                .basic_auth("u", Some("p")),
            client(ours())
                .get(&server.url)
                .with_extension(UseToken::none()),
            client(absent).get(&server.url),
            client(elsewhere).get(&server.url),
        ] {
            request.send().await.unwrap();
        }
    });
    let reasons = ["KeepExisting", "UseToken", "Absent", "OtherHost"];
    assert_eq!(events.len(), reasons.len(), "{events:?}");
    for (event, reason) in events.iter().zip(reasons) {
        assert!(
            event.starts_with(&format!("{WITHOUT_TOKEN}{reason}")),
            "{event}"
        );
    }
}
