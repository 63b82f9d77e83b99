//! [`Rotation`], the refresh token, which a server may replace at each use.

use std::{mem, sync::Arc};

use futures::future::BoxFuture;
use secrecy::{SecretString, zeroize::Zeroizing};

use crate::{
    error::{BoxError, SourceError, SourceErrorKind},
    sync::Mutex,
};

pub(super) type RefreshToken = Arc<Zeroizing<String>>;
pub(super) type Hook =
    Arc<dyn Fn(SecretString) -> BoxFuture<'static, Result<(), BoxError>> + Send + Sync>;

#[derive(Clone)]
pub(super) struct Rotation {
    /// All clones of a request share this.
    held: Arc<Mutex<Held>>,
    pub(super) hook: Option<Hook>,
}

#[derive(Clone)]
struct Held {
    token: RefreshToken,
    /// Whether the hook still has to store the token.
    is_new: bool,
}

impl Rotation {
    pub(super) fn new(token: Zeroizing<String>) -> Self {
        let (token, is_new) = (Arc::new(token), false);
        let held = Arc::new(Mutex::new(Held { token, is_new }));
        Self { held, hook: None }
    }

    /// The refresh token to send. If the hook still has to store the token, this calls the hook first.
    pub(super) async fn current(&self) -> Result<RefreshToken, SourceError> {
        let held = self.held.lock().clone();
        if held.is_new {
            self.store(&held.token).await?;
        }
        Ok(held.token)
    }

    /// Puts `token` in the place of `sent`, unless another fetch has replaced `sent` meanwhile.
    pub(super) async fn rotate(
        &self,
        sent: &RefreshToken,
        token: Zeroizing<String>,
    ) -> Result<(), SourceError> {
        let token = Arc::new(token);
        let _replaced = {
            let mut held = self.held.lock();
            if **sent == *token || !Arc::ptr_eq(&held.token, sent) {
                return Ok(());
            }
            held.is_new = true;
            mem::replace(&mut held.token, Arc::clone(&token))
        };
        self.store(&token).await
    }

    async fn store(&self, token: &RefreshToken) -> Result<(), SourceError> {
        if let Some(hook) = &self.hook {
            let stored = hook(SecretString::from(token.as_str())).await;
            stored.map_err(|error| {
                let message = "the new refresh token could not be stored";
                SourceError::with_source(SourceErrorKind::Failed, message, error)
            })?;
        }
        let mut held = self.held.lock();
        held.is_new &= !Arc::ptr_eq(&held.token, token);
        Ok(())
    }
}
