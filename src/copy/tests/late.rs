//! Copies from and to stores that list late, or whose answers are spoiled.

use super::*;

#[tokio::test]
async fn no_copy_is_made_that_nothing_opens_because_slots_are_listed_late_or_read_wrong() {
    let mut bench = Bench::sealed(23, 1).await;
    let mut refused = 0;
    let late = |skip| Rule { skip, ..Rule::once(Operation::List, Fault::OldList(1)).on_keys("keys") };
    let wrong = |skip, times| Rule { skip, times, ..Rule::once(Operation::Get, Fault::FlipBit(3)).on_keys("keys") };
    for (key, rule) in [
        (Key::None, late(0)),
        (Key::None, late(1)),
        (bench.key, late(0)),
        (bench.key, late(1)),
        (bench.key, late(2)),
        (Key::None, wrong(0, 1)),
        (Key::None, wrong(0, 2)),
        (bench.key, wrong(1, 1)),
        (bench.key, wrong(1, 2)),
    ] {
        bench.elsewhere();
        let skip = rule.skip;
        match bench.run_with((key, &CopyOptions::default()), vec![rule], Vec::new()).await {
            Ok(_) => assert_eq!(bench.there().await, bench.ids([0])),
            // The source itself does not open.
            Err(CopyError::Repository(RepositoryError::WrongKey { .. })) if skip == 0 => {}
            Err(CopyError::Repository(error @ RepositoryError::NoSlots { .. })) => {
                assert!(error.kind() == Kind::Corrupt && error.hint().unwrap().contains("again"), "{error}");
                assert!(bench.there().await.is_empty());
                refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
        bench.pass_lease();
        bench.run(&CopyOptions::default()).await;
        assert_eq!(bench.there().await, bench.ids([0]));
    }
    assert!(refused > 2, "{refused}");
}

#[tokio::test]
async fn a_pack_that_a_sweep_of_the_copy_took_comes_back_though_an_old_listing_has_it() {
    let bench = Bench::new(24, 3).await;
    bench.run(&CopyOptions::default()).await;
    let (own, _) = bench.packs_of(&[1]).await;
    let own: BTreeSet<PackId> = own.into_iter().take(3).collect();
    let mut plan = plan_of("20261122T010000Z", Vec::new());
    let way = FaultyStore::new(Arc::new(bench.copy.timed.clone()), Script::default());
    let store = |way: &FaultyStore| {
        let retry = RetryPolicy { attempts_max: 1, ..RetryPolicy::default() };
        Store::over(bench.copy.name, Arc::new(way.clone()), StoreOptions { retry, ..StoreOptions::default() })
    };
    let pruner = Repository::open(store(&way)).await.unwrap();
    begin_sweep(&pruner, &mut plan, &own).await;
    sweep(&pruner, &plan, &bench.ids([1]), &own).await;
    bench.pass_lease();
    let old = Rule::once(Operation::List, Fault::OldList(3)).on_keys("packs");
    let old_way = way.beside(Script { rules: vec![old], ..Script::default() });
    let context =
        Context { target: store(&old_way), ..bench.context(Key::None, Vec::new(), Vec::new()).await.unwrap() };
    let all = CopyOptions { wanted: Wanted::All, ..CopyOptions::default() };
    let report = super::copy(&context, &all).await.unwrap();
    assert_eq!(report.copied.len(), 1, "{report:?}");
    assert_eq!(bench.there().await, bench.ids(0..3));
    bench.unneeded().await;
}
