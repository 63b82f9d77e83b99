//! The crate's own reading of JSON against `serde_json`'s.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unchecked_time_subtraction,
    clippy::unwrap_used
)]

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Map, Value, value::RawValue};

use super::{NotAString, Object};

/// The string between the quotes as this crate and as `serde_json` read it.
fn both(escaped: &str) -> (Option<String>, Option<String>) {
    let text = format!("{{\"name\":\"{escaped}\"}}");
    let ours = Object::parse(&text).and_then(|object| string(&object, "name"));
    let oracle = serde_json::from_str::<BTreeMap<String, String>>(&text).ok();
    (ours, oracle.and_then(|mut members| members.remove("name")))
}

fn string(object: &Object<'_>, name: &str) -> Option<String> {
    let text = object.string(name).ok()??;
    Some(String::clone(&text))
}

fn assert_same(escaped: &str) -> Option<String> {
    let (ours, oracle) = both(escaped);
    assert_eq!(ours, oracle, "{escaped}");
    ours
}

#[test]
fn each_escape_of_one_character_is_read_or_refused_as_by_serde_json() {
    let mut read = String::new();
    for c in (0..=0x7f)
        .map(char::from)
        .chain(['\u{e9}', '\u{20ac}', '\u{1f600}'])
    {
        let escape = format!("a\\{c}b");
        if assert_same(&escape).is_some() {
            read.push(c);
        }
        // The character without a backslash. A quote would end the string.
        if c != '"' {
            assert_same(&format!("a{c}b"));
        }
    }
    assert_eq!(read, "\"/\\bfnrt");
}

#[test]
fn each_utf_16_unit_is_read_or_refused_as_by_serde_json() {
    let mut refused = 0;
    for unit in 0..=0xffff {
        for escape in [format!("\\u{unit:04x}"), format!("-\\u{unit:04X}-")] {
            refused += usize::from(assert_same(&escape).is_none());
        }
    }
    assert_eq!(refused, 2 * 2048, "the surrogates");
}

#[test]
fn each_surrogate_pair_is_read_as_by_serde_json() {
    let mut characters = 0;
    for high in 0xd800..=0xdbff {
        let pairs = (0xdc00..=0xdfff).map(|low| format!("\\u{high:04x}\\u{low:04X}"));
        let text = assert_same(&pairs.collect::<String>()).unwrap();
        characters += text.chars().count();
    }
    assert_eq!(characters, 0x10_0000);
}

#[test]
fn a_surrogate_without_its_other_half_is_refused_whatever_follows() {
    for first in ["d800", "dbff", "dc00", "DFFF"] {
        for follows in [
            "",
            "x",
            "xxxxxx",
            "\\n",
            "\\\\dc00",
            "/udc00",
            "\\u0041",
            "\\ud800",
            "\u{e9}\u{20ac}",
        ] {
            assert_eq!(assert_same(&format!("a\\u{first}{follows}")), None);
        }
    }
}

#[test]
fn what_is_no_hexadecimal_number_is_refused() {
    for escape in [
        "+041",
        "-041",
        "0x41",
        " 041",
        "00g1",
        "0_41",
        "004",
        "",
        "\u{e9}041",
    ] {
        assert_eq!(assert_same(&format!("\\u{escape}")), None);
        assert_eq!(assert_same(&format!("\\ud83d\\u{escape}")), None);
    }
}

#[test]
fn a_text_that_is_cut_off_anywhere_is_refused() {
    let text = r#" {"a\n": "\"\u00e9\ud83d\ude00\\", "b": [{"c": -1.5e3}, null, true], "d":{}} "#;
    let whole = text.trim_end().len();
    for end in 0..text.len() {
        assert_eq!(Object::parse(&text[..end]).is_some(), end >= whole, "{end}");
    }
}

#[test]
fn of_two_members_with_the_same_name_the_last_counts() {
    let object = Object::parse(r#"{"a":"1","\u0061":"2","b":"3","a":null,"\u0062":4}"#).unwrap();
    assert!(matches!(object.string("a"), Ok(None)));
    assert!(matches!(object.string("b"), Err(NotAString)));
    let object = Object::parse(r#"{"a":null,"a":"1","\u0061":"2"}"#).unwrap();
    assert_eq!(string(&object, "a").unwrap(), "2");
}

#[test]
fn one_byte_order_mark_is_passed_over() {
    assert!(Object::parse("\u{feff} {}").is_some());
    assert!(Object::parse("\u{feff}\u{feff}{}").is_none());
    assert!(Object::parse(" \u{feff}{}").is_none());
}

#[test]
fn deep_nesting_does_not_overflow_the_stack() {
    let depth = 100_000;
    let nested = format!(
        "{{\"a\":{}{},\"b\":\"c\"}}",
        "[".repeat(depth),
        "]".repeat(depth)
    );
    assert_eq!(string(&Object::parse(&nested).unwrap(), "b").unwrap(), "c");
    assert!(Object::parse(&nested[..depth]).is_none());
}

#[test]
fn what_is_nearly_an_object_is_refused() {
    for text in [
        "",
        "{",
        "}",
        "{}}",
        "{,}",
        r#"{"a"}"#,
        r#"{"a":}"#,
        r#"{"a" 1}"#,
        "{:1}",
        r#"{"a":1,}"#,
        r#"{,"a":1}"#,
        r#"{"a":1,,"b":2}"#,
        r#"{"a":1 "b":2}"#,
        r#"{"a":1;"b":2}"#,
        "{a:1}",
        "{1:1}",
        "{null:1}",
        "{'a':1}",
        r#"{"a":1]"#,
        r#"["a":1}"#,
        r#"{"a":01}"#,
        r#"{"a":1x}"#,
        r#"{"a":nul}"#,
        r#"{"a"::1}"#,
        r#"{"a":1}{"#,
        "[]",
        r#""a""#,
        "null",
    ] {
        assert_eq!(is_object(text), Some(false), "{text}");
    }
}

/// Whether the text is an object, or `None` if `serde_json` does not agree.
fn is_object(text: &str) -> Option<bool> {
    let json = serde_json::from_str::<&RawValue>(text);
    let oracle = json.is_ok_and(|json| json.get().starts_with('{'));
    (Object::parse(text).is_some() == oracle).then_some(oracle)
}

const ALPHABET: &[char] = &[
    '{', '}', '[', ']', ',', ':', '"', '\\', 'u', 'd', '8', '0', '-', '.', 'e', ' ', '\n',
    '\u{a0}', '\u{e9}', '\u{feff}', '\0',
];

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 1_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn an_object_with_a_random_edit_is_read_or_refused_as_by_serde_json(
        members in members(),
        (at, drop, insert) in (any::<prop::sample::Index>(), 0..2_usize, vec(select(ALPHABET), 0..2)),
    ) {
        let written = members.iter().map(|(name, value)| format!("{}:{value}", quote(name)));
        let mut chars: Vec<char> = format!("{{{}}}", written.collect::<Vec<_>>().join(",")).chars().collect();
        let at = at.index(chars.len());
        chars.splice(at..at + drop, insert);
        let text: String = chars.into_iter().collect();
        // `Object` skips a byte order mark before the text, and `serde_json` does not.
        let without_mark = text.strip_prefix('\u{feff}').unwrap_or(&text);
        prop_assert!(is_object(without_mark).is_some(), "{}", text);
    }

    #[test]
    fn each_member_is_found_as_by_serde_json(
        members in members(),
        escape_all in any::<bool>(),
        space in select(&["", " ", "\n\t\r "][..]),
    ) {
        let write = |text: &str| if escape_all { escape(text) } else { quote(text) };
        let written: Vec<String> = members
            .iter()
            .map(|(name, value)| {
                let value = value.as_str().map_or_else(|| value.to_string(), write);
                format!("{space}{}{space}:{space}{value}{space}", write(name))
            })
            .collect();
        let text = format!("{space}{{{}}}{space}", written.join(","));
        let oracle: Map<String, Value> = serde_json::from_str(&text).unwrap();
        let object = Object::parse(&text).unwrap();
        for name in members.iter().map(|(name, _)| name.as_str()).chain(["absent"]) {
            let ours = match object.string(name) {
                Ok(text) => Some(text.map(|text| String::clone(&text))),
                Err(NotAString) => None,
            };
            let expected = match oracle.get(name) {
                None | Some(Value::Null) => Some(None),
                Some(Value::String(text)) => Some(Some(text.clone())),
                Some(_) => None,
            };
            prop_assert_eq!(ours, expected, "{} in {}", name, text);
        }
    }
}

/// Names that often come twice, and that need escapes.
fn members() -> impl Strategy<Value = Vec<(String, Value)>> {
    vec(("[a-c\\\\\"\u{e9}\u{1f600}]{0,2}", value()), 0..4)
}

fn quote(text: &str) -> String {
    Value::from(text).to_string()
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::from),
            vec(("[a-c]", inner), 0..3).prop_map(|members| members.into_iter().collect()),
        ]
    })
}

/// Every UTF-16 unit as an escape.
fn escape(text: &str) -> String {
    let units = text.encode_utf16().map(|unit| format!("\\u{unit:04x}"));
    format!("\"{}\"", units.collect::<String>())
}
