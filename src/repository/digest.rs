//! A stream of binary log in brief: the first and the last segment of each unbroken row. It is kept up to date by what is new alone, so
//! that whoever looks every minute neither lists nor remembers what was archived in months.

use std::collections::BTreeMap;

use futures::TryStreamExt;

use super::{ObjectKey, Repository, RepositoryError, SegmentKey, StoredSegment, StreamPart, store_key};
use crate::error::{Diagnose, Kind};
use crate::model::StreamId;
use crate::store::Key;

/// A stream in brief.
#[derive(Debug, Clone, Default)]
pub struct StreamDigest {
    /// Its unbroken rows; of the segments of each only the first and the last are named.
    pub parts: Vec<StreamPart>,
    /// Number of its segments.
    pub segments: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Why a row does not count, which are then left out.
    pub damaged: Vec<String>,
}

/// Unbroken rows by the number of their first segment.
#[derive(Debug, Default)]
struct Rows {
    rows: BTreeMap<u32, (StoredSegment, StoredSegment)>,
    segments: u64,
    bytes: u64,
    /// Bytes of packs whose segment's document was not seen yet.
    ahead: BTreeMap<u32, u64>,
    newest: Option<u32>,
}

impl Rows {
    fn add(&mut self, segment: StoredSegment) {
        let number = segment.key.number;
        self.segments += 1;
        self.newest = self.newest.max(Some(number));
        self.ahead = self.ahead.split_off(&number.saturating_add(1));
        let before = self.rows.range(..=number).next_back();
        let joins = before.filter(|(_, (_, last))| last.key.number.checked_add(1) == Some(number));
        let first_number = joins.map_or(number, |(first, _)| *first);
        let behind = number.checked_add(1).and_then(|next| self.rows.remove(&next));
        let last = behind.map_or_else(|| segment.clone(), |(_, last)| last);
        let row = self.rows.entry(first_number).or_insert_with(|| (segment, last.clone()));
        row.1 = last;
    }

    fn pack(&mut self, number: u32, bytes: u64) {
        self.bytes += bytes;
        if self.newest.is_none_or(|newest| number > newest) {
            *self.ahead.entry(number).or_default() += bytes;
        }
    }
}

impl Repository {
    /// Names of all streams, oldest first, by one listing that does not look into them.
    ///
    /// # Errors
    /// When the store cannot list.
    pub async fn binlog_stream_ids(&self) -> Result<Vec<StreamId>, RepositoryError> {
        let inside = self.store.look_into(&[ObjectKey::BINLOGS.to_owned()]).await?;
        let mut ids: Vec<StreamId> = inside.folders.iter().filter_map(|name| name.parse().ok()).collect();
        ids.sort();
        Ok(ids)
    }

    /// A stream in brief: from `known`, what it was when it was last looked at, and what has come since; or all of it.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn digest_stream(
        &self,
        id: &StreamId,
        known: Option<&StreamDigest>,
    ) -> Result<StreamDigest, RepositoryError> {
        let folder = Key::new(format!("{}/{id}", ObjectKey::BINLOGS))?;
        let last = known.and_then(|known| known.parts.last()).map(|part| part.last.key());
        let mut rows = Rows { newest: last.as_ref().map(|last| last.number), ..Rows::default() };
        let mut objects = match &last {
            Some(last) => self.store.list_after(&folder, &store_key(&ObjectKey::Segment(last.clone()))?),
            None => self.store.list(Some(&folder)),
        };
        let is_new = |number: u32| last.as_ref().is_none_or(|last| number > last.number);
        while let Some(object) = objects.try_next().await? {
            match ObjectKey::parse(object.key.as_str()) {
                Some(ObjectKey::Segment(key)) if is_new(key.number) => {
                    rows.bytes += object.size;
                    let (stored, bytes) = (object.last_modified, object.size);
                    rows.add(StoredSegment { key, stored, bytes, packs: Vec::new() });
                }
                Some(ObjectKey::SegmentPack(_, number, _)) if is_new(number) => rows.pack(number, object.size),
                _ => {}
            }
        }
        let mut digest = known.filter(|_| last.is_some()).cloned().unwrap_or_default();
        digest.segments += rows.segments;
        digest.bytes += rows.bytes - rows.ahead.values().sum::<u64>();
        for (first, last) in rows.rows.into_values() {
            self.add_row(&mut digest, id, first, last).await?;
        }
        Ok(digest)
    }

    /// Adds a row behind the others, or to the last of them.
    async fn add_row(
        &self,
        digest: &mut StreamDigest,
        id: &StreamId,
        first: StoredSegment,
        last: StoredSegment,
    ) -> Result<(), RepositoryError> {
        let newest = match self.segment_if_right(&last.key).await? {
            Ok(segment) => segment,
            Err(fault) => {
                digest.damaged.push(fault);
                return Ok(());
            }
        };
        let goes_on = |part: &&mut StreamPart| part.last.number.checked_add(1) == Some(first.key.number);
        if let Some(part) = digest.parts.last_mut().filter(goes_on) {
            part.last = newest;
            part.segments.truncate(1);
            part.segments.push(last);
            return Ok(());
        }
        let oldest = match self.segment_if_right(&first.key).await? {
            Ok(segment) => segment,
            Err(fault) => {
                digest.damaged.push(fault);
                return Ok(());
            }
        };
        let segments = if first.key == last.key { vec![first] } else { vec![first, last] };
        digest.parts.push(StreamPart { stream: id.clone(), segments, first: oldest, last: newest });
        Ok(())
    }

    async fn segment_if_right(
        &self,
        key: &SegmentKey,
    ) -> Result<Result<crate::format::Segment, String>, RepositoryError> {
        match self.read_segment(key).await {
            Ok(segment) => Ok(Ok(segment)),
            Err(error) => match error.kind() {
                Kind::Corrupt | Kind::WrongKey | Kind::NoRepository => Ok(Err(error.to_string())),
                // It was pruned meanwhile.
                _ if matches!(&error, RepositoryError::Store(error) if error.is_not_found()) => {
                    Ok(Err(error.to_string()))
                }
                _ => Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::{ObjectStoreExt, memory::InMemory};

    use super::*;
    use crate::format::{Segment, segment_example};
    use crate::model::{SystemClock, SystemEntropy, Timestamp};
    use crate::repository::BinlogHistory;
    use crate::store::{Store, StoreOptions};

    async fn put(repository: &Repository, number: u32) -> Segment {
        let mut segment = segment_example();
        segment.repository_id = repository.config().repository_id;
        segment.number = number;
        segment.previous = (number > 0).then_some(segment.sum);
        if number > 0 {
            (segment.gap, segment.continues) = (None, None);
        }
        let second = |second: u32| Timestamp::from_seconds(1_795_348_800 + second);
        (segment.first_time, segment.last_time) = (second(number * 10), second(number * 10 + 5));
        repository.put_segment(&segment).await.unwrap();
        segment
    }

    #[tokio::test]
    async fn what_is_new_alone_gives_the_same_as_all_of_it() {
        let objects = Arc::new(InMemory::new());
        let store = Store::over("memory://x", objects.clone(), StoreOptions::default());
        let repository = Repository::init(store, &SystemClock, &SystemEntropy).await.unwrap();
        let mut digest: Option<StreamDigest> = None;
        for number in 0..7 {
            let segment = put(&repository, number).await;
            // A pack of a segment whose document has not come is not counted yet.
            let early = ObjectKey::SegmentPack(segment.stream.clone(), number + 1, segment.packs[0].pack);
            objects.put(&early.text().as_str().into(), bytes::Bytes::from_static(&[7; 99]).into()).await.unwrap();
            let ids = repository.binlog_stream_ids().await.unwrap();
            assert_eq!(ids, std::slice::from_ref(&segment.stream));
            let by_steps = repository.digest_stream(&ids[0], digest.as_ref()).await.unwrap();
            let at_once = repository.digest_stream(&ids[0], None).await.unwrap();
            for digest in [&by_steps, &at_once] {
                assert_eq!((digest.parts.len(), digest.segments), (1, u64::from(number) + 1));
                assert_eq!(digest.parts[0].last, segment);
            }
            assert_eq!(by_steps.bytes, at_once.bytes);
            digest = Some(by_steps);
        }
        let (history, _) = repository.binlog_history().await.unwrap();
        let brief = BinlogHistory::of(digest.unwrap().parts);
        assert_eq!((history.parts().len(), brief.parts().len()), (1, 1));
        assert_eq!(history.parts()[0].last, brief.parts()[0].last);
    }

    #[tokio::test]
    async fn where_a_number_lacks_there_are_two_rows() {
        let store = Store::over("memory://x", Arc::new(InMemory::new()), StoreOptions::default());
        let repository = Repository::init(store, &SystemClock, &SystemEntropy).await.unwrap();
        let mut stream = None;
        for number in [0, 1, 3, 4, 5] {
            stream = Some(put(&repository, number).await.stream);
        }
        let digest = repository.digest_stream(&stream.unwrap(), None).await.unwrap();
        let rows: Vec<_> = digest.parts.iter().map(|part| (part.first.number, part.last.number)).collect();
        assert_eq!((rows, digest.segments), (vec![(0, 1), (3, 5)], 5));
    }
}
