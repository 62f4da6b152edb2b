//! What a reader cannot read before it is thawed: found by listings, and asked for where the operator wants that.

use std::collections::HashSet;

use futures::{StreamExt, TryStreamExt};

use super::{ObjectKey, Repository, RepositoryError, store_key};
use crate::model::{Archive, BackupId, PackId, ThawOrder};
use crate::store::{Frost, ListedFrost, Store, StoreError, ThawAnswer};

/// Requests for single objects in flight. 64: each is small, and S3 takes a thousand wishes to thaw a second.
const REQUESTS_IN_FLIGHT: usize = 64;
/// Objects of which a listing is not sure that are looked at one by one, a second's worth. Of more, the listing is believed.
const LOOKS_MAX: usize = 1000;

/// A repository by what of it is archived. It need not have been opened: what opens it may be archived, too.
#[derive(Debug, Clone)]
pub struct Cold {
    store: Store,
}

/// Which objects are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// `haulout.json` and the key slots, without which nothing is opened.
    Head,
    /// All editions of a backup's manifest.
    Manifest(BackupId),
    /// The head, all manifests and all packs.
    Everything,
    /// Every pack.
    AllPacks,
    /// These packs.
    Packs(HashSet<PackId>),
}

impl Wanted {
    fn has(&self, key: &ObjectKey) -> bool {
        match (self, key) {
            (Wanted::Head | Wanted::Everything, ObjectKey::Config | ObjectKey::Slot(_)) => true,
            (Wanted::Manifest(backup), ObjectKey::Manifest(id) | ObjectKey::Edition(id, _)) => id == backup,
            (Wanted::Everything, ObjectKey::Manifest(_) | ObjectKey::Edition(..)) => true,
            (Wanted::AllPacks | Wanted::Everything, ObjectKey::Pack(_)) => true,
            (Wanted::Packs(packs), ObjectKey::Pack(pack)) => packs.contains(pack),
            _ => false,
        }
    }

    fn prefixes(&self) -> Vec<String> {
        let folder = |name: &str| format!("{name}/");
        let head = || vec![ObjectKey::Config.text(), folder(ObjectKey::SLOTS)];
        match self {
            Wanted::Head => head(),
            Wanted::Manifest(backup) => vec![format!("{}{backup}", folder(ObjectKey::BACKUPS))],
            Wanted::Everything => [head(), vec![folder(ObjectKey::BACKUPS), folder(ObjectKey::PACKS)]].concat(),
            Wanted::AllPacks | Wanted::Packs(_) => vec![folder(ObjectKey::PACKS)],
        }
    }
}

/// How much is to be found out of what a listing is not sure of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Care {
    /// What takes a second: for a message.
    Glance,
    /// What lies in Intelligent-Tiering. Of what a class says is frozen, the answer to a wish tells.
    BeforeAsking,
    /// Everything.
    Full,
}

/// An object that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColdObject {
    /// Which.
    pub key: ObjectKey,
    /// Its length in bytes.
    pub bytes: u64,
    /// Where it lies.
    pub archive: Archive,
    /// Whether it was asked for.
    pub is_thawing: bool,
}

/// How wishes were answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Objects whose thawing begins.
    pub accepted: u64,
    /// Objects that were asked for before.
    pub under_way: u64,
    /// Objects that turned out to need none.
    pub readable: u64,
}

impl Cold {
    /// That of the repository in `store`.
    pub fn of(store: &Store) -> Cold {
        Cold { store: store.clone() }
    }

    /// True where objects may lie in an archive.
    pub fn has_archives(&self) -> bool {
        self.store.has_archives()
    }

    /// Those of `wanted` that cannot be read. Memory: some 80 bytes for each.
    ///
    /// # Errors
    /// When the store cannot list, or an object cannot be looked at. One that is gone is left to whoever reads it.
    pub async fn find(&self, wanted: &Wanted, care: Care) -> Result<Vec<ColdObject>, RepositoryError> {
        let (mut cold, mut unsure) = (Vec::new(), Vec::new());
        let mut looks = 0;
        for prefix in wanted.prefixes() {
            let mut objects = self.store.frosts(&prefix);
            while let Some(ListedFrost { key, size, frost, sure }) = objects.try_next().await? {
                let Some(object) = ObjectKey::parse(key.as_str()).filter(|object| wanted.has(object)) else { continue };
                let presumed = cold_object(object.clone(), size, frost);
                let look = !sure
                    && match care {
                        Care::Glance => looks < LOOKS_MAX,
                        Care::BeforeAsking => presumed.is_none() || looks < LOOKS_MAX,
                        Care::Full => true,
                    };
                if look {
                    looks += 1;
                    unsure.push((object, size));
                } else {
                    cold.extend(presumed);
                }
            }
        }
        let looked = unsure.into_iter().map(|(object, size)| async move {
            let frost = match self.store.frost(&store_key(&object)?).await {
                Err(error) if error.is_not_found() => Frost::Readable,
                frost => frost?,
            };
            Ok::<_, StoreError>(cold_object(object, size, frost))
        });
        let looked = futures::stream::iter(looked).buffer_unordered(REQUESTS_IN_FLIGHT);
        let found: Vec<ColdObject> = looked.try_filter_map(|found| async move { Ok(found) }).try_collect().await?;
        cold.extend(found);
        cold.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        Ok(cold)
    }

    /// Asks for those of `objects` to be thawed that nobody has asked for. Asking twice does no harm.
    ///
    /// # Errors
    /// The first wish that is refused; those before it stand.
    pub async fn thaw(&self, objects: &[ColdObject], order: ThawOrder) -> Result<Wishes, RepositoryError> {
        let wishes = objects.iter().filter(|object| !object.is_thawing).map(|object| async move {
            match self.store.thaw(&store_key(&object.key)?, object.archive, order).await {
                Err(error) if error.is_not_found() => Ok(ThawAnswer::Readable),
                answer => answer,
            }
        });
        let mut answers = std::pin::pin!(futures::stream::iter(wishes).buffer_unordered(REQUESTS_IN_FLIGHT));
        let mut wishes = Wishes::default();
        while let Some(answer) = answers.try_next().await? {
            match answer {
                ThawAnswer::Accepted => wishes.accepted += 1,
                ThawAnswer::UnderWay => wishes.under_way += 1,
                ThawAnswer::Readable => wishes.readable += 1,
            }
        }
        Ok(wishes)
    }
}

impl Repository {
    /// What of this repository is archived.
    pub fn cold(&self) -> Cold {
        Cold::of(&self.store)
    }
}

fn cold_object(key: ObjectKey, bytes: u64, frost: Frost) -> Option<ColdObject> {
    match frost {
        Frost::Readable => None,
        Frost::Frozen(archive) => Some(ColdObject { key, bytes, archive, is_thawing: false }),
        Frost::Thawing(archive) => Some(ColdObject { key, bytes, archive, is_thawing: true }),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::Arc;

    use object_store::memory::InMemory;

    use super::*;
    use crate::model::ThawTier;
    use crate::store::frozen::FrozenStore;

    const ORDER: ThawOrder = ThawOrder { days: NonZeroU32::MIN, tier: ThawTier::Standard };

    fn pack(number: u8) -> PackId {
        PackId([number; 32])
    }

    /// Packs 0 to 5, of which 0 lies in none, 1 and 2 in Glacier, 3 in Deep Archive, 4 and 5 in a tier, 5 not archived.
    async fn bucket(patience: u32) -> (FrozenStore, Cold) {
        let frozen = FrozenStore::new(Arc::new(InMemory::new()), patience);
        let store = frozen.store();
        for number in 0..6 {
            store.put(&store_key(&ObjectKey::Pack(pack(number))).unwrap(), "bytes").await.unwrap();
        }
        for key in ["haulout.json", "leases/backup-0123456789abcdef-000001-live.json"] {
            store.put(&crate::store::Key::new(key).unwrap(), "{}").await.unwrap();
        }
        for (number, archive) in [(1, Archive::Glacier), (2, Archive::Glacier), (3, Archive::Deep), (4, Archive::Tier)]
        {
            frozen.freeze(&ObjectKey::Pack(pack(number)).text(), archive);
        }
        (frozen, Cold::of(&store))
    }

    fn packs(found: &[ColdObject]) -> Vec<(u8, bool)> {
        let number = |key: &ObjectKey| if let ObjectKey::Pack(PackId(bytes)) = key { bytes[0] } else { u8::MAX };
        found.iter().map(|object| (number(&object.key), object.is_thawing)).collect()
    }

    #[tokio::test]
    async fn what_is_wanted_and_archived_is_found_asked_for_once_and_readable_in_the_end() {
        for lists_status in [true, false] {
            let (frozen, cold) = bucket(3).await;
            let frozen = if lists_status { frozen } else { frozen.without_status() };
            let wanted = Wanted::Packs([0, 1, 3, 4].map(pack).into());
            let found = cold.find(&wanted, Care::BeforeAsking).await.unwrap();
            assert_eq!(packs(&found), [(1, false), (3, false), (4, false)]);
            assert_eq!(found[1], ColdObject { bytes: 5, archive: Archive::Deep, ..found[1].clone() });
            let wishes = cold.thaw(&found, ORDER).await.unwrap();
            assert_eq!(wishes, Wishes { accepted: 3, ..Wishes::default() });
            assert_eq!(cold.thaw(&found, ORDER).await.unwrap(), Wishes { under_way: 3, ..Wishes::default() });
            let all = cold.find(&Wanted::AllPacks, Care::Full).await.unwrap();
            assert_eq!(packs(&all), [(1, true), (2, false), (3, true), (4, true)]);
            // Nobody asks again for what thaws.
            assert_eq!(cold.thaw(&all, ORDER).await.unwrap(), Wishes { accepted: 1, ..Wishes::default() });
            assert_eq!(frozen.asked().len(), 4);
            cold.find(&wanted, Care::Full).await.unwrap();
            assert_eq!(cold.find(&wanted, Care::Full).await.unwrap(), []);
        }
    }

    #[tokio::test]
    async fn each_wish_reaches_its_own_objects() {
        let (frozen, cold) = bucket(1).await;
        frozen.freeze("haulout.json", Archive::Deep);
        frozen.freeze("leases/backup-0123456789abcdef-000001-live.json", Archive::Deep);
        let backups = ["20261122T170445Z-3f9a1c", "20261123T170445Z-3f9a1c"];
        let [manifest, edition, other] = [
            format!("backups/{}.json", backups[0]),
            format!("backups/{}-e000002.json", backups[0]),
            format!("backups/{}.json", backups[1]),
        ];
        for key in [&manifest, &edition, &other] {
            frozen.store().put(&crate::store::Key::new(key.as_str()).unwrap(), "{}").await.unwrap();
            frozen.freeze(key, Archive::Glacier);
        }
        let keys = async |wanted: Wanted| -> Vec<String> {
            let found = cold.find(&wanted, Care::Glance).await.unwrap();
            found.iter().map(|object| object.key.text()).collect()
        };
        assert_eq!(keys(Wanted::Head).await, ["haulout.json"]);
        assert_eq!(keys(Wanted::Manifest(backups[0].parse().unwrap())).await, [manifest, edition]);
        assert_eq!(keys(Wanted::Everything).await.len(), 4 + 4);
    }

    #[tokio::test]
    async fn a_wish_that_is_refused_is_an_error() {
        let (frozen, cold) = bucket(1).await;
        frozen.refuse(&ObjectKey::Pack(pack(2)).text());
        let found = cold.find(&Wanted::AllPacks, Care::BeforeAsking).await.unwrap();
        let error = cold.thaw(&found, ORDER).await.unwrap_err();
        assert!(error.is_denied(), "{error:?}");
    }
}
