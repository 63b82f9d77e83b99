#![allow(clippy::unwrap_used)]

use http::HeaderValue;
use http_auth::parser::ChallengeParser;
use proptest::{collection::vec, prelude::*, sample::select, test_runner::FileFailurePersistence};

use super::{Scanner, bearer_parameters};

fn read(lines: &[&[u8]]) -> Vec<(String, String)> {
    let lines: Vec<_> = lines
        .iter()
        .map(|line| HeaderValue::from_bytes(line).unwrap())
        .collect();
    bearer_parameters(&lines)
        .map(|parameter| {
            let name = String::from_utf8_lossy(parameter.name).into_owned();
            (name, parameter.text())
        })
        .collect()
}

/// The parameters that http-auth reads, or an error if the text is malformed for http-auth.
fn read_by_http_auth(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut parameters = Vec::new();
    for challenge in ChallengeParser::new(text) {
        let challenge = challenge.map_err(|error| error.to_string())?;
        if challenge.scheme.eq_ignore_ascii_case("bearer") {
            let pairs = challenge.params.iter();
            parameters.extend(pairs.map(|(name, value)| (name.to_string(), value.to_unescaped())));
        }
    }
    Ok(parameters)
}

#[derive(Clone, Debug)]
enum Value {
    Token(String),
    /// Each character, and whether it is escaped although it need not be.
    Quoted(Vec<(char, bool)>),
}

#[derive(Clone, Debug)]
struct Pair {
    name: String,
    before: &'static str,
    after: &'static str,
    value: Value,
    /// The text after the pair: at least a comma.
    comma: &'static str,
}

#[derive(Clone, Debug)]
struct Challenge {
    scheme: String,
    spaces: usize,
    token68: Option<String>,
    pairs: Vec<Pair>,
    comma: &'static str,
}

/// RFC 9110 §11.2 and §11.6.1, with the empty elements of §5.6.1.2.
fn challenges() -> impl Strategy<Value = Vec<Challenge>> {
    let value = prop_oneof![
        "[a-zA-Z0-9!#$%&*+.^_`|~-][a-zA-Z0-9!#$%&'*+.^_`|~-]{0,9}".prop_map(Value::Token),
        vec((value_character(), any::<bool>()), 0..12).prop_map(Value::Quoted),
    ];
    let name = prop_oneof![
        4 => select(vec!["error", "ERROR", "Error"]).prop_map(str::to_owned),
        1 => select(vec!["realm", "scope", "error_description"]).prop_map(str::to_owned),
        1 => "[a-z0-9!#$%&'*+.^_`|~-]{1,6}",
    ];
    let space = || select(vec!["", " ", "\t", " \t "]);
    let comma = || select(vec![",", ", ", " ,", "\t,\t", ",,", ", , ,"]);
    let pair =
        (name, space(), space(), value, comma()).prop_map(|(name, before, after, value, comma)| {
            Pair {
                name,
                before,
                after,
                value,
                comma,
            }
        });
    let scheme = prop_oneof![
        3 => select(vec!["Bearer", "bearer", "BEARER"]).prop_map(str::to_owned),
        1 => select(vec!["Basic", "DPoP", "Negotiate", "BearerX"]).prop_map(str::to_owned),
        1 => "[a-z0-9!#$%&'*+.^_`|~-]{1,6}",
    ];
    let token68 = proptest::option::of("[a-zA-Z0-9._~+/-]{1,9}={0,2}");
    let challenge = (scheme, 1..4_usize, token68, vec(pair, 0..5), comma()).prop_map(
        |(scheme, spaces, token68, pairs, comma)| Challenge {
            token68: token68.filter(|_| pairs.is_empty() && !scheme.eq_ignore_ascii_case("bearer")),
            scheme,
            spaces,
            pairs,
            comma,
        },
    );
    vec(challenge, 1..5)
}

fn value_character() -> impl Strategy<Value = char> {
    prop_oneof![
        3 => (b' '..=b'~').prop_map(char::from),
        2 => select(vec!['"', '\\', ',', '=', '\t', ' ', '\'', ';']),
        1 => select(vec!['\u{fc}', '\u{20ac}']),
    ]
}

/// The text of the challenges. With `strict`, the text lacks what RFC 9110 allows and http-auth does not
/// read: several spaces after a scheme, `token68`, and `obs-text`.
fn write(challenges: &[Challenge], strict: bool) -> String {
    let mut text = String::new();
    let mut comma = "";
    for challenge in challenges {
        text += comma;
        text += &challenge.scheme;
        comma = challenge.comma;
        let space = " ".repeat(if strict { 1 } else { challenge.spaces });
        if let Some(token68) = challenge.token68.as_ref().filter(|_| !strict) {
            text += &space;
            text += token68;
        }
        let mut before = space.as_str();
        for pair in &challenge.pairs {
            text += before;
            before = pair.comma;
            text += &pair.name;
            text += pair.before;
            text.push('=');
            text += pair.after;
            match &pair.value {
                Value::Token(token) => text += token,
                Value::Quoted(characters) => {
                    text.push('"');
                    for &(character, is_escaped) in characters {
                        if is_escaped || character == '"' || character == '\\' {
                            text.push('\\');
                        }
                        text.push(if strict { ascii(character) } else { character });
                    }
                    text.push('"');
                }
            }
        }
    }
    text
}

fn ascii(character: char) -> char {
    if character.is_ascii() { character } else { '?' }
}

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn both_parsers_find_the_same_in_well_formed_challenges(challenges in challenges()) {
        let expected = read_by_http_auth(&write(&challenges, true));
        let found = read(&[write(&challenges, false).as_bytes()]).into_iter();
        let found = found.map(|(name, value)| (name, value.chars().map(ascii).collect()));
        prop_assert_eq!(Ok(found.collect::<Vec<_>>()), expected);
    }

    #[test]
    fn where_a_field_is_split_at_a_comma_changes_nothing(challenges in challenges()) {
        let whole = write(&challenges, false);
        let mut lines = Vec::new();
        for (at, challenge) in challenges.iter().enumerate() {
            for pairs in 0..challenge.pairs.len() {
                let mut first = challenges[..=at].to_vec();
                first[at].pairs.truncate(pairs + 1);
                lines.push(write(&first, false).len());
            }
        }
        for end in lines {
            let (first, second) = whole.as_bytes().split_at(end);
            prop_assert_eq!(read(&[first, second]), read(&[whole.as_bytes()]));
        }
    }

    #[test]
    fn any_value_takes_steps_in_proportion_to_its_length(
        value in vec(select(b"\"'\\=,; \taB\xff".to_vec()), 0..200),
    ) {
        let steps = steps(&value);
        prop_assert!(steps <= most_steps(value.len()), "{steps} for {}", value.len());
    }
}

fn steps(value: &[u8]) -> usize {
    let mut scanner = Scanner::new(value);
    while scanner.next().is_some() {}
    scanner.looks
}

/// An item has at least one byte. Reading an item looks at a byte again only if the byte ends a part of the
/// item.
fn most_steps(length: usize) -> usize {
    10 * (length + 1)
}

#[test]
fn each_look_at_a_byte_is_counted() {
    // Four looks to read the name, five to read the value, and two to see that this is all.
    assert_eq!(steps(b"a=b"), 11);
}

#[test]
fn half_a_mebibyte_takes_twice_the_steps_of_a_quarter() {
    for pattern in [
        "\"",
        "\\",
        "'",
        "=",
        ",",
        " ",
        ";",
        "a",
        "a=",
        "a,",
        "a ",
        "a\"",
        "a='",
        "a=\"",
        "='",
        "=\"",
        "\"\\",
        "Bearer ",
        "Bearer error=",
        "Bearer error=\"x\", ",
        "x=\"\\\"",
        "a = ",
    ] {
        let [quarter, half] = [256, 512].map(|kibibytes| {
            let length = kibibytes * 1024;
            let value = pattern.repeat(length / pattern.len() + 1).into_bytes();
            let steps = steps(&value[..length]);
            assert!(steps <= most_steps(length), "{pattern:?}: {steps}");
            steps
        });
        assert!(
            half.abs_diff(2 * quarter) <= 20,
            "{pattern:?}: {quarter}, {half}"
        );
    }
}

#[test]
fn what_is_read_of_malformed_challenges() {
    let cases: &[(&str, &[(&str, &str)])] = &[
        ("Bearer a='b c', d='e'", &[("a", "b c"), ("d", "e")]),
        (r"Bearer a='it\'s', d=e", &[("a", "it's"), ("d", "e")]),
        (r"Bearer a=C:\dir, d=e", &[("a", r"C:\dir"), ("d", "e")]),
        (r#"Bearer a="b"c="d""#, &[("a", "b"), ("c", "d")]),
        (
            r#"Bearer a="b" c=d e='f'"#,
            &[("a", "b"), ("c", "d"), ("e", "f")],
        ),
        (
            r#"Bearer a="b"; c=d; e=f"#,
            &[("a", "b"), ("c", "d"), ("e", "f")],
        ),
        (
            "Bearer a=https://b.c/?d=e&f=g,h=i",
            &[("a", "https://b.c/?d=e&f=g"), ("h", "i")],
        ),
        ("Bearer\ta=b", &[("a", "b")]),
        ("Bearer, a=b", &[("a", "b")]),
        // An empty value, and a value without its closing quote.
        ("Bearer a=, b=c", &[("a", ""), ("b", "c")]),
        ("Bearer a=", &[("a", "")]),
        (r#"Bearer a="b, c=d"#, &[("a", "")]),
        (r#"Bearer a="b\"#, &[("a", "")]),
        (r#"Bearer a="b\""#, &[("a", "")]),
        // Quotes within quotes, and quotes where no value can be.
        (r#"Bearer a="b "c" d", e=f"#, &[("a", "b "), ("e", "f")]),
        (r#"Bearer "a=b", c=d"#, &[("c", "d")]),
        (r#"Bearer a "b=c" d=e"#, &[]),
        // A word by itself is a scheme, wherever it is.
        ("Bearer a=b c d=e", &[("a", "b")]),
        ("Basic a=b Bearer c=d", &[("c", "d")]),
        ("Bearer", &[]),
        ("a=b", &[]),
        ("BearerX a=b", &[]),
        ("=", &[]),
        ("", &[]),
    ];
    for &(text, expected) in cases {
        let found = read(&[text.as_bytes()]);
        let found: Vec<_> = found
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        assert_eq!(found, expected, "{text}");
    }
}
