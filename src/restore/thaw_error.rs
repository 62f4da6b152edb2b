//! What is in the way of a restore while what it needs is archived.

use super::RestoreError;
use super::thaw::{Ice, Thawed, counted, mebibytes, time};
use crate::error::{Diagnose, Kind};
use crate::model::{Archive, ThawTier};

/// What is in the way of a restore while what it needs is archived.
#[derive(Debug, thiserror::Error)]
pub enum ThawError {
    /// It cannot be read before it is thawed, and that was not wanted.
    #[error("{}", archived(what, ice, *thawing))]
    Archived {
        /// What has to be thawed.
        what: Thawed,
        /// How much.
        ice: Ice,
        /// Objects of it that are being thawed.
        thawing: u64,
        /// The first object that was found to be archived, where one was to be read.
        source: Option<Box<RestoreError>>,
    },
    /// It is being thawed.
    #[error("{} being thawed{}", subject(what, ice), if *asked > 0 { "" } else { " already, and not yet readable" })]
    Thawing {
        /// What is thawed.
        what: Thawed,
        /// How much of it cannot be read yet.
        ice: Ice,
        /// Objects that this run has asked for.
        asked: u64,
        /// How fast.
        tier: ThawTier,
    },
    /// It cannot be thawed as fast as that. Nothing was asked for.
    #[error("{} in a deep archive, which thaws nothing within minutes", lie(*objects))]
    NoExpedited {
        /// What has to be thawed.
        what: Thawed,
        /// Objects that lie in a deep archive.
        objects: u64,
    },
}

fn lie(objects: u64) -> String {
    format!("{} {}", counted(objects, "object"), if objects == 1 { "lies" } else { "lie" })
}

fn archived(what: &Thawed, ice: &Ice, thawing: u64) -> String {
    let told = format!("{} archived and cannot be read before {}", subject(what, ice), they(ice, "is", "are"));
    let more = if thawing > 0 { format!("; {thawing} of them are being thawed") } else { String::new() };
    format!("{told} thawed{more}")
}

fn they(ice: &Ice, one: &str, many: &str) -> String {
    if ice.objects == 1 { format!("it {one}") } else { format!("they {many}") }
}

/// `400 packs that backup … needs (6400 MiB) are`.
fn subject(what: &Thawed, ice: &Ice) -> String {
    let (packs, amount) = (counted(ice.objects, "pack"), mebibytes(ice.bytes));
    let verb = if ice.objects == 1 { "is" } else { "are" };
    match what {
        Thawed::Packs(backup) => format!("{packs} that backup {backup} needs ({amount}) {verb}"),
        Thawed::AnyPacks(backup) => format!(
            "the page map of backup {backup} lies in archived packs, so which it needs is not known: {packs} of the repository \
             ({amount}) {verb}"
        ),
        Thawed::Documents => {
            let documents = counted(ice.objects, "document");
            format!("{documents} of the repository, without which no backup is found ({amount}), {verb}")
        }
    }
}

impl Diagnose for ThawError {
    fn kind(&self) -> Kind {
        match self {
            ThawError::Archived { .. } | ThawError::Thawing { .. } => Kind::StorageUnavailable,
            ThawError::NoExpedited { .. } => Kind::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            ThawError::Archived { ice, thawing, .. } if *thawing >= ice.objects => {
                "run the same command again when that is done; with --thaw --thaw-wait it waits".to_owned()
            }
            ThawError::Archived { ice, .. } => format!(
                "with --thaw the same command asks the store to thaw {}, at the provider's price; {}",
                if ice.objects == 1 { "it" } else { "them" },
                terms(ice.archive)
            ),
            ThawError::Thawing { ice, asked, tier, .. } => {
                let longest = ice.archive.longest(*tier).map(time).unwrap_or_default();
                let from = if *asked > 0 { "from now" } else { "from when it was asked for" };
                format!(
                    "run the same command again when that is done, which takes up to {longest} {from} ({tier}); with --thaw-wait it waits"
                )
            }
            ThawError::NoExpedited { .. } => {
                let [standard, bulk] =
                    [ThawTier::Standard, ThawTier::Bulk].map(|tier| Archive::Deep.longest(tier).map(time));
                format!(
                    "nothing was asked for; --thaw-tier standard takes up to {}, bulk up to {}",
                    standard.unwrap_or_default(),
                    bulk.unwrap_or_default()
                )
            }
        })
    }
}

/// How long each tier takes.
fn terms(archive: Archive) -> String {
    let tiers = [
        (ThawTier::Standard, "with --thaw-tier standard"),
        (ThawTier::Bulk, "with bulk, the cheapest"),
        (ThawTier::Expedited, "with expedited, the dearest"),
    ];
    let told = |(tier, name): (ThawTier, &str)| Some(format!("up to {} {name}", time(archive.longest(tier)?)));
    format!("that takes {}", tiers.into_iter().filter_map(told).collect::<Vec<_>>().join(", "))
}
