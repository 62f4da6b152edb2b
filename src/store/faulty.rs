//! A store that fails on purpose, by a script or by seeded chance.
//!
//! It wraps any [`ObjectStore`], so that it stands below [`super::Store`] and its retries, as a real network does.

use std::{
    fmt, io,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, path::Path,
};

/// Bytes of each part of a body that is cut or changed.
const PART_BYTES: usize = 64 << 10;

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The request fails with the connection, before it has any effect.
    Reset,
    /// The store refuses the account.
    Denied,
    /// No room is left.
    NoSpace,
    /// The request takes this much longer.
    Delay(Duration),
    /// The request never ends.
    Hang,
    /// The request has its effect, and the connection breaks before the answer.
    LoseAnswer,
    /// The body of an answer ends after so many bytes, as if it were whole.
    CutBody(u64),
    /// The body of an answer breaks off after so many bytes; a listing after so many objects.
    BreakBody(u64),
    /// Bit number n of the body is inverted, counted from its start and modulo its length: of what is stored in a put,
    /// of what is read in a get.
    FlipBit(u64),
    /// A listing is of a while ago: it lacks the so many objects that were stored last.
    OldList(u64),
    /// The store answers that it knows no conditional put.
    RefuseCondition,
    /// The store takes a conditional put for an unconditional one, and says nothing.
    IgnoreCondition,
}

/// One kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Storing an object.
    Put,
    /// Reading an object or a range.
    Get,
    /// Asking for an object's size.
    Head,
    /// Listing.
    List,
    /// Deleting an object.
    Delete,
}

/// A line of the script: which requests go wrong, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The requests meant; all when nothing is given.
    pub operation: Option<Operation>,
    /// A part of the keys meant.
    pub key_part: String,
    /// Requests meant that go well first.
    pub skip: u64,
    /// Requests that then go wrong.
    pub times: u64,
    /// What goes wrong.
    pub fault: Fault,
}

impl Rule {
    /// The next request of this kind goes wrong.
    pub fn once(operation: Operation, fault: Fault) -> Rule {
        Rule { operation: Some(operation), key_part: String::new(), skip: 0, times: 1, fault }
    }

    /// Every request of this kind goes wrong.
    pub fn always(operation: Operation, fault: Fault) -> Rule {
        Rule { times: u64::MAX, ..Rule::once(operation, fault) }
    }

    /// Every request goes wrong after the first `requests`.
    pub fn after(requests: u64, fault: Fault) -> Rule {
        Rule { operation: None, key_part: String::new(), skip: requests, times: u64::MAX, fault }
    }

    /// The same rule for keys that contain `part`.
    pub fn on_keys(self, part: &str) -> Rule {
        Rule { key_part: part.to_owned(), ..self }
    }
}

/// How often requests go wrong by chance, each per thousand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Odds {
    /// [`Fault::Reset`].
    pub reset: u64,
    /// [`Fault::LoseAnswer`].
    pub lose_answer: u64,
    /// [`Fault::CutBody`], at a random length.
    pub cut_body: u64,
    /// [`Fault::BreakBody`], at a random length.
    pub break_body: u64,
    /// [`Fault::Hang`].
    pub hang: u64,
    /// [`Fault::FlipBit`], of bodies read.
    pub flip_bit: u64,
    /// [`Fault::OldList`], of up to three objects.
    pub old_list: u64,
}

/// The script, the odds and the seed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Script {
    /// Rules; the first that fits a request is used.
    pub rules: Vec<Rule>,
    /// Chance, for requests that no rule fits.
    pub odds: Odds,
    /// Where chance begins: the same seed and the same requests give the same faults.
    pub seed: u64,
}

/// An object store that fails as its script says.
#[derive(Debug, Clone)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    script: Script,
    faults: u64,
}

impl FaultyStore {
    /// Puts `script` between the caller and `inner`.
    pub fn new(inner: Arc<dyn ObjectStore>, script: Script) -> FaultyStore {
        FaultyStore { inner, state: Arc::new(Mutex::new(State { script, faults: 0 })) }
    }

    /// Replaces the script; a clone that was kept outside turns the weather with it.
    pub fn set_script(&self, script: Script) {
        self.lock().script = script;
    }

    /// Requests that went wrong so far.
    pub fn faults(&self) -> u64 {
        self.lock().faults
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What goes wrong with this request; faults that come before any effect are carried out here.
    async fn meet(&self, operation: Operation, key: &str) -> Result<Option<Fault>> {
        let fault = self.lock().decide(operation, key);
        match fault {
            Some(Fault::Reset) => Err(reset()),
            Some(Fault::Denied) => {
                let source = Box::new(io::Error::other("denied on purpose"));
                Err(Error::PermissionDenied { path: key.to_owned(), source })
            }
            Some(Fault::NoSpace) => Err(generic(io::Error::from(io::ErrorKind::StorageFull))),
            Some(Fault::Delay(time)) => {
                tokio::time::sleep(time).await;
                Ok(None)
            }
            Some(Fault::Hang) => std::future::pending().await,
            later => Ok(later),
        }
    }
}

impl State {
    fn decide(&mut self, operation: Operation, key: &str) -> Option<Fault> {
        let fits = |rule: &&mut Rule| {
            rule.operation.is_none_or(|meant| meant == operation) && key.contains(&rule.key_part) && rule.times > 0
        };
        let fault = match self.script.rules.iter_mut().find(fits) {
            Some(rule) if rule.skip > 0 => {
                rule.skip -= 1;
                None
            }
            Some(rule) => {
                rule.times = rule.times.saturating_sub(u64::from(rule.times != u64::MAX));
                Some(rule.fault.clone())
            }
            None => self.chance(operation),
        };
        self.faults += u64::from(fault.is_some());
        fault
    }

    fn chance(&mut self, operation: Operation) -> Option<Fault> {
        let odds = self.script.odds;
        let place = self.random() % (64 << 10);
        let reads = operation == Operation::Get;
        let table = [
            (odds.reset, Fault::Reset, true),
            (odds.hang, Fault::Hang, true),
            (odds.lose_answer, Fault::LoseAnswer, matches!(operation, Operation::Put | Operation::Delete)),
            (odds.cut_body, Fault::CutBody(place), reads),
            (odds.break_body, Fault::BreakBody(place), reads || operation == Operation::List),
            (odds.flip_bit, Fault::FlipBit(place), reads),
            (odds.old_list, Fault::OldList(1 + place % 3), operation == Operation::List),
        ];
        let mut dice = self.random() % 1000;
        for (chance, fault, possible) in table {
            if dice < chance {
                return possible.then_some(fault);
            }
            dice -= chance;
        }
        None
    }

    /// The next number of SplitMix64 (Steele, Lea, Flood 2014).
    fn random(&mut self) -> u64 {
        self.script.seed = self.script.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.script.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyStore({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let fault = self.meet(Operation::Put, location.as_ref()).await?;
        let (mut payload, mut options) = (payload, options);
        match fault {
            Some(Fault::FlipBit(bit)) => payload = flipped(&join(&payload), bit).into(),
            Some(Fault::IgnoreCondition) => options.mode = PutMode::Overwrite,
            Some(Fault::RefuseCondition) if options.mode == PutMode::Create => {
                let (operation, implementer) = ("a conditional put".to_owned(), self.to_string());
                return Err(Error::NotImplemented { operation, implementer });
            }
            _ => {}
        }
        let result = self.inner.put_opts(location, payload, options).await?;
        if fault == Some(Fault::LoseAnswer) { Err(reset()) } else { Ok(result) }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let operation = if options.head { Operation::Head } else { Operation::Get };
        let fault = self.meet(operation, location.as_ref()).await?;
        let result = self.inner.get_opts(location, options).await?;
        match fault {
            Some(Fault::LoseAnswer) => Err(reset()),
            Some(fault @ (Fault::CutBody(_) | Fault::BreakBody(_) | Fault::FlipBit(_)))
                if operation == Operation::Get =>
            {
                spoil(result, fault).await
            }
            _ => Ok(result),
        }
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.meet(Operation::Get, location.as_ref()).await?;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .then(move |location| {
                let store = store.clone();
                async move {
                    let location = location?;
                    let fault = store.meet(Operation::Delete, location.as_ref()).await?;
                    store.inner.delete(&location).await?;
                    if fault == Some(Fault::LoseAnswer) { Err(reset()) } else { Ok(location) }
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(prefix, self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(prefix, self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.meet(Operation::List, prefix.map_or("", Path::as_ref)).await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

impl FaultyStore {
    fn listed(
        &self,
        prefix: Option<&Path>,
        objects: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let store = self.clone();
        let folder = prefix.map_or_else(String::new, ToString::to_string);
        stream::once(async move {
            match store.meet(Operation::List, &folder).await {
                Err(error) => stream::once(async { Err(error) }).boxed(),
                Ok(Some(Fault::BreakBody(count))) => {
                    let count = usize::try_from(count).unwrap_or(usize::MAX);
                    objects.take(count).chain(stream::once(async { Err(reset()) })).boxed()
                }
                Ok(Some(Fault::LoseAnswer)) => stream::once(async { Err(reset()) }).boxed(),
                Ok(Some(Fault::OldList(count))) => aged(objects, count).await,
                Ok(_) => objects,
            }
        })
        .flatten()
        .boxed()
    }
}

/// The listing without the `count` objects that were stored last.
async fn aged(objects: BoxStream<'static, Result<ObjectMeta>>, count: u64) -> BoxStream<'static, Result<ObjectMeta>> {
    let mut listed: Vec<Result<ObjectMeta>> = objects.collect().await;
    for _ in 0..count {
        let times =
            listed.iter().enumerate().filter_map(|(place, meta)| Some((meta.as_ref().ok()?.last_modified, place)));
        if let Some((_, newest)) = times.max() {
            drop(listed.remove(newest));
        }
    }
    stream::iter(listed).boxed()
}

/// The answer with its body cut, broken off or changed.
async fn spoil(result: GetResult, fault: Fault) -> Result<GetResult> {
    let (meta, range) = (result.meta.clone(), result.range.clone());
    let (attributes, extensions) = (result.attributes.clone(), result.extensions.clone());
    let mut body = result.bytes().await?;
    let mut end = None;
    match fault {
        // At least one byte is missing.
        Fault::CutBody(length) => body.truncate((length as usize).min(body.len().saturating_sub(1))),
        Fault::BreakBody(length) => {
            body.truncate((length as usize).min(body.len().saturating_sub(1)));
            end = Some(Err(reset()));
        }
        Fault::FlipBit(bit) => body = flipped(&body, bit),
        _ => {}
    }
    let parts: Vec<Result<Bytes>> = body.chunks(PART_BYTES).map(|part| Ok(body.slice_ref(part))).chain(end).collect();
    let payload = GetResultPayload::Stream(stream::iter(parts).boxed());
    Ok(GetResult { payload, meta, range, attributes, extensions })
}

fn join(payload: &PutPayload) -> Bytes {
    payload.iter().flat_map(|part| part.iter().copied()).collect()
}

fn flipped(bytes: &[u8], bit: u64) -> Bytes {
    let mut bytes = bytes.to_vec();
    if !bytes.is_empty() {
        let bit = bit % (bytes.len() as u64 * 8);
        bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
    }
    bytes.into()
}

fn reset() -> Error {
    generic(io::Error::from(io::ErrorKind::ConnectionReset))
}

fn generic(source: io::Error) -> Error {
    Error::Generic { store: "faulty", source: Box::new(source) }
}
