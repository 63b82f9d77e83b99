//! `EnvToken`: what a variable may hold, and what its errors say.

use std::{error::Error, ffi::OsStr};

use futures::future::FutureExt;
use tower_bearer::{EnvToken, InvalidToken, SourceErrorKind, TokenSource, first_of};

use crate::support::{in_child, token};

fn header(source: &EnvToken) -> String {
    let token = source.token().now_or_never().unwrap().unwrap();
    token.header_value().to_str().unwrap().to_owned()
}

#[test]
fn whitespace_around_the_value_is_trimmed() {
    let variables = [
        ("PLAIN", OsStr::new("abc")),
        ("NEWLINE", OsStr::new("abc\n")),
        ("CRLF", OsStr::new("abc\r\n")),
        ("AROUND", OsStr::new(" \t abc \n\n")),
    ];
    in_child(
        "sources::env::whitespace_around_the_value_is_trimmed",
        &variables,
        || {
            for name in ["PLAIN", "NEWLINE", "CRLF", "AROUND"] {
                assert_eq!(
                    header(&EnvToken::new(name).unwrap()),
                    "Bearer abc",
                    "{name}"
                );
            }
        },
    );
}

#[test]
fn one_byte_order_mark_before_the_value_is_dropped() {
    let variables = [
        ("MARK", OsStr::new("\u{feff}abc")),
        ("SPACES", OsStr::new(" \u{feff} abc \n")),
        ("TWO", OsStr::new("\u{feff}\u{feff}abc")),
        ("AFTER", OsStr::new("abc\u{feff}")),
        ("ALONE", OsStr::new("\u{feff}\n")),
    ];
    let test = "sources::env::one_byte_order_mark_before_the_value_is_dropped";
    in_child(test, &variables, || {
        for name in ["MARK", "SPACES"] {
            assert_eq!(header(&EnvToken::new(name).unwrap()), "Bearer abc");
            assert_eq!(header(&EnvToken::nonstandard(name).unwrap()), "Bearer abc");
        }
        for (name, cause) in [
            (
                "TWO",
                "token has a forbidden byte at offset 0 (byte order mark)",
            ),
            (
                "AFTER",
                "token has a forbidden byte at offset 3 (not ASCII)",
            ),
            ("ALONE", "token is empty"),
        ] {
            let error = EnvToken::nonstandard(name).unwrap_err();
            assert_eq!(error.source().unwrap().to_string(), cause);
        }
    });
}

#[test]
fn a_value_in_quotes_is_an_error_that_says_so() {
    let variables = [
        ("DOUBLE", OsStr::new("\"abc\"\n")),
        ("SINGLE", OsStr::new(" 'id:4711' ")),
        ("MARK", OsStr::new("\u{feff}\"abc\"")),
    ];
    let test = "sources::env::a_value_in_quotes_is_an_error_that_says_so";
    in_child(test, &variables, || {
        for name in ["DOUBLE", "SINGLE", "MARK"] {
            for result in [EnvToken::new(name), EnvToken::nonstandard(name)] {
                let error = result.unwrap_err();
                assert_eq!(error.kind(), SourceErrorKind::Invalid);
                let expected = "token has a forbidden byte at offset 0 (quotes around the value): leave \
                                the quotes out";
                assert_eq!(error.source().unwrap().to_string(), expected, "{name}");
                assert!(format!("{error:?}").contains(expected));
            }
        }
    });
}

#[test]
fn a_variable_that_is_not_set_is_absent() {
    for name in [
        "TOWER_BEARER_NOT_SET",
        "not_set",
        "NotSet",
        "NOT_SET_2",
        "NOT_SET_IN_2026_10_31",
        "",
    ] {
        let error = EnvToken::new(name).unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::Absent, "{name:?}");
        let expected = format!("environment variable {name} is not set");
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_token_in_place_of_a_name_is_not_shown() {
    for name in [
        "7Fjfp0ZBr1KtDRbnfVdmIw",
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        "glpat-aaaaaaaaaaaaaaaaaaaa",
        "eyJhbGciOiJIUzI1NiJ9.e30.x",
        "0f8fad5bd9cb469fa16570867728950e",
        "f0e1d2c3b4a5968778695a4b3c2d1e0f",
        "f0e1d2c3b4a5968778695a4b3c2d1e0f\n",
        "cf8fad5bd9cb469fa16570867728950e",
        "CF8FAD5BD9CB469FA16570867728950E",
        "dop_v1_cf8fad5bd9cb469fa16570867728950e0f8fad5bd9cb469fa16570867728950e",
        "$7Fjfp0ZBr1KtDRbnfVdmIw",
        "${7Fjfp0ZBr1KtDRbnfVdmIw}",
        "%7Fjfp0ZBr1KtDRbnfVdmIw%",
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a\n",
        "${API_TOKEN:-secret}",
        "A=B",
        "A\0B",
    ] {
        let error = EnvToken::new(name).unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::Absent, "{name:?}");
        assert!(error.to_string().contains("not the token"), "{error}");
        assert!(!format!("{error:?}").contains(name), "{error:?}");
    }
}

#[test]
fn a_name_with_the_dollar_of_a_shell_is_told() {
    let error = EnvToken::new("$TOWER_BEARER_NOT_SET").unwrap_err();
    assert_eq!(error.kind(), SourceErrorKind::Absent);
    let expected =
        "environment variable $TOWER_BEARER_NOT_SET is not set: leave the `$` out of the name";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_text_that_is_no_name_is_told_what_a_name_is() {
    for name in [
        "${API_TOKEN",
        "%API_TOKEN",
        "API_TOKEN%",
        "API TOKEN",
        "2ND",
        "${}",
        "$",
        "%%",
        "%",
        " ",
    ] {
        let error = EnvToken::new(name).unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::Absent, "{name:?}");
        let expected = "no such environment variable: pass the name of the variable, not the token; a \
                        name has letters, digits and underscores";
        assert_eq!(error.to_string(), expected, "{name:?}");
    }
}

#[test]
fn a_name_with_more_around_it_is_told_the_plain_name() {
    for name in [
        "${TOWER_BEARER_NOT_SET}",
        "%TOWER_BEARER_NOT_SET%",
        " TOWER_BEARER_NOT_SET",
        "TOWER_BEARER_NOT_SET\n",
        "\t$TOWER_BEARER_NOT_SET ",
        "${TOWER_BEARER_NOT_SET}\r\n",
    ] {
        let error = EnvToken::new(name).unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::Absent, "{name:?}");
        let expected = "no such environment variable: pass the name alone, `TOWER_BEARER_NOT_SET`";
        assert_eq!(error.to_string(), expected, "{name:?}");
    }
}

/// A variable that is set and empty is a mistake. No other source may act as somebody else for it.
#[test]
fn a_variable_that_is_set_and_empty_ends_the_search_of_a_chain() {
    let variables = [("EMPTY", OsStr::new("")), ("BLANK", OsStr::new(" \n"))];
    let test = "sources::env::a_variable_that_is_set_and_empty_ends_the_search_of_a_chain";
    in_child(test, &variables, || {
        for name in ["EMPTY", "BLANK"] {
            let chain = first_of(EnvToken::new(name)).or(token("other"));
            let error = chain.token().now_or_never().unwrap().unwrap_err();
            assert_eq!(error.kind(), SourceErrorKind::Invalid);
        }
    });
}

#[test]
fn a_value_that_is_no_token_is_an_error_that_names_the_variable() {
    let variables = [
        ("EMPTY", OsStr::new("")),
        ("BLANK", OsStr::new(" \n")),
        ("INNER", OsStr::new("abc\ndef")),
        ("COLON", OsStr::new("id:4711")),
    ];
    let test = "sources::env::a_value_that_is_no_token_is_an_error_that_names_the_variable";
    in_child(test, &variables, || {
        let cases = [
            ("EMPTY", "token is empty"),
            ("BLANK", "token is empty"),
            (
                "INNER",
                "token has a forbidden byte at offset 3 (line feed)",
            ),
            (
                "COLON",
                "token has a forbidden byte at offset 2 (not in the b64token alphabet of RFC 6750): `BearerToken::nonstandard` takes this byte",
            ),
        ];
        for (name, cause) in cases {
            let error = EnvToken::new(name).unwrap_err();
            assert_eq!(error.kind(), SourceErrorKind::Invalid, "{name}");
            let expected = format!("environment variable {name} does not hold a bearer token");
            assert_eq!(error.to_string(), expected);
            let source = error.source().unwrap();
            assert!(source.is::<InvalidToken>());
            assert_eq!(source.to_string(), cause);
        }
        assert_eq!(
            header(&EnvToken::nonstandard("COLON").unwrap()),
            "Bearer id:4711"
        );
    });
}

#[cfg(unix)]
#[test]
fn a_value_that_is_not_utf_8_is_an_error_that_names_the_variable() {
    use std::os::unix::ffi::OsStrExt;

    let variables = [("LATIN", OsStr::from_bytes(b"abc\xe9"))];
    let test = "sources::env::a_value_that_is_not_utf_8_is_an_error_that_names_the_variable";
    in_child(test, &variables, || {
        let error = EnvToken::new("LATIN").unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::Invalid);
        assert_eq!(error.to_string(), "environment variable LATIN is not UTF-8");
    });
}

#[test]
fn the_variable_is_read_once_and_its_name_kept() {
    let variables = [("TOKEN", OsStr::new("abc"))];
    in_child(
        "sources::env::the_variable_is_read_once_and_its_name_kept",
        &variables,
        || {
            let source = EnvToken::new("TOKEN").unwrap();
            assert_eq!(source.name(), "TOKEN");
            let first = source.token().now_or_never().unwrap().unwrap();
            let second = source.clone().token().now_or_never().unwrap().unwrap();
            first.reject();
            assert!(second.is_rejected(), "the same token each time");
        },
    );
}
