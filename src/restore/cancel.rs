//! A wish to stop that every part of a restore sees, threads that block included.

use tokio::sync::watch;

use super::RestoreError;

/// Tells a restore that it should stop, once what it was made from holds true.
///
/// A restore that should stop ends its child, removes what it wrote and returns [`RestoreError::Interrupted`].
#[derive(Debug, Clone)]
pub struct Cancel {
    requested: watch::Receiver<bool>,
}

impl From<watch::Receiver<bool>> for Cancel {
    fn from(requested: watch::Receiver<bool>) -> Cancel {
        Cancel { requested }
    }
}

impl Cancel {
    /// Never asks to stop.
    pub fn never() -> Cancel {
        Cancel { requested: watch::channel(false).1 }
    }

    /// True once the restore should stop.
    pub fn is_requested(&self) -> bool {
        *self.requested.borrow()
    }

    /// Ends once the restore should stop.
    pub async fn requested(&self) {
        // Nobody is left who could ask.
        if self.requested.clone().wait_for(|requested| *requested).await.is_err() {
            std::future::pending().await
        }
    }

    /// Fails once the restore was asked to stop.
    pub(super) fn check(&self) -> Result<(), RestoreError> {
        if self.is_requested() { Err(RestoreError::Interrupted) } else { Ok(()) }
    }

    /// Does `work`, or drops it when the restore is asked to stop.
    pub(super) async fn or<T>(&self, work: impl Future<Output = Result<T, RestoreError>>) -> Result<T, RestoreError> {
        tokio::select! {
            biased;
            () = self.requested() => Err(RestoreError::Interrupted),
            result = work => result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_never_ends_ends_with_the_wish() {
        let (ask, asked) = watch::channel(false);
        let cancel = Cancel::from(asked);
        assert!(cancel.check().is_ok());
        ask.send_replace(true);
        let result: Result<(), _> = cancel.or(std::future::pending()).await;
        assert!(matches!(result, Err(RestoreError::Interrupted)));
        assert!(matches!(cancel.check(), Err(RestoreError::Interrupted)));
    }

    #[tokio::test]
    async fn work_that_nobody_stops_is_done() {
        assert_eq!(Cancel::never().or(async { Ok(7) }).await.unwrap(), 7);
    }
}
