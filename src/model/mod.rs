//! Words of the domain as types: what is counted, named and told.

mod clock;
mod gtid;
pub mod human;
mod ids;
mod lock;
mod page;
mod progress;
mod secret;
mod thaw;

pub use clock::{Clock, Entropy, SystemClock, SystemEntropy, Timestamp};
pub use gtid::{Gtid, GtidSet};
pub use ids::{BackupId, ChunkId, IdError, PackId, PlanId, ProofId, RepositoryId, SlotId, StreamId};
pub use lock::{LockMode, LockPolicy, Retention};
pub use page::{EXTENT_PAGES, ExtentNo, Lsn, PageMask, PageNo, PageSize, SpaceId};
pub use progress::{Level, Phase, Progress, Silent};
pub use secret::Secret;
pub use thaw::{Archive, ThawOrder, ThawTier};
