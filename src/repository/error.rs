//! Failures of a repository.

use crate::error::{Diagnose, Kind};
use crate::format::FormatError;
use crate::model::{BackupId, PackId, RepositoryId, SlotId, Timestamp};
use crate::store::StoreError;

/// A failure of a repository.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Stored bytes are damaged.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Stored bytes of a pack are damaged.
    #[error("pack {pack} is damaged")]
    Pack {
        /// The pack.
        pack: PackId,
        /// What is wrong with it.
        source: FormatError,
    },
    /// A pack that is needed is not there.
    #[error("pack {pack} is missing")]
    PackMissing {
        /// The pack.
        pack: PackId,
    },
    /// A pack is there with another size.
    #[error("pack {pack} has {found} bytes, expected {expected}")]
    PackSize {
        /// The pack.
        pack: PackId,
        /// Size that it was stored with.
        expected: u64,
        /// Size found.
        found: u64,
    },
    /// A pack ends before what is needed of it.
    #[error("pack {pack} ends at byte {found}, and its first {needed} bytes are needed")]
    PackCut {
        /// The pack.
        pack: PackId,
        /// End of what is needed.
        needed: u64,
        /// Size found.
        found: u64,
    },
    /// A pack is damaged, and the store does not let it be replaced.
    #[error("pack {pack} is damaged, and its object cannot be replaced")]
    NotMended {
        /// The pack.
        pack: PackId,
        /// What the store says.
        source: Box<StoreError>,
    },
    /// There is no repository here.
    #[error("there is no repository at {url}")]
    Missing {
        /// The place.
        url: String,
    },
    /// There are backups, and what makes the place a repository is gone.
    #[error("there are backups at {url}, but its haulout.json is gone")]
    Headless {
        /// The place.
        url: String,
    },
    /// What makes the place a repository is damaged.
    #[error("the repository at {url} cannot be opened")]
    Head {
        /// The place.
        url: String,
        /// What is wrong with `haulout.json`.
        source: FormatError,
    },
    /// There is a repository here already.
    #[error("there is already a repository at {url}")]
    Exists {
        /// The place.
        url: String,
    },
    /// There is no such backup.
    #[error("there is no backup {id}")]
    NoBackup {
        /// What was asked for.
        id: String,
    },
    /// More than one backup begins with the text.
    #[error("{text} is the beginning of {count} backups")]
    Ambiguous {
        /// What was asked for.
        text: String,
        /// How many it fits.
        count: usize,
    },
    /// A manifest was moved here from another repository.
    #[error("backup {id} belongs to repository {found}, this is repository {expected}")]
    Foreign {
        /// The backup.
        id: BackupId,
        /// This repository.
        expected: RepositoryId,
        /// The one in the manifest.
        found: RepositoryId,
    },
    /// What was to be a copy is another repository.
    #[error("at {url} is repository {found}, no copy of {expected}")]
    Another {
        /// The place of the copy.
        url: String,
        /// This repository.
        expected: RepositoryId,
        /// The one that is there.
        found: RepositoryId,
    },
    /// A copy is sealed and this repository is not, or the other way round.
    #[error("the repository at {url} has the id of this one, and not its seal")]
    UnlikeSeal {
        /// The place of the copy.
        url: String,
    },
    /// A manifest lies under another backup's key.
    #[error("the manifest stored as backup {expected} is that of backup {found}")]
    Misplaced {
        /// Name in the key.
        expected: BackupId,
        /// Name in the manifest.
        found: BackupId,
    },
    /// It is sealed, and no key was given.
    #[error("the repository at {url} is sealed, and no key is given")]
    KeyMissing {
        /// The place.
        url: String,
    },
    /// A key was given, and it is not sealed.
    #[error("a key is given, but the repository at {url} is not sealed")]
    NotSealed {
        /// The place.
        url: String,
    },
    /// No slot opens with what was given.
    #[error("the key opens none of the {slots} key slots of {url}{}", reasons(faults))]
    WrongKey {
        /// The place.
        url: String,
        /// Slots that there are.
        slots: usize,
        /// What went wrong with single slots, beside that the key does not fit.
        faults: Vec<String>,
    },
    /// A sealed repository of which no key slot is listed, or none can be read.
    #[error("there is no key slot at {url}, which is sealed{}", reasons(faults))]
    NoSlots {
        /// The place.
        url: String,
        /// What is wrong with those that are listed.
        faults: Vec<String>,
    },
    /// The key opens names and maps alone.
    #[error("the key is one of the sort `map`: it opens neither pages nor files")]
    MapKeyOnly,
    /// There is no such key slot.
    #[error("there is no key slot {id}")]
    NoSlot {
        /// What was asked for.
        id: SlotId,
    },
    /// The slot that this run was opened with is not removed.
    #[error("key slot {id} is the one that this key opens")]
    SlotInUse {
        /// The slot.
        id: SlotId,
    },
    /// There are as many slots as may be.
    #[error("there are {slots} key slots already")]
    SlotsFull {
        /// How many.
        slots: usize,
    },
    /// Another run is at work.
    #[error("a {purpose} is running already: {who}")]
    Locked {
        /// What it does.
        purpose: String,
        /// Who it is.
        who: String,
    },
}

/// The faults of single slots, behind the message.
fn reasons(faults: &[String]) -> String {
    faults.iter().map(|fault| format!("; {fault}")).collect()
}

impl RepositoryError {
    /// True when an object was not deleted because it is locked.
    pub fn is_locked(&self) -> bool {
        matches!(self, RepositoryError::Store(error) if error.lock().is_some())
    }

    /// Until when the object is locked that was not deleted, where the store says so.
    pub fn locked_until(&self) -> Option<Timestamp> {
        match self {
            RepositoryError::Store(error) => error.lock()?.retention.map(|retention| retention.until),
            _ => None,
        }
    }

    /// True when something else lies under the key already.
    pub fn is_taken(&self) -> bool {
        matches!(self, RepositoryError::Store(StoreError::AlreadyExists { .. }))
    }

    /// True when the store does not let this account do it.
    pub fn is_denied(&self) -> bool {
        matches!(self, RepositoryError::Store(StoreError::Denied { .. }))
    }

    /// True when an object has to be thawed before it can be read.
    pub fn is_archived(&self) -> bool {
        matches!(self, RepositoryError::Store(error) if error.is_archived())
    }
}

impl Diagnose for RepositoryError {
    fn kind(&self) -> Kind {
        match self {
            RepositoryError::Store(error) => error.kind(),
            RepositoryError::Format(error) => error.kind(),
            RepositoryError::Pack { source, .. } | RepositoryError::Head { source, .. } => source.kind(),
            RepositoryError::PackMissing { .. }
            | RepositoryError::PackSize { .. }
            | RepositoryError::PackCut { .. }
            | RepositoryError::NotMended { .. }
            | RepositoryError::Foreign { .. }
            | RepositoryError::Misplaced { .. }
            | RepositoryError::UnlikeSeal { .. }
            | RepositoryError::NoSlots { .. }
            | RepositoryError::Headless { .. } => Kind::Corrupt,
            RepositoryError::Another { .. } => Kind::Usage,
            RepositoryError::Missing { .. } => Kind::NoRepository,
            RepositoryError::KeyMissing { .. }
            | RepositoryError::NotSealed { .. }
            | RepositoryError::WrongKey { .. }
            | RepositoryError::MapKeyOnly => Kind::WrongKey,
            RepositoryError::NoSlot { .. } | RepositoryError::SlotInUse { .. } | RepositoryError::SlotsFull { .. } => {
                Kind::Failed
            }
            RepositoryError::Exists { .. } | RepositoryError::NoBackup { .. } | RepositoryError::Ambiguous { .. } => {
                Kind::Failed
            }
            RepositoryError::Locked { .. } => Kind::Locked,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            RepositoryError::Store(error) => return error.hint(),
            RepositoryError::Format(error) => return error.hint(),
            RepositoryError::Pack { source, .. } => return source.hint(),
            RepositoryError::PackMissing { .. }
            | RepositoryError::PackSize { .. }
            | RepositoryError::PackCut { .. } => {
                "run `haulout check` to learn which backups are whole; the next full backup stores anew what is lost"
            }
            RepositoryError::NotMended { .. } => {
                "run `haulout check --read-data --repair`: the next backup then stores under another name what is in this pack"
            }
            RepositoryError::Missing { .. } => "check the URL, or make a repository there with `haulout init`",
            RepositoryError::Head { source, .. } if source.kind() != Kind::Corrupt => return source.hint(),
            RepositoryError::Head { .. } | RepositoryError::Headless { .. } => {
                "bring haulout.json back, from another copy of the bucket or from its earlier versions; a new one would not fit these \
                 backups, for which another prefix is needed"
            }
            RepositoryError::KeyMissing { .. } => {
                "give the key with --key-file, --passphrase-file or --key-command, or their settings; `haulout check --without-key` \
                 checks what can be checked without"
            }
            RepositoryError::NotSealed { .. } => {
                "if you made it with --encrypt, somebody has put another one in its place; if not, leave the key out"
            }
            RepositoryError::WrongKey { .. } => {
                "check that the key is that of this repository, and that its slot was not removed"
            }
            RepositoryError::NoSlots { .. } => {
                "run the command again, because a store may list late; without its slots nothing opens the repository, so bring back what \
                 somebody removed from `keys/`"
            }
            RepositoryError::MapKeyOnly => "use a key whose slot wraps `all`; `haulout key list` shows the slots",
            RepositoryError::NoSlot { .. } => "`haulout key list` shows the slots there are",
            RepositoryError::SlotInUse { .. } => {
                "add another key that opens all with `haulout key add`, and remove this one with that; or use `haulout key rotate`"
            }
            RepositoryError::SlotsFull { .. } => "remove one that nobody uses with `haulout key remove`",
            RepositoryError::Exists { .. } => "use it as it is, or choose another prefix",
            RepositoryError::NoBackup { .. } => "`haulout list` shows the backups there are",
            RepositoryError::Ambiguous { .. } => "give more of the name",
            RepositoryError::Foreign { .. } => "copy whole repositories, never single manifests between them",
            RepositoryError::Another { .. } => "give each repository a place of its own for its copy",
            RepositoryError::UnlikeSeal { .. } => "somebody has changed haulout.json in one of the two places",
            RepositoryError::Misplaced { .. } => {
                "somebody copied or renamed objects in the bucket; restore another backup"
            }
            RepositoryError::Locked { .. } => {
                "wait for it to end; a run that died on another machine is forgotten after five minutes"
            }
        };
        Some(hint.to_owned())
    }
}
