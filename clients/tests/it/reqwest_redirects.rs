//! What becomes of a token when reqwest follows redirects below the middleware. Each sentence about this in
//! src/guide/reqwest.md has its test here.
//!
//! Some of these facts are reqwest's and not this crate's, and some are bad. A test that fails after
//! an update of reqwest means that the documentation has to change, maybe for the better.

use http::{HeaderName, Method, header::PROXY_AUTHORIZATION};
use reqwest::{Client, StatusCode, redirect::Policy};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use tower_bearer::{BearerAuthLayer, StaticToken, TokenSource};

use crate::{
    reqwest_server::{Server, carries, direct, redirect, redirect_by, status},
    support::{
        Counting,
        retrying::{always_another, old_then_new},
        token,
    },
};

const X_TOKEN: HeaderName = HeaderName::from_static("x-token");

fn over<T: TokenSource + 'static>(
    client: Client,
    layer: BearerAuthLayer<T>,
) -> ClientWithMiddleware {
    ClientBuilder::new(client).with(layer).build()
}

fn layer() -> BearerAuthLayer<StaticToken> {
    BearerAuthLayer::new(StaticToken::new(token("t")))
}

type Map = &'static [(&'static str, &'static str)];

const API: &str = "https://api.example.com/";
const ELSEWHERE: &str = "https://elsewhere.example/";

const ELSEWHERE_TWICE: Map = &[(API, ELSEWHERE), (ELSEWHERE, "https://elsewhere.example/2")];

const ELSEWHERE_AND_BACK: Map = &[
    (API, ELSEWHERE),
    (ELSEWHERE, "https://api.example.com/back"),
    ("https://api.example.com/back", "https://api.example.com/2"),
];

/// Sends a request to the first URL of the map, and tells which URLs on the way got the header.
async fn walk(
    map: Map,
    layer: BearerAuthLayer<StaticToken>,
    header: &HeaderName,
) -> Vec<(String, bool)> {
    let web = Server::internet(map).await;
    let client = over(web.as_proxy().build().unwrap(), layer);
    client.get(map[0].0).send().await.unwrap();
    web.hops(header.as_str())
        .into_iter()
        .map(|(url, value)| (url, !value.is_empty()))
        .collect()
}

fn hops(expected: &[(&str, bool)]) -> Vec<(String, bool)> {
    let owned = |(url, carries): &(&str, bool)| ((*url).to_owned(), *carries);
    expected.iter().map(owned).collect()
}

#[tokio::test]
async fn a_redirect_within_the_origin_keeps_the_token() {
    const MAP: Map = &[(API, "https://api.example.com:443/2")];
    for header in [http::header::AUTHORIZATION, PROXY_AUTHORIZATION, X_TOKEN] {
        let way = walk(MAP, layer().header_name(header.clone()), &header).await;
        let expected = [(API, true), ("https://api.example.com/2", true)];
        assert_eq!(way, hops(&expected), "{header}");
    }
}

/// Redirects to another host, a subdomain, another port, plaintext, and plaintext on the same port.
const CROSSINGS: [(Map, [&str; 2]); 5] = [
    (&[(API, ELSEWHERE)], [API, ELSEWHERE]),
    (
        &[(API, "https://sub.api.example.com/")],
        [API, "https://sub.api.example.com/"],
    ),
    (
        &[(API, "https://api.example.com:8443/")],
        [API, "https://api.example.com:8443/"],
    ),
    (
        &[(API, "http://api.example.com/")],
        [API, "http://api.example.com/"],
    ),
    (
        &[(
            "https://api.example.com:8443/",
            "http://api.example.com:8443/",
        )],
        [
            "https://api.example.com:8443/",
            "http://api.example.com:8443/",
        ],
    ),
];

#[tokio::test]
async fn reqwest_takes_authorization_off_on_the_way_to_another_host_port_or_scheme() {
    for (map, [from, to]) in CROSSINGS {
        for header in [http::header::AUTHORIZATION, PROXY_AUTHORIZATION] {
            let unbound = layer().header_name(header.clone());
            let bound = unbound
                .clone()
                .for_origin(from.trim_end_matches('/'))
                .unwrap();
            for layer in [unbound, bound] {
                let way = walk(map, layer, &header).await;
                assert_eq!(way, hops(&[(from, true), (to, false)]), "{header}");
            }
        }
    }
}

/// Without a proxy in between: two servers on loopback differ in their port, and `localhost` is
/// another host.
#[tokio::test]
async fn reqwest_takes_authorization_off_between_servers_on_loopback_as_well() {
    for host in ["127.0.0.1", "localhost"] {
        let other = Server::ok().await;
        let to = other.url.replace("127.0.0.1", host);
        let server = Server::start(move |_| redirect(302, &to)).await;
        let client = over(direct().build().unwrap(), layer());
        client.get(&server.url).send().await.unwrap();
        assert_eq!(server.authorizations(), ["Bearer t"]);
        assert_eq!(other.authorizations(), [""], "{host}");
    }
}

#[tokio::test]
async fn reqwest_puts_authorization_back_on_for_the_second_redirect_within_a_foreign_origin() {
    const TO_PLAINTEXT: Map = &[
        (API, "http://api.example.com/"),
        ("http://api.example.com/", "http://api.example.com/2"),
    ];
    for (map, expected) in [
        (
            ELSEWHERE_TWICE,
            [
                (API, true),
                (ELSEWHERE, false),
                ("https://elsewhere.example/2", true),
            ],
        ),
        (
            TO_PLAINTEXT,
            [
                (API, true),
                ("http://api.example.com/", false),
                ("http://api.example.com/2", true),
            ],
        ),
    ] {
        let bound = layer().for_origin("https://api.example.com").unwrap();
        let way = walk(map, bound, &http::header::AUTHORIZATION).await;
        assert_eq!(way, hops(&expected), "the docs say that it leaks");
    }
}

#[tokio::test]
async fn a_redirect_that_leads_away_and_back_arrives_without_the_token() {
    let way = walk(ELSEWHERE_AND_BACK, layer(), &http::header::AUTHORIZATION).await;
    let expected = [
        (API, true),
        (ELSEWHERE, false),
        ("https://api.example.com/back", false),
        ("https://api.example.com/2", true),
    ];
    assert_eq!(way, hops(&expected));
}

#[tokio::test]
async fn reqwest_leaves_a_header_of_another_name_on_wherever_it_goes() {
    for (map, [from, to]) in CROSSINGS {
        let bound = layer().for_origin(from.trim_end_matches('/')).unwrap();
        let way = walk(map, bound.header_name(X_TOKEN), &X_TOKEN).await;
        let expected = hops(&[(from, true), (to, true)]);
        assert_eq!(way, expected, "the docs say that it leaks");
    }
}

#[tokio::test]
async fn a_redirect_into_the_scope_brings_no_token() {
    const MAP: Map = &[(ELSEWHERE, API)];
    let bound = layer().for_origin("https://api.example.com").unwrap();
    let way = walk(MAP, bound, &http::header::AUTHORIZATION).await;
    assert_eq!(way, hops(&[(ELSEWHERE, false), (API, false)]));
}

/// The policy in the documentation.
fn within_the_origin() -> Policy {
    Policy::custom(|attempt| {
        if attempt.url().origin() == attempt.previous()[0].origin() {
            Policy::default().redirect(attempt)
        } else {
            attempt.stop()
        }
    })
}

#[tokio::test]
async fn a_policy_that_stops_at_the_border_keeps_every_header_from_leaving() {
    const WITHIN: Map = &[(API, "https://api.example.com/2")];
    let mut maps: Vec<Map> = CROSSINGS.iter().map(|(map, _)| *map).collect();
    maps.extend([ELSEWHERE_TWICE, ELSEWHERE_AND_BACK]);
    for map in maps {
        for header in [http::header::AUTHORIZATION, X_TOKEN] {
            let web = Server::internet(map).await;
            let client = web
                .as_proxy()
                .redirect(within_the_origin())
                .build()
                .unwrap();
            let client = over(client, layer().header_name(header.clone()));
            let response = client.get(map[0].0).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::FOUND);
            assert_eq!(response.headers()["location"], map[0].1);
            let expected = [(map[0].0.to_owned(), "Bearer t".to_owned())];
            assert_eq!(web.hops(header.as_str()), expected);
        }
    }

    let web = Server::internet(WITHIN).await;
    let client = web
        .as_proxy()
        .redirect(within_the_origin())
        .build()
        .unwrap();
    let client = over(client, layer());
    let response = client.get(API).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(web.authorizations(), ["Bearer t", "Bearer t"]);
}

#[tokio::test]
async fn a_client_that_follows_no_redirect_keeps_every_header_from_leaving() {
    for header in [http::header::AUTHORIZATION, X_TOKEN] {
        let web = Server::internet(ELSEWHERE_TWICE).await;
        let client = web.as_proxy().redirect(Policy::none()).build().unwrap();
        let client = over(client, layer().header_name(header.clone()));
        let response = client.get(API).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::FOUND);
        assert_eq!(web.fields(header.as_str()), ["Bearer t"]);
    }
}

#[tokio::test]
async fn a_client_that_is_https_only_follows_no_redirect_to_plaintext_but_others() {
    const DOWN: Map = &[(API, "http://api.example.com/")];
    let web = Server::internet(DOWN).await;
    let client = web.as_proxy().https_only(true).build().unwrap();
    let client = over(client, layer().header_name(X_TOKEN));
    let error = client.get(API).send().await.unwrap_err();
    assert!(error.is_redirect());
    assert_eq!(web.fields("x-token"), ["Bearer t"]);

    let web = Server::internet(ELSEWHERE_TWICE).await;
    let client = web.as_proxy().https_only(true).build().unwrap();
    let client = over(client, layer().header_name(X_TOKEN));
    client.get(API).send().await.unwrap();
    assert_eq!(web.fields("x-token"), ["Bearer t"; 3]);
}

#[tokio::test]
async fn the_401_of_another_origin_marks_and_retries_nothing() {
    const MAP: Map = &[(API, ELSEWHERE)];
    let web =
        Server::start(|request| redirect_by(MAP, request).unwrap_or_else(|| status(401))).await;
    let sent = token("t");
    let layer = BearerAuthLayer::new(StaticToken::new(sent.clone())).retry_rejected();
    let client = over(web.as_proxy().build().unwrap(), layer);
    let response = client.get(API).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(!sent.is_rejected());

    let client = over(
        web.as_proxy().build().unwrap(),
        BearerAuthLayer::new(always_another()).retry_rejected(),
    );
    client.get(API).send().await.unwrap();
    assert_eq!(web.authorizations(), ["Bearer t", "", "Bearer 0", ""]);
}

#[tokio::test]
async fn the_401_at_the_end_of_a_way_back_is_taken_for_a_rejection_though_no_token_came() {
    let web = Server::start(|request| {
        redirect_by(&ELSEWHERE_AND_BACK[..2], request).unwrap_or_else(|| status(401))
    })
    .await;
    let sent = token("t");
    let client = over(
        web.as_proxy().build().unwrap(),
        BearerAuthLayer::new(StaticToken::new(sent.clone())),
    );
    client.get(API).send().await.unwrap();
    assert_eq!(web.authorizations(), ["Bearer t", "", ""]);
    assert!(sent.is_rejected());
}

#[tokio::test]
async fn a_retry_starts_from_the_first_url_and_the_source_is_not_asked_for_a_redirect() {
    const MAP: Map = &[(API, "https://api.example.com/2")];
    let web = Server::start(|request| {
        redirect_by(MAP, request)
            .unwrap_or_else(|| status(if carries(request, "new") { 200 } else { 401 }))
    })
    .await;
    let source = Counting::new(std::sync::Arc::new(old_then_new()));
    let layer = BearerAuthLayer::new(source.clone()).retry_rejected();
    let client = over(web.as_proxy().build().unwrap(), layer);
    let response = client.get(API).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let way = web.hops("authorization");
    let expected = [
        (API, "Bearer old"),
        ("https://api.example.com/2", "Bearer old"),
        (API, "Bearer new"),
        ("https://api.example.com/2", "Bearer new"),
    ];
    assert_eq!(
        way,
        expected.map(|(url, value)| (url.to_owned(), value.to_owned()))
    );
    assert_eq!(source.asked(), 2);
}

/// A 303 says that the request has been acted on, and where to read the outcome.
#[tokio::test]
async fn what_a_server_has_acted_on_is_not_sent_again_because_the_next_hop_rejects_the_token() {
    let server = Server::start(|request| match request.uri().path() {
        "/orders" => redirect(303, "/orders/1"),
        _ => status(401),
    })
    .await;
    let (url, rejecting) = (format!("{}/orders#fragment", server.url), &server.url);
    let retrying = || {
        let layer = BearerAuthLayer::new(always_another()).retry_rejected();
        over(direct().build().unwrap(), layer)
    };
    let response = retrying().post(&url).body("order").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(server.authorizations(), ["Bearer 0", "Bearer 0"]);

    // An idempotent request is sent again, and so is a request that was not redirected.
    retrying().put(&url).body("order").send().await.unwrap();
    assert_eq!(server.authorizations().len(), 2 + 4);
    let request = retrying().post(format!("{rejecting}/other#fragment"));
    request.body("order").send().await.unwrap();
    assert_eq!(server.authorizations().len(), 2 + 4 + 2);
}

/// reqwest gives a URL of this host to a response that a middleware made.
#[tokio::test]
async fn a_page_of_the_host_that_reqwest_names_for_a_mock_is_a_page_of_another_origin() {
    const MAP: Map = &[(API, "http://no.url.provided.local/page")];
    let web =
        Server::start(|request| redirect_by(MAP, request).unwrap_or_else(|| status(401))).await;
    let sent = token("t");
    let layer = BearerAuthLayer::new(StaticToken::new(sent.clone())).retry_rejected();
    let client = over(web.as_proxy().build().unwrap(), layer);
    client.get(API).send().await.unwrap();
    assert_eq!(web.authorizations(), ["Bearer t", ""]);
    assert!(!sent.is_rejected());
}

/// The redirect after a form often leads back to the form's own URL. reqwest tells the URL of the last
/// response, and not the number of responses.
#[tokio::test]
async fn a_redirect_back_to_the_first_url_is_not_seen_and_so_a_post_is_sent_again() {
    let form = || {
        Server::start(|request| match *request.method() {
            Method::POST => redirect(303, "/form"),
            _ => status(401),
        })
    };
    let methods = |server: &Server| -> Vec<Method> {
        let seen = server.seen();
        seen.iter().map(|seen| seen.method().clone()).collect()
    };
    let retrying = || BearerAuthLayer::new(always_another()).retry_rejected();

    let server = form().await;
    let client = over(direct().build().unwrap(), retrying());
    let request = client.post(format!("{}/form", server.url)).body("order");
    request.send().await.unwrap();
    let twice = [Method::POST, Method::GET, Method::POST, Method::GET];
    assert_eq!(methods(&server), twice, "the docs say so");

    let server = form().await;
    let follows_none = direct().redirect(Policy::none()).build().unwrap();
    let client = over(follows_none, retrying());
    let request = client.post(format!("{}/form", server.url)).body("order");
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    assert_eq!(methods(&server), [Method::POST]);
}
