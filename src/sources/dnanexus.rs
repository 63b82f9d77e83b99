//! The token and the API server of a DNAnexus user or job: [`Dnanexus`].

mod json;

use std::{
    env, fmt,
    path::{Path, PathBuf},
};

use secrecy::zeroize::Zeroizing;

use self::json::{NotAString, Object};
use super::{file::read_text, fixed::StaticToken};
use crate::{
    layer::BearerAuthLayer,
    source::{SourceError, SourceErrorKind, TokenFuture, TokenSource},
    token::BearerToken,
};

const SECURITY_CONTEXT: &str = "DX_SECURITY_CONTEXT";
const USER_CONF_DIR: &str = "DX_USER_CONF_DIR";
const PROTOCOL: &str = "DX_APISERVER_PROTOCOL";
const HOST: &str = "DX_APISERVER_HOST";
const PORT: &str = "DX_APISERVER_PORT";

/// The token and the API server of a DNAnexus user or job, found where the `dx` client finds them.
///
/// A token comes in three ways: from a login, or as an API token that was made in the web page and
/// given to `dx login --token`, both of which `dx` keeps in `~/.dnanexus_config/environment.json`;
/// and as a job's own, in the environment variable `DX_SECURITY_CONTEXT`.
///
/// ```no_run
/// use tower::ServiceBuilder;
/// use tower_bearer::Dnanexus;
///
/// let dnanexus = Dnanexus::discover()?;
/// let stack = ServiceBuilder::new().layer(dnanexus.layer());
/// let whoami = format!("{}/system/whoami", dnanexus.api_server());
/// # Ok::<(), tower_bearer::SourceError>(())
/// ```
///
/// From one place that you name:
///
/// ```
/// use tower_bearer::Dnanexus;
///
/// let context = r#"{"auth_token_type":"Bearer","auth_token":"7Fjfp0ZBr1KtDRbnfVdmIw"}"#;
/// let dnanexus = Dnanexus::from_security_context(context)?;
/// assert_eq!(dnanexus.api_server(), "https://api.dnanexus.com:443");
/// # Ok::<(), tower_bearer::SourceError>(())
/// ```
#[derive(Clone)]
pub struct Dnanexus {
    token: StaticToken,
    layer: BearerAuthLayer<StaticToken>,
    api_server: String,
}

impl Dnanexus {
    /// Looks where the `dx` client does. Each of `DX_SECURITY_CONTEXT`, `DX_APISERVER_PROTOCOL`,
    /// `DX_APISERVER_HOST` and `DX_APISERVER_PORT` is taken from the environment, else from
    /// `environment.json` in the folder `DX_USER_CONF_DIR`, by default `~/.dnanexus_config`.
    ///
    /// # Errors
    ///
    /// [`SourceErrorKind::Absent`] if there is no token in either place,
    /// [`SourceErrorKind::Invalid`] if a value is malformed: it is not passed over.
    pub fn discover() -> Result<Self, SourceError> {
        let folder = config_folder()?;
        let in_file = match &folder {
            Some(folder) => Settings::in_folder(folder),
            None => Err(absent("there is no home directory".into())),
        };
        let in_file = match in_file {
            Err(error) if error.kind() == SourceErrorKind::Absent => Settings::default(),
            other => other?,
        };
        let settings = Settings::in_environment()?.or(in_file);
        if settings.security_context.is_none() {
            let folder = folder.unwrap_or_else(|| PathBuf::from("~/.dnanexus_config"));
            return Err(absent(format!(
                "no DNAnexus token: environment variable {SECURITY_CONTEXT} is not set and {} has \
                 none; run `dx login`",
                folder.join("environment.json").display()
            )));
        }
        Self::from_settings(&settings)
    }

    /// Takes the token from the text of a security context, as a job is given it, and the default
    /// API server.
    ///
    /// # Errors
    ///
    /// [`SourceErrorKind::Invalid`] if it is not JSON such as
    /// `{"auth_token_type":"Bearer","auth_token":"…"}`.
    pub fn from_security_context(context: &str) -> Result<Self, SourceError> {
        Self::from_settings(&Settings {
            security_context: Some(Zeroizing::new(context.to_owned())),
            ..Settings::default()
        })
    }

    /// Takes the token and the API server from `environment.json` in a folder, as `dx login` writes
    /// it.
    ///
    /// # Errors
    ///
    /// [`SourceErrorKind::Absent`] if there is no such file or no token in it,
    /// [`SourceErrorKind::Invalid`] if a value in it is malformed.
    pub fn from_config_dir(folder: impl AsRef<Path>) -> Result<Self, SourceError> {
        let folder = folder.as_ref();
        let settings = Settings::in_folder(folder)?;
        if settings.security_context.is_none() {
            let file = folder.join("environment.json");
            return Err(absent(format!("{} has no DNAnexus token", file.display())));
        }
        Self::from_settings(&settings)
    }

    fn from_settings(settings: &Settings) -> Result<Self, SourceError> {
        let context = settings.security_context.as_ref();
        let token = parse_security_context(context.map_or("", |context| context))?;
        let protocol = or_default(settings.protocol.as_ref(), "https");
        let host = or_default(settings.host.as_ref(), "api.dnanexus.com");
        let default_port = if protocol == "http" { "80" } else { "443" };
        let port = or_default(settings.port.as_ref(), default_port);
        let api_server = format!("{protocol}://{host}:{port}");
        let token = StaticToken::new(token);
        let layer = BearerAuthLayer::new(token.clone())
            .for_origin(&api_server)
            .map_err(|error| {
                SourceError::with_source(
                    SourceErrorKind::Invalid,
                    format!("{PROTOCOL}, {HOST} and {PORT} do not name an API server"),
                    error,
                )
            })?;
        Ok(Self {
            token,
            layer,
            api_server,
        })
    }

    /// The layer that puts the token on each request to the API server, and on no other.
    #[must_use]
    pub fn layer(&self) -> BearerAuthLayer<StaticToken> {
        self.layer.clone()
    }

    /// The API server, with scheme and port, for example `https://api.dnanexus.com:443`.
    #[must_use]
    pub fn api_server(&self) -> &str {
        &self.api_server
    }
}

/// The bare source. [`Dnanexus::layer`] binds it to the API server.
impl TokenSource for Dnanexus {
    #[inline]
    fn token(&self) -> TokenFuture {
        self.token.token()
    }
}

impl fmt::Debug for Dnanexus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dnanexus")
            .field("api_server", &self.api_server)
            .finish_non_exhaustive()
    }
}

/// What the `dx` client keeps, as far as it matters here. Any of it may hold a secret by mistake.
#[derive(Default)]
struct Settings {
    security_context: Option<Zeroizing<String>>,
    protocol: Option<Zeroizing<String>>,
    host: Option<Zeroizing<String>>,
    port: Option<Zeroizing<String>>,
}

impl Settings {
    fn in_environment() -> Result<Self, SourceError> {
        Ok(Self {
            security_context: variable(SECURITY_CONTEXT)?,
            protocol: variable(PROTOCOL)?,
            host: variable(HOST)?,
            port: variable(PORT)?,
        })
    }

    fn in_folder(folder: &Path) -> Result<Self, SourceError> {
        let path = folder.join("environment.json");
        let text = read_text(&path)?;
        let invalid = || {
            invalid(format!(
                "{} is not a JSON object of strings, as the dx client writes it",
                path.display()
            ))
        };
        let members = Object::parse(&text).ok_or_else(invalid)?;
        let get = |name| members.string(name).map_err(|NotAString| invalid());
        Ok(Self {
            security_context: get(SECURITY_CONTEXT)?,
            protocol: get(PROTOCOL)?,
            host: get(HOST)?,
            port: get(PORT)?,
        })
    }

    fn or(self, other: Self) -> Self {
        Self {
            security_context: self.security_context.or(other.security_context),
            protocol: self.protocol.or(other.protocol),
            host: self.host.or(other.host),
            port: self.port.or(other.port),
        }
    }
}

fn or_default<'a>(value: Option<&'a Zeroizing<String>>, default: &'a str) -> &'a str {
    match value.map(|value| value.trim()) {
        None | Some("") => default,
        Some(value) => value,
    }
}

fn variable(name: &str) -> Result<Option<Zeroizing<String>>, SourceError> {
    let Some(value) = env::var_os(name) else {
        return Ok(None);
    };
    let value = Zeroizing::new(value.into_encoded_bytes());
    match std::str::from_utf8(&value) {
        Ok(text) => Ok(Some(Zeroizing::new(text.to_owned()))),
        Err(_) => Err(invalid(format!("environment variable {name} is not UTF-8"))),
    }
}

fn config_folder() -> Result<Option<PathBuf>, SourceError> {
    let home = env::var_os("HOME").or_else(|| env::var_os("USERPROFILE"));
    let home = home.filter(|home| !home.is_empty()).map(PathBuf::from);
    let Some(folder) = env::var_os(USER_CONF_DIR).filter(|folder| !folder.is_empty()) else {
        return Ok(home.map(|home| home.join(".dnanexus_config")));
    };
    let folder = PathBuf::from(folder);
    match (folder.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => Ok(Some(home.join(rest))),
        (Ok(_), None) => Err(absent(format!(
            "{USER_CONF_DIR} starts with ~ and there is no home directory"
        ))),
        (Err(_), _) => Ok(Some(folder)),
    }
}

fn parse_security_context(text: &str) -> Result<BearerToken, SourceError> {
    let malformed = || {
        invalid(format!(
            "{SECURITY_CONTEXT} is not JSON such as \
             {{\"auth_token_type\":\"Bearer\",\"auth_token\":\"…\"}}"
        ))
    };
    let context = Object::parse(text).ok_or_else(malformed)?;
    let get = |name| match context.string(name) {
        Ok(Some(value)) => Ok(value),
        Ok(None) | Err(NotAString) => Err(malformed()),
    };
    if !get("auth_token_type")?.eq_ignore_ascii_case("bearer") {
        return Err(invalid(format!(
            "{SECURITY_CONTEXT} has a token of another type than Bearer"
        )));
    }
    BearerToken::new(&*get("auth_token")?).map_err(|error| {
        SourceError::with_source(
            SourceErrorKind::Invalid,
            format!("{SECURITY_CONTEXT} does not hold a bearer token"),
            error,
        )
    })
}

fn absent(message: String) -> SourceError {
    SourceError::new(SourceErrorKind::Absent, message)
}

fn invalid(message: String) -> SourceError {
    SourceError::new(SourceErrorKind::Invalid, message)
}
