//! Whole restores of made-up repositories, with a script in place of the backup tool.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use object_store::ObjectStoreExt;
use proptest::prelude::*;

use super::marker::{MARKER_NAME, Marker, State};
use super::synthetic::{Mistake, Synthetic};
use super::*;
use crate::error::{Diagnose, Kind};
use crate::format::Manifest;
use crate::format::map::SpaceKey;
use crate::mariadb::datadir::DatadirError;
use crate::mariadb::tool::{ToolPaths, Tools};
use crate::model::{Silent, SpaceId};

mod over;

const CHECKPOINTS: &str = "xtrabackup_checkpoints";

fn watch() -> Watch {
    Watch { progress: Arc::new(Silent), cancel: Cancel::never() }
}

/// All files below `root`, by path; the marker left out.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let all = tree::descendants(root).unwrap().into_iter().filter(|path| path.is_file());
    let named = all.map(|path| (path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), path));
    named.filter(|(name, _)| name != MARKER_NAME).map(|(name, path)| (name, fs::read(path).unwrap())).collect()
}

/// What a fetch of `state` yields.
fn fetched(mut state: BTreeMap<String, Vec<u8>>, manifest: &Manifest) -> BTreeMap<String, Vec<u8>> {
    let (to, last) = (manifest.lsn.to, manifest.lsn.last);
    let text = format!(
        "backup_type = full-backuped\nfrom_lsn = 0\nto_lsn = {to}\nlast_lsn = {last}\nrecover_binlog_info = 1\n"
    );
    state.insert(CHECKPOINTS.to_owned(), text.into_bytes());
    state
}

/// What a datadir holds after `state` was prepared by [`tools`].
fn prepared(mut state: BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    state.remove(CHECKPOINTS);
    state.remove("backup-my.cnf");
    state.insert("prepared".to_owned(), b"yes\n".to_vec());
    state
}

/// A script that passes for `mariadb-backup`; `prepare` is what it does in the directory.
fn tools(dir: &Path, prepare: &str) -> Tools {
    let path = dir.join("mariadb-backup");
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *--version*) echo 'mariadb-backup based on MariaDB server 10.11.19-MariaDB'; exit;; \
         esac\nfor arg; do case $arg in --target-dir=*) cd \"${{arg#*=}}\";; esac; done\n{prepare}\n"
    );
    // A shell does the writing: a descriptor of ours could live on in the child of another test, and the script be busy.
    let write = "printf '%s' \"$2\" > \"$1\" && chmod 755 \"$1\"";
    assert!(Command::new("/bin/sh").args(["-c", write, "sh"]).arg(&path).arg(script).status().unwrap().success());
    let paths = ToolPaths { mariadb_backup: Some(path), ..ToolPaths::default() };
    Tools::discover(&paths).unwrap()
}

const PREPARES: &str = "echo yes > prepared; echo 'InnoDB: End of log at LSN=99999999' >&2; echo 'completed OK!' >&2";

async fn fetch_to(server: &Synthetic, manifest: &Manifest, target: &Path) -> Result<FetchOutcome, RestoreError> {
    fetch(&server.repository, manifest, target, FetchOptions::default(), &watch()).await
}

struct Place {
    dir: tempfile::TempDir,
    tools: Tools,
}

impl Place {
    fn new(prepare: &str) -> Place {
        let dir = tempfile::tempdir().unwrap();
        let tools = tools(dir.path(), prepare);
        Place { dir, tools }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn restore(&self, server: &Synthetic, manifest: &Manifest) -> Result<RestoreOutcome, RestoreError> {
        self.restore_with(server, manifest, RestoreOptions::default(), &watch()).await
    }

    async fn restore_with(
        &self,
        server: &Synthetic,
        manifest: &Manifest,
        options: RestoreOptions,
        watch: &Watch,
    ) -> Result<RestoreOutcome, RestoreError> {
        restore(&server.repository, manifest, &self.path("data"), &self.tools, &options, watch).await
    }

    /// Names in the directory besides the script.
    fn names(&self) -> Vec<String> {
        let names = tree::entries(self.dir.path()).unwrap().into_iter();
        names.map(|name| name.to_str().unwrap().to_owned()).filter(|name| name != "mariadb-backup").collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3, ..ProptestConfig::default() })]

    #[test]
    fn every_generation_is_fetched_byte_for_byte(seed: u64, requests in 1usize..9) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let mut server = Synthetic::populated(seed).await;
            let mut history = Vec::new();
            for generation in 0..4 {
                let manifest = server.backup().await;
                history.push((manifest, server.state()));
                server.live(150);
                server.add_file(&format!("shop/new{generation}.MYD"), 5_500_000);
            }
            let dir = tempfile::tempdir().unwrap();
            for (place, (manifest, state)) in history.into_iter().enumerate() {
                let target = dir.path().join(place.to_string());
                let options = FetchOptions { requests, ..FetchOptions::default() };
                let outcome = fetch(&server.repository, &manifest, &target, options, &watch()).await.unwrap();
                assert_eq!(outcome.figures.files, manifest.spaces + manifest.files);
                let expected = fetched(state, &manifest);
                let found = files(&target);
                assert!(found.keys().eq(expected.keys()), "{:?}", found.keys());
                for (name, content) in &expected {
                    assert!(found[name] == *content, "{name} of generation {place}");
                }
            }
        });
    }
}

#[tokio::test]
async fn a_map_of_many_blocks_is_fetched_byte_for_byte() {
    let mut server = Synthetic::new(5).await;
    // 520 extents: two extent blocks.
    server.add_space(9, "big/t.ibd", 1024, 64 * 519 + 3);
    server.add_file("backup-my.cnf", 10);
    server.backup().await;
    server.live(300);
    let manifest = server.backup().await;
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("t");
    fetch_to(&server, &manifest, &target).await.unwrap();
    let found = files(&target);
    for (name, content) in server.state() {
        assert!(found[&name] == content, "{name}");
    }
}

#[tokio::test]
async fn a_sealed_backup_is_fetched_byte_for_byte_and_nothing_in_the_store_can_be_read() {
    let mut server = Synthetic::sealed(5).await;
    server.populate();
    server.backup().await;
    server.live(50);
    let manifest = server.backup().await;
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("t");
    fetch_to(&server, &manifest, &target).await.unwrap();
    let (found, state) = (files(&target), server.state());
    for (name, content) in state.iter().filter(|(name, _)| *name != CHECKPOINTS) {
        assert!(found[name] == *content, "{name}");
    }
    let texts: Vec<&[u8]> = [&b"orders"[..], b"ibdata", manifest.server.hostname.as_bytes()].to_vec();
    let pages =
        state.values().filter_map(|content| content.get(64..96)).filter(|page| page.iter().any(|byte| *byte != 0));
    let texts: Vec<&[u8]> = texts.into_iter().chain(pages).collect();
    for (key, bytes) in server.stored().await {
        for text in &texts {
            assert!(!bytes.windows(text.len()).any(|bytes| bytes == *text), "{key} shows {text:?}");
        }
    }
}

#[tokio::test]
async fn modes_are_those_of_the_backup() {
    let mut server = Synthetic::populated(1).await;
    let manifest = server.backup().await;
    let dir = tempfile::tempdir().unwrap();
    fetch_to(&server, &manifest, &dir.path().join("t")).await.unwrap();
    let mode = |path: &str| fs::metadata(dir.path().join("t").join(path)).unwrap().mode() & 0o777;
    assert_eq!((mode("shop"), mode("other")), (0o710, 0o750));
    assert_eq!((mode("shop/orders.ibd"), mode("shop/orders.frm")), (0o640, 0o660));
}

#[tokio::test]
async fn a_damaged_pack_is_named_with_a_file_and_leaves_nothing() {
    let mut server = Synthetic::populated(2).await;
    let manifest = server.backup().await;
    let dir = tempfile::tempdir().unwrap();
    let mut kinds = Vec::new();
    for pack in server.packs().await {
        if !server.is_data(pack).await {
            continue;
        }
        for change in 0..3 {
            let key = Synthetic::pack_key(pack);
            let mut before = Vec::new();
            server
                .tamper(&key, |bytes| {
                    before = bytes.clone();
                    match change {
                        0 => None,
                        1 => Some(bytes[..bytes.len() / 2].to_vec()),
                        _ => Some(bytes.into_iter().map(|byte| byte ^ 0x10).collect()),
                    }
                })
                .await;
            let target = dir.path().join("t");
            let error = fetch_to(&server, &manifest, &target).await.unwrap_err();
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                text += &format!(": {cause}");
                source = cause.source();
            }
            assert_eq!(error.kind(), Kind::Corrupt, "{text}");
            assert!(text.contains(&pack.to_string()), "{text}");
            assert!(text.contains("cannot restore "), "{text}");
            assert!(error.hint().unwrap().contains("check"));
            assert!(!target.exists());
            kinds.push(change);
            server.objects.put(&key.into(), before.into()).await.unwrap();
        }
    }
    assert!(kinds.len() > 6, "there are several packs of data");
    fetch_to(&server, &manifest, &dir.path().join("t")).await.unwrap();
}

#[tokio::test]
async fn a_page_without_a_source_is_found_before_anything_is_written() {
    let mut server = Synthetic::populated(3).await;
    server.mistake = Some(Mistake::Forget(SpaceKey { space: SpaceId(4), part: 0 }));
    let manifest = server.backup().await;
    let dir = tempfile::tempdir().unwrap();
    let error = fetch_to(&server, &manifest, &dir.path().join("t")).await.unwrap_err();
    assert!(matches!(&error, RestoreError::Map { what, .. } if what == "shop/items.ibd"), "{error}");
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(!dir.path().join("t").exists());
}

#[tokio::test]
async fn a_plan_tells_what_a_fetch_does() {
    let mut server = Synthetic::populated(4).await;
    server.backup().await;
    server.live(100);
    let manifest = server.backup().await;
    let plan =
        RestorePlan::read(&server.repository, &manifest, FetchOptions::default(), &Cancel::never()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let figures = fetch_to(&server, &manifest, &dir.path().join("t")).await.unwrap().figures;
    assert_eq!(plan.written_bytes, figures.bytes_written);
    assert_eq!(plan.logical_bytes, manifest.sizes.logical_bytes);
    assert_eq!(plan.stored_bytes, manifest.sizes.stored_bytes);
    assert_eq!(plan.files.len() as u64, figures.files);
    assert_eq!(plan.directories, BTreeMap::from([("other".to_owned(), 0o750), ("shop".to_owned(), 0o710)]));
    assert_eq!((plan.fetched_bytes, plan.requests), (figures.bytes_fetched, figures.requests));
    assert!(figures.requests < plan.pieces);
    assert!(plan.check_space(dir.path(), plan.needed_bytes()).is_ok());
    assert!(matches!(plan.check_space(dir.path(), plan.needed_bytes() - 1), Err(RestoreError::NoSpace { .. })));
}

#[tokio::test]
async fn a_target_with_anything_in_it_is_refused_and_left_alone() {
    let mut server = Synthetic::populated(5).await;
    let manifest = server.backup().await;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("mine"), "dear").unwrap();
    let error = fetch_to(&server, &manifest, dir.path()).await.unwrap_err();
    assert!(matches!(error, RestoreError::NotEmpty { .. }) && error.kind() == Kind::Usage, "{error}");
    assert_eq!(files(dir.path()).keys().collect::<Vec<_>>(), ["mine"]);
    // What was fetched whole is somebody's too.
    let target = dir.path().join("t");
    fetch_to(&server, &manifest, &target).await.unwrap();
    assert!(matches!(fetch_to(&server, &manifest, &target).await, Err(RestoreError::WrongState { .. })));
    assert!(target.join("ibdata1").exists());
}

#[tokio::test]
async fn what_a_killed_fetch_left_is_removed_by_the_next() {
    let mut server = Synthetic::populated(6).await;
    let manifest = server.backup().await;
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("t");
    fs::create_dir_all(target.join("gone")).unwrap();
    fs::write(target.join("gone/old.ibd"), [0; 5000]).unwrap();
    Marker::filling(&manifest).write(&target).unwrap();
    fetch_to(&server, &manifest, &target).await.unwrap();
    assert!(!target.join("gone").exists() && target.join("ibdata1").exists());
}

#[tokio::test]
async fn two_runs_do_not_meet_in_one_directory() {
    let mut server = Synthetic::populated(7).await;
    let manifest = server.backup().await;
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("t");
    let held = workdir::WorkDir::take(&target, Marker::filling(&manifest), workdir::Leftovers::Use).unwrap();
    let error = fetch_to(&server, &manifest, &target).await.unwrap_err();
    assert!(matches!(error, RestoreError::Busy { .. }) && error.kind() == Kind::Locked, "{error}");
    drop(held);
    fetch_to(&server, &manifest, &target).await.unwrap();
}

#[tokio::test]
async fn a_restore_yields_the_prepared_files_and_nothing_else() {
    let mut server = Synthetic::populated(8).await;
    let manifest = server.backup().await;
    let place = Place::new(PREPARES);
    let outcome = place.restore(&server, &manifest).await.unwrap();
    assert_eq!(outcome.passage, Passage::Renamed);
    assert!(files(&place.path("data")) == prepared(server.state()));
    assert_eq!(place.names(), ["data"]);
    let mode = fs::metadata(place.path("data")).unwrap().mode() & 0o777;
    assert_eq!(mode, 0o755, "the mode that the manifest names");
    let error = place.restore(&server, &manifest).await.unwrap_err();
    assert!(error.to_string().contains("is as it was"), "{error}");
    assert_eq!(error.kind(), Kind::Usage);
}

#[tokio::test]
async fn an_empty_datadir_keeps_its_mode_and_a_mount_point_is_filled_entry_by_entry() {
    let mut server = Synthetic::populated(9).await;
    let manifest = server.backup().await;
    for lost_and_found in [false, true] {
        let place = Place::new(PREPARES);
        let data = place.path("data");
        fs::create_dir(&data).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o711)).unwrap();
        let expected = ["ib_logfile0", "ibdata1", "other", "prepared", "shop"];
        if lost_and_found {
            fs::create_dir(data.join("lost+found")).unwrap();
        }
        place.restore(&server, &manifest).await.unwrap();
        assert_eq!(fs::metadata(&data).unwrap().mode() & 0o777, 0o711);
        assert_eq!(tree::entries(&data).unwrap(), expected.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert!(files(&data) == prepared(server.state()));
        assert_eq!(place.names(), ["data"]);
    }
}

#[tokio::test]
async fn a_failed_prepare_leaves_no_trace_and_the_next_run_works() {
    let mut server = Synthetic::populated(10).await;
    let manifest = server.backup().await;
    let mut place = Place::new("echo 'InnoDB: No valid checkpoint was found' >&2; exit 1");
    let error = place.restore(&server, &manifest).await.unwrap_err();
    assert!(matches!(&error, RestoreError::Restore { source, .. } if matches!(**source, RestoreError::Prepare(_))));
    assert_eq!(error.kind(), Kind::Corrupt);
    assert_eq!(place.names(), [""; 0]);
    place.tools = tools(place.dir.path(), PREPARES);
    place.restore(&server, &manifest).await.unwrap();
}

#[tokio::test]
async fn a_restore_that_is_stopped_ends_its_child_and_leaves_no_trace() {
    let mut server = Synthetic::populated(11).await;
    let manifest = server.backup().await;
    let place = Place::new("echo $$ > ../pid.new; mv ../pid.new ../pid; exec sleep 1000");
    let (ask, asked) = tokio::sync::watch::channel(false);
    let watch = Watch { cancel: asked.into(), ..watch() };
    let pid = place.path("pid");
    let stop = async {
        while !pid.exists() {
            tokio::task::yield_now().await;
        }
        ask.send_replace(true);
    };
    let (result, ()) = tokio::join!(place.restore_with(&server, &manifest, RestoreOptions::default(), &watch), stop);
    let error = result.unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted, "{error:?}");
    let process = fs::read_to_string(&pid).unwrap();
    assert!(!Path::new("/proc").join(process.trim()).exists(), "the child has ended");
    assert_eq!(place.names(), ["pid"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_is_stopped_while_it_makes_files_leaves_no_trace() {
    let mut server = Synthetic::populated(16).await;
    for number in 0..2000 {
        server.add_file(&format!("shop/{number}.MYI"), 10);
    }
    let manifest = server.backup().await;
    let dir = tempfile::tempdir().unwrap();
    for turn in 0..3 {
        let target = dir.path().join(turn.to_string());
        let (ask, asked) = tokio::sync::watch::channel(false);
        let watch = Watch { cancel: asked.into(), ..watch() };
        let first = target.join("shop");
        let stop = tokio::task::spawn_blocking(move || {
            while !first.exists() {
                std::thread::yield_now();
            }
            ask.send_replace(true);
        });
        let result = fetch(&server.repository, &manifest, &target, FetchOptions::default(), &watch).await;
        assert!(matches!(result, Err(RestoreError::Interrupted)), "{result:?}");
        stop.await.unwrap();
        assert!(!target.exists(), "{:?}", tree::descendants(&target));
    }
}

#[tokio::test]
async fn what_was_fetched_can_be_kept_and_is_used_by_the_next_run() {
    let mut server = Synthetic::populated(12).await;
    let manifest = server.backup().await;
    let place = Place::new(PREPARES);
    // The tool vanishes between its check and its start.
    let tool = place.path("mariadb-backup");
    let hidden = place.path("hidden");
    fs::rename(&tool, &hidden).unwrap();
    let options = RestoreOptions { keep_fetched: true, ..RestoreOptions::default() };
    let error = place.restore_with(&server, &manifest, options, &watch()).await.unwrap_err();
    let work = place.path("data.haulout");
    assert!(matches!(&error, RestoreError::Restore { kept: Some(kept), .. } if *kept == work), "{error:?}");
    assert!(error.hint().unwrap().contains("goes on with what it fetched"));
    fs::rename(&hidden, &tool).unwrap();
    let outcome = place.restore(&server, &manifest).await.unwrap();
    assert_eq!(outcome.figures, FetchFigures::default());
    assert!(files(&place.path("data")) == prepared(server.state()));
    assert_eq!(place.names(), ["data"]);
}

#[tokio::test]
async fn leftovers_of_another_backup_are_not_used() {
    let mut server = Synthetic::populated(13).await;
    let old = server.backup().await;
    let place = Place::new(PREPARES);
    fetch_to(&server, &old, &place.path("data.haulout")).await.unwrap();
    server.live(50);
    let manifest = server.backup().await;
    let outcome = place.restore(&server, &manifest).await.unwrap();
    assert!(outcome.figures.bytes_written > 0);
    assert!(files(&place.path("data")) == prepared(server.state()));
}

#[tokio::test]
async fn a_datadir_that_is_not_free_is_refused_before_anything_is_fetched() {
    let mut server = Synthetic::populated(14).await;
    let manifest = server.backup().await;
    let place = Place::new(PREPARES);
    fs::create_dir(place.path("data")).unwrap();
    fs::write(place.path("data/mine"), "dear").unwrap();
    let error = place.restore(&server, &manifest).await.unwrap_err();
    let refused = |error: &RestoreError| matches!(error, RestoreError::Datadir(DatadirError::NotEmpty { .. }));
    assert!(matches!(&error, RestoreError::Restore { source, .. } if refused(source)), "{error:?}");
    assert_eq!(place.names(), ["data"]);
    assert_eq!(fs::read(place.path("data/mine")).unwrap(), b"dear");
}

#[tokio::test]
async fn the_steps_alone_come_to_the_same() {
    let mut server = Synthetic::populated(15).await;
    let manifest = server.backup().await;
    let place = Place::new(PREPARES);
    let (target, watch) = (place.path("t"), watch());
    let settings = PrepareSettings::default();
    let early = move_back(&target, &place.path("data"), None, &watch).await.unwrap_err();
    assert!(matches!(early, RestoreError::NotFetched { .. }), "{early}");
    fetch_to(&server, &manifest, &target).await.unwrap();
    let early = copy_back(&target, &place.path("data"), None, &watch).await.unwrap_err();
    assert!(matches!(early, RestoreError::WrongState { .. }) && early.hint().unwrap().contains("prepare"), "{early}");
    prepare(&target, &place.tools, &settings, &watch).await.unwrap();
    let again = prepare(&target, &place.tools, &settings, &watch).await.unwrap_err();
    assert!(again.hint().unwrap().contains("move-back"), "{again}");
    let copied = copy_back(&target, &place.path("copy"), None, &watch).await.unwrap();
    assert_eq!(copied.passage, Passage::Copied);
    let moved = move_back(&target, &place.path("data"), None, &watch).await.unwrap();
    assert_eq!(moved.passage, Passage::Renamed);
    let expected = prepared(server.state());
    assert!(files(&place.path("copy")) == expected && files(&place.path("data")) == expected);
    assert_eq!(place.names(), ["copy", "data"]);
}

#[tokio::test]
async fn a_half_prepared_directory_has_to_be_fetched_again() {
    let mut server = Synthetic::populated(16).await;
    let manifest = server.backup().await;
    let place = Place::new("kill -9 $$");
    let (target, watch) = (place.path("t"), watch());
    fetch_to(&server, &manifest, &target).await.unwrap();
    let settings = PrepareSettings::default();
    assert!(matches!(prepare(&target, &place.tools, &settings, &watch).await, Err(RestoreError::Prepare(_))));
    let again = prepare(&target, &place.tools, &settings, &watch).await.unwrap_err();
    assert!(again.hint().unwrap().contains("fetch"), "{again}");
    fetch_to(&server, &manifest, &target).await.unwrap();
}

/// A shell that stays, with no other descriptor than that of the directory `$0`: it must not keep the locks of other tests.
const KEEP_ONE: &str = r#"for fd in /proc/$$/fd/*; do
        [ "${fd##*/}" -lt 3 ] || [ "$(readlink "$fd")" = "$0" ] || eval "exec ${fd##*/}>&-"
    done; exec sleep 1000"#;

#[tokio::test]
async fn a_prepare_that_outlived_its_run_is_in_nobodys_way() {
    let mut server = Synthetic::populated(22).await;
    let manifest = server.backup().await;
    let place = Place::new(PREPARES);
    let work = place.path("data.haulout");
    fetch_to(&server, &manifest, &work).await.unwrap();
    let mut dir = workdir::WorkDir::open(&work).unwrap();
    dir.set_state(State::Preparing).unwrap();
    // The prepare inherits the lock; its run is gone.
    let mut orphan = Command::new("/bin/bash").args(["-c", KEEP_ONE]).arg(&work).spawn().unwrap();
    drop(dir);
    let error = fetch_to(&server, &manifest, &work).await.unwrap_err();
    assert!(matches!(error, RestoreError::Busy { .. }), "as long as the run lives: {error}");
    let mut marker = Marker::read(&work).unwrap().unwrap();
    marker.process.started += 1;
    marker.write(&work).unwrap();
    place.restore(&server, &manifest).await.unwrap();
    assert!(orphan.try_wait().unwrap().is_none());
    orphan.kill().unwrap();
    orphan.wait().unwrap();
    assert!(files(&place.path("data")) == prepared(server.state()));
}

/// A prepared directory whose run was killed while it moved entries; the first `moved` had gone.
async fn half_moved(place: &Place, server: &mut Synthetic, moved: usize) {
    let manifest = server.backup().await;
    let (target, data) = (place.path("t"), place.path("data"));
    fetch_to(server, &manifest, &target).await.unwrap();
    prepare(&target, &place.tools, &PrepareSettings::default(), &watch()).await.unwrap();
    fs::create_dir_all(data.join("lost+found")).unwrap();
    let entries = ["ib_logfile0", "ibdata1", "other", "prepared", "shop"].map(str::to_owned).to_vec();
    let mut dir = workdir::WorkDir::open(&target).unwrap();
    dir.begin_moving(marker::Moving { datadir: data.clone(), entries: entries.clone() }).unwrap();
    for name in &entries[..moved] {
        fs::rename(target.join(name), data.join(name)).unwrap();
    }
}

#[tokio::test]
async fn a_move_that_was_killed_is_undone_and_done_again() {
    for moved in 0..5 {
        let mut server = Synthetic::populated(17).await;
        let place = Place::new(PREPARES);
        half_moved(&place, &mut server, moved).await;
        let outcome = move_back(&place.path("t"), &place.path("data"), None, &watch()).await.unwrap();
        assert_eq!(outcome.passage, Passage::Renamed);
        assert!(files(&place.path("data")) == prepared(server.state()), "{moved} moved");
        assert_eq!(place.names(), ["data"]);
    }
}

#[tokio::test]
async fn a_move_that_was_killed_when_all_had_arrived_is_done() {
    let mut server = Synthetic::populated(18).await;
    let place = Place::new(PREPARES);
    half_moved(&place, &mut server, 5).await;
    let error = move_back(&place.path("t"), &place.path("data"), None, &watch()).await.unwrap_err();
    assert!(error.hint().unwrap().contains("start the server"), "{error}");
    assert!(files(&place.path("data")) == prepared(server.state()));
}

#[tokio::test]
async fn a_move_that_fails_in_the_middle_leaves_both_sides_as_they_were() {
    let mut server = Synthetic::populated(19).await;
    let manifest = server.backup().await;
    // What comes into the datadir between the check and the move is not replaced.
    let place = Place::new(PREPARES);
    let (target, data) = (place.path("t"), place.path("data"));
    fetch_to(&server, &manifest, &target).await.unwrap();
    prepare(&target, &place.tools, &PrepareSettings::default(), &watch()).await.unwrap();
    fs::create_dir_all(data.join("lost+found")).unwrap();
    let before = files(&target);
    let datadir = datadir::Datadir::look(&data).unwrap();
    let mut dir = workdir::WorkDir::open(&target).unwrap();
    fs::write(data.join("prepared"), "mine").unwrap();
    assert!(datadir::rename_entries(&mut dir, &datadir, None).is_err());
    assert_eq!(dir.state(), State::Prepared);
    assert_eq!(files(&data), BTreeMap::from([("prepared".to_owned(), b"mine".to_vec())]));
    assert!(files(&target) == before);
}

#[tokio::test]
async fn a_tool_of_another_series_is_refused_before_anything_is_read() {
    let mut server = Synthetic::populated(20).await;
    let mut manifest = server.backup().await;
    manifest.server.version = "11.4.2-MariaDB".to_owned();
    let place = Place::new(PREPARES);
    let error = place.restore(&server, &manifest).await.unwrap_err();
    assert_eq!(error.kind(), Kind::DatabaseRefused, "{error:?}");
    assert_eq!(place.names(), [""; 0]);
}

#[tokio::test]
async fn files_are_given_to_their_owner() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("NOT SHOWN: giving files to another account takes root");
    }
    let mut server = Synthetic::populated(21).await;
    let manifest = server.backup().await;
    let place = Place::new(PREPARES);
    let options = RestoreOptions { owner: Some(Owner { uid: 1234, gid: 4321 }), ..RestoreOptions::default() };
    place.restore_with(&server, &manifest, options, &watch()).await.unwrap();
    let data = place.path("data");
    for path in tree::descendants(&data).unwrap().into_iter().chain([data]) {
        let meta = fs::metadata(&path).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (1234, 4321), "{path:?}");
    }
    // An existing datadir tells its owner itself.
    let other = place.path("other");
    fs::create_dir(&other).unwrap();
    std::os::unix::fs::chown(&other, Some(77), Some(78)).unwrap();
    let options = RestoreOptions::default();
    restore(&server.repository, &manifest, &other, &place.tools, &options, &watch()).await.unwrap();
    let meta = fs::metadata(other.join("shop/orders.ibd")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (77, 78));
}

/// The table of the file `shop/orders.ibd`, and what an export of it needs.
fn orders() -> TableChoice {
    let name = TableName { schema: "shop".to_owned(), table: "orders".to_owned() };
    TableChoice::These(std::collections::BTreeSet::from([name]))
}

#[tokio::test]
async fn single_tables_bring_what_they_need_and_nothing_else() {
    let mut server = Synthetic::populated(31).await;
    let manifest = server.backup().await;
    let place = Place::new(PREPARES);
    let target = place.path("tables");
    let (choice, options) = (orders(), FetchOptions::default());
    let plan = RestorePlan::of(&server.repository, &manifest, &choice, options, &Cancel::never()).await.unwrap();
    let outcome = fetch_tables(&server.repository, &manifest, &choice, &target, options, &watch()).await.unwrap();
    let found = files(&target);
    let names: Vec<_> = found.keys().map(String::as_str).collect();
    let expected = [
        "backup-my.cnf",
        "ib_logfile0",
        "ibdata1",
        "shop/db.opt",
        "shop/orders.frm",
        "shop/orders.ibd",
        "xtrabackup_checkpoints",
    ];
    assert_eq!(names, expected);
    assert_eq!(plan.files.len() as u64, outcome.figures.files);
    assert_eq!(plan.written_bytes, outcome.figures.bytes_written);
    let state = server.state();
    for name in ["ibdata1", "shop/orders.ibd", "shop/orders.frm"] {
        assert!(found[name] == state[name], "{name}");
    }
}

#[tokio::test]
async fn single_tables_become_no_datadir() {
    let mut server = Synthetic::populated(32).await;
    let manifest = server.backup().await;
    let place = Place::new(PREPARES);
    let (target, datadir) = (place.path("tables"), place.path("data"));
    let options = FetchOptions::default();
    fetch_tables(&server.repository, &manifest, &orders(), &target, options, &watch()).await.unwrap();
    let refused = |error: RestoreError| {
        assert!(matches!(error, RestoreError::SingleTables { .. }) && error.kind() == Kind::Usage, "{error}");
    };
    let whole = PrepareSettings::default();
    refused(prepare(&target, &place.tools, &whole, &watch()).await.unwrap_err());
    let export = PrepareSettings { export: true, ..PrepareSettings::default() };
    prepare(&target, &place.tools, &export, &watch()).await.unwrap();
    refused(move_back(&target, &datadir, None, &watch()).await.unwrap_err());
    refused(copy_back(&target, &datadir, None, &watch()).await.unwrap_err());
    assert!(!datadir.exists());
    // Who does not know of single tables finds no backup there.
    let text = fs::read_to_string(target.join(MARKER_NAME)).unwrap();
    assert!(text.contains("\"format\":2"), "{text}");
    // A restore that is to gather its files there begins anew.
    let options = RestoreOptions { work_dir: Some(target.clone()), ..RestoreOptions::default() };
    place.restore_with(&server, &manifest, options, &watch()).await.unwrap();
    assert!(files(&datadir) == prepared(fetched(server.state(), &manifest)));
}

#[tokio::test]
async fn what_was_prepared_for_export_becomes_no_datadir() {
    let mut server = Synthetic::populated(33).await;
    let manifest = server.backup().await;
    let place = Place::new(PREPARES);
    let target = place.path("whole");
    fetch_to(&server, &manifest, &target).await.unwrap();
    let export = PrepareSettings { export: true, ..PrepareSettings::default() };
    prepare(&target, &place.tools, &export, &watch()).await.unwrap();
    let error = move_back(&target, &place.path("data"), None, &watch()).await.unwrap_err();
    assert!(matches!(error, RestoreError::Exported { .. }), "{error}");
}

#[tokio::test]
async fn the_catalogue_sums_up_to_the_manifest() {
    let mut server = Synthetic::populated(34).await;
    let manifest = server.backup().await;
    let catalogue = Catalogue::read(&server.repository, &manifest, &Cancel::never()).await.unwrap();
    let sums = catalogue.sums();
    assert_eq!((sums.logical_bytes, sums.stored_bytes), (manifest.sizes.logical_bytes, manifest.sizes.stored_bytes));
    assert_eq!(sums.files, manifest.spaces + manifest.files);
    let names: Vec<_> = catalogue.tables.iter().map(|entry| entry.name.to_string()).collect();
    assert_eq!(names, ["other.small", "shop.items", "shop.orders"]);
    let nothing = ["shop.order".parse().unwrap()];
    let error = choose_tables(&server.repository, &manifest, &nothing, &Cancel::never()).await.unwrap_err();
    assert_eq!(error.hint().unwrap(), "did you mean shop.orders?");
}
