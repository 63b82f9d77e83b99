//! Reads text that may hold a secret, from an environment variable or a file, into a buffer that is
//! wiped.

use std::{
    env, fmt, fs, io,
    io::Read,
    path::{Path, is_separator},
};

use secrecy::zeroize::Zeroizing;

use crate::{
    error::{SourceError, SourceErrorKind},
    token::{BearerToken, InvalidToken, trimmed},
};

/// The longest file that is read. No token is longer.
const MAX_FILE_LEN: usize = 64 * 1024;

/// Makes a token from a text, without the whitespace around it and without a byte order mark. `place`
/// names where the text comes from.
pub(crate) fn token_in(
    text: &str,
    parse: fn(&str) -> Result<BearerToken, InvalidToken>,
    place: impl FnOnce() -> String,
) -> Result<BearerToken, SourceError> {
    parse(trimmed(text)).map_err(|error| {
        let message = format!("{} does not hold a bearer token", place());
        SourceError::with_source(SourceErrorKind::Invalid, message, error)
    })
}

/// The text of an environment variable, in a buffer that is wiped. `None` if the variable is not
/// set.
pub(crate) fn variable(name: &str) -> Result<Option<Zeroizing<String>>, SourceError> {
    let Some(value) = env::var_os(name) else {
        return Ok(None);
    };
    let value = Zeroizing::new(value.into_encoded_bytes());
    match std::str::from_utf8(&value) {
        Ok(text) => Ok(Some(Zeroizing::new(text.to_owned()))),
        Err(_) => Err(SourceError::new(
            SourceErrorKind::Invalid,
            format!("environment variable {name} is not UTF-8"),
        )),
    }
}

/// Whether a text that should be the name of a variable or the path of a file looks like a token instead.
/// Errors show names and paths, but no token.
pub(crate) fn is_like_a_token(text: &str) -> bool {
    let is_random = |run: &str| {
        let has = |is: fn(&u8) -> bool| run.bytes().any(|byte| is(&byte));
        run.len() >= 16 && has(u8::is_ascii_alphabetic) && has(u8::is_ascii_digit)
    };
    let mut runs = text.split(|c: char| !c.is_ascii_alphanumeric());
    let is_uuid = text.len() == 36 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    // Every JWT begins with the Base64 of `{"`.
    text.starts_with("eyJ") || is_uuid || runs.any(is_random)
}

/// The text of a file, in a buffer that is wiped.
pub(crate) fn read_text(path: &Path) -> Result<Zeroizing<String>, SourceError> {
    let invalid = |what| {
        let message = format!("token file {} {what}", path.display());
        SourceError::new(SourceErrorKind::Invalid, message)
    };
    // Check before opening: opening a pipe would wait for a writer.
    let kind = fs::metadata(path).map_err(|error| unreadable(path, error))?;
    if !kind.is_file() {
        return Err(invalid("is not a regular file"));
    }
    let mut file = fs::File::open(path).map_err(|error| unreadable(path, error))?;
    // A byte more than allowed, to notice a file that is too long. The buffer never grows, since
    // growing would leave a copy.
    let mut buffer = Zeroizing::new(vec![0; MAX_FILE_LEN + 1]);
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(path, error)),
        }
    }
    if length > MAX_FILE_LEN {
        return Err(invalid("is over 64 KiB long"));
    }
    let bytes = &buffer[..length];
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        // PowerShell writes such a file when output is redirected.
        Err(_) if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") => Err(invalid(
            "begins with the byte order mark of UTF-16 and is not UTF-8",
        )),
        Err(_) => Err(invalid("is not UTF-8")),
    }
}

pub(crate) fn unreadable(path: &Path, error: io::Error) -> SourceError {
    let (kind, what) = match error.kind() {
        io::ErrorKind::NotFound if needs_a_shell(path) => (
            SourceErrorKind::Absent,
            "does not exist: nothing expands `~` or variables in a path",
        ),
        io::ErrorKind::NotFound => (SourceErrorKind::Absent, "does not exist"),
        _ => (SourceErrorKind::Failed, "cannot be read"),
    };
    let message = if is_a_token(path) {
        "no such token file: pass the path of the file, not the token".to_owned()
    } else {
        format!("token file {} {what}", path.display())
    };
    SourceError::with_source(kind, message, error)
}

fn needs_a_shell(path: &Path) -> bool {
    let text = path.to_string_lossy();
    text.starts_with('~') || text.contains('$')
}

/// Whether a program passed a token in place of a path. A path that exists is a path, whatever it looks like.
/// The check does not depend on the error: for a long token, the system says that the name is too long.
fn is_a_token(path: &Path) -> bool {
    let text = path.to_string_lossy();
    let is_name = !text.contains(is_separator);
    // The Base64 of a JSON object may have a `/`.
    let is_like_a_token = text.starts_with("eyJ") || (is_name && is_like_a_token(&text));
    is_like_a_token && !path.exists()
}

/// A path for `Debug`, but no token that a program passed in place of the path.
pub(crate) struct ShownPath<'a>(pub(crate) &'a Path);

impl fmt::Debug for ShownPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_a_token(self.0) {
            return f.write_str("[redacted]");
        }
        fmt::Debug::fmt(self.0, f)
    }
}
