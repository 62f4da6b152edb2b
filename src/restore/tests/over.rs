//! Restores over a datadir that holds something already.

use std::os::unix::fs::{FileExt, symlink};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// Length of a file that a datadir never has.
const CONFIG_BYTES: u64 = 100;

fn reusing() -> RestoreOptions {
    RestoreOptions { reuse: true, ..RestoreOptions::default() }
}

impl Place {
    async fn reuse(&self, server: &Synthetic, manifest: &Manifest) -> Result<RestoreOutcome, RestoreError> {
        self.restore_with(server, manifest, reusing(), &watch()).await
    }

    async fn plan(&self, server: &Synthetic, manifest: &Manifest) -> Result<PlacedPlan, RestoreError> {
        let data = self.path("data");
        let (placed, in_the_way) = plan_restore(&server.repository, manifest, &data, &reusing(), &watch()).await?;
        assert!(in_the_way.is_empty(), "{in_the_way:?}");
        Ok(placed)
    }

    /// Panics unless the datadir holds what a restore of `state` yields.
    #[track_caller]
    fn holds(&self, state: BTreeMap<String, Vec<u8>>) {
        let (found, expected) = (files(&self.path("data")), prepared(state));
        assert!(found.keys().eq(expected.keys()), "{:?}, expected {:?}", found.keys(), expected.keys());
        for (name, content) in &expected {
            assert!(found[name] == *content, "{name}");
        }
    }

    /// Turns the datadir into a work directory that a run left which reused it, `far` on its way.
    fn left(&self, manifest: &Manifest, far: State) -> PathBuf {
        let work = self.path("data.haulout");
        let reuse = marker::Reuse { taken: true, aside: self.path("data.haulout-aside") };
        let mut marker = Marker::filling(manifest).over(reuse);
        marker.state = far;
        marker.write(&self.path("data")).unwrap();
        fs::rename(self.path("data"), &work).unwrap();
        work
    }
}

/// The error that a restore failed by.
fn cause(error: &RestoreError) -> &RestoreError {
    match error {
        RestoreError::Restore { source, .. } | RestoreError::Reusing { source, .. } => source,
        error => error,
    }
}

fn flip(path: &Path, at: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
}

/// Bytes that no restore can find in a datadir: what is in none after a prepare, and pieces of which the chunk holds more.
fn never_there(state: &BTreeMap<String, Vec<u8>>) -> u64 {
    let missing = |name: &str| ["backup-my.cnf", CHECKPOINTS].contains(&name);
    let odd = |content: &Vec<u8>| content.len() > 1000 && !content.len().is_multiple_of(1 << 20);
    let plain = state.iter().filter(|(name, _)| !name.ends_with(".ibd") && *name != "ibdata1");
    plain.filter(|(name, content)| missing(name) || odd(content)).map(|(_, content)| content.len() as u64).sum()
}

#[tokio::test]
async fn an_unchanged_datadir_fetches_what_it_never_had() {
    for sealed in [false, true] {
        let mut server = if sealed { Synthetic::sealed(41).await } else { Synthetic::new(41).await };
        server.populate();
        let manifest = server.backup().await;
        let place = Place::new(PREPARES);
        let whole = place.restore(&server, &manifest).await.unwrap().figures;
        assert_eq!(whole.bytes_reused, 0);
        let state = server.state();
        let outcome = place.reuse(&server, &manifest).await.unwrap();
        let figures = outcome.figures;
        assert_eq!(figures.bytes_written, never_there(&state), "sealed: {sealed}");
        assert_eq!(figures.bytes_reused + figures.bytes_written, whole.bytes_written);
        assert!(figures.bytes_fetched * 100 < whole.bytes_fetched, "{figures:?}, {whole:?}");
        place.holds(state);
        // What the tool had made, and the backup does not have.
        let aside = outcome.aside.unwrap();
        assert_eq!((aside.files, aside.directory), (1, place.path("data.haulout-aside")));
        assert_eq!(place.names(), ["data", "data.haulout-aside"]);
    }
}

/// Bytes of the pages of the first extent of `file` that are not zero, the eighth left out.
fn old_pages(file: &[u8]) -> u64 {
    let pages = file.chunks(16384).take(64).enumerate();
    pages.filter(|(number, page)| *number != 7 && page.iter().any(|byte| *byte != 0)).count() as u64 * 16384
}

#[tokio::test]
async fn pages_that_newer_pieces_have_replaced_need_not_be_there() {
    let mut server = Synthetic::new(42).await;
    server.add_space(3, "shop/orders.ibd", 16384, 640);
    server.add_file("backup-my.cnf", CONFIG_BYTES as usize);
    server.backup().await;
    let key = SpaceKey { space: SpaceId(3), part: 0 };
    (0..10).for_each(|extent| server.write(key, extent * 64 + 7));
    let manifest = server.backup().await;
    let place = Place::new(PREPARES);
    let whole = place.restore(&server, &manifest).await.unwrap().figures;
    let figures = place.reuse(&server, &manifest).await.unwrap().figures;
    // No chunk of the first backup is there as a whole: what proves its pages are the sums in the directories.
    assert_eq!((figures.bytes_written, figures.bytes_reused), (CONFIG_BYTES, whole.bytes_written - CONFIG_BYTES));
    assert!(figures.requests > 0 && figures.bytes_fetched * 2 < whole.bytes_fetched, "{figures:?}, {whole:?}");
    let pages = server.state()["shop/orders.ibd"].clone();
    let written = |number: &usize| pages[number * 16384..][..16384].iter().any(|byte| *byte != 0);
    let spoiled = (8..64).find(written).unwrap();
    flip(&place.path("data/shop/orders.ibd"), 16384 * spoiled as u64 + 5);
    let figures = place.reuse(&server, &manifest).await.unwrap().figures;
    assert_eq!(figures.bytes_written, CONFIG_BYTES + old_pages(&pages), "the pages of one piece");
    place.holds(server.state());
}

#[tokio::test]
async fn a_directory_that_is_damaged_costs_a_fetch_and_proves_nothing() {
    let mut server = Synthetic::new(43).await;
    server.add_space(3, "shop/orders.ibd", 16384, 64);
    server.add_space(4, "shop/whole.ibd", 16384, 64);
    server.add_file("backup-my.cnf", CONFIG_BYTES as usize);
    server.backup().await;
    server.write(SpaceKey { space: SpaceId(3), part: 0 }, 7);
    let manifest = server.backup().await;
    let place = Place::new(PREPARES);
    place.restore(&server, &manifest).await.unwrap();
    for pack in server.packs().await {
        if server.is_data(pack).await {
            // The hash of the directory.
            let spoil = |mut bytes: Vec<u8>| {
                let at = bytes.len() - 20;
                bytes[at] ^= 1;
                Some(bytes)
            };
            server.tamper(&Synthetic::pack_key(pack), spoil).await;
        }
    }
    let figures = place.reuse(&server, &manifest).await.unwrap().figures;
    assert_eq!(figures.bytes_written, CONFIG_BYTES + old_pages(&server.state()["shop/orders.ibd"]));
    place.holds(server.state());
}

#[tokio::test]
async fn yesterdays_datadir_fetches_what_changed() {
    let mut server = Synthetic::populated(44).await;
    server.add_space(5, "shop/large.ibd", 16384, 640);
    let old = server.backup().await;
    let place = Place::new(PREPARES);
    place.restore(&server, &old).await.unwrap();
    let key = SpaceKey { space: SpaceId(5), part: 0 };
    for page in [3, 4, 300] {
        server.write(key, page);
    }
    let written = |state: &BTreeMap<String, Vec<u8>>| {
        let page = |page: usize| &state["shop/large.ibd"][page * 16384..][..16384];
        [3, 4, 300].into_iter().filter(|number| page(*number).iter().any(|byte| *byte != 0)).count() as u64 * 16384
    };
    server.add_file("shop/new.MYD", 2 << 20);
    let new = server.backup().await;
    let state = server.state();
    let plan = place.plan(&server, &new).await.unwrap();
    assert!(files(&place.path("data")).len() == prepared(state.clone()).len() - 1, "the plan changes nothing");
    let figures = place.reuse(&server, &new).await.unwrap().figures;
    // Of the new file the second half is zeros.
    let changed = written(&state) + (1 << 20) + never_there(&state);
    assert_eq!(figures.bytes_written, changed);
    let told = (plan.plan.written_bytes, plan.reused_bytes, plan.plan.fetched_bytes, plan.plan.requests);
    let done = (figures.bytes_written, figures.bytes_reused, figures.bytes_fetched, figures.requests);
    assert_eq!(told, done, "what the plan tells is what is done");
    place.holds(state);
}

/// Spoils files below `root` here and there: bytes, lengths, names, zeros, kinds.
fn spoil(root: &Path, rng: &mut StdRng) {
    let all: Vec<_> = tree::descendants(root).unwrap().into_iter().filter(|path| path.is_file()).collect();
    for path in &all {
        let length = fs::metadata(path).unwrap().len();
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        match rng.random_range(0..9) {
            0 if length > 0 => (0..5).for_each(|_| flip(path, rng.random_range(0..length))),
            1 => file.set_len(length / 2).unwrap(),
            2 => file.write_all_at(&vec![7; 300_000], length).unwrap(),
            3 => fs::remove_file(path).unwrap(),
            4 => fs::rename(path, path.with_extension("old")).unwrap(),
            5 => file.write_all_at(&vec![0xff; 100_000], length / 3).unwrap(),
            6 => {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
                fs::write(path.join("inside"), "x").unwrap();
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_in_the_datadir_the_backup_comes_out(seed: u64, requests in 1usize..9) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let mut server = Synthetic::populated(seed).await;
            // Something that always stays, so that the datadir is told for the server's own.
            server.add_space(9, "keep/t.ibd", 1024, 64 * 40);
            let mut rng = StdRng::seed_from_u64(seed);
            let old = server.backup().await;
            let place = Place::new(PREPARES);
            place.restore(&server, &old).await.unwrap();
            server.live(60);
            server.add_file("shop/new.MYD", 2_500_000);
            let new = server.backup().await;
            for root in ["data", "data/shop", "data/other"] {
                spoil(&place.path(root), &mut rng);
            }
            let options = RestoreOptions { fetch: FetchOptions { requests, ..FetchOptions::default() }, ..reusing() };
            let kept = place.path("data/keep/t.ibd");
            if !kept.is_file() {
                fs::remove_dir_all(&kept).ok();
                fs::write(&kept, &server.state()["keep/t.ibd"]).unwrap();
            }
            let figures = place.restore_with(&server, &new, options, &watch()).await.unwrap().figures;
            assert!(figures.bytes_reused > 0);
            place.holds(server.state());
        });
    }
}

#[tokio::test]
async fn another_servers_datadir_is_refused_and_left_alone() {
    let mut server = Synthetic::populated(45).await;
    let mut other = Synthetic::populated(46).await;
    // What every server has.
    for server in [&mut server, &mut other] {
        server.files.insert("mysql/help.MAD".to_owned(), vec![5; 4 << 20]);
    }
    let (manifest, foreign) = (server.backup().await, other.backup().await);
    let place = Place::new(PREPARES);
    place.restore(&other, &foreign).await.unwrap();
    let before = files(&place.path("data"));
    for error in [place.reuse(&server, &manifest).await.unwrap_err(), place.plan(&server, &manifest).await.unwrap_err()]
    {
        assert!(matches!(cause(&error), RestoreError::Foreign { equal: 0, .. }), "{error:?}");
        assert!(error.hint().is_some_and(|hint| hint.ends_with("without --reuse")), "{:?}", error.hint());
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.hint().unwrap().contains("without --reuse"), "{:?}", error.hint());
    }
    assert!(files(&place.path("data")) == before);
    assert_eq!(place.names(), ["data"]);
}

#[tokio::test]
async fn nothing_to_reuse_is_an_ordinary_restore() {
    let mut server = Synthetic::populated(47).await;
    let manifest = server.backup().await;
    for empty in [false, true] {
        let place = Place::new(PREPARES);
        if empty {
            fs::create_dir(place.path("data")).unwrap();
        }
        let figures = place.reuse(&server, &manifest).await.unwrap().figures;
        let plan = RestorePlan::read(&server.repository, &manifest, FetchOptions::default(), &Cancel::never()).await;
        let plan = plan.unwrap();
        assert_eq!((figures.bytes_reused, figures.bytes_written), (0, plan.written_bytes));
        assert_eq!((figures.bytes_fetched, figures.requests), (plan.fetched_bytes, plan.requests));
        place.holds(server.state());
    }
}

#[tokio::test]
async fn what_the_backup_does_not_have_goes_aside_and_nothing_is_written_through_links() {
    let mut server = Synthetic::populated(48).await;
    let manifest = server.backup().await;
    let place = Place::new(PREPARES);
    place.restore(&server, &manifest).await.unwrap();
    let data = place.path("data");
    fs::create_dir(data.join("later")).unwrap();
    fs::write(data.join("later/t.ibd"), "a table made since").unwrap();
    fs::write(data.join("shop/later.frm"), "another").unwrap();
    fs::write(data.join("mysql-bin.000007"), "a log").unwrap();
    // A file that lies elsewhere, a schema that does, and one that somebody keeps by another name.
    let items = fs::read(data.join("shop/items.ibd")).unwrap();
    fs::rename(data.join("shop/items.ibd"), place.path("elsewhere.ibd")).unwrap();
    symlink(place.path("elsewhere.ibd"), data.join("shop/items.ibd")).unwrap();
    fs::rename(data.join("other"), place.path("other")).unwrap();
    symlink(place.path("other"), data.join("other")).unwrap();
    fs::hard_link(data.join("shop/orders.ibd"), place.path("snapshot.ibd")).unwrap();
    flip(&place.path("snapshot.ibd"), 9000);
    let snapshot = fs::read(place.path("snapshot.ibd")).unwrap();
    flip(&place.path("other/small.ibd"), 9000);
    let small = fs::read(place.path("other/small.ibd")).unwrap();
    // So much was lost to links that the rest must tell whose it is.
    server.add_space(9, "shop/big.ibd", 1024, 64 * 40);
    fs::write(data.join("shop/big.ibd"), &server.state()["shop/big.ibd"]).unwrap();
    let manifest = server.backup().await;
    let plan = place.plan(&server, &manifest).await.unwrap();
    let outcome = place.reuse(&server, &manifest).await.unwrap();
    place.holds(server.state());
    let aside = outcome.aside.unwrap();
    assert_eq!(plan.aside.unwrap().directory, aside.directory);
    let read = |path: &str| fs::read(aside.directory.join(path)).unwrap();
    assert_eq!(read("later/t.ibd"), b"a table made since");
    assert_eq!(
        (read("shop/later.frm").as_slice(), read("mysql-bin.000007").as_slice()),
        (&b"another"[..], &b"a log"[..])
    );
    assert_eq!(fs::read_link(aside.directory.join("shop/items.ibd")).unwrap(), place.path("elsewhere.ibd"));
    assert!(fs::read(place.path("elsewhere.ibd")).unwrap() == items);
    assert!(fs::read(place.path("snapshot.ibd")).unwrap() == snapshot && read("shop/orders.ibd") == snapshot);
    assert!(fs::read(place.path("other/small.ibd")).unwrap() == small);
    assert!(data.join("other").symlink_metadata().unwrap().is_dir());
}

#[tokio::test]
async fn a_mount_point_is_taken_over_entry_by_entry() {
    let mut server = Synthetic::populated(49).await;
    let manifest = server.backup().await;
    let place = Place::new(PREPARES);
    let data = place.path("data");
    fs::create_dir_all(data.join("lost+found")).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o711)).unwrap();
    place.restore(&server, &manifest).await.unwrap();
    flip(&data.join("shop/orders.ibd"), 9000);
    let outcome = place.reuse(&server, &manifest).await.unwrap();
    assert!(outcome.figures.bytes_reused > 0);
    assert_eq!(outcome.aside.unwrap().directory, data.join(".haulout-aside"));
    fs::remove_dir_all(data.join(".haulout-aside")).unwrap();
    place.holds(server.state());
    assert_eq!(fs::metadata(&data).unwrap().mode() & 0o777, 0o711);
    assert!(data.join("lost+found").exists() && !data.join(".haulout").exists());
    // Killed when some of the entries had moved.
    let work = data.join(".haulout");
    fs::create_dir(&work).unwrap();
    let reuse = marker::Reuse { taken: true, aside: data.join(".haulout-aside") };
    let mut marker = Marker::filling(&manifest).over(reuse);
    marker.state = State::Taking;
    marker.write(&work).unwrap();
    for name in ["ibdata1", "shop"] {
        fs::rename(data.join(name), work.join(name)).unwrap();
    }
    let error = place.restore(&server, &manifest).await.unwrap_err();
    assert!(matches!(cause(&error), RestoreError::TakenOver { .. }), "{error:?}");
    // Somebody puts another server there.
    fs::write(data.join("ibdata1"), "new").unwrap();
    let error = place.reuse(&server, &manifest).await.unwrap_err();
    assert!(matches!(cause(&error), RestoreError::BothThere { .. }), "{error:?}");
    assert!(data.join("other").exists() && work.join("shop").exists(), "nothing was moved");
    fs::remove_file(data.join("ibdata1")).unwrap();
    place.reuse(&server, &manifest).await.unwrap();
    fs::remove_dir_all(data.join(".haulout-aside")).unwrap();
    place.holds(server.state());
}

#[tokio::test]
async fn a_run_that_was_killed_at_any_point_is_gone_on_with_and_nobody_else_takes_what_it_left() {
    let mut server = Synthetic::populated(50).await;
    server.add_space(9, "shop/big.ibd", 16384, 64);
    let old = server.backup().await;
    server.live(40);
    let manifest = server.backup().await;
    for far in [State::Filling, State::Preparing, State::Fetched] {
        for of in [&old, &manifest] {
            let place = Place::new(PREPARES);
            place.restore(&server, &old).await.unwrap();
            fs::set_permissions(place.path("data"), fs::Permissions::from_mode(0o711)).unwrap();
            if far == State::Fetched && of == &manifest {
                // Files that are whole and of this backup are not looked at again: then they must be.
                fs::remove_dir_all(place.path("data")).unwrap();
                fetch_to(&server, &manifest, &place.path("data")).await.unwrap();
                fs::set_permissions(place.path("data"), fs::Permissions::from_mode(0o711)).unwrap();
            } else {
                flip(&place.path("data/shop/orders.ibd"), 9000);
            }
            let work = place.left(of, far);
            let before = files(&work);
            if !(far == State::Fetched && of == &manifest) {
                let error = place.restore(&server, &manifest).await.unwrap_err();
                assert!(matches!(cause(&error), RestoreError::TakenOver { .. }), "{far:?}: {error:?}");
                assert!(error.hint().unwrap().contains("--reuse"), "{:?}", error.hint());
                let error = fetch_to(&server, &manifest, &work).await.unwrap_err();
                assert!(
                    matches!(error, RestoreError::TakenOver { .. } | RestoreError::WrongState { .. }),
                    "{far:?}: {error:?}"
                );
                assert!(files(&work) == before, "nothing is gone");
            }
            let outcome = place.reuse(&server, &manifest).await.unwrap();
            place.holds(server.state());
            assert_eq!(fs::metadata(place.path("data")).unwrap().mode() & 0o777, 0o711, "the datadir's own mode");
            assert!(far == State::Fetched || outcome.figures.bytes_reused > 0);
            assert!(!work.exists());
        }
    }
}

#[tokio::test]
async fn a_run_that_was_killed_before_the_rename_leaves_a_datadir() {
    let mut server = Synthetic::populated(51).await;
    let manifest = server.backup().await;
    let place = Place::new(PREPARES);
    place.restore(&server, &manifest).await.unwrap();
    let reuse = marker::Reuse { taken: true, aside: place.path("data.haulout-aside") };
    Marker::filling(&manifest).over(reuse).write(&place.path("data")).unwrap();
    place.holds(server.state());
    place.reuse(&server, &manifest).await.unwrap();
    place.holds(server.state());
    assert!(!place.path("data").join(MARKER_NAME).exists());
}

#[tokio::test]
async fn a_run_that_fails_keeps_what_there_is_and_says_so() {
    let mut server = Synthetic::populated(52).await;
    let old = server.backup().await;
    server.live(40);
    let manifest = server.backup().await;
    let mut place = Place::new(PREPARES);
    place.restore(&server, &old).await.unwrap();
    place.tools = tools(place.dir.path(), "echo 'InnoDB: No valid checkpoint was found' >&2; exit 1");
    let error = place.reuse(&server, &manifest).await.unwrap_err();
    let work = place.path("data.haulout");
    assert!(matches!(&error, RestoreError::Reusing { work_dir, .. } if *work_dir == work), "{error:?}");
    assert!(error.hint().unwrap().contains("with --reuse"), "{:?}", error.hint());
    assert!(work.join("shop/orders.ibd").exists() && !place.path("data").exists());
    assert_eq!(Marker::read(&work).unwrap().unwrap().state, State::Preparing);
    // Not even a server that is put in the place of the datadir makes it be forgotten.
    fs::create_dir(place.path("data")).unwrap();
    fs::write(place.path("data/ibdata1"), "new").unwrap();
    let error = place.reuse(&server, &manifest).await.unwrap_err();
    assert!(matches!(cause(&error), RestoreError::BothThere { .. }), "{error:?}");
    fs::remove_dir_all(place.path("data")).unwrap();
    place.tools = tools(place.dir.path(), PREPARES);
    let figures = place.reuse(&server, &manifest).await.unwrap().figures;
    assert!(figures.bytes_reused > 0);
    place.holds(server.state());
}

#[tokio::test]
async fn a_store_that_has_lost_something_costs_the_datadir_nothing_that_is_told_before() {
    let mut server = Synthetic::populated(53).await;
    let old = server.backup().await;
    let place = Place::new(PREPARES);
    place.restore(&server, &old).await.unwrap();
    server.mistake = Some(Mistake::Forget(SpaceKey { space: SpaceId(4), part: 0 }));
    let manifest = server.backup().await;
    let before = files(&place.path("data"));
    let error = place.reuse(&server, &manifest).await.unwrap_err();
    assert!(matches!(cause(&error), RestoreError::Map { .. }), "{error:?}");
    assert!(error.to_string().contains("is as it was"), "{error}");
    assert!(files(&place.path("data")) == before);
    assert_eq!(place.names(), ["data"]);
}

#[tokio::test]
async fn what_a_killed_restore_had_fetched_is_reused_too() {
    let mut server = Synthetic::populated(54).await;
    let manifest = server.backup().await;
    let place = Place::new(PREPARES);
    let work = place.path("data.haulout");
    fetch_to(&server, &manifest, &work).await.unwrap();
    fs::remove_file(work.join("shop/items.ibd")).unwrap();
    fs::write(work.join("shop/strange.ibd"), "of another backup").unwrap();
    Marker::filling(&manifest).write(&work).unwrap();
    let outcome = place.reuse(&server, &manifest).await.unwrap();
    assert!(outcome.figures.bytes_reused > outcome.figures.bytes_written);
    assert_eq!(outcome.aside, None, "nobody wants what a fetch left");
    place.holds(server.state());
    assert_eq!(fs::metadata(place.path("data")).unwrap().mode() & 0o777, 0o755, "the mode that the manifest names");
}

#[tokio::test]
async fn a_link_to_the_datadir_leads_to_it_again() {
    let mut server = Synthetic::populated(55).await;
    let manifest = server.backup().await;
    let mut place = Place::new(PREPARES);
    place.restore(&server, &manifest).await.unwrap();
    let real = place.path("disk");
    fs::create_dir(&real).unwrap();
    fs::rename(place.path("data"), real.join("mysql")).unwrap();
    symlink("disk/mysql", place.path("data")).unwrap();
    place.tools = tools(place.dir.path(), "exit 1");
    place.reuse(&server, &manifest).await.unwrap_err();
    assert!(real.join("mysql.haulout").exists() && !place.path("data").exists());
    place.tools = tools(place.dir.path(), PREPARES);
    place.reuse(&server, &manifest).await.unwrap();
    place.holds(server.state());
    assert!(place.path("data").is_symlink());
    assert_eq!(tree::entries(&real).unwrap(), ["mysql", "mysql.haulout-aside"].map(PathBuf::from));
}

#[tokio::test]
async fn room_is_wanted_for_what_is_added_alone() {
    let mut server = Synthetic::populated(56).await;
    let manifest = server.backup().await;
    let place = Place::new(PREPARES);
    place.restore(&server, &manifest).await.unwrap();
    let plan =
        RestorePlan::read(&server.repository, &manifest, FetchOptions::default(), &Cancel::never()).await.unwrap();
    let held = others::held_bytes(&place.path("data"), &plan).unwrap();
    assert!(held > plan.disk_bytes / 2 && held <= plan.logical_bytes, "{held}");
    let enough = (plan.disk_bytes.saturating_sub(held) + plan.prepare_bytes) * 21 / 20 + 1;
    assert!(enough < plan.needed_bytes());
    assert!(plan.check_space_over(place.dir.path(), enough, held).is_ok());
    let error = plan.check_space_over(place.dir.path(), enough - 3, held).unwrap_err();
    assert!(matches!(error, RestoreError::NoSpace { .. }), "{error}");
}

#[tokio::test]
async fn a_prepare_that_outlived_its_run_is_waited_for_and_its_files_stay() {
    let mut server = Synthetic::populated(57).await;
    let manifest = server.backup().await;
    let place = Place::new(PREPARES);
    place.restore(&server, &manifest).await.unwrap();
    let work = place.left(&manifest, State::Preparing);
    let dir = workdir::WorkDir::open(&work).unwrap();
    let mut orphan = Command::new("/bin/bash").args(["-c", KEEP_ONE]).arg(&work).spawn().unwrap();
    drop(dir);
    let mut marker = Marker::read(&work).unwrap().unwrap();
    marker.process.started += 1;
    marker.write(&work).unwrap();
    let result = place.reuse(&server, &manifest).await;
    let kept = work.join("shop/orders.ibd").exists();
    orphan.kill().unwrap();
    orphan.wait().unwrap();
    let error = result.unwrap_err();
    assert!(matches!(cause(&error), RestoreError::Busy { .. }), "{error:?}");
    assert!(kept);
    let figures = place.reuse(&server, &manifest).await.unwrap().figures;
    assert!(figures.bytes_reused > figures.bytes_written);
    place.holds(server.state());
}

#[tokio::test]
async fn a_pack_that_is_gone_is_told_before_the_datadir_is_given_up() {
    let mut server = Synthetic::populated(58).await;
    let manifest = server.backup().await;
    let place = Place::new(PREPARES);
    place.restore(&server, &manifest).await.unwrap();
    let before = files(&place.path("data"));
    let mut data = Vec::new();
    for pack in server.packs().await {
        if server.is_data(pack).await {
            data.push(pack);
        }
    }
    for cut in [true, false] {
        let shorten = |bytes: Vec<u8>| cut.then(|| bytes[..bytes.len() - 1].to_vec());
        server.tamper(&Synthetic::pack_key(data[0]), shorten).await;
        let error = place.reuse(&server, &manifest).await.unwrap_err();
        assert!(matches!(cause(&error), RestoreError::Unread { .. }) && error.kind() == Kind::Corrupt, "{error:?}");
        assert!(error.to_string().contains("is as it was"), "{error}");
        assert!(files(&place.path("data")) == before && place.names() == ["data"]);
    }
}

#[tokio::test]
async fn a_backup_without_tables_of_its_own_takes_no_foreign_directory() {
    let mut server = Synthetic::new(59).await;
    server.add_space(0, "ibdata1", 16384, 70);
    server.add_file("backup-my.cnf", CONFIG_BYTES as usize);
    let manifest = server.backup().await;
    let place = Place::new(PREPARES);
    fs::create_dir_all(place.path("data/letters")).unwrap();
    fs::write(place.path("data/letters/one"), "dear").unwrap();
    let error = place.reuse(&server, &manifest).await.unwrap_err();
    assert!(matches!(cause(&error), RestoreError::Foreign { equal: 0, .. }), "{error:?}");
    assert_eq!(
        (place.names(), fs::read(place.path("data/letters/one")).unwrap()),
        (vec!["data".to_owned()], b"dear".to_vec())
    );
    fs::remove_dir_all(place.path("data")).unwrap();
    place.restore(&server, &manifest).await.unwrap();
    assert!(place.reuse(&server, &manifest).await.unwrap().figures.bytes_reused > 0);
}

#[tokio::test]
async fn a_run_that_was_killed_when_all_had_arrived_in_a_mount_point_leaves_a_datadir() {
    let mut server = Synthetic::populated(61).await;
    let manifest = server.backup().await;
    let place = Place::new(PREPARES);
    let (data, work) = (place.path("data"), place.path("data/.haulout"));
    fs::create_dir_all(data.join("lost+found")).unwrap();
    place.restore(&server, &manifest).await.unwrap();
    let names = tree::entries(&data).unwrap().into_iter().map(|name| name.to_str().unwrap().to_owned());
    let entries: Vec<String> = names.collect();
    fs::create_dir(&work).unwrap();
    fs::write(work.join("backup-my.cnf"), "left out").unwrap();
    let reuse = marker::Reuse { taken: true, aside: data.join(".haulout-aside") };
    let mut marker = Marker::filling(&manifest).over(reuse);
    (marker.state, marker.moving) = (State::Moving, Some(marker::Moving { datadir: data.clone(), entries }));
    marker.write(&work).unwrap();
    let error = place.reuse(&server, &manifest).await.unwrap_err();
    assert!(error.to_string().contains("is as it was"), "{error}");
    place.holds(server.state());
    assert!(place.reuse(&server, &manifest).await.unwrap().figures.bytes_reused > 0);
    fs::remove_dir_all(data.join(".haulout-aside")).unwrap();
    place.holds(server.state());
}

#[tokio::test]
async fn a_mount_point_that_cannot_be_taken_over_is_left_as_it_was() {
    use std::os::unix::ffi::OsStrExt;
    let mut server = Synthetic::populated(60).await;
    let manifest = server.backup().await;
    let place = Place::new(PREPARES);
    let data = place.path("data");
    fs::create_dir_all(data.join("lost+found")).unwrap();
    place.restore(&server, &manifest).await.unwrap();
    let odd = data.join(std::ffi::OsStr::from_bytes(b"odd\xff"));
    fs::write(&odd, "").unwrap();
    let error = place.reuse(&server, &manifest).await.unwrap_err();
    assert!(error.to_string().contains("is as it was"), "{error}");
    assert!(!data.join(".haulout").exists());
    fs::remove_file(odd).unwrap();
    place.holds(server.state());
}
