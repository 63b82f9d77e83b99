//! Where a token goes: the cases of `uris.jsonl`. If `how` is `parse`, the URI is parsed from a text. If
//! `how` is `parts`, `Uri::builder()` makes the URI from `SCHEME|AUTHORITY` and the path `/`.

use std::collections::BTreeMap;

use http::{Request, Uri};
use tower::Layer;
use tower_bearer::{BearerAuthLayer, ErrorKind, StaticToken};

use crate::support::{Server, ours, send, token};

const CASES: &str = include_str!("uris.jsonl");

fn between<'a>(case: &'a str, start: &str, end: &str) -> &'a str {
    let (_, rest) = case.split_once(start).unwrap();
    rest.split_once(end).unwrap().0
}

/// The file has no escapes.
fn member<'a>(case: &'a str, name: &str) -> &'a str {
    between(case, &format!(r#""{name}": ""#), "\"")
}

fn origins(case: &str) -> impl Iterator<Item = &str> {
    let list = between(case, r#""origins": ["#, r#"], "verdict""#);
    list.split('"').skip(1).step_by(2)
}

fn uri(case: &str) -> Uri {
    let text = member(case, "uri");
    if member(case, "how") == "parse" {
        return text.parse().unwrap();
    }
    let (scheme, authority) = text.split_once('|').unwrap();
    let builder = Uri::builder().scheme(scheme).authority(authority);
    builder.path_and_query("/").build().unwrap()
}

fn verdict(layer: &BearerAuthLayer<StaticToken>, uri: Uri) -> &'static str {
    let server = Server::ok();
    let mut request = Request::new(String::new());
    *request.uri_mut() = uri;
    let result = send(&mut layer.layer(server.clone()), request);
    match (result, server.seen().first()) {
        (Ok(_), Some(sent)) if sent.headers().contains_key("authorization") => "carry",
        (Ok(_), Some(_)) => "pass",
        (Err(error), None) if ours(&error).kind() == ErrorKind::InsecureTransport => "refuse",
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_token_goes_where_each_case_says() {
    // For each kind of case: how many hold, and how many there are.
    let mut counts = BTreeMap::<String, (u32, u32)>::new();
    let mut wrong = Vec::new();
    for case in CASES.lines() {
        let layer = BearerAuthLayer::new(StaticToken::new(token("ours")));
        let layer = origins(case).try_fold(layer, BearerAuthLayer::for_origin);
        let verdict = match layer {
            Ok(layer) => verdict(&layer, uri(case)),
            Err(_) => "no origin",
        };
        let expected = member(case, "verdict");
        let scope = if origins(case).next().is_some() {
            "with origins"
        } else {
            "without"
        };
        let (hold, all) = counts.entry(format!("{expected}, {scope}")).or_default();
        *all += 1;
        if verdict == expected {
            *hold += 1;
        } else {
            wrong.push(format!("{verdict}: {case}"));
        }
    }
    println!("{counts:#?}");
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(counts.values().map(|(_, all)| all).sum::<u32>() > 100);
}
