//! The refresh token that a server replaces whenever it is spent: [`Rotation`].

use std::{future::Future, mem, sync::Arc};

use futures::future::BoxFuture;
use secrecy::{SecretString, zeroize::Zeroizing};

use crate::{
    error::{BoxError, SourceError, SourceErrorKind},
    sync::Mutex,
};

pub(super) type RefreshToken = Arc<Zeroizing<String>>;
pub(super) type Hook =
    Arc<dyn Fn(SecretString) -> BoxFuture<'static, Result<(), BoxError>> + Send + Sync>;

pub(super) fn hook<F, Fut, E>(hook: F) -> Hook
where
    F: Fn(SecretString) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<BoxError>,
{
    Arc::new(move |token| {
        let stored = hook(token);
        Box::pin(async move { stored.await.map_err(Into::into) })
    })
}

/// What all clones of a request share.
#[derive(Clone)]
pub(super) struct Rotation(Arc<Mutex<Held>>);

#[derive(Clone)]
struct Held {
    token: RefreshToken,
    /// The hook has not yet taken it.
    is_new: bool,
}

impl Rotation {
    pub(super) fn new(token: Zeroizing<String>) -> Self {
        Self(Arc::new(Mutex::new(Held {
            token: Arc::new(token),
            is_new: false,
        })))
    }

    /// The refresh token to send. It is not spent before the hook has taken it.
    pub(super) async fn current(&self, hook: Option<&Hook>) -> Result<RefreshToken, SourceError> {
        let held = self.0.lock().clone();
        if held.is_new {
            self.store(&held.token, hook).await?;
        }
        Ok(held.token)
    }

    /// Takes the place of `sent`, unless a later fetch has replaced it meanwhile.
    pub(super) async fn rotate(
        &self,
        sent: &RefreshToken,
        token: Zeroizing<String>,
        hook: Option<&Hook>,
    ) -> Result<(), SourceError> {
        if ***sent == *token {
            return Ok(());
        }
        let new = Arc::new(token);
        let replaced = {
            let mut held = self.0.lock();
            Arc::ptr_eq(&held.token, sent).then(|| {
                held.is_new = true;
                mem::replace(&mut held.token, Arc::clone(&new))
            })
        };
        if replaced.is_none() {
            return Ok(());
        }
        self.store(&new, hook).await
    }

    async fn store(&self, token: &RefreshToken, hook: Option<&Hook>) -> Result<(), SourceError> {
        if let Some(hook) = hook {
            let stored = hook(SecretString::from(token.as_str())).await;
            stored.map_err(|error| {
                let message = "the new refresh token could not be stored";
                SourceError::with_source(SourceErrorKind::Failed, message, error)
            })?;
        }
        let mut held = self.0.lock();
        held.is_new &= !Arc::ptr_eq(&held.token, token);
        Ok(())
    }
}
