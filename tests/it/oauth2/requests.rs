//! The exact requests, for each grant and each way to authenticate the client.

use std::sync::{Arc, OnceLock};

use futures::FutureExt;
use http::{HeaderMap, Method};
use tower::{Layer, util::BoxCloneSyncService};
use tower_bearer::{
    BearerAuthLayer, BearerToken, BoxError, RefreshingToken, SourceError, SourceErrorKind,
    StaticToken, TokenRequest, TokenSource, source_fn,
};

use crate::support::{
    Asking,
    allocator::allocations_in,
    text, token,
    token_endpoint::{TokenEndpoint, URL},
    virtual_time::VirtualTime,
};

/// The form and the headers that a request sends.
fn sent(request: Result<TokenRequest, SourceError>) -> (String, HeaderMap) {
    let endpoint = TokenEndpoint::ok();
    let fetched = request.unwrap().fetch(endpoint.clone()).now_or_never();
    assert_eq!(text(&fetched.unwrap().unwrap()), "Bearer access");
    let [request] = endpoint.seen().try_into().expect("one request");
    assert_eq!(request.method(), Method::POST);
    assert_eq!(request.uri(), URL);
    assert_eq!(request.headers()["accept"], "application/json");
    assert_eq!(
        request.headers()["content-type"],
        "application/x-www-form-urlencoded"
    );
    (endpoint.forms().remove(0), request.headers().clone())
}

fn form(request: Result<TokenRequest, SourceError>) -> String {
    let (form, headers) = sent(request);
    assert!(!headers.contains_key("authorization"));
    form
}

fn with_secret() -> Result<TokenRequest, SourceError> {
    TokenRequest::client_credentials(URL, "my-client", "s3cret")
}

fn subject() -> StaticToken {
    StaticToken::new(token("ey.J.x"))
}

#[test]
fn a_secret_goes_into_a_sensitive_basic_header_and_not_into_the_form() {
    let (form, headers) = sent(with_secret());
    assert_eq!(form, "grant_type=client_credentials");
    // This is `my-client:s3cret` in Base64.
    assert_eq!(headers["authorization"], "Basic bXktY2xpZW50OnMzY3JldA==");
    assert!(headers["authorization"].is_sensitive());
}

#[test]
fn the_parts_of_a_basic_header_are_encoded_as_in_a_form() {
    let (_, headers) = sent(TokenRequest::client_credentials(URL, "a:b c", "ü&+%~*-._:"));
    // This is `a%3Ab%20c:%C3%BC%26%2B%25%7E*-._%3A` in Base64 (RFC 6749 §2.3.1). The space is `%20`, since
    // Authlib does not decode `+` as a space.
    let expected = "Basic YSUzQWIlMjBjOiVDMyVCQyUyNiUyQiUyNSU3RSotLl8lM0E=";
    assert_eq!(headers["authorization"], expected);
}

/// A buffer that grows leaves a copy of its contents in the old block. The test sees growth as an extra
/// allocation.
#[test]
fn no_buffer_of_a_request_grows_however_much_of_it_is_encoded() {
    let allocations = |character: &str| {
        let secret = character.repeat(4);
        let mut request = TokenRequest::client_credentials(URL, character, secret).unwrap();
        for _ in 0..100 {
            request = request.param(character.to_owned(), character);
        }
        let endpoint = TokenEndpoint::ok();
        let (count, fetched) = allocations_in(|| request.fetch(endpoint).now_or_never());
        fetched.unwrap().unwrap();
        count
    };
    // The first use of the code may fill caches.
    allocations("a");
    assert_eq!(allocations("%"), allocations("a"));
}

#[test]
fn a_secret_goes_into_the_form_where_it_is_told_to() {
    assert_eq!(
        form(with_secret().map(TokenRequest::secret_in_body)),
        "grant_type=client_credentials&client_secret=s3cret&client_id=my-client"
    );
    // In either order, and also if the secret changes.
    let public = || TokenRequest::refresh_token(URL, "my-client", "re");
    for request in [
        public().map(|request| request.secret_in_body().client_secret("s3cret")),
        public().map(|request| request.client_secret("s3cret").secret_in_body()),
        public().map(|request| {
            let request = request.client_secret("old").secret_in_body();
            request.client_secret("s3cret")
        }),
    ] {
        let (form, headers) = sent(request);
        let expected =
            "grant_type=refresh_token&refresh_token=re&client_secret=s3cret&client_id=my-client";
        assert_eq!(form, expected);
        assert!(!headers.contains_key("authorization"));
    }
}

#[test]
fn an_assertion_authenticates_the_client() {
    assert_eq!(
        form(TokenRequest::client_credentials_by_assertion(
            URL,
            "my-client",
            subject()
        )),
        "grant_type=client_credentials&client_assertion=ey.J.x\
         &client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer\
         &client_id=my-client"
    );
}

#[test]
fn what_authenticates_the_client_last_replaces_what_did_before() {
    let request = || with_secret().map(TokenRequest::secret_in_body);
    let by_assertion = form(request().map(|request| request.client_assertion(subject())));
    assert!(!by_assertion.contains("s3cret"), "{by_assertion}");
    let (_, headers) = sent(with_secret().map(|request| request.client_assertion(subject())));
    assert!(!headers.contains_key("authorization"));
    let back = request().map(|request| request.client_assertion(subject()).client_secret("two"));
    let (form, headers) = sent(back);
    assert_eq!(form, "grant_type=client_credentials");
    assert!(headers.contains_key("authorization"));
}

#[test]
fn a_refresh_token_is_sent_by_a_public_client_or_with_a_secret() {
    let request = || TokenRequest::refresh_token(URL, "my client", String::from("re/fresh+="));
    assert_eq!(
        form(request()),
        "grant_type=refresh_token&refresh_token=re%2Ffresh%2B%3D&client_id=my+client"
    );
    let (form, headers) = sent(request().map(|request| request.client_secret("s3cret")));
    assert_eq!(
        form,
        "grant_type=refresh_token&refresh_token=re%2Ffresh%2B%3D"
    );
    assert!(headers.contains_key("authorization"));
}

#[test]
fn a_token_is_exchanged_for_its_subject() {
    assert_eq!(
        form(TokenRequest::token_exchange(URL, subject())),
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token=ey.J.x\
         &subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token"
    );
    let jwt = "urn:ietf:params:oauth:token-type:jwt";
    assert_eq!(
        form(
            TokenRequest::token_exchange(URL, subject())
                .map(|request| request.subject_token_type(jwt).client_id("my-client"))
        ),
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token=ey.J.x\
         &subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt&client_id=my-client"
    );
}

#[test]
fn a_jwt_is_a_grant() {
    assert_eq!(
        form(TokenRequest::jwt_bearer(URL, subject())),
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=ey.J.x"
    );
}

#[test]
fn parameters_follow_in_order_and_only_the_scope_replaces() {
    let request = with_secret().map(|request| {
        request
            .scope("one")
            .param("audience", "https://a.example/?x=ä y")
            .resource("https://one.example")
            .resource("https://two.example")
            .param(String::from("na me"), String::from("v"))
            .scope("read write")
    });
    assert_eq!(
        sent(request).0,
        "grant_type=client_credentials&audience=https%3A%2F%2Fa.example%2F%3Fx%3D%C3%A4+y\
         &resource=https%3A%2F%2Fone.example&resource=https%3A%2F%2Ftwo.example&na+me=v\
         &scope=read+write"
    );
}

#[test]
fn the_subject_is_asked_for_each_fetch_and_its_error_is_the_fetch_s() {
    let tokens = std::sync::Mutex::new(vec![Err("gone"), Ok("two"), Ok("one")]);
    let source = Asking(move || {
        let next = tokens.lock().unwrap().pop().unwrap();
        let error = |text| SourceError::new(SourceErrorKind::Absent, text);
        tower_bearer::TokenFuture::ready(next.map(token).map_err(error))
    });
    let endpoint = TokenEndpoint::ok();
    let fetch = TokenRequest::jwt_bearer(URL, source)
        .unwrap()
        .over(endpoint.clone());
    for expected in ["assertion=one", "assertion=two"] {
        fetch().now_or_never().unwrap().unwrap();
        let form = endpoint.forms().pop().unwrap();
        assert!(form.ends_with(expected), "{form}");
    }
    let error = fetch().now_or_never().unwrap().unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Absent);
    assert_eq!(error.to_string(), "gone");
    assert_eq!(endpoint.seen().len(), 2);
}

#[test]
fn a_subject_that_the_server_blames_is_marked_and_no_other() {
    for (code, marks_subject, marks_client) in [
        ("invalid_grant", true, false),
        ("invalid_request", true, false),
        ("invalid_client", false, true),
        ("invalid_scope", false, false),
    ] {
        let (of_subject, of_client) = (token("subject"), token("client"));
        let request = TokenRequest::token_exchange(URL, of_subject_source(&of_subject)).unwrap();
        let request = request.client_assertion(of_subject_source(&of_client));
        let endpoint = TokenEndpoint::new(move |_| {
            crate::support::token_endpoint::answer(400, &format!(r#"{{"error":"{code}"}}"#))
        });
        request.fetch(endpoint).now_or_never().unwrap().unwrap_err();
        let marks = (of_subject.is_rejected(), of_client.is_rejected());
        assert_eq!(marks, (marks_subject, marks_client), "{code}");
    }
}

fn of_subject_source(token: &BearerToken) -> StaticToken {
    StaticToken::new(token.clone())
}

#[test]
fn it_is_what_a_source_fetches_with() {
    let endpoint = TokenEndpoint::ok();
    let fetch = with_secret().unwrap().over(endpoint.clone());
    let source = source_fn(fetch.clone());
    assert_eq!(
        text(&source.token().now_or_never().unwrap().unwrap()),
        "Bearer access"
    );
    let time = VirtualTime::new();
    let source = RefreshingToken::builder(fetch)
        .runtime(time.clone())
        .build();
    assert_eq!(
        text(&time.block_on(source.token()).unwrap()),
        "Bearer access"
    );
    assert_eq!(
        endpoint.seen().len(),
        2,
        "a fetch each, over the same client"
    );
}

/// Otherwise, a layer would overwrite the client's secret with its token, or wait for the token that this
/// request fetches.
#[test]
fn no_layer_of_this_crate_puts_its_token_on_a_token_request() {
    let endpoint = TokenEndpoint::ok();
    let other = BearerAuthLayer::new(StaticToken::new(token("other")));
    for request in [
        with_secret(),
        with_secret().map(TokenRequest::secret_in_body),
    ] {
        let fetch = request.unwrap().over(other.layer(endpoint.clone()));
        fetch().now_or_never().unwrap().unwrap();
    }
    let authorization = |at: usize| endpoint.seen()[at].headers().get("authorization").cloned();
    assert_eq!(authorization(0).unwrap(), "Basic bXktY2xpZW50OnMzY3JldA==");
    assert_eq!(authorization(1), None);

    // Fetch through the very client that waits for the token.
    let client = Arc::new(OnceLock::<BoxCloneSyncService<_, _, BoxError>>::new());
    let within = Arc::clone(&client);
    let request = with_secret().unwrap();
    let time = VirtualTime::new();
    let source = RefreshingToken::builder(move || {
        let client = within.get().unwrap().clone();
        request.clone().fetch(client)
    })
    .runtime(time.clone())
    .build();
    let layered = BearerAuthLayer::new(source.clone()).layer(endpoint.clone());
    assert!(client.set(BoxCloneSyncService::new(layered)).is_ok());
    assert_eq!(
        text(&time.block_on(source.token()).unwrap()),
        "Bearer access"
    );
}

#[test]
fn a_url_that_is_no_place_for_a_secret_is_refused_without_showing_it() {
    for (url, why) in [
        ("http://id.example/token", "plaintext"),
        ("http://localhost.example/token", "plaintext"),
        ("ws://localhost/token", "plaintext"),
        ("ftp://id.example/token", "plaintext"),
        ("https://user:s3cret@id.example/token", "a user"),
        ("https://id.example/token#s3cret", "fragment"),
        ("/s3cret", "no scheme or no host"),
        ("id.example", "no scheme or no host"),
        ("https://", "cannot be read"),
        ("https://id.example/s3cret token", "cannot be read"),
        ("", "cannot be read"),
    ] {
        let error = TokenRequest::client_credentials(url, "id", "x").unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::Invalid, "{url}");
        assert!(error.to_string().contains(why), "{url}: {error}");
        assert!(!format!("{error}{error:?}").contains("s3cret"), "{error:?}");
    }
    for url in [
        "http://localhost:8080/token",
        "http://127.0.0.1/",
        "http://[::1]:1/token?a=b",
        "HTTPS://id.example",
    ] {
        TokenRequest::refresh_token(url, "id", "x").unwrap();
        TokenRequest::token_exchange(url, subject()).unwrap();
        TokenRequest::jwt_bearer(url, subject()).unwrap();
        TokenRequest::client_credentials_by_assertion(url, "id", subject()).unwrap();
    }
}

/// For these secrets, a server would only say `invalid_client`. The line feed at the end of a file is the most
/// common mistake.
const MISTAKES: [(&str, &str); 4] = [
    ("s3cret\n", "has a control character: trim the text"),
    ("\rs3cret", "has a control character: trim the text"),
    ("s3\0cret", "has a control character: trim the text"),
    ("s3cret\x7f", "has a control character: trim the text"),
];

fn assert_is_mistake(error: &SourceError, expected: &str) {
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.kind(), SourceErrorKind::Invalid);
    assert!(error.is_permanent());
    let shown = format!("{error:?} {error:#?}");
    assert!(!shown.contains("s3"), "{shown}");
}

#[test]
fn a_secret_with_a_control_character_is_an_error_at_once() {
    for (secret, why) in MISTAKES {
        let request = TokenRequest::client_credentials(URL, "id", secret);
        assert_is_mistake(&request.unwrap_err(), &format!("the client secret {why}"));
        let request = TokenRequest::refresh_token(URL, "id", secret);
        assert_is_mistake(&request.unwrap_err(), &format!("the refresh token {why}"));
    }
    let request = TokenRequest::refresh_token(URL, "id", "");
    assert_is_mistake(&request.unwrap_err(), "the refresh token is empty");
}

/// The public client `cf` of Cloud Foundry has such a secret.
#[test]
fn a_client_secret_may_be_empty() {
    let (_, headers) = sent(TokenRequest::client_credentials(URL, "cf", ""));
    assert_eq!(headers["authorization"], "Basic Y2Y6");
}

#[test]
fn a_later_secret_with_a_control_character_ends_the_fetch_before_anything_is_asked() {
    let public = || {
        let subject = Asking(|| panic!("the subject was asked"));
        TokenRequest::token_exchange(URL, subject).unwrap()
    };
    for (secret, why) in MISTAKES {
        for request in [
            public().client_secret(secret),
            public().client_secret(secret).secret_in_body(),
            public().secret_in_body().client_secret(secret),
            public().client_secret("s3cret").client_secret(secret),
        ] {
            let endpoint = TokenEndpoint::ok();
            let fetched = request.fetch(endpoint.clone()).now_or_never().unwrap();
            let expected = format!("the client secret {why}");
            assert_is_mistake(&fetched.unwrap_err(), &expected);
            assert!(endpoint.seen().is_empty());
        }
    }
    let replaced = with_secret().map(|request| request.client_secret("\n").client_secret("s3cret"));
    let (_, headers) = sent(replaced);
    assert_eq!(headers["authorization"], "Basic bXktY2xpZW50OnMzY3JldA==");
    let replaced =
        with_secret().map(|request| request.client_secret("\n").client_assertion(subject()));
    assert!(form(replaced).contains("client_assertion=ey.J.x"));
}

#[test]
fn a_secret_may_have_spaces_and_characters_outside_ascii() {
    for secret in ["two words", " s ", " ", "ü", "\u{feff}", "\u{85}"] {
        sent(TokenRequest::client_credentials(URL, "id", secret));
        sent(TokenRequest::refresh_token(URL, "id", secret).map(|it| it.client_secret(secret)));
    }
}

#[test]
fn debug_shows_the_host_and_no_secret() {
    let request = TokenRequest::refresh_token("https://id.example/s3cret?s3cret", "i", "s3cret");
    let request = request.unwrap().client_secret("s3cret").scope("s3cret");
    let shown = format!("{request:?} {:#?}", request.clone().secret_in_body());
    assert!(shown.contains("id.example"), "{shown}");
    assert!(!shown.contains("s3cret"), "{shown}");
}
