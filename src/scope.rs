//! Which request may carry a token, and under which header: [`Origin`] and [`Rules`].

use std::{fmt, net::Ipv4Addr, net::Ipv6Addr, str::FromStr};

use http::{
    HeaderMap, HeaderName, HeaderValue, Uri,
    header::{AUTHORIZATION, PROXY_AUTHORIZATION},
    uri::{self, Authority},
};

use crate::{challenge::Audience, token::BearerToken};

/// Scheme, host and port (RFC 6454 §4): what must be equal for a request to carry a scoped token.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    scheme: Scheme,
    /// In lower case.
    host: Box<str>,
    port: u16,
    /// https on its default port, which a request is likely not to name.
    is_usual_https: bool,
}

/// The schemes that have an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
    Ws,
    Wss,
}

impl Scheme {
    fn of(scheme: &uri::Scheme) -> Option<Self> {
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

    const fn is_encrypted(self) -> bool {
        matches!(self, Self::Https | Self::Wss)
    }
}

impl Origin {
    fn parse(text: &str) -> Result<Self, InvalidOrigin> {
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

    fn contains(&self, scheme: Scheme, authority: &Authority) -> bool {
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
fn is_local(authority: &Authority) -> bool {
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

/// What [`Rules`] say about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It gets the token.
    Carry,
    /// It goes out as it is.
    Pass,
    /// It does not go out: it would take the token over the network in plaintext.
    Refuse,
}

/// The layer's settings: which request gets the token, and where in it.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) header: HeaderName,
    pub(crate) keep_existing: bool,
    pub(crate) allow_plaintext: bool,
    /// Whether responses are read as gRPC's, too.
    pub(crate) grpc_status: bool,
    /// None given: any.
    origins: Vec<Origin>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            header: AUTHORIZATION,
            keep_existing: false,
            allow_plaintext: false,
            grpc_status: false,
            origins: Vec::new(),
        }
    }
}

impl Rules {
    pub(crate) fn add_origin(&mut self, origin: &str) -> Result<(), InvalidOrigin> {
        self.origins.push(Origin::parse(origin)?);
        Ok(())
    }

    /// Who judges the token.
    pub(crate) fn audience(&self) -> Audience {
        Audience::of(&self.header, self.grpc_status)
    }

    /// Whether any request over https gets the token.
    #[cfg(feature = "reqwest-middleware")]
    pub(crate) fn are_none(&self) -> bool {
        self.origins.is_empty() && !self.keep_existing
    }

    #[inline]
    pub(crate) fn verdict(&self, uri: &Uri, headers: &HeaderMap) -> Verdict {
        if !self.keep_existing && uri.scheme_str() == Some("https") {
            let is_usual = |origin: &Origin| {
                let authority = uri.authority().map_or("", Authority::as_str);
                origin.is_usual_https && *origin.host == *authority
            };
            if self.origins.is_empty() || self.origins.iter().any(is_usual) {
                return Verdict::Carry;
            }
        }
        self.any_verdict(uri, headers)
    }

    /// Without the shortcut for the usual request.
    fn any_verdict(&self, uri: &Uri, headers: &HeaderMap) -> Verdict {
        if self.keep_existing && headers.contains_key(&self.header) {
            return Verdict::Pass;
        }
        let scheme = uri.scheme().and_then(Scheme::of);
        if !self.origins.is_empty() {
            let in_scope = match (scheme, uri.authority()) {
                (Some(scheme), Some(authority)) => self
                    .origins
                    .iter()
                    .any(|origin| origin.contains(scheme, authority)),
                _ => false,
            };
            if !in_scope {
                return Verdict::Pass;
            }
        }
        // A URI without an authority is for a connection that the caller chose, and so is one that
        // asks a proxy for a tunnel, where the token is for the proxy. A scheme that we do not know
        // is not known to be encrypted.
        let is_chosen = match uri.scheme() {
            Some(_) => false,
            None => uri.authority().is_none() || self.header == PROXY_AUTHORIZATION,
        };
        let encrypted = is_chosen || scheme.is_some_and(Scheme::is_encrypted);
        if encrypted || self.allow_plaintext || uri.authority().is_some_and(is_local) {
            Verdict::Carry
        } else {
            Verdict::Refuse
        }
    }

    /// Not inlined: the insertion is optimised better once, here, than in each user's crate.
    #[inline(never)]
    pub(crate) fn attach(&self, headers: &mut HeaderMap, token: &BearerToken) {
        // Known when this is compiled, the name is hashed and compared for a third less.
        if self.header == AUTHORIZATION {
            headers.insert(AUTHORIZATION, token.header_value());
        } else {
            self.attach_other(headers, token.header_value());
        }
    }

    #[cold]
    fn attach_other(&self, headers: &mut HeaderMap, value: HeaderValue) {
        headers.insert(&self.header, value);
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
