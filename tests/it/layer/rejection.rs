//! Which responses mark a token as rejected, and which token a response marks.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use http::{
    HeaderName, HeaderValue, StatusCode, Version,
    header::{AUTHORIZATION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, WWW_AUTHENTICATE},
};
use tower::{Layer, Service};
use tower_bearer::{BearerAuthLayer, RotatingToken, StaticToken};

use crate::support::{
    self, Asking, Req, Res, Server, Task, get, make_ready, send, status, text, token,
};

const URI: &str = "https://api.example.com/v1";

fn unauthorized() -> Res {
    status(StatusCode::UNAUTHORIZED)
}

/// Whether `response` marks the token that was sent under `header`.
fn marks(header: &HeaderName, response: &Res) -> bool {
    support::marks(|layer| layer.header_name(header.clone()), response)
}

/// A response with these challenges, as the origin server or the proxy sends them.
fn challenge(code: u16, name: &HeaderName, values: &[&[u8]]) -> Res {
    let mut response = status(StatusCode::from_u16(code).unwrap());
    for value in values {
        let value = HeaderValue::from_bytes(value).unwrap();
        response.headers_mut().append(name, value);
    }
    response
}

/// The values of the header fields of a response, and whether the response marks the token.
const CHALLENGES: &[(&[&[u8]], bool)] = &[
    // No error blames something else.
    (&[], true),
    (&[b""], true),
    (&[b"Bearer"], true),
    (&[br#"Bearer realm="api""#], true),
    (&[br#"Bearer error="invalid_token""#], true),
    (
        &[br#"Bearer realm="api", error="invalid_token", error_description="expired""#],
        true,
    ),
    // An error blames something else (RFC 6750 §3.1, RFC 9470 §3).
    (
        &[br#"Bearer error="insufficient_scope", scope="read write""#],
        false,
    ),
    (&[br#"Bearer error="invalid_request""#], false),
    (
        &[br#"Bearer error="insufficient_user_authentication", acr_values="x""#],
        false,
    ),
    // Names are in any case, values are quoted or not, and whitespace surrounds the equals sign.
    (&[br#"bearer ERROR="insufficient_scope""#], false),
    (&[b"BEARER Error=insufficient_scope"], false),
    (&[b"bEARER error=invalid_token"], true),
    (&[br#"Bearer error = "insufficient_scope""#], false),
    (&[br#"Bearer error="insufficient\_scope""#], false),
    // One or more spaces follow the scheme (RFC 9110 §11.3). Whitespace at the end is not part of the
    // value.
    (&[br#"Bearer  error="insufficient_scope""#], false),
    (
        &[br#"Basic realm="api",  Bearer   error="insufficient_scope""#],
        false,
    ),
    (&[b"Bearer error=\"insufficient_scope\" "], false),
    (&[b"Bearer error=insufficient_scope \t "], false),
    (&[br#"Bearer  error="invalid_token" "#], true),
    (&[br#"Bearer error="invalid\_token""#], true),
    // A description is for people, and does not count.
    (
        &[br#"Bearer error="insufficient_scope", error_description="no invalid_token""#],
        false,
    ),
    (
        &[br#"Bearer error="invalid_token", error_description="insufficient_scope""#],
        true,
    ),
    (
        &[br#"Bearer error_description="a, \"b\", error=c", error="insufficient_scope""#],
        false,
    ),
    // An escaped quote does not end a text (RFC 9110 §5.6.4).
    (
        &[br#"Basic realm="\", Bearer error=insufficient_scope, Digest, ""#],
        true,
    ),
    (
        &[br#"Basic realm="\\", Bearer error=insufficient_scope"#],
        false,
    ),
    // Challenges of other schemes are not about a bearer token.
    (&[br#"Basic realm="api""#], true),
    (&[b"Negotiate"], true),
    (&[br#"DPoP error="insufficient_scope""#], true),
    (&[br#"BearerX error="insufficient_scope""#], true),
    // Several challenges are in a single field, or in several fields.
    (
        &[br#"Basic realm="api", Bearer error="insufficient_scope""#],
        false,
    ),
    (
        &[br#"Bearer error="insufficient_scope", Basic realm="api""#],
        false,
    ),
    (
        &[br#"Negotiate, Basic realm="api", Bearer error="invalid_token""#],
        true,
    ),
    (
        &[
            br#"Basic realm="api""#,
            br#"Bearer error="insufficient_scope""#,
        ],
        false,
    ),
    (
        &[
            br#"Bearer error="insufficient_scope""#,
            br#"Basic realm="api""#,
        ],
        false,
    ),
    // If several challenges have errors, a single error that blames the token is enough.
    (
        &[br#"Bearer error="insufficient_scope", Bearer error="invalid_token""#],
        true,
    ),
    (
        &[
            br#"Bearer error="invalid_token""#,
            br#"Bearer error="insufficient_scope""#,
        ],
        true,
    ),
    (
        &[
            br#"Bearer error="insufficient_scope""#,
            br#"Bearer error="invalid_token""#,
        ],
        true,
    ),
    // An unreadable part counts for nothing, and the scanner reads the rest.
    (&[b"Bearer error="], true),
    (&[br#"Bearer error="insufficient_scope"#], true),
    (&[br#"Bearer "insufficient_scope""#], true),
    (&[br#"=,"="#], true),
    (
        &[br#"=,"="#, br#"Bearer error="insufficient_scope""#],
        false,
    ),
    (
        &[br#"Bearer error="insufficient_scope", Basic realm="api", ="="#],
        false,
    ),
    (
        &[b"Bearer error=\"insufficient_scope\", error_description=\"na\xefve\""],
        false,
    ),
    // Another scheme has a `token68`.
    (
        &[br#"Negotiate YWJj==, Bearer error="insufficient_scope""#],
        false,
    ),
    (
        &[br#"Bearer error="insufficient_scope", Negotiate YWJj=="#],
        false,
    ),
    (
        &[br#"Basic realm="x, Bearer error=\"insufficient_scope\"""#],
        true,
    ),
    (&[b"\xff", br#"Bearer error="insufficient_scope""#], false),
];

#[test]
fn the_challenges_decide_whether_a_refusal_is_the_tokens_fault() {
    for &(values, expected) in CHALLENGES {
        let case: Vec<_> = values
            .iter()
            .map(|value| value.escape_ascii().to_string())
            .collect();
        let origin = challenge(401, &WWW_AUTHENTICATE, values);
        assert_eq!(marks(&AUTHORIZATION, &origin), expected, "401 {case:?}");
        let proxy = challenge(407, &PROXY_AUTHENTICATE, values);
        assert_eq!(
            marks(&PROXY_AUTHORIZATION, &proxy),
            expected,
            "407 {case:?}"
        );
    }
}

#[test]
fn only_the_status_for_its_header_marks_a_token() {
    let custom = HeaderName::from_static("x-api-authorization");
    for code in 200..600 {
        for (header, marking) in [
            (&AUTHORIZATION, 401),
            (&custom, 401),
            (&PROXY_AUTHORIZATION, 407),
        ] {
            let mut response = challenge(code, &WWW_AUTHENTICATE, &[b"Bearer"]);
            let of_proxy = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(PROXY_AUTHENTICATE, of_proxy);
            assert_eq!(
                marks(header, &response),
                code == marking,
                "{code} for {header}"
            );
        }
    }
}

#[test]
fn the_challenges_of_the_other_party_say_nothing_about_a_token() {
    let other = [br#"Bearer error="insufficient_scope""#.as_slice()];
    let of_proxy = challenge(401, &PROXY_AUTHENTICATE, &other);
    assert!(marks(&AUTHORIZATION, &of_proxy));
    let of_origin = challenge(407, &WWW_AUTHENTICATE, &other);
    assert!(marks(&PROXY_AUTHORIZATION, &of_origin));
}

#[test]
fn a_late_401_does_not_mark_a_newer_token() {
    let [old, new] = ["old", "new"].map(token);
    let source = RotatingToken::new(old.clone());
    let (server, held) = Server::held();
    let mut service = BearerAuthLayer::new(source.clone()).layer(server.clone());
    make_ready(&mut service);
    let mut request = Task::waiting(service.call(get(URI)));

    source.rotate(new.clone());
    held.answer(Ok(unauthorized()));
    request.finish().unwrap();

    assert!(old.is_rejected());
    assert!(!new.is_rejected());
}

#[test]
fn a_burst_of_401s_marks_the_one_token_and_no_other() {
    let [old, new] = ["old", "new"].map(token);
    let source = RotatingToken::new(old.clone());
    let (server, held) = Server::held();
    let mut service = BearerAuthLayer::new(source.clone()).layer(server.clone());
    let mut burst: Vec<_> = (0..100)
        .map(|_| {
            make_ready(&mut service);
            Task::waiting(service.call(get(URI)))
        })
        .collect();

    for (number, request) in burst.iter_mut().enumerate() {
        if number == 50 {
            source.rotate(new.clone());
        }
        held.answer(Ok(unauthorized()));
        request.finish().unwrap();
        assert!(old.is_rejected(), "after {number}");
        assert!(!new.is_rejected(), "after {number}");
    }
    make_ready(&mut service);
    let _next = Task::waiting(service.call(get(URI)));
    assert_eq!(server.authorizations().pop().unwrap(), text(&new));
}

#[test]
fn the_mark_is_on_every_clone_of_the_token_and_on_no_equal_one() {
    let ours = token("same");
    let equal = token("same");
    let renewed = ours
        .clone()
        .expires_in(std::time::Duration::from_secs(3600));
    let server = Server::answering(|_| unauthorized());
    send(
        &mut BearerAuthLayer::new(StaticToken::new(ours.clone())).layer(server),
        get(URI),
    )
    .unwrap();
    assert!(ours.is_rejected());
    assert!(renewed.is_rejected());
    assert!(!equal.is_rejected());
}

#[test]
fn the_401_reaches_the_caller_as_it_is() {
    #[derive(Clone, Debug, PartialEq)]
    struct Extension(&'static str);

    let mut response = challenge(
        401,
        &WWW_AUTHENTICATE,
        &[br#"Basic realm="api""#, br#"Bearer error="invalid_token""#],
    );
    "the body".clone_into(response.body_mut());
    *response.version_mut() = Version::HTTP_2;
    response.extensions_mut().insert(Extension("kept"));

    let expected = response.clone();
    let server = Server::answering(move |_| response.clone());
    let source = StaticToken::new(token("ours"));
    let received = send(&mut BearerAuthLayer::new(source).layer(server), get(URI)).unwrap();
    assert_eq!(received.status(), expected.status());
    assert_eq!(received.version(), expected.version());
    assert_eq!(received.headers(), expected.headers());
    assert_eq!(received.body(), expected.body());
    let extension = received.extensions().get::<Extension>();
    assert_eq!(extension, Some(&Extension("kept")));
}

#[test]
fn a_401_to_a_request_without_our_token_marks_nothing() {
    type Settings = fn(BearerAuthLayer<StaticToken>) -> BearerAuthLayer<StaticToken>;

    let own = HeaderValue::from_static("Bearer own");
    let cases: [(&str, Settings); 2] = [
        ("another origin", |layer| {
            layer.for_origin("https://other.example.com").unwrap()
        }),
        ("a header of its own", BearerAuthLayer::keep_existing),
    ];
    for (case, settings) in cases {
        let ours = token("ours");
        let server = Server::answering(|_| unauthorized());
        let layer = settings(BearerAuthLayer::new(StaticToken::new(ours.clone())));
        let mut request: Req = get(URI);
        request.headers_mut().insert(AUTHORIZATION, own.clone());
        let response = send(&mut layer.layer(server.clone()), request).unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{case}");
        assert_eq!(server.authorizations(), ["Bearer own"], "{case}");
        assert!(!ours.is_rejected(), "{case}");
    }
}

#[test]
fn an_error_of_the_inner_service_marks_nothing() {
    let ours = token("ours");
    let (server, held) = Server::held();
    let mut service = BearerAuthLayer::new(StaticToken::new(ours.clone())).layer(server);
    make_ready(&mut service);
    let mut request = Task::waiting(service.call(get(URI)));
    held.answer(Err("connection reset, HTTP 401".into()));
    request.finish().unwrap_err();
    assert!(!ours.is_rejected());
}

#[test]
fn each_response_marks_the_token_of_its_own_request() {
    let tokens = Arc::new(["first", "second", "third"].map(token));
    let next = AtomicUsize::new(0);
    let given = Arc::clone(&tokens);
    let source = Asking(move || given[next.fetch_add(1, Ordering::SeqCst)].clone().into());
    let (server, held) = Server::held();
    let mut service = BearerAuthLayer::new(source).layer(server);
    let mut requests = [(); 3].map(|()| {
        make_ready(&mut service);
        Task::waiting(service.call(get(URI)))
    });

    for code in [200, 401, 403] {
        held.answer(Ok(status(StatusCode::from_u16(code).unwrap())));
    }
    for request in &mut requests {
        request.finish().unwrap();
    }
    let marked = [0, 1, 2].map(|number| tokens[number].is_rejected());
    assert_eq!(marked, [false, true, false]);
}

/// The token keeps what the server said for as long as the token lives, so there is a limit.
#[test]
fn of_what_a_server_says_the_first_8_kib_are_kept() {
    for (lengths, kept) in [
        (vec![0, 10], 2),
        (vec![4_096, 4_096, 1], 2),
        (vec![4_096, 4_097, 1], 1),
        (vec![8_192], 1),
        (vec![8_193, 1], 0),
    ] {
        let ours = token("ours");
        let values: Vec<Vec<u8>> = lengths.iter().map(|&length| vec![b'x'; length]).collect();
        let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        let response = challenge(401, &WWW_AUTHENTICATE, &values);
        let server = Server::answering(move |_| response.clone());
        let mut service = BearerAuthLayer::new(StaticToken::new(ours.clone())).layer(server);
        send(&mut service, get("https://api.example.com/")).unwrap();
        let rejection = ours.rejection().unwrap();
        assert_eq!(rejection.status(), StatusCode::UNAUTHORIZED);
        let said: Vec<_> = rejection
            .challenges()
            .iter()
            .map(HeaderValue::len)
            .collect();
        assert_eq!(said, lengths[..kept], "{lengths:?}");
    }
}
