//! What a token is bound to, scheme, host and port (RFC 6454): [`Origin`]; and which hosts are this
//! machine.

use std::{fmt, net::Ipv4Addr, net::Ipv6Addr, str::FromStr};

use http::{
    Uri,
    uri::{self, Authority},
};

/// Scheme, host and port (RFC 6454 §4): what must be equal for a request to carry a scoped token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    scheme: Scheme,
    /// In lower case.
    host: Box<str>,
    port: u16,
    /// https on its default port, which a request is likely not to name.
    is_usual_https: bool,
}

/// The schemes that have an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
    Ws,
    Wss,
}

impl Scheme {
    pub(crate) fn of(scheme: &uri::Scheme) -> Option<Self> {
        if *scheme == uri::Scheme::HTTPS {
            return Some(Self::Https);
        }
        [
            ("http", Self::Http),
            ("https", Self::Https),
            ("ws", Self::Ws),
            ("wss", Self::Wss),
        ]
        .into_iter()
        .find_map(|(name, known)| (scheme == name).then_some(known))
    }

    const fn default_port(self) -> u16 {
        match self {
            Self::Http | Self::Ws => 80,
            Self::Https | Self::Wss => 443,
        }
    }

    pub(crate) const fn is_encrypted(self) -> bool {
        matches!(self, Self::Https | Self::Wss)
    }
}

impl Origin {
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidOrigin> {
        let because = |reason| InvalidOrigin { reason };
        if text.contains('#') {
            // `Uri` drops a fragment without a word.
            return Err(because(Reason::NotOnlyAnOrigin));
        }
        let uri = Uri::from_str(text).map_err(|_| because(Reason::NotAUri))?;
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Err(because(Reason::NotAbsolute));
        };
        let scheme = Scheme::of(scheme).ok_or(because(Reason::Scheme))?;
        if uri.path() != "/" || uri.query().is_some() || authority.as_str().contains('@') {
            return Err(because(Reason::NotOnlyAnOrigin));
        }
        let (host, port) = split(authority);
        let port = port_number(scheme, port).ok_or(because(Reason::Port))?;
        if host.is_empty() {
            return Err(because(Reason::NotAbsolute));
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

    /// Whether an https request to this authority is surely within, by one comparison.
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

/// The host, and what follows it: nothing, or a colon and a port.
///
/// `Authority::port_u16` answers `None` both for no port and for one that is no number, which must
/// not pass for the default.
fn split(authority: &Authority) -> (&str, &str) {
    let text = authority.as_str();
    let text = text.rfind('@').map_or(text, |at| &text[at + 1..]);
    let host_end = match text.rfind(']') {
        Some(bracket) => bracket + 1,
        None => text.find(':').unwrap_or(text.len()),
    };
    text.split_at(host_end)
}

/// RFC 3986 §3.2.3: an empty port is the default one.
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

/// Whether a connection to this authority stays on the machine, whoever takes the authority apart.
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

/// Why a text is not an origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidOrigin {
    reason: Reason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    NotAUri,
    NotAbsolute,
    NotOnlyAnOrigin,
    Scheme,
    Port,
    Wildcard,
}

impl fmt::Display for InvalidOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match self.reason {
            Reason::NotAUri => "it is not a URI",
            Reason::NotAbsolute => "it has no scheme or no host",
            Reason::NotOnlyAnOrigin => "it has more than a scheme, a host and a port",
            Reason::Scheme => "its scheme is not https, http, wss or ws",
            Reason::Port => "its port is not a number from 0 to 65535",
            Reason::Wildcard => "it has a wildcard, and only whole hosts are compared",
        };
        write!(f, "not an origin such as https://api.example.com: {reason}")
    }
}

impl std::error::Error for InvalidOrigin {}
