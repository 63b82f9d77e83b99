//! `BearerToken`: which texts are tokens, and what a token is.

use std::time::{Duration, Instant};

use secrecy::{SecretString, zeroize::Zeroizing};
use tower_bearer::{BearerToken, InvalidToken, InvalidTokenKind};

/// The characters that RFC 6750 §2.1 allows, except `=`.
const B64TOKEN: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/";

#[test]
fn an_invalid_token_is_told_what_is_wrong_and_where() {
    let cases = [
        ("", "token is empty", None),
        (
            "abcdefghijkl\n",
            "token has a forbidden byte at offset 12 (line feed): trim the text",
            Some(12),
        ),
        (
            "\rabc",
            "token has a forbidden byte at offset 0 (carriage return): trim the text",
            Some(0),
        ),
        (
            "a\r\nX-Evil: 1",
            "token has a forbidden byte at offset 1 (carriage return)",
            Some(1),
        ),
        (
            "a b",
            "token has a forbidden byte at offset 1 (space)",
            Some(1),
        ),
        (
            "Bearer abc",
            "token has a forbidden byte at offset 6 (space): leave `Bearer ` out",
            Some(6),
        ),
        (
            "ab\t",
            "token has a forbidden byte at offset 2 (tab): trim the text",
            Some(2),
        ),
        (
            "ab\0",
            "token has a forbidden byte at offset 2 (null byte)",
            Some(2),
        ),
        (
            "ab\x7f",
            "token has a forbidden byte at offset 2 (delete)",
            Some(2),
        ),
        (
            "ab\x1b",
            "token has a forbidden byte at offset 2 (control byte)",
            Some(2),
        ),
        (
            "ab\u{e9}",
            "token has a forbidden byte at offset 2 (not ASCII)",
            Some(2),
        ),
        (
            "ab\u{1f511}",
            "token has a forbidden byte at offset 2 (not ASCII)",
            Some(2),
        ),
        (
            "ab=c",
            "token has a forbidden byte at offset 2 (padding that is not at the end): `BearerToken::nonstandard` takes this byte",
            Some(2),
        ),
        (
            "==",
            "token has a forbidden byte at offset 0 (padding that is not at the end): `BearerToken::nonstandard` takes this byte",
            Some(0),
        ),
        (
            "id:4711",
            "token has a forbidden byte at offset 2 (not in the b64token alphabet of RFC 6750): `BearerToken::nonstandard` takes this byte",
            Some(2),
        ),
    ];
    for (text, message, offset) in cases {
        let error = BearerToken::new(text).expect_err(message);
        assert_eq!(error.to_string(), message);
        assert_eq!(error.offset(), offset, "{message}");
        let kind = match offset {
            Some(_) => InvalidTokenKind::ForbiddenByte,
            None => InvalidTokenKind::Empty,
        };
        assert_eq!(error.kind(), kind, "{message}");
    }
}

/// The end of a message. `None`: there is no error.
type End = Option<&'static str>;

/// A text, the end of the message of `new`, and the end of the message of `nonstandard`.
const MISTAKES: &[(&str, End, End)] = {
    const QUOTES: End = Some("(quotes around the value): leave the quotes out");
    const MARK: End = Some("(byte order mark)");
    const BEARER: End = Some(": leave `Bearer ` out");
    const HEADER: End = Some(": leave `Authorization: Bearer ` out");
    const TAKES: End = Some(": `BearerToken::nonstandard` takes this byte");
    const BASIC: End = Some(": `Basic` credentials are not a bearer token");
    const SCHEME: End = Some(": leave `token ` out");
    const TRIM: End = Some(": trim the text");
    const JSON: End = Some(": take the token out of the JSON, such as the value of `access_token`");
    const VARIABLE: End = Some(": put the value of the variable in place of its name");
    const PLACEHOLDER: End = Some(": put a token in place of the placeholder");
    const NAME: End = Some(": leave the name and `=` out");
    const URL: End = Some(": this is a URL, not a token");
    const HTML: End = Some(": this is a page of HTML, not a token");
    const SPACE: End = Some("(space)");
    const NOT_ASCII: End = Some("(not ASCII)");
    &[
        ("\"abc\"", QUOTES, QUOTES),
        ("'abc'", QUOTES, QUOTES),
        ("`abc`", QUOTES, QUOTES),
        ("\u{201c}abc\u{201d}", QUOTES, QUOTES),
        ("\u{2018}abc\u{2019}", QUOTES, QUOTES),
        ("\"\"", QUOTES, QUOTES),
        ("\"Bearer abc\"", QUOTES, QUOTES),
        ("'a b'", QUOTES, QUOTES),
        ("'abc'\n", QUOTES, QUOTES),
        (" \"abc\"", QUOTES, QUOTES),
        // These quote characters are no pair around the text.
        ("\"abc", TAKES, None),
        ("\"", TAKES, None),
        ("abc\"", TAKES, None),
        ("\"abc'", TAKES, None),
        ("a\"b\"", TAKES, None),
        ("\u{feff}abc", MARK, MARK),
        ("a\u{feff}bc", NOT_ASCII, NOT_ASCII),
        ("Bearer abc", BEARER, BEARER),
        ("bearer abc", BEARER, BEARER),
        ("BEARER\tabc", BEARER, BEARER),
        ("Bearer:abc", BEARER, None),
        ("Bearer  abc", BEARER, BEARER),
        ("ABearer abc", SPACE, SPACE),
        ("Bearerabc def", SPACE, SPACE),
        ("Authorization: Bearer abc", HEADER, SPACE),
        ("authorization:Bearer abc", HEADER, SPACE),
        // A scheme, whitespace, a response, or a name where the token belongs.
        ("Basic dTpw", BASIC, BASIC),
        ("token abc", SCHEME, SCHEME),
        ("Token abc", SCHEME, SCHEME),
        ("tokens abc", SPACE, SPACE),
        ("abc\n", TRIM, TRIM),
        ("abc \r\n", TRIM, TRIM),
        (" \t abc", TRIM, TRIM),
        ("abc\u{a0}", TRIM, TRIM),
        ("a\nb\n", Some("(line feed)"), Some("(line feed)")),
        (r#"{"access_token":"abc"}"#, JSON, None),
        ("{\"access_token\":\"abc\"}\n", JSON, JSON),
        ("{ }", JSON, JSON),
        ("{a", TAKES, None),
        ("$API_TOKEN", VARIABLE, None),
        ("${API_TOKEN}", VARIABLE, None),
        ("a$b", TAKES, None),
        ("<token>", PLACEHOLDER, None),
        ("<your token>", PLACEHOLDER, PLACEHOLDER),
        ("%API_TOKEN%", VARIABLE, None),
        ("%20", TAKES, None),
        ("%20%", TAKES, None),
        ("%", TAKES, None),
        ("%%", TAKES, None),
        ("{{token}}", PLACEHOLDER, None),
        ("{{ token }}", PLACEHOLDER, PLACEHOLDER),
        ("***", PLACEHOLDER, None),
        ("a***", TAKES, None),
        ("[REDACTED]", PLACEHOLDER, None),
        ("[your token]", PLACEHOLDER, PLACEHOLDER),
        (r#"["abc"]"#, JSON, None),
        ("[\n  \"abc\"\n]\n", JSON, JSON),
        ("[abc", TAKES, None),
        // An assignment, where the value belongs.
        ("API_TOKEN=abc", NAME, None),
        ("_TOKEN2=abc\n", NAME, NAME),
        ("API_TOKEN=\"abc\"", NAME, None),
        ("API_TOKEN = abc", NAME, NAME),
        ("export API_TOKEN=abc", NAME, NAME),
        ("export api_token=abc", NAME, NAME),
        ("export API_TOKEN", SPACE, SPACE),
        ("2ND=abc", TAKES, None),
        // The padding of Base64 is not the sign of an assignment.
        ("QUJD==x", TAKES, None),
        ("QUJD=\n", TRIM, TRIM),
        ("abc==\r\n", TRIM, TRIM),
        ("http://x/y", URL, None),
        ("HTTPS://x", URL, None),
        ("op://vault/item", URL, None),
        ("://x", TAKES, None),
        ("<!DOCTYPE html>\n<html></html>\n", HTML, HTML),
        ("\n<!doctype HTML>", HTML, HTML),
        ("<html><body>abc", HTML, None),
        ("<HTML lang=\"en\">abc</HTML>", HTML, HTML),
        ("<xml/>", PLACEHOLDER, None),
        ("id:4711", TAKES, None),
        ("a=b", TAKES, None),
        ("a%20", TAKES, None),
        ("a b", SPACE, SPACE),
        ("ab\u{e9}", NOT_ASCII, NOT_ASCII),
    ]
};

#[test]
fn an_invalid_token_is_told_the_likely_mistake() {
    for &(text, standard, nonstandard) in MISTAKES {
        for (result, end) in [
            (BearerToken::new(text), standard),
            (BearerToken::nonstandard(text), nonstandard),
        ] {
            let message = result.err().map(|error| error.to_string());
            match (message, end) {
                (Some(message), Some(end)) => {
                    assert!(message.ends_with(end), "{text:?}: {message}");
                }
                (message, end) => assert_eq!(message.as_deref(), end, "{text:?}"),
            }
        }
    }
}

#[test]
fn a_text_in_quotes_is_at_fault_from_its_first_byte_on() {
    for error in [
        BearerToken::new("\"a b\"").unwrap_err(),
        BearerToken::nonstandard("\"a b\"").unwrap_err(),
    ] {
        assert_eq!(error.kind(), InvalidTokenKind::ForbiddenByte);
        assert_eq!(error.offset(), Some(0));
    }
}

fn is_quoted(text: &str) -> bool {
    let pair = |quote| text.len() > 1 && text.starts_with(quote) && text.ends_with(quote);
    ['"', '\'', '`'].into_iter().any(pair)
}

#[test]
fn a_token_may_be_64_kib_long_and_no_longer() {
    type Make = fn(String) -> Result<BearerToken, InvalidToken>;
    let makes: [Make; 2] = [
        |text| BearerToken::new(text),
        |text| BearerToken::nonstandard(text),
    ];
    for make in makes {
        assert!(make("x".repeat(65_536)).is_ok());
        let error = make("x".repeat(65_537)).unwrap_err();
        assert_eq!(error.kind(), InvalidTokenKind::TooLong);
        assert_eq!(
            error.to_string(),
            "token is 65537 bytes long, the limit is 65536"
        );
        // The length is checked before the bytes.
        let error = make("\n".repeat(65_537)).unwrap_err();
        assert_eq!(error.kind(), InvalidTokenKind::TooLong);
    }
}

#[test]
fn each_ascii_byte_is_allowed_just_where_rfc_6750_allows_it() {
    for byte in 0..=0x7f_u8 {
        let c = char::from(byte);
        let (start, middle, end) = (format!("{c}ab"), format!("a{c}b"), format!("ab{c}"));
        let allowed = B64TOKEN.contains(c);
        assert_eq!(BearerToken::new(&start).is_ok(), allowed, "{byte:#x} first");
        assert_eq!(
            BearerToken::new(&middle).is_ok(),
            allowed,
            "{byte:#x} between"
        );
        assert_eq!(
            BearerToken::new(&end).is_ok(),
            allowed || c == '=',
            "{byte:#x} last"
        );
        let visible = (0x21..=0x7e).contains(&byte);
        for text in [start, middle, end, c.to_string()] {
            assert_eq!(
                BearerToken::nonstandard(text).is_ok(),
                visible,
                "{byte:#x} nonstandard"
            );
        }
    }
}

#[test]
fn each_control_byte_is_told_by_a_name_and_its_offset() {
    for byte in (0..0x20).chain([0x7f]) {
        let name = match byte {
            0 => "null byte",
            9 => "tab",
            10 => "line feed",
            13 => "carriage return",
            0x7f => "delete",
            _ => "control byte",
        };
        let text = format!("abc{}d", char::from(byte));
        let message = format!("token has a forbidden byte at offset 3 ({name})");
        for error in [BearerToken::new(&text), BearerToken::nonstandard(&text)] {
            assert_eq!(error.unwrap_err().to_string(), message);
        }
    }
}

#[test]
fn no_text_panics() {
    let mut random = fastrand::Rng::with_seed(6750);
    for _ in 0..20_000 {
        let text: String = (0..random.usize(0..24)).map(|_| random.char(..)).collect();
        let valid = BearerToken::nonstandard(&text).is_ok();
        let visible = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        let expected = visible && !is_quoted(&text);
        assert_eq!(valid, expected, "{text:?}");
        let _ = BearerToken::new(text);
    }
}

#[test]
fn each_kind_of_text_gives_the_same_token() {
    let text = "7Fjfp0ZBr1KtDRbnfVdmIw";
    let owned = text.to_owned();
    let tokens = [
        BearerToken::new(text),
        BearerToken::new(&owned),
        BearerToken::new(text.to_owned()),
        BearerToken::new(Box::<str>::from(text)),
        BearerToken::new(SecretString::from(text)),
        BearerToken::new(Zeroizing::new(text.to_owned())),
        BearerToken::nonstandard(text),
    ];
    for token in tokens {
        let value = token.unwrap().header_value();
        assert_eq!(value, "Bearer 7Fjfp0ZBr1KtDRbnfVdmIw");
        assert!(value.is_sensitive());
    }
}

#[test]
fn header_values_share_the_one_allocation() {
    let token = BearerToken::new("abc").unwrap();
    let clone = token.clone().expires_in(Duration::from_secs(1));
    let start = token.header_value().as_bytes().as_ptr();
    assert_eq!(token.header_value().as_bytes().as_ptr(), start);
    assert_eq!(token.header_value().clone().as_bytes().as_ptr(), start);
    assert_eq!(clone.header_value().as_bytes().as_ptr(), start);
}

#[test]
fn a_rejection_is_seen_by_every_clone_whatever_its_expiry() {
    let token = BearerToken::new("abc").unwrap();
    let clone = token.clone();
    let other = token.clone().expires_in(Duration::from_secs(60));
    assert!(!clone.is_rejected() && !other.is_rejected());
    other.reject();
    other.reject();
    assert!(token.is_rejected() && clone.is_rejected() && other.is_rejected());
    let same_text = BearerToken::new("abc").unwrap();
    assert!(!same_text.is_rejected());
    assert!(token.is_same(&clone) && token.is_same(&other) && other.is_same(&clone));
    assert!(!token.is_same(&same_text) && !same_text.is_same(&other));
    drop((clone, other));
    let alone = token.expires_in(Duration::from_secs(60));
    assert!(alone.is_rejected(), "an expiry does not take the mark away");
}

#[test]
fn an_expiry_is_what_was_said_last() {
    let token = BearerToken::new("abc").unwrap();
    assert_eq!(token.expiry(), None);
    let now = Instant::now();
    let shared = token.clone();
    let first = token.expires_at(now);
    assert_eq!(first.expiry(), Some(now));
    assert_eq!(shared.expiry(), None, "the other handle keeps its own");
    let minute = Duration::from_secs(60);
    let second = first.expires_at(now + minute);
    assert_eq!(second.expiry(), Some(now + minute));
    assert!(second.expires_in(minute).expiry() >= Some(now + minute));
}

#[test]
fn a_token_is_expired_from_its_expiry_on_and_without_one_never() {
    let token = BearerToken::new("abc").unwrap();
    assert!(!token.is_expired());
    assert!(token.clone().expires_at(Instant::now()).is_expired());
    assert!(token.clone().expires_in(Duration::ZERO).is_expired());
    let century = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    assert!(!token.expires_in(century).is_expired());
}

#[test]
fn a_lifetime_past_the_end_of_the_clock_is_no_expiry() {
    let token = BearerToken::new("abc").unwrap();
    assert_eq!(token.expires_in(Duration::MAX).expiry(), None);
}
