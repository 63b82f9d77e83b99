//! The challenges of real servers, and whether they reject the token. The cases are in files.

use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{AUTHORIZATION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, WWW_AUTHENTICATE},
};
use std::collections::BTreeMap;
use tower_bearer::{BearerAuthLayer, rejects_token};

use crate::support::{AnyLayer, Res, allocator::allocations_in, marks};

type Settings = fn(AnyLayer) -> AnyLayer;

/// Each line is a case.
const FILES: [&str; 2] = [
    include_str!("cases/challenges.jsonl"),
    include_str!("cases/servers.jsonl"),
];

struct Case {
    /// The line of the file.
    line: &'static str,
    kind: String,
    status: u16,
    challenges: Vec<HeaderValue>,
    rejects_token: bool,
}

fn cases() -> impl Iterator<Item = Case> {
    FILES.into_iter().flat_map(str::lines).map(|line| {
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        let challenges = case["www_authenticate"].as_array().unwrap().iter();
        Case {
            line,
            kind: case["kind"].as_str().unwrap().to_owned(),
            status: case["status"].as_u64().unwrap().try_into().unwrap(),
            challenges: challenges
                .map(|text| HeaderValue::from_bytes(text.as_str().unwrap().as_bytes()).unwrap())
                .collect(),
            rejects_token: case["rejects_token"].as_bool().unwrap(),
        }
    })
}

impl Case {
    fn headers(&self, name: &HeaderName) -> HeaderMap {
        let challenges = self.challenges.iter();
        challenges
            .map(|value| (name.clone(), value.clone()))
            .collect()
    }

    fn response(&self, name: &HeaderName, status: u16) -> Res {
        let mut response = Res::default();
        *response.status_mut() = status.try_into().unwrap();
        *response.headers_mut() = self.headers(name);
        response
    }
}

#[test]
fn real_servers_challenges_mark_the_token_where_the_server_rejects_it() {
    let mut counts = BTreeMap::<_, [u32; 2]>::new();
    let mut wrong = Vec::new();
    for case in cases() {
        let status = case.status.try_into().unwrap();
        let headers = case.headers(&WWW_AUTHENTICATE);
        let (allocations, rejects) = allocations_in(|| rejects_token(status, &headers));
        assert_eq!(allocations, 0, "{}", case.line);

        let response = case.response(&WWW_AUTHENTICATE, case.status);
        let usual: Settings = |layer| layer;
        for settings in [usual, BearerAuthLayer::grpc_status] {
            assert_eq!(marks(settings, &response), rejects, "{}", case.line);
        }
        let [right, all] = counts.entry(case.kind).or_default();
        *all += 1;
        if rejects == case.rejects_token {
            *right += 1;
        } else {
            wrong.push(case.line);
        }
    }
    for (kind, [right, all]) in &counts {
        println!("{kind}: {right} of {all}");
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn a_proxy_is_read_by_the_same_rule_on_its_own_status_and_header() {
    for case in cases() {
        let status = match case.status {
            401 => 407,
            407 => 401,
            other => other,
        };
        let response = case.response(&PROXY_AUTHENTICATE, status);
        let marked = marks(|layer| layer.header_name(PROXY_AUTHORIZATION), &response);
        assert_eq!(marked, case.rejects_token, "{}", case.line);
        // A proxy's challenge says nothing about a token for the origin server.
        let response = case.response(&PROXY_AUTHENTICATE, case.status);
        let marked = marks(|layer| layer.header_name(AUTHORIZATION), &response);
        assert_eq!(marked, case.status == 401, "{}", case.line);
    }
}

#[test]
fn on_400_and_403_only_an_explicit_error_rejects_the_token() {
    for (challenges, expected) in [
        (&[][..], false),
        (&["Bearer"], false),
        (&[r#"Bearer error="""#], false),
        (&[r#"Bearer error="expired_token""#], false),
        (&[r#"Bearer error="insufficient_scope""#], false),
        (&[r#"DPoP error="invalid_token""#], false),
        (&[r#"Bearer error_description="invalid_token""#], false),
        (&["Bearer error='invalid_token'"], true),
        (&["bearer ERROR=Invalid_Token"], true),
        (
            &[
                r#"Bearer error="insufficient_scope""#,
                r#"Bearer error="invalid_token""#,
            ],
            true,
        ),
    ] {
        let mut headers = HeaderMap::new();
        for challenge in challenges {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        for status in (100..600).filter(|&status| status != 401) {
            assert_eq!(
                rejects_token(status.try_into().unwrap(), &headers),
                expected && (status == 400 || status == 403),
                "{status} {challenges:?}"
            );
        }
    }
}

#[test]
fn a_header_of_half_a_mebibyte_is_read_without_an_allocation() {
    for part in ["a=", "\"\\", "a='b', ", "Bearer error=insufficient_scope, "] {
        let value = part.repeat(512 * 1024 / part.len());
        let value = HeaderValue::from_str(&value).unwrap();
        let headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, value)]);
        for status in [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN] {
            let (allocations, rejects) = allocations_in(|| rejects_token(status, &headers));
            assert_eq!(allocations, 0, "{part}");
            let expected = status == StatusCode::UNAUTHORIZED && !part.contains("Bearer");
            assert_eq!(rejects, expected, "{part}");
        }
    }
}
