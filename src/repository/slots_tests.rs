use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};

use super::*;
use crate::error::{Diagnose, Kind};
use crate::format::{Credential, Lease, key_of_file};
use crate::model::{SystemClock, SystemEntropy};
use crate::repository::LeaseKey;
use crate::store::StoreOptions;
use crate::store::faulty::{Fault, FaultyStore, Operation, Rule, Script};

/// Key files of which this byte is the content.
struct Files(Vec<u8>);

fn file(byte: u8) -> SecretKey {
    key_of_file(&[byte; 32]).unwrap()
}

#[async_trait]
impl KeySource for Files {
    async fn key(&self, slot: &KeySlot) -> Result<Option<SecretKey>, String> {
        let fits = |byte: &&u8| slot.open(&file(**byte)).is_ok();
        Ok(self.0.iter().find(fits).map(|byte| file(*byte)))
    }
}

fn access(bytes: &[u8]) -> Access {
    Access { keys: Arc::new(Files(bytes.to_vec())), entropy: Arc::new(SystemEntropy) }
}

fn slot(byte: u8, wraps: Wraps) -> NewSlot {
    NewSlot { credential: Credential::File(file(byte)), wraps, label: format!("key {byte}") }
}

fn store(objects: &Arc<InMemory>) -> Store {
    Store::over("memory:///", objects.clone(), StoreOptions::default())
}

async fn sealed(objects: &Arc<InMemory>) -> Repository {
    let entropy = Arc::new(SystemEntropy);
    Repository::init_sealed(store(objects), None, &SystemClock, entropy, &slot(1, Wraps::All)).await.unwrap()
}

async fn keys_in(objects: &InMemory) -> Vec<String> {
    objects.list(None).map_ok(|object| object.location.to_string()).try_collect().await.unwrap()
}

fn lease_key() -> ObjectKey {
    let (purpose, holder) = ("backup".to_owned(), "0123456789abcdef".to_owned());
    ObjectKey::Lease(LeaseKey { purpose, holder, number: 0, released: false })
}

fn lease() -> Lease {
    let text = |text: &str| text.to_owned();
    Lease { holder: text("0"), purpose: text("backup"), who: text("db1.example.com"), seconds: 300, released: false }
}

#[tokio::test]
async fn a_sealed_repository_opens_with_its_key_alone() {
    let objects = Arc::new(InMemory::new());
    let made = sealed(&objects).await;
    made.put_document(&lease_key(), &lease()).await.unwrap();
    let opened = Repository::unlock(store(&objects), &access(&[9, 1])).await.unwrap();
    assert_eq!(opened.slot(), made.slot());
    assert_eq!(opened.get_document::<Lease>(&lease_key()).await.unwrap(), lease());
    for key in keys_in(&objects).await {
        let bytes = objects.get(&key.as_str().into()).await.unwrap().bytes().await.unwrap();
        assert!(!bytes.windows(7).any(|text| text == b"example"), "{key} names the host");
    }
    let error = Repository::unlock(store(&objects), &access(&[9])).await.unwrap_err();
    assert_eq!((error.kind(), error.kind().exit_code()), (Kind::WrongKey, 12), "{error}");
    assert!(error.hint().is_some() && matches!(error, RepositoryError::WrongKey { slots: 1, .. }));
    let error = Repository::open(store(&objects)).await.unwrap_err();
    assert!(matches!(error, RepositoryError::KeyMissing { .. }) && error.kind() == Kind::WrongKey, "{error}");
    let entropy = Arc::new(SystemEntropy);
    let again = Repository::init_sealed(store(&objects), None, &SystemClock, entropy, &slot(1, Wraps::All)).await;
    assert!(matches!(again, Err(RepositoryError::Exists { .. })));
}

#[tokio::test]
async fn a_seal_that_was_taken_away_is_noticed_by_whoever_has_a_key() {
    let objects = Arc::new(InMemory::new());
    Repository::init(store(&objects), &SystemClock, &SystemEntropy).await.unwrap();
    let error = Repository::unlock(store(&objects), &access(&[1])).await.unwrap_err();
    assert!(matches!(error, RepositoryError::NotSealed { .. }) && error.kind() == Kind::WrongKey, "{error}");
    // Or with haulout.json alone replaced: then no document of it opens.
    let objects = Arc::new(InMemory::new());
    let made = sealed(&objects).await;
    made.put_document(&lease_key(), &lease()).await.unwrap();
    let config = Config { seal: Config::SEAL_NONE.to_owned(), ..made.config().clone() };
    let bytes = crate::format::encode_document(&config).unwrap();
    objects.put(&"haulout.json".into(), bytes.into()).await.unwrap();
    let opened = Repository::open(store(&objects)).await.unwrap();
    assert!(opened.get_document::<Lease>(&lease_key()).await.is_err());
}

#[tokio::test]
async fn slots_are_added_removed_and_rotated_without_touching_anything_else() {
    let objects = Arc::new(InMemory::new());
    let first = sealed(&objects).await;
    first.put_document(&lease_key(), &lease()).await.unwrap();
    let second = first.add_slot(&slot(2, Wraps::All), &SystemClock).await.unwrap();
    let error = first.remove_slot(first.slot().unwrap()).await.unwrap_err();
    assert!(
        matches!(error, RepositoryError::SlotInUse { .. }),
        "the last one that is proven to open all stays: {error}"
    );
    let with_second = Repository::unlock(store(&objects), &access(&[2])).await.unwrap();
    assert_eq!(with_second.slot(), Some(second.id));
    let (third, leftover) = with_second.rotate_slot(&slot(3, Wraps::All), &SystemClock).await.unwrap();
    assert_eq!(leftover, None);
    assert!(Repository::unlock(store(&objects), &access(&[2])).await.is_err());
    let with_third = Repository::unlock(store(&objects), &access(&[3])).await.unwrap();
    assert_eq!(with_third.slot(), Some(third.id));
    assert_eq!(with_third.remove_slot(first.slot().unwrap()).await.unwrap(), None);
    assert!(Repository::unlock(store(&objects), &access(&[1])).await.is_err());
    assert!(matches!(with_third.remove_slot(second.id).await, Err(RepositoryError::NoSlot { .. })));
    assert_eq!(with_third.get_document::<Lease>(&lease_key()).await.unwrap(), lease());
    assert_eq!(with_third.slots().await.unwrap().0, [third]);
}

#[tokio::test]
async fn a_slot_for_maps_gives_no_more_than_it_has() {
    let objects = Arc::new(InMemory::new());
    let all = sealed(&objects).await;
    all.put_document(&lease_key(), &lease()).await.unwrap();
    let maps = all.add_slot(&slot(2, Wraps::Map), &SystemClock).await.unwrap();
    let opened = Repository::unlock(store(&objects), &access(&[2])).await.unwrap();
    assert_eq!(opened.get_document::<Lease>(&lease_key()).await.unwrap(), lease());
    let error = opened.needs_data_key().unwrap_err();
    assert!(error.kind() == Kind::WrongKey && error.hint().is_some());
    assert!(opened.add_slot(&slot(3, Wraps::All), &SystemClock).await.is_err(), "it cannot open more for others");
    assert!(opened.add_slot(&slot(3, Wraps::Map), &SystemClock).await.is_ok());
    assert!(opened.remove_slot(maps.id).await.is_err(), "nor take slots away");
    // Whoever has both keys gets all.
    let both = Repository::unlock(store(&objects), &access(&[2, 1])).await.unwrap();
    assert!(both.needs_data_key().is_ok());
}

#[tokio::test]
async fn what_may_not_be_deleted_is_told() {
    let objects = Arc::new(InMemory::new());
    let made = sealed(&objects).await;
    let rules = vec![Rule::always(Operation::Delete, Fault::Denied)];
    let faulty = FaultyStore::new(objects.clone(), Script { rules, ..Script::default() });
    let faulty = Store::over("memory:///", Arc::new(faulty), StoreOptions::default());
    let opened = Repository::unlock(faulty, &access(&[1])).await.unwrap();
    let (slot, leftover) = opened.rotate_slot(&slot(2, Wraps::All), &SystemClock).await.unwrap();
    assert_eq!(leftover.unwrap().object, ObjectKey::Slot(made.slot().unwrap()).text());
    let opened = Repository::unlock(store(&objects), &access(&[2])).await.unwrap();
    assert_eq!(opened.slot(), Some(slot.id));
}

#[tokio::test]
async fn slots_that_are_damaged_or_of_another_repository_hide_no_other() {
    let (objects, others) = (Arc::new(InMemory::new()), Arc::new(InMemory::new()));
    let made = sealed(&objects).await;
    let other = sealed(&others).await;
    let key = |id: SlotId| object_store::path::Path::from(ObjectKey::Slot(id).text());
    let foreign = others.get(&key(other.slot().unwrap())).await.unwrap().bytes().await.unwrap();
    objects.put(&key(other.slot().unwrap()), foreign.clone().into()).await.unwrap();
    objects.put(&key(SlotId([1; 8])), foreign.into()).await.unwrap();
    objects.put(&key(SlotId([2; 8])), b"{}".to_vec().into()).await.unwrap();
    let moved = objects.get(&key(made.slot().unwrap())).await.unwrap().bytes().await.unwrap();
    objects.put(&key(SlotId([3; 8])), moved.into()).await.unwrap();
    let opened = Repository::unlock(store(&objects), &access(&[1])).await.unwrap();
    assert_eq!(opened.slot(), made.slot());
    let (slots, faults) = opened.slots().await.unwrap();
    assert_eq!((slots.len(), faults.len()), (1, 2), "{faults:?}");
}

#[tokio::test]
async fn without_a_key_packs_and_documents_are_proven_to_be_as_they_were_written() {
    let objects = Arc::new(InMemory::new());
    let made = sealed(&objects).await;
    made.put_document(&lease_key(), &lease()).await.unwrap();
    let pack = made.keyring().new_pack(pack::PackKind::Map).unwrap().finish().unwrap();
    made.put_pack(pack.id, pack.bytes.clone().into()).await.unwrap();
    let locked = Locked::open(store(&objects)).await.unwrap();
    let found = locked.objects().await.unwrap();
    assert_eq!(found.len(), 4);
    for LockedObject { key, .. } in found {
        locked.check(&key).await.unwrap();
        let path = object_store::path::Path::from(key.text());
        let mut bytes = objects.get(&path).await.unwrap().bytes().await.unwrap().to_vec();
        // The newline at the end carries nothing.
        let last = bytes.len() - 2;
        bytes[last] ^= 1;
        objects.put(&path, bytes.into()).await.unwrap();
        assert!(locked.check(&key).await.is_err(), "{key:?}");
    }
}
