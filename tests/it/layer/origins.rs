//! Where a token goes, and where it does not.

use http::{HeaderValue, Uri, header::AUTHORIZATION};
use tower::Layer;
use tower_bearer::{BearerAuthLayer, ErrorKind, InvalidOrigin, StaticToken};

use crate::support::{Counting, Server, get, ours, send, token};

use self::Outcome::{Carried, Passed, Refused};

/// What happened to a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    /// It went out with the token.
    Carried,
    /// It went out unchanged.
    Passed,
    /// It did not go out.
    Refused,
}

type Layered = BearerAuthLayer<Counting<StaticToken>>;

fn layer() -> Layered {
    BearerAuthLayer::new(Counting::new(StaticToken::new(token("ours"))))
}

/// Sends a request to `uri`. Checks that the layer asks the source only if the request carries a token.
fn outcome(settings: impl FnOnce(Layered) -> Layered, uri: &str) -> Outcome {
    let source = Counting::new(StaticToken::new(token("ours")));
    let layer = settings(BearerAuthLayer::new(source.clone()));
    let server = Server::ok();
    let mut request = get(uri);
    let own = HeaderValue::from_static("Basic b3du");
    request.headers_mut().insert(AUTHORIZATION, own);
    let result = send(&mut layer.layer(server.clone()), request);

    let sent = server.authorizations();
    let outcome = match (&result, sent.first().map(String::as_str)) {
        (Ok(_), Some("Bearer ours")) => Carried,
        (Ok(_), Some("Basic b3du")) => Passed,
        (Err(error), None) => {
            assert_eq!(ours(error).kind(), ErrorKind::InsecureTransport, "{uri}");
            Refused
        }
        other => panic!("{uri}: {other:?}"),
    };
    let asked = usize::from(outcome == Carried);
    assert_eq!(
        source.asked(),
        asked,
        "how often the source was asked for {uri}"
    );
    outcome
}

/// Targets, and what happens to a request under the default settings.
const TARGETS: &[(&str, Outcome)] = &[
    ("https://api.example.com/", Carried),
    ("HTTPS://api.example.com/", Carried),
    // Many clients send `wss` in plaintext.
    ("wss://api.example.com/", Refused),
    // A Unix socket, as hyperlocal writes it.
    ("unix://2f7661722f73:0/info", Carried),
    // Plaintext that leaves the machine.
    ("http://api.example.com/", Refused),
    ("HTTP://api.example.com/", Refused),
    ("http://api.example.com:443/", Refused),
    ("ws://api.example.com/", Refused),
    ("http://10.0.0.1/", Refused),
    // Schemes that are not known to be encrypted.
    ("ftp://api.example.com/", Refused),
    ("httpss://api.example.com/", Refused),
    // Plaintext that stays on the machine.
    ("http://127.0.0.1/", Carried),
    ("http://127.0.0.1:8080/", Carried),
    ("http://127.9.9.9/", Carried),
    ("http://127.255.255.255/", Carried),
    ("http://[::1]/", Carried),
    ("http://[::1]:8080/", Carried),
    ("http://[0:0:0:0:0:0:0:1]/", Carried),
    ("http://[::ffff:127.0.0.1]/", Carried),
    ("http://localhost/", Carried),
    ("http://LOCALHOST/", Carried),
    ("http://localhost:8080/v1?a=b", Carried),
    ("ws://localhost/", Carried),
    ("ftp://localhost/", Carried),
    ("http://user:password@localhost:8080/", Carried),
    // Addresses that look like loopback addresses.
    ("http://0.0.0.0/", Refused),
    ("http://126.255.255.255/", Refused),
    ("http://128.0.0.1/", Refused),
    ("http://[::]/", Refused),
    ("http://[::2]/", Refused),
    ("http://[::ffff:128.0.0.1]/", Refused),
    ("http://[fe80::1%25lo]/", Refused),
    ("http://[::1]evil.com/", Refused),
    ("http://[::1]evil.com:80/", Refused),
    // Hosts that only some resolvers take for 127.0.0.1.
    ("http://127.1/", Refused),
    ("http://2130706433/", Refused),
    ("http://0x7f.0.0.1/", Refused),
    ("http://0177.0.0.1/", Refused),
    ("http://127.0.0.1./", Refused),
    // Names that look like `localhost`. Only some resolvers take `localhost.` for `localhost`.
    ("http://localhost./", Refused),
    ("http://sub.localhost/", Refused),
    ("http://localhost.evil.com/", Refused),
    ("http://evil-localhost/", Refused),
    ("http://127.0.0.1.evil.com/", Refused),
    ("http://xn--localhost/", Refused),
    // The host begins after the last `@`.
    ("http://localhost@evil.com/", Refused),
    ("http://localhost:80@evil.com/", Refused),
    ("http://127.0.0.1:80@evil.com/", Refused),
    ("http://[::1]@evil.com/", Refused),
    ("http://evil.com/@localhost", Refused),
    ("http://evil.com?@localhost", Refused),
    // No host, as on a connection that the caller chose: HTTP/1 paths, `OPTIONS *`.
    ("/v1/users", Carried),
    ("*", Carried),
    // The target of a `CONNECT`. A client may send such a request to that very host.
    ("api.example.com:80", Refused),
    ("localhost:80", Carried),
];

#[test]
fn a_token_leaves_the_machine_only_encrypted() {
    for &(uri, expected) in TARGETS {
        assert_eq!(outcome(|layer| layer, uri), expected, "{uri}");
    }
}

#[test]
fn with_plaintext_allowed_every_target_gets_the_token() {
    for &(uri, _) in TARGETS {
        assert_eq!(
            outcome(Layered::danger_allow_plaintext, uri),
            Carried,
            "{uri}"
        );
    }
}

#[test]
fn a_refusal_names_the_scheme_and_the_host_and_no_password() {
    let uri = "http://user:password@api.example.com/?token=secret";
    let error = send(&mut layer().layer(Server::ok()), get(uri)).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("http to api.example.com"), "{message}");
    for shown in [message, format!("{error:?}")] {
        assert!(
            !shown.contains("password") && !shown.contains("secret"),
            "{shown}"
        );
    }
}

const API: &str = "https://api.example.com";

/// An origin, a target, and what happens to a request to the target.
const IN_AND_OUT: &[(&str, &str, Outcome)] = &[
    (API, "https://api.example.com/", Carried),
    (API, "https://api.example.com/v1?a=b", Carried),
    // A default port may be left out.
    (API, "https://api.example.com:443/", Carried),
    (API, "https://api.example.com:/", Carried),
    (API, "https://api.example.com:0443/", Carried),
    (
        "https://api.example.com:443",
        "https://api.example.com/",
        Carried,
    ),
    (
        "https://api.example.com:",
        "https://api.example.com/",
        Carried,
    ),
    (
        "wss://api.example.com",
        "wss://api.example.com:443/",
        Carried,
    ),
    (
        "wss://api.example.com:443",
        "wss://api.example.com/",
        Carried,
    ),
    ("http://localhost", "http://localhost:80/", Carried),
    ("http://localhost:80", "http://localhost/", Carried),
    ("ws://localhost", "ws://localhost:80/", Carried),
    // Upper and lower case are the same.
    (API, "HTTPS://API.EXAMPLE.COM/", Carried),
    (
        "HTTPS://API.Example.COM/",
        "https://api.example.com/",
        Carried,
    ),
    // Another port.
    (API, "https://api.example.com:8443/", Passed),
    (API, "https://api.example.com:80/", Passed),
    (
        "https://api.example.com:8443",
        "https://api.example.com/",
        Passed,
    ),
    (
        "https://api.example.com:8443",
        "https://api.example.com:8443/",
        Carried,
    ),
    (
        "https://api.example.com:80",
        "https://api.example.com/",
        Passed,
    ),
    // 65979 is 443 + 65536: it must not wrap around in 16 bits.
    (API, "https://api.example.com:65979/", Passed),
    (API, "https://api.example.com:44x/", Passed),
    (API, "https://api.example.com:+443/", Passed),
    (API, "https://api.example.com:-443/", Passed),
    (API, "https://api.example.com:4430/", Passed),
    // Another scheme, even with the same port. Without the origin, some of these requests would be refused.
    (API, "http://api.example.com/", Passed),
    (API, "http://api.example.com:443/", Passed),
    (API, "wss://api.example.com/", Passed),
    (API, "unix://api.example.com:443/", Passed),
    (API, "ftp://api.example.com:443/", Passed),
    ("ws://localhost", "http://localhost/", Passed),
    // Another host.
    (API, "https://example.com/", Passed),
    (API, "https://www.example.com/", Passed),
    (API, "https://v1.api.example.com/", Passed),
    ("https://example.com", "https://api.example.com/", Passed),
    (API, "https://api.example.com.evil.com/", Passed),
    (API, "https://api.example.com./", Passed),
    (API, "https://api.example.co/", Passed),
    (API, "https://evil-api.example.com/", Passed),
    (API, "https://evil.com/https://api.example.com/", Passed),
    (API, "https://evil.com/?https://api.example.com", Passed),
    // The host begins after the last `@`.
    (API, "https://api.example.com@evil.com/", Passed),
    (API, "https://api.example.com:443@evil.com/", Passed),
    (API, "https://evil.com@api.example.com/", Carried),
    (API, "https://evil.com:80@api.example.com:443/", Carried),
    // IP addresses.
    ("https://[2001:db8::1]", "https://[2001:DB8::1]/", Carried),
    (
        "https://[2001:db8::1]",
        "https://[2001:db8::1]:443/",
        Carried,
    ),
    (
        "https://[2001:db8::1]:8443",
        "https://[2001:db8::1]:8443/",
        Carried,
    ),
    (
        "https://[2001:db8::1]",
        "https://[2001:db8::1]:8443/",
        Passed,
    ),
    ("https://[2001:db8::1]", "https://[2001:db8::2]/", Passed),
    (
        "https://[2001:db8::1]",
        "https://[2001:db8::1]evil.com/",
        Passed,
    ),
    (
        "https://[2001:db8::1]",
        "https://[2001:db8::1]@evil.com/",
        Passed,
    ),
    ("https://192.0.2.1", "https://192.0.2.1/", Carried),
    ("https://192.0.2.1", "https://192.0.2.10/", Passed),
    // URIs without a scheme or a host.
    (API, "/v1", Passed),
    (API, "*", Passed),
    (API, "api.example.com:443", Passed),
    // A plaintext origin alone does not allow plaintext.
    ("http://api.example.com", "http://api.example.com/", Refused),
    ("ws://api.example.com", "ws://api.example.com/", Refused),
];

#[test]
fn a_token_goes_to_its_origin_only() {
    for &(origin, uri, expected) in IN_AND_OUT {
        let outcome = outcome(|layer| layer.for_origin(origin).unwrap(), uri);
        assert_eq!(outcome, expected, "{uri} for {origin}");
    }
}

#[test]
fn a_plaintext_origin_has_to_be_allowed_as_well_and_opens_itself_only() {
    let cases = [
        ("http://api.example.com/", Carried),
        ("http://api.example.com:80/", Carried),
        ("https://auth.example.com/", Carried),
        ("http://other.example.com/", Passed),
        ("http://api.example.com:8080/", Passed),
        ("https://api.example.com/", Passed),
        ("http://auth.example.com/", Passed),
        ("ws://api.example.com/", Passed),
        ("http://localhost/", Passed),
    ];
    for (uri, expected) in cases {
        let settings = |layer: Layered| {
            let layer = layer.for_origin("http://api.example.com").unwrap();
            let layer = layer.danger_allow_plaintext();
            layer.for_origin("https://auth.example.com").unwrap()
        };
        assert_eq!(outcome(settings, uri), expected, "{uri}");
    }
}

#[test]
fn a_token_may_have_several_origins() {
    let origins = [
        "https://api.example.com",
        "https://[::1]:8443",
        "wss://push.example.com",
    ];
    let cases = [
        ("https://api.example.com/", Carried),
        ("https://[::1]:8443/", Carried),
        ("wss://push.example.com/", Carried),
        // The scheme of one origin with the host of another is not an origin.
        ("https://push.example.com/", Passed),
        ("https://api.example.com:8443/", Passed),
        ("wss://api.example.com/", Passed),
    ];
    for (uri, expected) in cases {
        let settings = |layer| {
            origins.iter().fold(layer, |layer: Layered, origin| {
                layer.for_origin(origin).unwrap()
            })
        };
        assert_eq!(outcome(settings, uri), expected, "{uri}");
    }
}

#[test]
fn a_text_that_is_no_origin_is_an_error_that_says_why() {
    const NOT_A_URI: &str = "it is not a URI";
    const WHITESPACE: &str = "it has whitespace in it or around it";
    const NO_SCHEME: &str = "it has no scheme; put https:// in front of the host";
    const PATH: &str = "leave it out (`for_origin_of` takes a whole URI)";
    const USER: &str = "it has a user name; leave out what is before the @";
    const SCHEME: &str = "its scheme is not https, http, wss, ws or unix";
    const PORT: &str = "its port is not a number";
    let cases = [
        ("", NO_SCHEME),
        (" ", WHITESPACE),
        (" https://api.example.com", WHITESPACE),
        ("https://api.example.com ", WHITESPACE),
        ("https://api.example.com\n", WHITESPACE),
        ("\"https://api.example.com\"", NOT_A_URI),
        ("https://", NOT_A_URI),
        ("https:///", NOT_A_URI),
        ("https://api.example.com:1:2", NOT_A_URI),
        ("https://user@", NOT_A_URI),
        ("https://b\u{fc}cher.example", "write the host in punycode"),
        ("https://2001:db8::1", "an IPv6 address needs brackets"),
        ("https://[2001:db8::1", NOT_A_URI),
        ("api.example.com", NO_SCHEME),
        ("api.example.com:443", NO_SCHEME),
        ("api.example.com/v1", NO_SCHEME),
        ("https:/api.example.com", NO_SCHEME),
        ("//api.example.com", NO_SCHEME),
        ("/v1", NO_SCHEME),
        ("*", NO_SCHEME),
        ("https://:443", "it has no host"),
        ("https://api.example.com/v1", PATH),
        ("https://api.example.com//", PATH),
        ("https://api.example.com?a=b", PATH),
        ("https://api.example.com/?", PATH),
        ("https://api.example.com#top", PATH),
        ("https://api.example.com/#", PATH),
        ("https://user@api.example.com", USER),
        ("https://user:password@api.example.com", USER),
        ("https://@api.example.com", USER),
        ("https://*.example.com", "wildcard"),
        ("ftp://api.example.com", SCHEME),
        ("httpss://api.example.com", SCHEME),
        ("https://api.example.com:65979", PORT),
        ("https://api.example.com:65536", PORT),
        ("https://api.example.com:44x", PORT),
        ("https://api.example.com:+443", PORT),
        ("https://[::1]8443", PORT),
    ];
    for (text, reason) in cases {
        let error: InvalidOrigin = match layer().for_origin(text) {
            Ok(_) => panic!("{text:?} is taken for an origin"),
            Err(error) => error,
        };
        let message = error.to_string();
        assert!(message.contains(reason), "{text:?}: {message}");
        // The message shows an example of an origin. It does not show the text, which may hold a password.
        assert!(
            message.contains("https://api.example.com: "),
            "{text:?}: {message}"
        );
        assert!(!message.contains("password"), "{text:?}: {message}");
        // `main` prints the `Debug` of an error.
        assert_eq!(
            format!("{error:?}"),
            format!("InvalidOrigin(\"{message}\")")
        );
    }
}

fn built(scheme: &str, authority: &str) -> Uri {
    let builder = Uri::builder().scheme(scheme).authority(authority);
    builder.path_and_query("/v1?a=b").build().unwrap()
}

#[test]
fn a_base_url_with_a_path_names_its_origin() {
    let bases = [
        "https://api.example.com",
        "https://api.example.com/v1/",
        "https://API.example.com:443/v1?a=b",
        "https://user:password@api.example.com/v1",
    ];
    for base in bases {
        let base: Uri = base.parse().unwrap();
        let settings = |layer: Layered| layer.for_origin_of(&base).unwrap();
        for (uri, expected) in [
            ("https://api.example.com/", Carried),
            ("https://api.example.com/v2", Carried),
            ("https://api.example.com:8443/v1", Passed),
            ("https://www.example.com/v1", Passed),
            ("http://api.example.com/v1", Passed),
        ] {
            assert_eq!(outcome(settings, uri), expected, "{uri} for {base}");
        }
    }
}

#[test]
fn a_base_url_that_names_no_origin_is_an_error_that_says_why() {
    let cases = [
        (Uri::from_static("/v1"), "it has no scheme"),
        (Uri::from_static("api.example.com:443"), "it has no scheme"),
        (built("ftp", "api.example.com"), "its scheme is not https"),
        (
            built("https", "api.example.com:x"),
            "its port is not a number",
        ),
        (built("https", "*.example.com"), "wildcard"),
        (
            built("HTTPS", "api.example.com"),
            "its scheme is https in upper case, which clients take for plaintext; build the URI with \
             `http::uri::Scheme::HTTPS`",
        ),
    ];
    for (uri, reason) in cases {
        let error = layer().for_origin_of(&uri).unwrap_err();
        let message = error.to_string();
        assert!(message.contains(reason), "{uri}: {message}");
    }
}

#[test]
fn a_refusal_says_what_to_do_about_the_scheme() {
    let cases = [
        (
            built("HTTPS", "api.example.com"),
            "`http::uri::Scheme::HTTPS`",
        ),
        (
            built("wss", "api.example.com"),
            "name the server with `for_origin`",
        ),
        (built("http", "api.example.com"), ": use https"),
        (built("gopher", "api.example.com"), ": use https"),
        (built("unix", "docker"), "in hexadecimal"),
        (
            "api.example.com:443".parse().unwrap(),
            "under `Proxy-Authorization`",
        ),
    ];
    for (uri, remedy) in cases {
        let mut request = get("/");
        *request.uri_mut() = uri;
        let error = send(&mut layer().layer(Server::ok()), request).unwrap_err();
        let message = error.to_string();
        assert!(message.contains(remedy), "{message}");
    }
}
