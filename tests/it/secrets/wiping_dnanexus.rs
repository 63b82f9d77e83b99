//! No block of memory that is freed still holds a token of DNAnexus, wherever the token came from and
//! whatever was wrong with it.
//!
//! Each text has its escapes after the mark, so that the scan also finds an unescaped copy.

use std::{ffi::OsStr, fs};

use secrecy::zeroize::Zeroizing;
use tempfile::TempDir;
use tower_bearer::{Dnanexus, FileToken, SourceError, SourceErrorKind};

use crate::support::{
    allocator::{MARK, found},
    in_child,
};

type Secret = Zeroizing<String>;

/// Fills `template` into a buffer that does not grow. In `template`, `TOKEN` stands for the secret of
/// `owner`, and `~` for a backslash.
fn fill(template: &str, owner: char) -> Secret {
    let (before, after) = template.split_once("TOKEN").expect("a place for the token");
    let mut text = Zeroizing::new(String::with_capacity(4096));
    text.push_str(before);
    text.push_str(MARK);
    text.push(owner);
    text.push_str("-with-a-tail");
    text.push_str(after);
    unmask(&text)
}

/// Replaces each `~` with a backslash. So the templates can show JSON that is nested in JSON.
fn unmask(masked: &str) -> Secret {
    let mut text = Zeroizing::new(String::with_capacity(4096));
    text.extend(masked.chars().map(|c| if c == '~' { '\\' } else { c }));
    text
}

/// The file as the `dx` client writes it: the context is JSON in a JSON string.
fn file_with(context: &str) -> Secret {
    let mut text = Zeroizing::new(String::with_capacity(8192));
    text.push_str(r#"{"DX_APISERVER_HOST": "api.example.com", "DX_SECURITY_CONTEXT": ""#);
    for c in context.chars() {
        if matches!(c, '"' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text.push_str("\"}\n");
    text
}

const GOOD: [&str; 4] = [
    r#"{"auth_token_type":"Bearer","auth_token":"TOKEN"}"#,
    r#"{"auth_token_type":"Bearer","auth_token":"TOKEN~u002dx~/y"}"#,
    r#"{"~u0061uth_token":"TOKEN~u002D","auth_token_type":"~u0042earer"}"#,
    r#"{"auth_token":"TOKEN-1~u002d","auth_token_type":"Bearer","auth_token":"two"}"#,
];

const BAD: [&str; 20] = [
    r#"{"auth_token_type":"Bearer","auth_token":"TOKEN two~u0020words"}"#,
    r#"{"auth_token_type":"Bearer","auth_token":"TOKEN~n"}"#,
    r#"{"auth_token_type":"Bearer","auth_token":"TOKEN~ud83d~ude00"}"#,
    r#"{"auth_token_type":"Bearer","auth_token":"TOKEN~ud800"}"#,
    r#"{"auth_token_type":"Bearer","auth_token":"TOKEN~x"}"#,
    r#"{"auth_token_type":"Bearer","auth_token":"TOKEN~u002d"} trailing"#,
    r#"{"auth_token_type":"Bearer","auth_token":"TOKEN~u002d""#,
    r#"{"auth_token_type":"Bearer","auth_token":"TOKEN~u002d"#,
    r#"{"auth_token_type":"Basic","auth_token":"TOKEN~u002d"}"#,
    r#"{"auth_token_type":"TOKEN~u002d","auth_token":"x"}"#,
    r#"{"auth_token_type":"Bearer","auth_token":["TOKEN~u002d"]}"#,
    r#"{"auth_token":"TOKEN~u002d"}"#,
    r#"{"auth_token_type":"Bearer","TOKEN~u002d":"auth_token"}"#,
    r#"{"TOKEN~u002d"}"#,
    r#"["TOKEN~u002d"]"#,
    r#""TOKEN""#,
    r#""TOKEN~u002d""#,
    r"TOKEN",
    r"{'auth_token': 'TOKEN~u002d'}",
    "{\"auth_token_type\":\"Bearer\",\"auth_token\":\"TOKEN\n\"}",
];

fn is_invalid(error: &SourceError) -> bool {
    error.kind() == SourceErrorKind::Invalid
}

#[test]
fn a_security_context_and_its_unescaped_token_are_wiped() {
    for template in GOOD {
        let context = fill(template, 'O');
        drop(Dnanexus::from_security_context(&context).unwrap());
        assert_eq!(found('O'), 0, "{template}");
    }
}

#[test]
fn a_malformed_security_context_is_wiped() {
    for template in BAD {
        let context = fill(template, 'p');
        let error = Dnanexus::from_security_context(&context).unwrap_err();
        assert!(is_invalid(&error), "{template}");
        drop(error);
        assert_eq!(found('p'), 0, "{template}");
    }
}

#[test]
fn a_file_is_wiped_and_so_is_what_is_nested_in_it() {
    let folder = TempDir::new().unwrap();
    let write = |text: &[u8]| fs::write(folder.path().join("environment.json"), text).unwrap();
    for template in GOOD {
        write(file_with(&fill(template, 'q')).as_bytes());
        drop(Dnanexus::from_config_dir(folder.path()).unwrap());
        assert_eq!(found('q'), 0, "{template}");
    }
    for template in BAD {
        write(file_with(&fill(template, 'q')).as_bytes());
        drop(Dnanexus::from_config_dir(folder.path()).unwrap_err());
        assert_eq!(found('q'), 0, "nested: {template}");
        // The same text in place of the whole file.
        write(fill(template, 'q').as_bytes());
        drop(Dnanexus::from_config_dir(folder.path()).unwrap_err());
        assert_eq!(found('q'), 0, "{template}");
    }
    for template in [
        r#"{"DX_SECURITY_CONTEXT": {"auth_token": "TOKEN~u002d"}}"#,
        r#"{"DX_APISERVER_PORT": ["TOKEN~u002d"], "DX_SECURITY_CONTEXT": "{}"}"#,
        r#"{"DX_PROJECT_CONTEXT_ID": "TOKEN~u002d", "DX_SECURITY_CONTEXT": null}"#,
    ] {
        write(fill(template, 'q').as_bytes());
        drop(Dnanexus::from_config_dir(folder.path()).unwrap_err());
        assert_eq!(found('q'), 0, "{template}");
    }
}

/// Contents of files that hold the secret of `owner` and cannot be used.
fn unusable(owner: char) -> [Zeroizing<Vec<u8>>; 3] {
    let with = |rest: &[u8], times| {
        let mut bytes = Zeroizing::new(Vec::with_capacity(100_000));
        bytes.extend_from_slice(fill("TOKEN", owner).as_bytes());
        (0..times).for_each(|_| bytes.extend_from_slice(rest));
        bytes
    };
    [with(b"\xff", 1), with(b"x", 70_000), with(b" ", 70_000)]
}

#[test]
fn the_buffer_that_an_unusable_file_was_read_into_is_wiped() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("environment.json");
    for bytes in unusable('r') {
        fs::write(&path, &*bytes).unwrap();
        assert!(is_invalid(
            &Dnanexus::from_config_dir(folder.path()).unwrap_err()
        ));
        assert!(is_invalid(&FileToken::new(&path).unwrap_err()));
        assert_eq!(found('r'), 0);
    }
}

#[test]
fn what_was_copied_from_the_environment_is_wiped() {
    let test = "secrets::wiping_dnanexus::what_was_copied_from_the_environment_is_wiped";
    for template in GOOD.iter().chain(&BAD) {
        let context = fill(template, 's');
        let variables = [
            ("DX_SECURITY_CONTEXT", OsStr::new(context.as_str())),
            ("DX_USER_CONF_DIR", OsStr::new("nowhere")),
        ];
        in_child(test, &variables, || {
            let before = found('s');
            drop(Dnanexus::discover());
            assert_eq!(found('s'), before);
        });
    }
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf_8_is_wiped() {
    use std::os::unix::ffi::OsStrExt;

    let [not_utf_8, ..] = unusable('t');
    let variables = [("DX_SECURITY_CONTEXT", OsStr::from_bytes(&not_utf_8))];
    let test = "secrets::wiping_dnanexus::a_variable_that_is_not_utf_8_is_wiped";
    in_child(test, &variables, || {
        let before = found('t');
        assert!(is_invalid(&Dnanexus::discover().unwrap_err()));
        assert_eq!(found('t'), before);
    });
}
