//! What a marked token keeps of the response that rejected it.

use http::{HeaderValue, StatusCode, header::WWW_AUTHENTICATE};
use tower::Layer;
use tower_bearer::{BearerAuthLayer, BearerToken, Rejection};

use crate::support::{Res, Server, get, send, status, token};

const KIB: usize = 1024;

/// A token that a server rejected with these challenges.
fn rejected_with(challenges: &[HeaderValue]) -> (BearerToken, Res) {
    let mut response = status(StatusCode::UNAUTHORIZED);
    for challenge in challenges {
        let headers = response.headers_mut();
        headers.append(WWW_AUTHENTICATE, challenge.clone());
    }
    let ours = token("ours");
    let server = Server::answering(move |_| response.clone());
    let mut service = BearerAuthLayer::new(ours.clone()).layer(server);
    let response = send(&mut service, get("https://api.example.com/")).unwrap();
    (ours, response)
}

fn rejection(challenges: &[&str]) -> Rejection {
    let challenges: Vec<_> = challenges
        .iter()
        .map(|text| HeaderValue::from_bytes(text.as_bytes()).unwrap())
        .collect();
    rejected_with(&challenges).0.rejection().unwrap()
}

#[test]
fn the_first_challenges_are_kept_that_take_no_more_than_8_kib_together() {
    for (lengths, kept) in [
        (&[][..], 0),
        (&[8 * KIB], 1),
        (&[8 * KIB + 1], 0),
        (&[4 * KIB, 4 * KIB], 2),
        (&[4 * KIB, 4 * KIB, 0], 3),
        (&[4 * KIB, 4 * KIB, 1], 2),
        (&[4 * KIB, 4 * KIB + 1], 1),
        // Nothing is kept after the first value that is too long: the kept values are the start of the
        // list.
        (&[1, 512 * KIB, 1], 1),
    ] {
        let challenges: Vec<_> = lengths
            .iter()
            .map(|&length| HeaderValue::from_str(&"x".repeat(length)).unwrap())
            .collect();
        let (token, response) = rejected_with(&challenges);
        let rejection = token.rejection().unwrap();
        assert_eq!(rejection.challenges(), &challenges[..kept], "{lengths:?}");
        assert_eq!(rejection.status(), StatusCode::UNAUTHORIZED);
        let headers = response.headers().get_all(WWW_AUTHENTICATE);
        assert_eq!(headers.iter().count(), lengths.len(), "the caller's");
    }
}

#[test]
fn the_kept_challenges_share_no_memory_with_the_response() {
    let (token, response) = rejected_with(&[HeaderValue::from_static("Bearer realm=api")]);
    let rejection = token.rejection().unwrap();
    let of_response = response.headers()[WWW_AUTHENTICATE].as_bytes();
    let kept = rejection.challenges()[0].as_bytes();
    assert_eq!(kept, of_response);
    assert_ne!(kept.as_ptr(), of_response.as_ptr());
}

#[test]
fn debug_shows_no_text_of_the_server() {
    let rejection = rejection(&[
        "Bearer realm=\"secret-realm\"",
        "Basic realm=\"secret-realm\"",
    ]);
    let shown = format!("{rejection:?} {rejection:#?}");
    assert!(!shown.contains("realm"), "{shown}");
    assert!(!shown.contains("Bearer"), "{shown}");
    assert!(
        shown.starts_with("Rejection { status: 401, challenges: 2 }"),
        "{shown}"
    );
}

#[test]
fn a_parameter_is_the_first_of_its_name_in_a_bearer_challenge() {
    let rejection = rejection(&[
        "DPoP scope=\"of another scheme\"",
        r#"Bearer Scope="repository:a/b:pull,push", error_description="the \"a\" \\ b", empty="""#,
        "claims='e30=', realm=https://auth.example/token, scope=second",
        "Bearer realm=\"third\", name=\"na\u{ef}ve\"",
    ]);
    for (name, expected) in [
        ("scope", Some("repository:a/b:pull,push")),
        ("SCOPE", Some("repository:a/b:pull,push")),
        ("error_description", Some("the \"a\" \\ b")),
        ("empty", Some("")),
        ("claims", Some("e30=")),
        ("realm", Some("https://auth.example/token")),
        ("name", Some("na\u{ef}ve")),
        ("error", None),
        ("", None),
    ] {
        assert_eq!(rejection.parameter(name).as_deref(), expected, "{name}");
    }
}

#[test]
fn what_is_not_utf_8_in_a_parameter_is_replaced() {
    let latin_1 = HeaderValue::from_bytes(b"Bearer realm=\"na\xefve\"").unwrap();
    let rejection = rejected_with(&[latin_1]).0.rejection().unwrap();
    assert_eq!(rejection.parameter("realm").unwrap(), "na\u{fffd}ve");
}

#[test]
fn what_is_said_first_about_a_token_stays_until_the_mark_is_off() {
    let token = token("ours");
    let says = |code: u16, text: &'static str| {
        let mut response = status(code.try_into().unwrap());
        let headers = response.headers_mut();
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(text));
        let server = Server::answering(move |_| response.clone());
        let mut service = BearerAuthLayer::new(token.clone()).layer(server);
        send(&mut service, get("https://api.example.com/")).unwrap();
        let rejection = token.rejection();
        rejection.map(|said| (said.status().as_u16(), said.parameter("realm").unwrap()))
    };
    let said = |code, realm: &str| Some((code, realm.to_owned()));
    assert_eq!(says(200, "Bearer realm=a"), None);
    assert_eq!(
        says(403, "Bearer realm=b, error=invalid_token"),
        said(403, "b")
    );
    assert_eq!(says(401, "Bearer realm=c"), said(403, "b"));
    assert_eq!(says(200, "Bearer realm=d"), None);
    assert_eq!(says(401, "Bearer realm=e"), said(401, "e"));
}
