//! The layer's settings, and what they say about a request: [`Rules`], [`Verdict`], [`Auth`].

use std::sync::Arc;

use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode, Uri,
    header::{AUTHORIZATION, PROXY_AUTHORIZATION},
    uri::Authority,
};

use crate::{
    challenge::Challenger,
    origin::{InvalidOrigin, Origin, Scheme, is_local},
    rejection::SeenMark,
    source::TokenSource,
    token::BearerToken,
};

/// What all clones of a service share, and each request that waits for its token.
pub(crate) struct Auth<T: ?Sized> {
    pub(crate) rules: Rules,
    pub(crate) response_rules: Option<Arc<ResponseRules>>,
    /// The last field, so that a waiting request can have it as a `dyn TokenSource`.
    pub(crate) source: T,
}

impl<T: ?Sized> Auth<T> {
    /// How to read the response to a request that is sent with `token` now.
    #[inline]
    pub(crate) fn rules_for(&self, token: &BearerToken) -> Option<Arc<ResponseRules>> {
        match token.seen_mark() {
            None => self.response_rules.clone(),
            Some(mark) => Some(self.rules_for_rejected(mark)),
        }
    }

    #[cold]
    fn rules_for_rejected(&self, mark: SeenMark) -> Arc<ResponseRules> {
        let usual = self.response_rules.as_ref();
        Arc::new(ResponseRules {
            challenger: self.rules.challenger(),
            replacements: usual.and_then(|rules| rules.replacements.clone()),
            mark: Some(mark),
        })
    }
}

/// Settings that change how a response is read. Most layers have none, so a future holds one
/// optional pointer.
pub(crate) struct ResponseRules {
    challenger: Challenger,
    /// Where another token comes from, if rejected requests are to be retried.
    pub(crate) replacements: Option<Arc<dyn TokenSource>>,
    /// If the token was rejected before the request was sent: a success takes this mark off.
    mark: Option<SeenMark>,
}

impl ResponseRules {
    /// `None` is as usual: an origin server judges the token, and nothing is retried.
    pub(crate) fn new(
        challenger: Challenger,
        replacements: Option<Arc<dyn TokenSource>>,
    ) -> Option<Arc<Self>> {
        let is_usual = challenger == Challenger::Origin && replacements.is_none();
        (!is_usual).then(|| {
            Arc::new(Self {
                challenger,
                replacements,
                mark: None,
            })
        })
    }

    /// Marks the token if the response rejects it, takes a mark off if the response is a success,
    /// and tells whether the response rejects the token.
    pub(crate) fn judge(
        &self,
        token: &BearerToken,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> bool {
        let is_rejected = self.challenger.judge(token, status, headers);
        if let (false, Some(mark)) = (is_rejected, self.mark) {
            self.challenger.accept(token, mark, status, headers);
        }
        is_rejected
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
    pub(crate) fn challenger(&self) -> Challenger {
        Challenger::of(&self.header, self.grpc_status)
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
                origin.is_usual_for(uri.authority().map_or("", Authority::as_str))
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
