//! The responses of a token endpoint, and the token or the error that each response gives.

use std::{
    error::Error as _,
    time::{Duration, Instant},
};

use futures::FutureExt;
use http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_TYPE};
use proptest::prelude::*;
use tower_bearer::{BearerToken, SourceError, SourceErrorKind, TokenRequest};

use crate::support::{
    text,
    token_endpoint::{TokenEndpoint, URL},
};

type Answer = Result<BearerToken, SourceError>;

fn judge(status: u16, body: impl AsRef<[u8]>) -> Answer {
    judge_with(status, &[], body)
}

fn judge_with(
    status: u16,
    headers: &[(&'static str, &'static str)],
    body: impl AsRef<[u8]>,
) -> Answer {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(*name, HeaderValue::from_static(value));
    }
    let status = StatusCode::from_u16(status).unwrap();
    BearerToken::from_token_response(status, &map, body.as_ref())
}

#[test]
fn a_token_response_may_have_members_that_nobody_knows() {
    let body = "\u{feff} {\"x\":[{\"access_token\":\"no\"},null,1e9],\"access_token\":\"a:b\\u002d\\/\",\
                \"scope\":\"read\",\"token_type\":\"bEARER\"}\r\n";
    let token = judge(200, body).unwrap();
    assert_eq!(text(&token), "Bearer a:b-/");
    assert_eq!(token.expiry(), None);
    assert_eq!(
        text(&judge(201, r#"{"access_token":"a"}"#).unwrap()),
        "Bearer a"
    );
    assert!(
        judge(
            200,
            r#"{"access_token":"a","token_type":null,"error":null}"#
        )
        .is_ok()
    );
}

#[test]
fn a_lifetime_may_be_a_number_or_a_text_of_any_size() {
    for (lifetime, expected) in [
        ("3600", Some(3600.0)),
        ("\"3600\"", Some(3600.0)),
        ("\" 3600 \"", Some(3600.0)),
        ("3600.5", Some(3600.5)),
        ("3.6e3", Some(3600.0)),
        ("\"3600.0\"", Some(3600.0)),
        ("0", Some(0.0)),
        ("-0.0", Some(0.0)),
        ("-1", Some(0.0)),
        ("\"-3600\"", Some(0.0)),
        ("1e300", None),
        ("99999999999999999999999999", None),
        ("1e999", None),
        ("null", None),
        ("\"\"", None),
        ("\"soon\"", None),
        ("\"NaN\"", None),
        ("\"inf\"", None),
        ("true", None),
        ("[3600]", None),
        ("{\"s\":3600}", None),
    ] {
        let before = Instant::now();
        let body = format!(r#"{{"access_token":"a","expires_in":{lifetime}}}"#);
        let token = judge(200, body).unwrap();
        let after = Instant::now();
        let expected = expected.map(Duration::from_secs_f64);
        let in_bounds = match (token.expiry(), expected) {
            (Some(at), Some(lifetime)) => at >= before + lifetime && at <= after + lifetime,
            (at, lifetime) => at.is_none() && lifetime.is_none(),
        };
        assert!(in_bounds, "{lifetime}: {:?}", token.expiry());
    }
}

#[test]
fn a_body_that_is_no_token_response_is_invalid() {
    for (body, why) in [
        ("", "not a JSON object"),
        ("null", "not a JSON object"),
        ("[]", "not a JSON object"),
        ("\"secret\"", "not a JSON object"),
        ("access_token=secret&token_type=bearer", "not a JSON object"),
        ("{\"access_token\":\"secret\"", "not a JSON object"),
        ("{\"access_token\":\"secret\"} {}", "not a JSON object"),
        ("{}", "no access_token"),
        ("{\"access_token\":null}", "no access_token"),
        ("{\"access_token\":1234567}", "no access_token"),
        ("{\"access_token\":[\"secret\"]}", "no access_token"),
        ("{\"access_token\":\"\"}", "not a bearer token"),
        ("{\"access_token\":\"sec ret\"}", "not a bearer token"),
        ("{\"access_token\":\"secret\\n\"}", "not a bearer token"),
        ("{\"access_token\":\"sécret\"}", "not a bearer token"),
        (
            "{\"access_token\":\"secret\",\"token_type\":\"DPoP\"}",
            "another type than Bearer",
        ),
        (
            "{\"access_token\":\"secret\",\"token_type\":\"N_A\"}",
            "another type than Bearer",
        ),
        (
            "{\"access_token\":\"secret\",\"token_type\":[\"DPoP\"]}",
            "another type than Bearer",
        ),
        (
            "{\"access_token\":\"secret\",\"token_type\":\"\\ud800\"}",
            "another type than Bearer",
        ),
    ] {
        let error = judge(200, body).unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::Invalid, "{body}");
        assert!(error.to_string().contains(why), "{body}: {error}");
        assert!(!error.is_permanent() && error.retry_after().is_none());
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
    assert!(judge(200, b"{\"access_token\":\"\xff\"}").is_err());
}

#[test]
fn a_web_page_is_named_and_not_shown() {
    let headers = [(CONTENT_TYPE.as_str(), "Text/HTML; charset=utf-8")];
    let page = "<html>proxy-page</html>";
    let error = judge_with(200, &headers, page).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the token endpoint's answer with a web page is not a JSON object"
    );
    let error = judge_with(502, &headers, page).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the token endpoint answered 502 Bad Gateway with a web page: no OAuth 2.0 error"
    );
}

#[test]
fn an_answer_of_another_type_is_not_called_a_web_page() {
    for content_type in ["application/json", "text/plain", "text/htm", "text"] {
        let headers = [(CONTENT_TYPE.as_str(), content_type)];
        let error = judge_with(502, &headers, "").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the token endpoint answered 502 Bad Gateway: no OAuth 2.0 error"
        );
    }
}

#[test]
fn errors_that_stay_are_permanent_on_any_status_but_a_server_s() {
    for (code, permanent) in [
        ("invalid_client", true),
        ("invalid_grant", true),
        ("unauthorized_client", true),
        ("unsupported_grant_type", true),
        ("invalid_scope", true),
        ("invalid_target", true),
        ("invalid_request", false),
        ("temporarily_unavailable", false),
        ("INVALID_GRANT", false),
    ] {
        let body = format!(r#"{{"error":"{code}","error_description":"What is wrong."}}"#);
        for status in [200, 400, 401, 403] {
            let error = judge(status, &body).unwrap_err();
            assert_eq!(error.kind(), SourceErrorKind::Failed);
            assert_eq!(error.is_permanent(), permanent, "{status} {code}");
            assert_eq!(error.retry_after(), None);
            let said = format!("{code} (What is wrong.)");
            assert!(error.to_string().ends_with(&said), "{error}");
        }
        for status in [429, 500, 502, 503] {
            assert!(
                !judge(status, &body).unwrap_err().is_permanent(),
                "{status} {code}"
            );
        }
    }
    let error = judge(400, r#"{"error":"invalid_grant"}"#).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the token endpoint answered 400 Bad Request: invalid_grant"
    );
}

#[test]
fn an_error_is_an_error_also_with_200_and_a_token() {
    let body = r#"{"access_token":"a-secret-token","error":"invalid_grant"}"#;
    assert!(judge(200, body).unwrap_err().is_permanent());
    for error in [r#"{"code":7}"#, "true", "7", "\"\""] {
        let body = format!(r#"{{"access_token":"a-secret-token","error":{error}}}"#);
        let error = judge(200, body).unwrap_err();
        assert!(error.to_string().ends_with("no OAuth 2.0 error"), "{error}");
    }
}

#[test]
fn a_busy_server_says_when_to_try_again() {
    let date = "Fri, 31 Dec 1999 23:59:59 GMT";
    for (status, said, expected) in [
        (429, Some("120"), Some(120)),
        (429, Some(" 7 "), Some(7)),
        (429, Some("0"), Some(0)),
        (429, Some("99999999"), Some(900)),
        (429, Some(date), Some(30)),
        (429, Some("99999999999999999999"), Some(30)),
        (429, None, Some(30)),
        (503, Some("120"), Some(120)),
        (503, Some(date), Some(30)),
        (503, None, None),
        (500, Some("120"), None),
        (400, Some("120"), None),
    ] {
        let headers: Vec<_> = said
            .into_iter()
            .map(|value| ("retry-after", value))
            .collect();
        let error = judge_with(status, &headers, r#"{"error":"slow_down"}"#).unwrap_err();
        let expected = expected.map(Duration::from_secs);
        assert_eq!(error.retry_after(), expected, "{status} {said:?}");
        assert!(!error.is_permanent());
    }
}

#[test]
fn a_redirect_is_an_error_and_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        let endpoint = TokenEndpoint::new(move |_| {
            let mut response = crate::support::token_endpoint::answer(status, "");
            let location = HeaderValue::from_static("https://elsewhere.example/");
            response.headers_mut().insert("location", location);
            response
        });
        let request = TokenRequest::client_credentials(URL, "id", "secret").unwrap();
        let error = request.fetch(endpoint.clone()).now_or_never().unwrap();
        let error = error.unwrap_err();
        assert!(error.to_string().contains("redirect"), "{error}");
        assert_eq!(endpoint.seen().len(), 1);
    }
}

#[test]
fn what_the_server_says_is_cut_and_cleaned() {
    let long = "x".repeat(10_000);
    let body = format!(r#"{{"error":"{long}","error_description":"{long}"}}"#);
    let error = judge(400, body).unwrap_err().to_string();
    assert_eq!(error.matches('x').count(), 64 + 256);
    let body =
        r#"{"error":"bad\u001b[31m","error_description":"a\r\nb\u0000\u202e\u061cc\u2028d\u0085"}"#;
    let error = judge(400, body).unwrap_err().to_string();
    assert!(error.ends_with(": bad[31m (abcd)"), "{error}");
}

#[test]
fn a_description_that_repeats_a_secret_is_left_out() {
    let said = |said: &'static str| {
        let body = format!(r#"{{"error":"invalid_grant","error_description":"{said}"}}"#);
        let endpoint =
            TokenEndpoint::new(move |_| crate::support::token_endpoint::answer(400, &body));
        let request = TokenRequest::refresh_token(URL, "id", "refresh-token-4711").unwrap();
        let request = request.client_secret("pa55word");
        let request = request.clone().fetch(endpoint).now_or_never().unwrap();
        request.unwrap_err().to_string()
    };
    assert!(said("the refresh token is unknown").ends_with("(the refresh token is unknown)"));
    for leak in [
        "refresh-token-4711 is unknown",
        "begins with refresh-t",
        "ends with ken-4711",
        "refresh\\u0000-token-4711",
        "pa55word is wrong",
    ] {
        assert!(said(leak).ends_with("invalid_grant"), "{}", said(leak));
    }
    let body = r#"{"access_token":"an-access-token","error":"e","error_description":"not an-access-token"}"#;
    assert!(judge(200, body).unwrap_err().to_string().ends_with(": e"));
}

#[test]
fn a_description_that_repeats_a_secret_as_it_was_sent_is_left_out() {
    let said = |in_body: bool, said: String| {
        let body = format!(r#"{{"error":"invalid_client","error_description":"{said}"}}"#);
        let endpoint =
            TokenEndpoint::new(move |_| crate::support::token_endpoint::answer(401, &body));
        let mut request = TokenRequest::client_credentials(URL, "id", "p+ss/w=rd&1:2").unwrap();
        if in_body {
            request = request.secret_in_body();
        }
        let fetched = request.fetch(endpoint.clone()).now_or_never().unwrap();
        let shown = fetched.unwrap_err().to_string();
        (shown, endpoint.seen().remove(0))
    };
    let (_, sent) = said(false, String::new());
    let header = sent.headers()["authorization"].to_str().unwrap().to_owned();
    let encoded = "p%2Bss%2Fw%3Drd%261%3A2".to_owned();
    for (in_body, leak) in [
        (false, header),
        (false, encoded.clone()),
        (true, format!("client_secret={encoded}")),
        (true, encoded.to_lowercase()),
        (true, "P+SS/W=RD&1:2".to_owned()),
    ] {
        let (shown, _) = said(in_body, format!("not {leak}"));
        assert!(shown.ends_with(": invalid_client"), "{shown}");
    }
    let (shown, _) = said(false, "Basic authentication failed".to_owned());
    assert!(shown.ends_with("(Basic authentication failed)"), "{shown}");
}

/// A user has to read which scope is wrong. So a parameter is shown, unlike a secret.
#[test]
fn a_description_that_repeats_a_parameter_is_shown() {
    let body =
        r#"{"error":"invalid_scope","error_description":"no accounts.read for erp-production"}"#;
    let request = TokenRequest::client_credentials(URL, "id", "pa55word").unwrap();
    let request = request
        .scope("accounts.read")
        .param("audience", "erp-production");
    let fetched = request
        .fetch(TokenEndpoint::saying(400, body))
        .now_or_never();
    let error = fetched.unwrap().unwrap_err().to_string();
    let said = "invalid_scope (no accounts.read for erp-production)";
    assert!(error.ends_with(said), "{error}");
}

proptest! {
    #[test]
    fn no_body_makes_it_panic_or_show_what_it_cannot_read(
        status in 200_u16..600,
        before in "[\\PC{}\\[\\]\":,\\\\]{0,40}",
        after in any::<Vec<u8>>(),
    ) {
        const SECRET: &str = "sEcReT-pArT";
        let bodies = [
            [before.as_bytes(), SECRET.as_bytes(), &after].concat(),
            format!(r#"{{"access_token":"{SECRET}{before}"}}"#).into_bytes(),
            format!(r#"{{"{before}":0,"access_token":"{SECRET} ","error":"{before}"}}"#).into_bytes(),
            format!(r#"{{"error":"e","error_description":"{SECRET}","access_token":"{SECRET}"}}"#)
                .into_bytes(),
        ];
        for body in bodies {
            let Err(error) = judge(status, body) else { continue };
            let source = error.source().map(|source| format!("{source} {source:?}"));
            let shown = format!("{error} {error:?} {source:?}");
            prop_assert!(!shown.contains(SECRET), "{}", shown);
        }
    }
}
