//! What every store has to do, as checks that run against any of them: in tests, and against the operator's bucket.
//!
//! The checks write below `probe/` and delete what they wrote, where that is allowed. None relies on a clean start.

use std::{collections::BTreeSet, future::Future};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use super::{
    Finding, Key, PutOutcome, PutPayload, Store, StoreError, Verdict, classify::chain_text, probe::PROBE_FOLDER,
};

/// Requests in flight where a check makes many.
const IN_FLIGHT: usize = 8;

/// Writers that race for one key.
const WRITERS: usize = 8;

/// How much a run of the suite stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Objects in the folder that is listed.
    pub many: usize,
    /// Bytes of the large object.
    pub large_bytes: usize,
}

impl Extent {
    /// A few dozen requests: for the operator's bucket.
    pub const BRIEF: Extent = Extent { many: 12, large_bytes: 1 << 20 };

    /// More than two pages of a listing, of 1000 keys each, and an object as large as a pack.
    pub const WHOLE: Extent = Extent { many: 2001, large_bytes: 16 << 20 };
}

/// Runs all checks; one finding each, in a fixed order.
pub async fn conformance(store: &Store, extent: Extent) -> Vec<Finding> {
    let bench = match Bench::new(store, extent) {
        Ok(bench) => bench,
        Err(error) => return vec![Finding { name: "begin", verdict: Verdict::Failed, detail: chain_text(&error) }],
    };
    let findings = vec![
        finding("round_trip", bench.round_trip()).await,
        finding("empty_object", bench.empty_object()).await,
        finding("large_object", bench.large_object()).await,
        finding("object_in_parts", bench.object_in_parts()).await,
        finding("ranges", bench.ranges()).await,
        finding("range_past_the_end", bench.range_past_the_end()).await,
        finding("read_limit", bench.read_limit()).await,
        finding("head", bench.head()).await,
        finding("missing_object", bench.missing_object()).await,
        finding("same_bytes_again", bench.same_bytes_again()).await,
        finding("other_bytes_refused", bench.other_bytes_refused()).await,
        finding("one_winner", bench.one_winner()).await,
        finding("odd_keys", bench.odd_keys()).await,
        finding("list_by_folder", bench.list_by_folder()).await,
        finding("list_many", bench.list_many()).await,
        finding("list_nothing", bench.list_nothing()).await,
        finding("delete", bench.delete()).await,
        finding("clean_up", bench.clean_up()).await,
    ];
    findings
}

/// How a check went wrong.
enum Trouble {
    /// Worth knowing; the program copes.
    Weak(String),
    Failed(String),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Trouble {
        Trouble::Failed(chain_text(&error))
    }
}

type Checked = Result<(), Trouble>;

async fn finding(name: &'static str, check: impl Future<Output = Checked>) -> Finding {
    let (verdict, detail) = match check.await {
        Ok(()) => (Verdict::Good, String::new()),
        Err(Trouble::Weak(detail)) => (Verdict::Weak, detail),
        Err(Trouble::Failed(detail)) => (Verdict::Failed, detail),
    };
    Finding { name, verdict, detail }
}

fn expect(holds: bool, otherwise: impl Into<String>) -> Checked {
    if holds { Ok(()) } else { Err(Trouble::Failed(otherwise.into())) }
}

struct Bench<'a> {
    store: &'a Store,
    extent: Extent,
    folder: Key,
}

impl Bench<'_> {
    fn new(store: &Store, extent: Extent) -> Result<Bench<'_>, StoreError> {
        let mut random = [0; 8];
        store.shared.options.entropy.fill(&mut random);
        let folder = Key::new(PROBE_FOLDER)?.join(&format!("conformance-{}", hex::encode(random)))?;
        Ok(Bench { store, extent, folder })
    }

    fn key(&self, name: &str) -> Result<Key, StoreError> {
        self.folder.join(name)
    }

    async fn put(&self, name: &str, bytes: impl Into<PutPayload>) -> Result<Key, Trouble> {
        let key = self.key(name)?;
        // A store that fails on purpose loses answers: either outcome leaves the bytes there.
        self.store.put(&key, bytes).await?;
        Ok(key)
    }

    async fn listed(&self, folder: &Key) -> Result<Vec<Key>, Trouble> {
        Ok(self.store.list(Some(folder)).map_ok(|info| info.key).try_collect().await?)
    }

    async fn round_trip(&self) -> Checked {
        let bytes = pattern(70_001, 1);
        let key = self.put("round/trip", bytes.clone()).await?;
        expect(self.store.get(&key, 70_001).await? == bytes, "the bytes read are not those stored")
    }

    async fn empty_object(&self) -> Checked {
        let key = self.put("empty", Bytes::new()).await?;
        expect(self.store.head(&key).await?.size == 0, "the empty object has a size")?;
        expect(self.store.get(&key, 0).await?.is_empty(), "the empty object has bytes")?;
        expect(self.store.get_range(&key, 0..0).await?.is_empty(), "an empty range has bytes")
    }

    async fn large_object(&self) -> Checked {
        let bytes = pattern(self.extent.large_bytes, 2);
        let size = bytes.len() as u64;
        let key = self.put("large", bytes.clone()).await?;
        expect(self.store.head(&key).await?.size == size, "the large object has another size")?;
        expect(self.store.get(&key, size).await? == bytes, "the large object has other bytes")
    }

    async fn object_in_parts(&self) -> Checked {
        let bytes = pattern(100_000, 3);
        let parts: PutPayload = bytes.chunks(30_001).map(|part| bytes.slice_ref(part)).collect();
        let key = self.put("parts", parts.clone()).await?;
        expect(self.store.get(&key, 100_000).await? == bytes, "the parts were not stored in order")?;
        let again = self.store.put(&key, parts).await?;
        expect(again == PutOutcome::AlreadyThere, "the same parts were stored twice").map_err(weak)
    }

    async fn ranges(&self) -> Checked {
        let bytes = pattern(10_000, 4);
        let key = self.put("ranges", bytes.clone()).await?;
        for range in [0..1, 0..10_000, 9_999..10_000, 4_095..4_097, 5_000..10_000, 7..7] {
            let found = self.store.get_range(&key, range.start as u64..range.end as u64).await?;
            expect(found == bytes.slice(range.clone()), format!("range {range:?} has other bytes"))?;
        }
        Ok(())
    }

    async fn range_past_the_end(&self) -> Checked {
        let key = self.put("short", pattern(100, 5)).await?;
        for range in [99..101, 100..101, 0..101, 500..600] {
            let found = self.store.get_range(&key, range.clone()).await;
            let truncated = matches!(found, Err(StoreError::Truncated { found: 100, .. }));
            expect(truncated, format!("range {range:?} of 100 bytes gave {}", told(&found)))?;
        }
        Ok(())
    }

    async fn read_limit(&self) -> Checked {
        let key = self.put("limited", pattern(1000, 6)).await?;
        let found = self.store.get(&key, 999).await;
        let refused = matches!(found, Err(StoreError::TooLarge { expected: 999, found: 1000, .. }));
        expect(refused, format!("1000 bytes were read with a limit of 999: {}", told(&found)))
    }

    async fn head(&self) -> Checked {
        let key = self.put("head", pattern(321, 7)).await?;
        let info = self.store.head(&key).await?;
        expect(info.key == key && info.size == 321, format!("321 bytes have size {}", info.size))
    }

    async fn missing_object(&self) -> Checked {
        let key = self.key("missing/object")?;
        let missing = |found: Result<(), StoreError>, what: &str| {
            let not_found = matches!(found, Err(StoreError::NotFound { .. }));
            expect(not_found, format!("{what} of a missing object gave {}", told(&found)))
        };
        missing(self.store.get(&key, 10).await.map(drop), "a get")?;
        missing(self.store.get_range(&key, 0..10).await.map(drop), "a ranged get")?;
        missing(self.store.head(&key).await.map(drop), "a head")?;
        // A folder is not an object.
        self.put("missing/folder/object", pattern(1, 8)).await?;
        missing(self.store.get(&self.key("missing/folder")?, 10).await.map(drop), "a get of a folder")
    }

    async fn same_bytes_again(&self) -> Checked {
        let bytes = pattern(5000, 9);
        let key = self.put("same", bytes.clone()).await?;
        let again = self.store.put(&key, bytes).await?;
        expect(again == PutOutcome::AlreadyThere, "the same object was stored twice").map_err(weak)
    }

    async fn other_bytes_refused(&self) -> Checked {
        let (first, second) = (pattern(5000, 10), pattern(5000, 11));
        let key = self.put("other", first.clone()).await?;
        for other in [second.clone(), second.slice(..4999), first.slice(..4999)] {
            let found = self.store.put(&key, other).await;
            let refused = matches!(found, Err(StoreError::AlreadyExists { .. }));
            expect(refused, format!("a put over another object gave {}", told(&found))).map_err(weak)?;
        }
        expect(self.store.get(&key, 5000).await? == first, "a refused put changed the object")
    }

    async fn one_winner(&self) -> Checked {
        let key = self.key("race")?;
        let bytes: Vec<Bytes> = (0..WRITERS).map(|writer| pattern(2000, 100 + writer as u64)).collect();
        let results = stream::iter(bytes.clone())
            .map(|bytes| self.store.put(&key, bytes))
            .buffered(WRITERS)
            .collect::<Vec<_>>()
            .await;
        let mut winners = Vec::new();
        for (writer, result) in results.into_iter().enumerate() {
            match result {
                Ok(_) => winners.push(writer),
                Err(StoreError::AlreadyExists { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        expect(winners.len() == 1, format!("{} of {WRITERS} writers of one key won", winners.len())).map_err(weak)?;
        let found = self.store.get(&key, 2000).await?;
        expect(winners.iter().any(|writer| bytes[*writer] == found), "the object is none of the winner's")
    }

    async fn odd_keys(&self) -> Checked {
        let long = "l".repeat(200);
        let names = [
            "a+b", "a=b", "a@b", "-a", "_", "a.", ".a", "...", "a..b", "A", "a", "e/e.json", "e/e", "0-1-23", "a.tmp",
            &long,
        ];
        let folder = self.key("odd")?;
        let mut keys = BTreeSet::new();
        for (number, name) in names.iter().enumerate() {
            let key = self.put(&format!("odd/{name}"), pattern(10 + number, 12)).await?;
            expect(self.store.head(&key).await?.size == 10 + number as u64, format!("{name} has another size"))?;
            keys.insert(key);
        }
        let found: BTreeSet<Key> = self.listed(&folder).await?.into_iter().collect();
        let odd: Vec<String> = found.symmetric_difference(&keys).map(Key::to_string).collect();
        expect(odd.is_empty(), format!("listed without being stored, or the reverse: {}", odd.join(" ")))
    }

    async fn list_by_folder(&self) -> Checked {
        let wanted = self.put("tree/ab/one", pattern(3, 13)).await?;
        let deeper = self.put("tree/ab/c/two", pattern(4, 13)).await?;
        self.put("tree/abc", pattern(5, 13)).await?;
        self.put("tree/abc-d/three", pattern(6, 13)).await?;
        let mut found: Vec<_> = self.store.list(Some(&self.key("tree/ab")?)).try_collect().await?;
        found.sort_by(|a, b| a.key.cmp(&b.key));
        let found: Vec<_> = found.into_iter().map(|info| (info.key, info.size)).collect();
        expect(found == [(deeper, 4), (wanted, 3)], format!("folder tree/ab lists {found:?}"))
    }

    async fn list_many(&self) -> Checked {
        let names: Vec<String> = (0..self.extent.many).map(|number| format!("many/{number:05}")).collect();
        let stored = stream::iter(&names)
            .map(|name| self.put(name, Bytes::from_static(b"x")))
            .buffer_unordered(IN_FLIGHT)
            .collect::<Vec<_>>()
            .await;
        let keys = stored.into_iter().collect::<Result<BTreeSet<Key>, Trouble>>()?;
        let found = self.listed(&self.key("many")?).await?;
        let distinct: BTreeSet<Key> = found.iter().cloned().collect();
        expect(found.len() == distinct.len(), format!("{} keys are listed twice", found.len() - distinct.len()))?;
        expect(distinct == keys, format!("of {} objects {} are listed", keys.len(), distinct.len()))
    }

    async fn list_nothing(&self) -> Checked {
        let found = self.listed(&self.key("nothing")?).await?;
        expect(found.is_empty(), "a folder that does not exist lists objects")
    }

    async fn delete(&self) -> Checked {
        let bytes = pattern(50, 14);
        let key = self.put("deleted", bytes.clone()).await?;
        let denied = |error: StoreError| match error {
            error @ StoreError::Denied { .. } => Trouble::Weak(chain_text(&error)),
            error => error.into(),
        };
        self.store.delete(&key).await.map_err(denied)?;
        let found = self.store.head(&key).await;
        let gone = matches!(found, Err(StoreError::NotFound { .. }));
        expect(gone, format!("a deleted object gave {}", told(&found)))?;
        // A retry, and another run of what failed half-way, delete again.
        self.store.delete(&key).await?;
        self.put("deleted", bytes.clone()).await?;
        expect(self.store.get(&key, 50).await? == bytes, "an object stored anew has other bytes")
    }

    async fn clean_up(&self) -> Checked {
        let keys = self.listed(&self.folder).await?;
        let results =
            stream::iter(&keys).map(|key| self.store.delete(key)).buffer_unordered(IN_FLIGHT).collect::<Vec<_>>().await;
        let failed = results.into_iter().filter_map(Result::err).collect::<Vec<_>>();
        if let Some(error) = failed.first() {
            let detail = format!("{} objects are left below {}: {}", failed.len(), self.folder, chain_text(error));
            return Err(Trouble::Weak(detail));
        }
        let left = self.listed(&self.folder).await?;
        expect(left.is_empty(), format!("{} objects are listed after they were deleted", left.len()))
    }
}

fn weak(trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Weak(detail) | Trouble::Failed(detail) => Trouble::Weak(detail),
    }
}

fn told<T>(result: &Result<T, StoreError>) -> String {
    match result {
        Ok(_) => "no error".to_owned(),
        Err(error) => chain_text(error),
    }
}

/// Bytes that look random and differ for each `seed`.
fn pattern(length: usize, seed: u64) -> Bytes {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}
