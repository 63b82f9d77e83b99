//! The token and the API server of a DNAnexus user or job: [`Dnanexus`].

use std::{
    env, fmt,
    path::{Path, PathBuf},
};

use secrecy::zeroize::Zeroizing;

use crate::{
    error::{SourceError, SourceErrorKind},
    layer::BearerAuthLayer,
    secret_json::{NotAString, Object},
    secret_text::{read_text, variable},
    source::{TokenFuture, TokenSource},
    sources::StaticToken,
    token::BearerToken,
};

const SECURITY_CONTEXT: &str = "DX_SECURITY_CONTEXT";
const USER_CONF_DIR: &str = "DX_USER_CONF_DIR";
const PROTOCOL: &str = "DX_APISERVER_PROTOCOL";
const HOST: &str = "DX_APISERVER_HOST";
const PORT: &str = "DX_APISERVER_PORT";
const FILE: &str = "environment.json";

/// The token and the API server of a DNAnexus user or job, found where the `dx` client finds them.
///
/// There are three kinds of tokens. `dx login` gets a token by a login. `dx login --token` takes an
/// API token that was made on the web page. `dx` keeps both in
/// `~/.dnanexus_config/environment.json`. A job gets a token of its own in the environment variable
/// `DX_SECURITY_CONTEXT`.
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
/// From the text of a security context:
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
    /// Looks where the `dx` client looks. The settings are `DX_SECURITY_CONTEXT`,
    /// `DX_APISERVER_PROTOCOL`, `DX_APISERVER_HOST` and `DX_APISERVER_PORT`. Each setting comes
    /// from the environment variable of that name. If the variable is not set, the setting comes
    /// from `environment.json` in the folder that `DX_USER_CONF_DIR` names, by default
    /// `~/.dnanexus_config`.
    ///
    /// This function looks neither in `/etc/dnanexus` nor in `sessions` in that folder, where `dx`
    /// keeps a copy for each shell. It blocks while it reads the file.
    ///
    /// # Errors
    ///
    /// [`SourceErrorKind::Absent`] if there is no token in either place,
    /// [`SourceErrorKind::Invalid`] if the file or a value in use is malformed,
    /// [`SourceErrorKind::Failed`] if the file cannot be read. A good value in the file does not
    /// replace a malformed variable.
    pub fn discover() -> Result<Self, SourceError> {
        let mut settings = Settings::in_environment()?;
        let folder = config_folder();
        // If the environment has every setting, the file is not read, so an error in the file does
        // not matter.
        if let Some(folder) = folder.as_ref().filter(|_| !settings.is_complete()) {
            match Settings::in_folder(folder) {
                Err(error) if error.kind() == SourceErrorKind::Absent => {}
                in_file => settings = settings.or(in_file?),
            }
        }
        if settings.security_context.is_none() {
            let in_folder = folder.map_or_else(
                || "there is no home directory".into(),
                |folder| format!("{} has no token", folder.join(FILE).display()),
            );
            return Err(absent(format!(
                "no DNAnexus token: environment variable {SECURITY_CONTEXT} is not set and \
                 {in_folder}; run `dx login`"
            )));
        }
        Self::from_settings(&settings)
    }

    /// Takes the token from the text of a security context, such as a job gets, and uses the
    /// default API server.
    ///
    /// # Errors
    ///
    /// [`SourceErrorKind::Invalid`] if the text is not JSON such as
    /// `{"auth_token_type":"Bearer","auth_token":"…"}`.
    pub fn from_security_context(context: &str) -> Result<Self, SourceError> {
        Self::from_settings(&Settings {
            security_context: Some(Zeroizing::new(context.to_owned())),
            ..Settings::default()
        })
    }

    /// Takes the token and the API server from the file `environment.json` in a folder, as
    /// `dx login` writes it. Blocks while it reads the file.
    ///
    /// # Errors
    ///
    /// [`SourceErrorKind::Absent`] if the file does not exist or has no token,
    /// [`SourceErrorKind::Invalid`] if a value in the file is malformed,
    /// [`SourceErrorKind::Failed`] if the file cannot be read.
    pub fn from_config_dir(folder: impl AsRef<Path>) -> Result<Self, SourceError> {
        let folder = folder.as_ref();
        let settings = Settings::in_folder(folder)?;
        if settings.security_context.is_none() {
            let file = folder.join(FILE);
            return Err(absent(format!("{} has no DNAnexus token", file.display())));
        }
        Self::from_settings(&settings)
    }

    fn from_settings(settings: &Settings) -> Result<Self, SourceError> {
        let context = settings.security_context.as_ref();
        let token = parse_security_context(context.map_or("", |context| context))?;
        let protocol = or_default(PROTOCOL, settings.protocol.as_ref(), "https")?;
        let host = or_default(HOST, settings.host.as_ref(), "api.dnanexus.com")?;
        let port = match settings.port.as_ref().map(|port| port.trim()) {
            None | Some("") if protocol.eq_ignore_ascii_case("http") => "80",
            None | Some("") => "443",
            Some(port) => port,
        };
        let api_server = format!("{}://{host}:{port}", protocol.to_ascii_lowercase());
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

    /// The layer that puts the token on each request to the API server, and on no other request.
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

/// As a source, the token is not bound to the API server. [`Dnanexus::layer`] binds the token.
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

/// The settings of the `dx` client that matter here. Any of them may hold a secret by mistake.
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
        let path = folder.join(FILE);
        let text = read_text(&path)?;
        let invalid = |what: &str| invalid(format!("{} {what}", path.display()));
        let members = Object::parse(&text)
            .ok_or_else(|| invalid("is not a JSON object, as the dx client writes it"))?;
        let get = |name| {
            let value = members.string(name);
            value.map_err(|NotAString| invalid(&format!("has a {name} that is not a string")))
        };
        Ok(Self {
            security_context: get(SECURITY_CONTEXT)?,
            protocol: get(PROTOCOL)?,
            host: get(HOST)?,
            port: get(PORT)?,
        })
    }

    fn is_complete(&self) -> bool {
        [
            &self.security_context,
            &self.protocol,
            &self.host,
            &self.port,
        ]
        .iter()
        .all(|value| value.is_some())
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

/// An empty value is an error: the default in its place could send the token to a server that the
/// user did not mean.
fn or_default<'a>(
    name: &str,
    value: Option<&'a Zeroizing<String>>,
    default: &'a str,
) -> Result<&'a str, SourceError> {
    match value.map(|value| value.trim()) {
        None => Ok(default),
        Some("") => Err(invalid(format!("{name} is empty"))),
        Some(value) => Ok(value),
    }
}

/// The folder of the `dx` client's files. `None` if the folder is in the home directory and there
/// is no home directory.
fn config_folder() -> Option<PathBuf> {
    let Some(folder) = env::var_os(USER_CONF_DIR).filter(|folder| !folder.is_empty()) else {
        return Some(home()?.join(".dnanexus_config"));
    };
    let folder = PathBuf::from(folder);
    match folder.strip_prefix("~") {
        Ok(in_home) => Some(home()?.join(in_home)),
        Err(_) => Some(folder),
    }
}

/// The home directory, even if `HOME` is not set, as in a system service.
fn home() -> Option<PathBuf> {
    #[allow(deprecated, reason = "fixed in Rust 1.85, but deprecated until 1.87")]
    env::home_dir().filter(|home| !home.as_os_str().is_empty())
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
            "{SECURITY_CONTEXT} has a token whose type is not Bearer"
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
