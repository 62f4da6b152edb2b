//! Brings back objects that were hidden behind delete markers or written over, in a bucket that keeps versions.
//!
//! The listing of all versions is gone through once, in order of keys, and each object is judged by itself: memory does not
//! grow with the repository or with what was done to it. Packs and keys come before the manifests that need them. What is
//! to be done is told object by object before it is done, and a run that dies anywhere is finished by the next.

mod error;

use futures::TryStreamExt;

pub use error::UnhideError;

use crate::model::Progress;
use crate::repository::{BroughtBack, FOLDERS, History, Loss, ObjectKey, Repository, RepositoryError, Verdict};

/// Objects judged at the same time: each may hold two versions of a pack, 64 MiB at most.
const JUDGED_AT_ONCE: usize = 4;

/// What is to be brought back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnhideOptions {
    /// Tell and do nothing.
    pub dry_run: bool,
    /// Bring back what is hidden and not locked any more, too: as pruned objects are.
    pub all: bool,
}

/// What became, or would become, of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is to be brought back; nothing was done.
    Planned,
    /// Its delete markers were removed.
    Unmarked,
    /// The version was copied over what hid it.
    Copied,
    /// It is hidden and not locked, as what was pruned: it stays so.
    Left,
    /// None of its versions is right.
    Beyond,
}

/// One object that readers did not see as it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its key.
    pub object: String,
    /// True behind a delete marker, false behind other bytes.
    pub hidden: bool,
    /// What became of it.
    pub action: Action,
}

/// Counts of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Objects looked at.
    pub objects: u64,
    /// Objects behind delete markers.
    pub hidden: u64,
    /// Objects behind other bytes.
    pub overwritten: u64,
    /// Objects brought back.
    pub brought_back: u64,
    /// Objects hidden, not locked, and left so.
    pub left: u64,
    /// Objects of which no version is right.
    pub beyond: u64,
}

/// Brings back what was hidden in `repository`, which was opened with `config` as the verdict on its `haulout.json`; tells
/// each object by `tell`.
///
/// # Errors
/// When the store does not answer or refuses.
pub async fn unhide(
    repository: &Repository,
    config: Verdict,
    options: UnhideOptions,
    progress: &dyn Progress,
    tell: &mut dyn FnMut(&Finding),
) -> Result<Report, UnhideError> {
    let mut run = Run { repository, options, progress, tell, report: Report::default() };
    run.settle(&ObjectKey::Config, config).await?;
    for folder in FOLDERS {
        let judged = |history: History| async move {
            let object = history.object.clone();
            Ok::<_, RepositoryError>((object, repository.judge(history).await?))
        };
        let mut verdicts = repository.folder_histories(folder).map_ok(judged).try_buffered(JUDGED_AT_ONCE);
        while let Some((object, verdict)) = verdicts.try_next().await? {
            run.settle(&object, verdict).await?;
        }
    }
    Ok(run.report)
}

struct Run<'a> {
    repository: &'a Repository,
    options: UnhideOptions,
    progress: &'a dyn Progress,
    tell: &'a mut dyn FnMut(&Finding),
    report: Report,
}

impl Run<'_> {
    async fn settle(&mut self, object: &ObjectKey, verdict: Verdict) -> Result<(), UnhideError> {
        self.report.objects += 1;
        self.progress.advance(crate::model::Phase::Check, 1);
        let loss = match verdict {
            Verdict::Right | Verdict::Gone => return Ok(()),
            Verdict::Damaged => {
                self.report.beyond += 1;
                self.told(object, false, Action::Beyond);
                return Ok(());
            }
            Verdict::Lost(loss) => loss,
        };
        if loss.hidden {
            self.report.hidden += 1;
        } else {
            self.report.overwritten += 1;
        }
        let action = self.bring_back(&loss).await?;
        match action {
            Action::Left => self.report.left += 1,
            Action::Unmarked | Action::Copied => self.report.brought_back += 1,
            Action::Planned | Action::Beyond => {}
        }
        self.told(object, loss.hidden, action);
        Ok(())
    }

    async fn bring_back(&self, loss: &Loss) -> Result<Action, UnhideError> {
        if loss.hidden && !loss.locked && !self.options.all {
            return Ok(Action::Left);
        }
        if self.options.dry_run {
            return Ok(Action::Planned);
        }
        Ok(match self.repository.bring_back(loss).await? {
            BroughtBack::Unmarked => Action::Unmarked,
            BroughtBack::Copied => Action::Copied,
        })
    }

    fn told(&mut self, object: &ObjectKey, hidden: bool, action: Action) {
        (self.tell)(&Finding { object: object.text(), hidden, action });
    }
}
