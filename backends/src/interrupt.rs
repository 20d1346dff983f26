//! Asking, in the midst of a long step, whether it is still wanted.

use crate::BackendError;
use std::sync::Arc;

/// A question that the caller answers: whether to stop. Backends whose steps take long ask it between launches or ops.
#[derive(Clone, Default)]
pub struct Interrupt(Option<Arc<dyn Fn() -> bool + Send + Sync>>);

impl Interrupt {
    /// Stops a step once `asked` answers `true`. It is asked often, so it should be cheap.
    pub fn when(asked: impl Fn() -> bool + Send + Sync + 'static) -> Interrupt {
        Interrupt(Some(Arc::new(asked)))
    }

    /// An error once it is time to stop.
    pub fn check(&self) -> Result<(), BackendError> {
        match &self.0 {
            Some(asked) if asked() => Err(BackendError::Interrupted),
            _ => Ok(()),
        }
    }
}
