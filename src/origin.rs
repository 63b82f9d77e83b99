//! [`Origin`], the scheme, host and port (RFC 6454) that a token is bound to. Also tells which hosts are
//! this machine.

use std::{fmt, net::Ipv4Addr, net::Ipv6Addr, str::FromStr};

use http::{
    Uri,
    uri::{self, Authority},
};

use crate::trace::WhyPassed;

/// Scheme, host and port (RFC 6454 §4). A request carries a token that is bound to an origin only if all
/// three are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    scheme: Scheme,
    /// In lower case.
    host: Box<str>,
    port: u16,
    /// Whether this is https on its default port, which most URIs leave out.
    is_usual_https: bool,
}

/// The schemes that have an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
    Ws,
    Wss,
    Unix,
}

impl Scheme {
    pub(crate) fn of(scheme: &uri::Scheme) -> Option<Self> {
        // Clients encrypt only if the scheme equals this constant. A scheme that was built as `HTTPS`
        // does not equal the constant, and hyper-tls sends its requests in plaintext. (In the text of a
        // URI, `HTTPS://` is parsed to the constant.)
        if *scheme == uri::Scheme::HTTPS {
            return Some(Self::Https);
        }
        [
            ("http", Self::Http),
            ("ws", Self::Ws),
            ("wss", Self::Wss),
            ("unix", Self::Unix),
        ]
        .into_iter()
        .find_map(|(name, known)| (scheme == name).then_some(known))
    }

    const fn default_port(self) -> u16 {
        match self {
            Self::Http | Self::Ws => 80,
            Self::Https | Self::Wss => 443,
            // The port that hyperlocal writes. A socket has no port.
            Self::Unix => 0,
        }
    }

    /// Whether nobody on the network can read a request over this scheme. `is_named` says that the user named
    /// the scheme in an origin.
    ///
    /// Many clients send `wss` in plaintext, so `wss` is private only if the user named it. hyper-tls sends a
    /// `unix` request over the network if the URI names a host. So, unless the user named the origin, the host
    /// has to be the path of a socket, in hexadecimal digits as hyperlocal writes it.
    pub(crate) fn is_private(self, is_named: bool, authority: Option<&Authority>) -> bool {
        let is_path = |host: &str| {
            !host.is_empty()
                && host.len() % 2 == 0
                && host.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        match self {
            Self::Https => true,
            Self::Unix => {
                is_named || authority.is_some_and(|authority| is_path(split(authority).0))
            }
            Self::Wss => is_named,
            Self::Http | Self::Ws => false,
        }
    }
}

impl Origin {
    /// Reads an origin. A text with a path is an error, so that nobody expects the layer to compare paths.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidOrigin> {
        let because = |reason| InvalidOrigin { reason };
        let uri = Uri::from_str(text).map_err(|_| because(Reason::of_unreadable(text)))?;
        let origin = Self::of(&uri)?;
        // `Uri` drops a fragment silently.
        if uri.path() != "/" || uri.query().is_some() || text.contains('#') {
            return Err(because(Reason::Path));
        }
        if text.contains('@') {
            return Err(because(Reason::UserInfo));
        }
        Ok(origin)
    }

    /// The origin of a URI, whatever its path and query.
    pub(crate) fn of(uri: &Uri) -> Result<Self, InvalidOrigin> {
        let because = |reason| InvalidOrigin { reason };
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Err(because(Reason::NoScheme));
        };
        let scheme = Scheme::of(scheme).ok_or_else(|| because(Reason::of_scheme(scheme)))?;
        let (host, port) = split(authority);
        let port = port_number(scheme, port).ok_or(because(Reason::Port))?;
        if host.is_empty() {
            return Err(because(Reason::NoHost));
        }
        if host.contains('*') {
            return Err(because(Reason::Wildcard));
        }
        Ok(Self {
            scheme,
            host: host.to_ascii_lowercase().into(),
            port,
            is_usual_https: scheme == Scheme::Https && port == scheme.default_port(),
        })
    }

    /// Whether this origin contains an https request to `authority`, by a single comparison of texts. `true`
    /// is certain; after `false`, ask [`contains`](Self::contains).
    #[inline]
    pub(crate) fn is_usual_for(&self, authority: &str) -> bool {
        self.is_usual_https && *self.host == *authority
    }

    pub(crate) fn contains(&self, scheme: Scheme, authority: &Authority) -> bool {
        if self.scheme != scheme {
            return false;
        }
        let (host, port) = split(authority);
        self.host.eq_ignore_ascii_case(host) && port_number(scheme, port) == Some(self.port)
    }
}

/// Why no origin contains a URI, for an event: names the likely mistake.
pub(crate) fn why_outside(origins: &[Origin], uri: &Uri) -> WhyPassed {
    let Some(authority) = uri.authority() else {
        return WhyPassed::NoHost;
    };
    let Some(scheme) = uri.scheme() else {
        return WhyPassed::NoScheme;
    };
    let (scheme, (host, _)) = (Scheme::of(scheme), split(authority));
    let mut with_host = origins
        .iter()
        .filter(|origin| origin.host.eq_ignore_ascii_case(host))
        .peekable();
    if with_host.peek().is_none() {
        if is_loopback(host) && origins.iter().any(|origin| is_loopback(&origin.host)) {
            return WhyPassed::OtherLoopback;
        }
        return WhyPassed::OtherHost;
    }
    if with_host.any(|origin| Some(origin.scheme) == scheme) {
        return WhyPassed::OtherPort;
    }
    WhyPassed::OtherScheme
}

/// The host, and the rest of the authority: if the authority is well-formed, nothing, or a colon and a port.
///
/// `Authority::port_u16` answers `None` without a port, and also for a port that is not a number. Such a
/// port must not count as the default port.
fn split(authority: &Authority) -> (&str, &str) {
    let text = authority.as_str();
    let text = text.rfind('@').map_or(text, |at| &text[at + 1..]);
    let host_end = match text.rfind(']') {
        Some(bracket) => bracket + 1,
        None => text.find(':').unwrap_or(text.len()),
    };
    text.split_at(host_end)
}

/// RFC 3986 §3.2.3: an empty port is the default port.
fn port_number(scheme: Scheme, port: &str) -> Option<u16> {
    match port {
        "" | ":" => Some(scheme.default_port()),
        _ => port
            .strip_prefix(':')
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?
            .parse()
            .ok(),
    }
}

/// Whether a connection to this authority stays on this machine, however a client parses the authority.
pub(crate) fn is_local(authority: &Authority) -> bool {
    let (host, port) = split(authority);
    (port.is_empty() || port.starts_with(':')) && is_loopback(host)
}

fn is_loopback(host: &str) -> bool {
    if host.eq_ignore_ascii_case("localhost") {
        return true;
    }
    match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => v6.parse::<Ipv6Addr>().is_ok_and(|address| {
            address.is_loopback() || address.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback())
        }),
        None => host.parse::<Ipv4Addr>().is_ok_and(|v4| v4.is_loopback()),
    }
}

/// Why a text or a URI is not an origin.
#[derive(Clone, PartialEq, Eq)]
pub struct InvalidOrigin {
    reason: Reason,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reason {
    Whitespace,
    NotAscii,
    Brackets,
    NotAUri,
    NoScheme,
    NoHost,
    Path,
    UserInfo,
    Scheme,
    UpperCase,
    Port,
    Wildcard,
}

impl Reason {
    /// The likely mistake in a text that is no URI.
    fn of_unreadable(text: &str) -> Self {
        let has = |kind: fn(&char) -> bool| text.chars().any(|char| kind(&char));
        if has(|char| char.is_whitespace()) {
            Self::Whitespace
        } else if has(|char| !char.is_ascii()) {
            Self::NotAscii
        } else if !text.contains("://") {
            Self::NoScheme
        } else if text.matches(':').count() > 3 && !text.contains('[') {
            Self::Brackets
        } else {
            Self::NotAUri
        }
    }

    /// The likely mistake in a scheme that has no origin.
    fn of_scheme(scheme: &uri::Scheme) -> Self {
        if scheme == "https" {
            Self::UpperCase
        } else {
            Self::Scheme
        }
    }
}

impl fmt::Display for InvalidOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match self.reason {
            Reason::Whitespace => "it has whitespace in it or around it",
            Reason::NotAscii => {
                "it is not ASCII; write the host in punycode, as in https://xn--bcher-kva.example"
            }
            Reason::Brackets => {
                "it is not a URI; an IPv6 address needs brackets, as in https://[2001:db8::1]"
            }
            Reason::NotAUri => "it is not a URI",
            Reason::NoScheme => "it has no scheme; put https:// in front of the host",
            Reason::NoHost => "it has no host",
            Reason::Path => {
                "it has a path, a query or a fragment; leave it out (`for_origin_of` takes a whole URI)"
            }
            Reason::UserInfo => "it has a user name; leave out what is before the @",
            Reason::Scheme => "its scheme is not https, http, wss, ws or unix",
            Reason::UpperCase => {
                "its scheme is https in upper case, which clients take for plaintext; build the URI \
                 with `http::uri::Scheme::HTTPS`"
            }
            Reason::Port => "its port is not a number from 0 to 65535",
            Reason::Wildcard => {
                "it has a wildcard, and only whole hosts are compared; call `for_origin` for each host"
            }
        };
        write!(f, "not an origin such as https://api.example.com: {reason}")
    }
}

/// Shows the text of `Display`, since `main` prints an error by its `Debug`.
impl fmt::Debug for InvalidOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InvalidOrigin(\"{self}\")")
    }
}

impl std::error::Error for InvalidOrigin {}
