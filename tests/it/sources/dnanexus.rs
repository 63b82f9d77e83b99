//! `Dnanexus`: where the token and the API server come from, which settings are errors, and which servers
//! get the token. `tests/dxpy` compares this crate with `dx` itself.

use std::{
    collections::BTreeMap,
    env,
    error::Error as StdError,
    ffi::{OsStr, OsString},
    fs,
    path::Path,
};

use futures::future::FutureExt;
use http::StatusCode;
use tempfile::TempDir;
use tower::Layer;
use tower_bearer::{Dnanexus, ErrorKind, SourceError, SourceErrorKind, TokenSource};

use crate::support::{Server, get, in_prepared_child, ours, send, status, text};

type Found = Result<Dnanexus, SourceError>;

/// The header and the API server, or the kind and all texts of the error.
fn describe(found: &Found) -> String {
    match found {
        Ok(dnanexus) => format!("{} to {}", header(dnanexus), dnanexus.api_server()),
        Err(error) => {
            let mut shown = format!("{:?}: {error}", error.kind());
            let mut cause = error.source();
            while let Some(error) = cause {
                shown = format!("{shown}: {error}");
                cause = error.source();
            }
            shown
        }
    }
}

fn header(dnanexus: &Dnanexus) -> String {
    text(&dnanexus.token().now_or_never().unwrap().unwrap())
}

fn context(token: &str) -> String {
    format!(r#"{{"auth_token_type":"Bearer","auth_token":"{token}"}}"#)
}

/// `environment.json` as `dx` writes it: each value is a string, and the context is JSON in a string.
fn file(members: &[(&str, &str)]) -> String {
    let members: BTreeMap<_, _> = members.iter().copied().collect();
    serde_json::to_string_pretty(&members).unwrap() + "\n"
}

fn folder_with(text: impl AsRef<[u8]>) -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("environment.json"), text).unwrap();
    folder
}

fn in_folder(text: impl AsRef<[u8]>) -> String {
    let folder = folder_with(text);
    let found = describe(&Dnanexus::from_config_dir(folder.path()));
    found.replace(folder.path().to_str().unwrap(), "FOLDER")
}

#[test]
fn a_security_context_gives_its_token_and_the_default_api_server() {
    let found = Dnanexus::from_security_context(&context("abc"));
    assert_eq!(
        describe(&found),
        "Bearer abc to https://api.dnanexus.com:443"
    );
}

#[test]
fn any_case_of_the_token_type_is_sent_as_bearer() {
    for name in ["Bearer", "bearer", "BEARER", "bEARER", "\\u0042earer"] {
        let context = format!(r#"{{"auth_token_type":"{name}","auth_token":"abc"}}"#);
        let found = Dnanexus::from_security_context(&context).unwrap();
        assert_eq!(header(&found), "Bearer abc");
    }
}

#[test]
fn space_order_escapes_and_other_members_do_not_matter() {
    for context in [
        "\n { \"auth_token\" : \"abc\" , \"auth_token_type\" : \"Bearer\" } \r\n",
        r#"{"x":[{"auth_token":"no"}],"auth_token_type":"Bearer","auth_token":"abc","y":1e999}"#,
        r#"{"\u0061uth_token":"\u0061bc","auth_token_type":"Bearer"}"#,
        r#"{"auth_token_type":"Bearer","auth_token":"first","auth_token":"abc"}"#,
    ] {
        let found = Dnanexus::from_security_context(context).unwrap();
        assert_eq!(header(&found), "Bearer abc", "{context}");
    }
}

#[test]
fn a_malformed_security_context_is_an_error_that_shows_nothing_of_it() {
    let malformed = [
        "",
        " ",
        "7Fjfp0ZBr1",
        r#""7Fjfp0ZBr1""#,
        "null",
        r#"["7Fjfp0ZBr1"]"#,
        "{",
        "{}",
        "{'auth_token_type':'Bearer','auth_token':'7Fjfp0ZBr1'}",
        r#"{"auth_token_type":"Bearer"}"#,
        r#"{"auth_token":"7Fjfp0ZBr1"}"#,
        r#"{"auth_token_type":null,"auth_token":"7Fjfp0ZBr1"}"#,
        r#"{"auth_token_type":"Bearer","auth_token":null}"#,
        r#"{"auth_token_type":"Bearer","auth_token":4711}"#,
        r#"{"auth_token_type":"Bearer","auth_token":{"7Fjfp0ZBr1":"7Fjfp0ZBr1"}}"#,
        r#"{"auth_token_type":"Bearer","auth_token":"7Fjfp0ZBr1\ud800"}"#,
        r#"{"auth_token_type":"Bearer","auth_token":"7Fjfp0ZBr1"} 7Fjfp0ZBr1"#,
        r#"{"auth_token_type":"Bearer","auth_token":"7Fjfp0ZBr1""#,
        "{\"auth_token_type\":\"Bearer\",\"auth_token\":\"7Fjfp0ZBr1\n\"}",
    ];
    for context in malformed {
        assert_eq!(
            describe(&Dnanexus::from_security_context(context)),
            "Invalid: DX_SECURITY_CONTEXT is not JSON such as \
             {\"auth_token_type\":\"Bearer\",\"auth_token\":\"…\"}",
            "{context}"
        );
    }
}

#[test]
fn a_token_of_another_type_is_an_error() {
    for name in ["Basic", "", " Bearer", "Bearer ", "7Fjfp0ZBr1"] {
        let context = format!(r#"{{"auth_token_type":"{name}","auth_token":"7Fjfp0ZBr1"}}"#);
        assert_eq!(
            describe(&Dnanexus::from_security_context(&context)),
            "Invalid: DX_SECURITY_CONTEXT has a token whose type is not Bearer",
            "{name}"
        );
    }
}

#[test]
fn a_text_that_is_no_bearer_token_is_an_error_that_says_why() {
    for (token, why) in [
        ("", "token is empty"),
        (
            "abc\\n",
            "token has a forbidden byte at offset 3 (line feed): trim the text",
        ),
        (
            "abc\\n def",
            "token has a forbidden byte at offset 3 (line feed)",
        ),
        (
            " abc",
            "token has a forbidden byte at offset 0 (space): trim the text",
        ),
        (
            "abc\\u00e9",
            "token has a forbidden byte at offset 3 (not ASCII)",
        ),
        (
            "abc\\u0000",
            "token has a forbidden byte at offset 3 (null byte)",
        ),
    ] {
        assert_eq!(
            describe(&Dnanexus::from_security_context(&context(token))),
            format!("Invalid: DX_SECURITY_CONTEXT does not hold a bearer token: {why}"),
        );
    }
}

#[test]
fn the_file_that_dx_writes_gives_the_token_and_the_api_server() {
    let text = file(&[
        ("DX_APISERVER_HOST", "stagingapi.dnanexus.com"),
        ("DX_APISERVER_PORT", "8443"),
        ("DX_APISERVER_PROTOCOL", "https"),
        ("DX_CLI_WD", "/"),
        ("DX_PROJECT_CONTEXT_ID", "project-J0000000000000000000000Z"),
        ("DX_PROJECT_CONTEXT_NAME", "J\u{e4}nner"),
        ("DX_SECURITY_CONTEXT", &context("abc")),
        ("DX_USERNAME", "alice"),
        ("DX_WORKSPACE_ID", ""),
    ]);
    let expected = "Bearer abc to https://stagingapi.dnanexus.com:8443";
    assert_eq!(in_folder(&text), expected);
    assert_eq!(in_folder(format!("\u{feff}{text}")), expected);
}

#[test]
fn the_api_server_has_a_default_in_each_part() {
    for (members, api_server) in [
        (
            &[("DX_APISERVER_PROTOCOL", "https")][..],
            "https://api.dnanexus.com:443",
        ),
        (
            &[("DX_APISERVER_PROTOCOL", "http")],
            "http://api.dnanexus.com:80",
        ),
        (
            &[("DX_APISERVER_PROTOCOL", "HTTP")],
            "http://api.dnanexus.com:80",
        ),
        (
            &[("DX_APISERVER_PROTOCOL", "http"), ("DX_APISERVER_PORT", "")],
            "http://api.dnanexus.com:80",
        ),
        (&[("DX_APISERVER_PORT", "")], "https://api.dnanexus.com:443"),
        (
            &[("DX_APISERVER_PORT", " 8443\n")],
            "https://api.dnanexus.com:8443",
        ),
        (&[("DX_APISERVER_HOST", "[::1]")], "https://[::1]:443"),
        (
            &[("DX_APISERVER_HOST", " api.example.com\n")],
            "https://api.example.com:443",
        ),
    ] {
        let token = context("abc");
        let mut members = members.to_vec();
        members.push(("DX_SECURITY_CONTEXT", &token));
        assert_eq!(
            in_folder(file(&members)),
            format!("Bearer abc to {api_server}")
        );
    }
}

#[test]
fn what_names_no_api_server_is_an_error_and_not_a_default() {
    const PATH: &str =
        "it has a path, a query or a fragment; leave it out (`for_origin_of` takes a whole URI)";
    for (name, value, why) in [
        ("DX_APISERVER_HOST", "", "DX_APISERVER_HOST is empty"),
        ("DX_APISERVER_HOST", " \n", "DX_APISERVER_HOST is empty"),
        (
            "DX_APISERVER_PROTOCOL",
            "",
            "DX_APISERVER_PROTOCOL is empty",
        ),
        (
            "DX_APISERVER_PROTOCOL",
            "ftp",
            "its scheme is not https, http, wss, ws or unix",
        ),
        ("DX_APISERVER_PROTOCOL", "https://", "it has no host"),
        (
            "DX_APISERVER_PORT",
            "https",
            "its port is not a number from 0 to 65535",
        ),
        (
            "DX_APISERVER_PORT",
            "65536",
            "its port is not a number from 0 to 65535",
        ),
        ("DX_APISERVER_PORT", "443/x", PATH),
        ("DX_APISERVER_HOST", "a.example:80", "it is not a URI"),
        ("DX_APISERVER_HOST", "a.example/x", PATH),
        (
            "DX_APISERVER_HOST",
            "me@a.example",
            "it has a user name; leave out what is before the @",
        ),
        (
            "DX_APISERVER_HOST",
            "two words",
            "it has whitespace in it or around it",
        ),
        (
            "DX_APISERVER_HOST",
            "::1",
            "it is not a URI; an IPv6 address needs brackets, as in https://[2001:db8::1]",
        ),
    ] {
        let found = in_folder(file(&[
            (name, value),
            ("DX_SECURITY_CONTEXT", &context("abc")),
        ]));
        assert!(
            found.starts_with("Invalid: ") && found.ends_with(why),
            "{found}"
        );
        assert!(found.contains(name), "{found}");
    }
}

#[test]
fn a_folder_without_a_token_is_absent() {
    let empty = TempDir::new().unwrap();
    let found = describe(&Dnanexus::from_config_dir(empty.path()));
    assert!(found.starts_with("Absent: "), "{found}");
    assert!(found.contains("environment.json does not exist"), "{found}");
    for text in ["{}", r#"{"DX_SECURITY_CONTEXT": null}"#] {
        let expected = "Absent: FOLDER/environment.json has no DNAnexus token";
        assert_eq!(in_folder(text).replace('\\', "/"), expected);
    }
}

#[test]
fn a_file_that_dx_could_not_have_written_is_an_error_that_names_it() {
    let no_string = |name| format!("has a {name} that is not a string");
    let no_object = || "is not a JSON object, as the dx client writes it".to_owned();
    for (text, what) in [
        ("", no_object()),
        ("[]", no_object()),
        (r#"{"DX_SECURITY_CONTEXT": "#, no_object()),
        ("{} {}", no_object()),
        ("DX_APISERVER_PORT=443", no_object()),
        // A context that is not in a string looks right, but `dx` cannot start with such a file.
        (
            r#"{"DX_APISERVER_PORT": 443}"#,
            no_string("DX_APISERVER_PORT"),
        ),
        (
            r#"{"DX_APISERVER_HOST": []}"#,
            no_string("DX_APISERVER_HOST"),
        ),
        (
            r#"{"DX_APISERVER_PROTOCOL": false}"#,
            no_string("DX_APISERVER_PROTOCOL"),
        ),
        (
            r#"{"DX_SECURITY_CONTEXT": {"auth_token_type":"Bearer","auth_token":"abc"}}"#,
            no_string("DX_SECURITY_CONTEXT"),
        ),
        (
            r#"{"DX_SECURITY_CONTEXT": "\ud800"}"#,
            no_string("DX_SECURITY_CONTEXT"),
        ),
    ] {
        let found = in_folder(text).replace('\\', "/");
        assert_eq!(found, format!("Invalid: FOLDER/environment.json {what}"));
    }
    let found = in_folder(b"{\"DX_USERNAME\": \"\xe9\"}");
    assert!(
        found.starts_with("Invalid: ") && found.ends_with("is not UTF-8"),
        "{found}"
    );
    let found = in_folder(" ".repeat(65_537));
    assert!(
        found.starts_with("Invalid: ") && found.ends_with("is over 64 KiB long"),
        "{found}"
    );
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("environment.json")).unwrap();
    let found = describe(&Dnanexus::from_config_dir(folder.path()));
    assert!(
        found.starts_with("Invalid: ") && found.ends_with("is not a regular file"),
        "{found}"
    );
}

#[test]
fn members_that_are_null_or_that_nobody_knows_are_passed_over() {
    let text = r#"{
        "DX_APISERVER_HOST": null, "DX_APISERVER_PORT": null, "DX_APISERVER_PROTOCOL": null,
        "DX_NEW": {"DX_APISERVER_HOST": 1}, "": [], "DX_WORKSPACE_ID": null,
        "DX_SECURITY_CONTEXT": "{\"auth_token_type\":\"Bearer\",\"auth_token\":\"a\\u0062c\"}"
    }"#;
    assert_eq!(
        in_folder(text),
        "Bearer abc to https://api.dnanexus.com:443"
    );
}

/// An environment for [`Dnanexus::discover`], with a home directory.
struct Environment {
    test: &'static str,
    home: TempDir,
    variables: BTreeMap<&'static str, OsString>,
}

const EXPECTED: &str = "TOWER_BEARER_TEST_EXPECTED";

impl Environment {
    fn new(test: &'static str) -> Self {
        let home = TempDir::new().unwrap();
        let in_home = home.path().as_os_str().to_owned();
        let variables = [("HOME", in_home.clone()), ("USERPROFILE", in_home)];
        let variables = variables.into_iter().collect();
        Self {
            test,
            home,
            variables,
        }
    }

    fn set(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.variables.insert(name, value.as_ref().to_owned());
        self
    }

    fn unset(mut self, name: &'static str) -> Self {
        self.variables.remove(name);
        self
    }

    /// Puts `environment.json` into a folder in the home directory.
    fn file(self, folder: impl AsRef<Path>, text: &str) -> Self {
        let folder = self.home.path().join(folder);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("environment.json"), text).unwrap();
        self
    }

    /// In `expected`, `HOME` stands for the home directory.
    fn finds(self, expected: &str) {
        let home = self.home.path().to_str().unwrap();
        let expected = expected.replace("HOME", home);
        let prepare = |child: &mut std::process::Command| {
            let dx = env::vars_os().map(|(name, _)| name);
            for name in dx.filter(|name| name.to_string_lossy().starts_with("DX_")) {
                child.env_remove(name);
            }
            child.env_remove("HOME").env_remove("USERPROFILE");
            child.current_dir(&self.home).envs(&self.variables);
            child.env(EXPECTED, expected);
        };
        in_prepared_child(self.test, prepare, || {
            let found = describe(&Dnanexus::discover());
            assert_eq!(found, env::var(EXPECTED).unwrap());
        });
    }
}

const DX: &str = ".dnanexus_config";

#[test]
fn the_environment_wins_over_the_file_variable_by_variable() {
    let new = || {
        Environment::new(
            "sources::dnanexus::the_environment_wins_over_the_file_variable_by_variable",
        )
        .file(
            DX,
            &file(&[
                ("DX_SECURITY_CONTEXT", &context("of-file")),
                ("DX_APISERVER_PROTOCOL", "http"),
                ("DX_APISERVER_HOST", "file.example"),
                ("DX_APISERVER_PORT", "1"),
            ]),
        )
    };
    new().finds("Bearer of-file to http://file.example:1");
    new()
        .set("DX_SECURITY_CONTEXT", context("of-env"))
        .finds("Bearer of-env to http://file.example:1");
    new()
        .set("DX_APISERVER_PROTOCOL", "https")
        .finds("Bearer of-file to https://file.example:1");
    new()
        .set("DX_APISERVER_HOST", "env.example")
        .finds("Bearer of-file to http://env.example:1");
    new()
        .set("DX_APISERVER_PORT", "2")
        .finds("Bearer of-file to http://file.example:2");
    // An empty port is the default port of the protocol, as for `dx`.
    new()
        .set("DX_APISERVER_PORT", "")
        .finds("Bearer of-file to http://file.example:80");
}

#[test]
fn a_token_in_the_environment_needs_no_file() {
    let new = || {
        Environment::new("sources::dnanexus::a_token_in_the_environment_needs_no_file")
            .set("DX_SECURITY_CONTEXT", context("of-env"))
    };
    new().finds("Bearer of-env to https://api.dnanexus.com:443");
    let homeless = |new: Environment| new.unset("HOME").unset("USERPROFILE");
    homeless(new().set("DX_USER_CONF_DIR", "nowhere"))
        .finds("Bearer of-env to https://api.dnanexus.com:443");
    // With these three variables as well, the home directory is not needed.
    homeless(new())
        .set("DX_APISERVER_PROTOCOL", "https")
        .set("DX_APISERVER_HOST", "env.example")
        .set("DX_APISERVER_PORT", "443")
        .finds("Bearer of-env to https://env.example:443");
}

#[test]
fn another_folder_can_be_named_also_in_the_home_directory() {
    let here = file(&[("DX_SECURITY_CONTEXT", &context("here"))]);
    let elsewhere = file(&[("DX_SECURITY_CONTEXT", &context("elsewhere"))]);
    let new = || {
        Environment::new(
            "sources::dnanexus::another_folder_can_be_named_also_in_the_home_directory",
        )
        .file(DX, &here)
        .file("a/b", &elsewhere)
        .file("", &elsewhere)
        .file("~x", &elsewhere)
    };
    let expected = "Bearer elsewhere to https://api.dnanexus.com:443";
    let absolute = |new: Environment| {
        let folder = new.home.path().join("a/b");
        new.set("DX_USER_CONF_DIR", folder)
    };
    absolute(new()).finds(expected);
    for folder in ["~", "~/", "~/a/b", "~/a/b/", "a/b", "./a/../a/b"] {
        new().set("DX_USER_CONF_DIR", folder).finds(expected);
    }
    // `~` is the home directory only if it is a whole component.
    new().set("DX_USER_CONF_DIR", "~x").finds(expected);
    // An empty value does not mean the folder in which the program runs.
    new()
        .set("DX_USER_CONF_DIR", "")
        .finds("Bearer here to https://api.dnanexus.com:443");
}

#[test]
fn no_token_in_either_place_is_absent_and_says_where_it_was_looked_for() {
    let test =
        "sources::dnanexus::no_token_in_either_place_is_absent_and_says_where_it_was_looked_for";
    let new = || Environment::new(test);
    let absent = |place: &str| {
        format!(
            "Absent: no DNAnexus token: environment variable DX_SECURITY_CONTEXT is not set and \
             {place}; run `dx login`"
        )
    };
    let default = Path::new("HOME").join(DX).join("environment.json");
    let default = absent(&format!("{} has no token", default.display()));
    new().finds(&default);
    new().file(DX, "{}").finds(&default);
    let other = Path::new("HOME").join("a").join("environment.json");
    new()
        .set("DX_USER_CONF_DIR", "~/a")
        .finds(&absent(&format!("{} has no token", other.display())));
}

#[test]
fn a_malformed_value_is_not_passed_over_for_one_that_is_not() {
    let new = || {
        Environment::new(
            "sources::dnanexus::a_malformed_value_is_not_passed_over_for_one_that_is_not",
        )
        .file(
            DX,
            &file(&[
                ("DX_SECURITY_CONTEXT", &context("of-file")),
                ("DX_APISERVER_HOST", "file.example"),
            ]),
        )
    };
    let malformed = "Invalid: DX_SECURITY_CONTEXT is not JSON such as \
                     {\"auth_token_type\":\"Bearer\",\"auth_token\":\"…\"}";
    for context in ["", " ", "7Fjfp0ZBr1", "{"] {
        new().set("DX_SECURITY_CONTEXT", context).finds(malformed);
    }
    new()
        .set("DX_APISERVER_HOST", "")
        .finds("Invalid: DX_APISERVER_HOST is empty");
    let file = Path::new("HOME").join(DX).join("environment.json");
    let file = file.display();
    let no_object = format!("Invalid: {file} is not a JSON object, as the dx client writes it");
    new()
        .file(DX, "{")
        .set("DX_SECURITY_CONTEXT", context("of-env"))
        .finds(&no_object);
}

#[test]
fn a_file_that_nothing_is_wanted_from_may_be_malformed() {
    Environment::new("sources::dnanexus::a_file_that_nothing_is_wanted_from_may_be_malformed")
        .file(DX, "{")
        .set("DX_SECURITY_CONTEXT", context("of-env"))
        .set("DX_APISERVER_PROTOCOL", "https")
        .set("DX_APISERVER_HOST", "env.example")
        .set("DX_APISERVER_PORT", "443")
        .finds("Bearer of-env to https://env.example:443");
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf_8_is_an_error_that_names_it() {
    use std::os::unix::ffi::OsStrExt;

    let test = "sources::dnanexus::a_variable_that_is_not_utf_8_is_an_error_that_names_it";
    for name in ["DX_SECURITY_CONTEXT", "DX_APISERVER_HOST"] {
        Environment::new(test)
            .set(name, OsStr::from_bytes(b"abc\xe9"))
            .finds(&format!(
                "Invalid: environment variable {name} is not UTF-8"
            ));
    }
}

/// A `Dnanexus` with this API server.
fn with_api_server(protocol: &str, host: &str, port: &str) -> Dnanexus {
    let folder = folder_with(file(&[
        ("DX_APISERVER_PROTOCOL", protocol),
        ("DX_APISERVER_HOST", host),
        ("DX_APISERVER_PORT", port),
        ("DX_SECURITY_CONTEXT", &context("abc")),
    ]));
    Dnanexus::from_config_dir(folder.path()).unwrap()
}

#[test]
fn only_the_api_server_gets_the_token_from_the_layer() {
    let server = Server::ok();
    let dnanexus = with_api_server("https", "api.example.com", "443");
    let mut service = dnanexus.layer().layer(server.clone());
    let get_it = [
        "https://api.example.com/system/whoami",
        "https://API.example.com:443/",
    ];
    let do_not = [
        "https://api.example.com:8443/",
        "https://example.com/",
        "https://sub.api.example.com/",
        "https://api.example.com.evil.example/",
        "http://api.example.com/",
        "http://api.example.com:443/",
        "http://localhost/",
        "/system/whoami",
    ];
    for uri in get_it.into_iter().chain(do_not) {
        send(&mut service, get(uri)).unwrap();
    }
    let mut expected = vec!["Bearer abc"; get_it.len()];
    expected.extend(vec![""; do_not.len()]);
    assert_eq!(server.authorizations(), expected);
}

#[test]
fn a_plaintext_api_server_gets_the_token_on_this_machine_only() {
    let server = Server::ok();
    for host in ["127.0.0.1", "localhost", "[::1]"] {
        let dnanexus = with_api_server("http", host, "8080");
        let mut service = dnanexus.layer().layer(server.clone());
        let uri = format!("{}/system/whoami", dnanexus.api_server());
        send(&mut service, get(&uri)).unwrap();
    }
    assert_eq!(server.authorizations(), ["Bearer abc"; 3]);
    let dnanexus = with_api_server("http", "api.example.com", "8080");
    let mut service = dnanexus.layer().layer(server.clone());
    let error = send(&mut service, get(dnanexus.api_server())).unwrap_err();
    assert_eq!(ours(&error).kind(), ErrorKind::InsecureTransport);
    assert_eq!(server.seen().len(), 3);
}

#[test]
fn clones_and_their_layers_share_the_token() {
    let dnanexus = with_api_server("https", "api.example.com", "443");
    let token = dnanexus.token().now_or_never().unwrap().unwrap();
    let server = Server::answering(|_| status(StatusCode::UNAUTHORIZED));
    let mut service = dnanexus.clone().layer().layer(server);
    assert!(!token.is_rejected());
    send(&mut service, get(dnanexus.api_server())).unwrap();
    assert!(token.is_rejected());
}

#[test]
fn debug_shows_the_api_server_and_not_the_token() {
    let dnanexus = Dnanexus::from_security_context(&context("7Fjfp0ZBr1")).unwrap();
    assert_eq!(
        format!("{dnanexus:?}"),
        r#"Dnanexus { api_server: "https://api.dnanexus.com:443", .. }"#
    );
    assert!(!format!("{:?}", dnanexus.layer()).contains("7Fjfp0ZBr1"));
}

#[test]
fn absent_and_malformed_differ_by_kind_so_that_a_chain_falls_through_one_only() {
    use tower_bearer::first_of;

    let empty = TempDir::new().unwrap();
    let found = || Dnanexus::from_security_context(&context("abc"));
    let absent = Dnanexus::from_config_dir(empty.path());
    let token = first_of(absent).or(found()).token().now_or_never().unwrap();
    assert_eq!(text(&token.unwrap()), "Bearer abc");
    let broken = folder_with("{");
    let malformed = Dnanexus::from_config_dir(broken.path());
    let token = first_of(malformed)
        .or(found())
        .token()
        .now_or_never()
        .unwrap();
    assert_eq!(token.unwrap_err().kind(), SourceErrorKind::Invalid);
}
