//! `haulout serve`: a fleet in a bucket, shown from the bucket alone.

use std::{
    cell::Cell,
    fs,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    Answer, Bucket, Fault, FaultyPath, Haulout, LocalStack, MariaDb, Page,
    binary::{Run, Running},
    scratch,
    site::{SHOP, assert_says},
    store::environment,
};

/// What nobody may read anywhere. The store of these tests takes any secret.
const STORE_SECRET: &str = "a-secret-of-the-store-4711";
const PASSPHRASE: &str = "a passphrase that is long enough 4711";
const TOKEN: &str = "a-token-that-nobody-guesses-4711";
const BEARER: (&str, &str) = ("Authorization", "Bearer a-token-that-nobody-guesses-4711");

/// Time for what runs at a signal to end: answers that are under way have 5 s.
const END: Duration = Duration::from_secs(10);

/// A service at work.
struct Service {
    running: Running,
    page: Page,
}

impl Service {
    /// Starts it with a look at each repository every five seconds, the shortest there is.
    fn start(haulout: &Haulout, more: &[&str]) -> Service {
        let arguments = ["--json", "serve", "--listen", "127.0.0.1:0", "--refresh", "5s"];
        let mut running = haulout.spawn(arguments.iter().chain(more));
        let port = Cell::new(0);
        running.wait_for_line("word of its address", |line| {
            let told: Value = serde_json::from_str(line).unwrap_or_default();
            let found = told["address"].as_str().and_then(|address| address.rsplit(':').next()?.parse().ok());
            found.inspect(|found| port.set(*found)).is_some()
        });
        Service { running, page: Page::at(port.get()) }
    }

    /// Waits until `holds`.
    fn wait_for(&mut self, what: &str, holds: impl Fn(Page) -> bool) {
        let page = self.page;
        self.running.wait_for(what, |_| holds(page));
    }

    /// Has it end as systemd does.
    fn end(self) -> Run {
        let asked = Instant::now();
        self.running.signal(Signal::TERM);
        let run = self.running.wait().ok();
        assert!(asked.elapsed() < END, "{:?}", asked.elapsed());
        run
    }
}

/// A small server with a shop.
fn shop() -> MariaDb {
    let server = MariaDb::start();
    server.sql(SHOP);
    server
}

fn id(run: &Run) -> String {
    run.summary()["backup_id"].as_str().unwrap().to_owned()
}

/// Servers and how they stand, in the order in which they are told.
fn standings(page: Page) -> Vec<(String, String)> {
    let fleet = page.json("/fleet");
    let text = |server: &Value, name: &str| server[name].as_str().unwrap().to_owned();
    fleet["servers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|server| (text(server, "server"), text(server, "standing")))
        .collect()
}

/// Everything that can be read of a server's page: each address of the API's own document, and each page.
fn read_all(page: Page, server: &str, backup: &str) -> Vec<(String, Answer)> {
    let document = page.json("/openapi.json");
    let paths = document["paths"].as_object().unwrap();
    let readable = paths.iter().filter(|(_, methods)| !methods["get"].is_null());
    let filled = readable.map(|(path, _)| path.replace("{server}", server).replace("{backup}", backup));
    let pages =
        ["/", "/running", "/upcoming", "/login", "/metrics", "/healthz", "/readyz", "/nothing", "/?q=db&sort=-name"];
    let own = [format!("/servers/{server}"), format!("/servers/{server}/backups/{backup}"), "/servers/none".to_owned()];
    let all = filled.chain(pages.map(str::to_owned)).chain(own);
    all.map(|path| (path.clone(), page.get(&path))).collect()
}

/// Where `text` has each of these, which must be in this order.
#[track_caller]
fn assert_in_order(text: &str, wanted: &[&str]) {
    let places: Vec<Option<usize>> = wanted.iter().map(|wanted| text.find(wanted)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{wanted:?}: {places:?} in {text}");
}

#[test]
fn a_bucket_of_servers_is_told_the_worst_first_and_nobody_reads_a_secret_or_starts_anything() {
    let (bucket, server, folder) = (LocalStack::shared().bucket(), shop(), scratch());
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (key_text, other_text) = ("5a".repeat(32), "c3".repeat(32));
    let (key, other, token) = (file("key", &key_text), file("other", &other_text), file("token", TOKEN));
    let at = |prefix: &str| Haulout::in_bucket(&bucket, &format!("eu/{prefix}"));
    let sealed = |prefix: &str, key: &str| {
        let haulout = at(prefix).with([("HAULOUT_KEY_FILE", key)]);
        haulout.run(["init", "--encrypt"]).ok();
        haulout
    };
    // One of which all is well, one that was never drilled, one whose only backup has rotted, one without any, one whose key is not here,
    // and one that is not sealed, in a fleet of which all are.
    let db1 = sealed("db1", &key);
    let first = id(&db1.backup(&server, &[]).ok());
    db1.run(["drill", "--scratch", folder.path().join("d").to_str().unwrap()]).ok();
    let db2 = at("prod/db2").with([("HAULOUT_PASSPHRASE", PASSPHRASE)]);
    db2.run(["init", "--encrypt"]).ok();
    db2.backup(&server, &[]).ok();
    let rotten = id(&sealed("rotten", &key).backup(&server, &[]).ok());
    bucket.put(&format!("eu/rotten/backups/{rotten}.json"), b"rot".to_vec());
    sealed("empty", &key);
    let vault = id(&sealed("vault", &other).backup(&server, &[]).ok());
    let plain = at("plain");
    plain.run(["init"]).ok();
    plain.backup(&server, &[]).ok();

    let before = bucket.keys("eu/db1/");
    let haulout = Haulout::in_bucket(&bucket, "eu")
        .with([("AWS_SECRET_ACCESS_KEY", STORE_SECRET), ("HAULOUT_PASSPHRASE", PASSPHRASE)]);
    let mut service = Service::start(&haulout, &["--key-file", &key, "--token-file", &token, "--price", "0.02"]);
    let page = service.page;
    service.wait_for("all to be read", |page| page.get("/readyz").status == 200);
    let expected = [
        ("plain", "unreadable"),
        ("empty", "no_backup"),
        ("rotten", "damaged"),
        ("prod/db2", "unproven"),
        ("vault", "sealed"),
        ("db1", "fine"),
    ];
    assert_eq!(standings(page), expected.map(|(name, standing)| (name.to_owned(), standing.to_owned())));
    let front = page.get("/").body;
    assert!(front.contains("3 of 6 servers need you"), "{front}");
    let links = expected.map(|(name, _)| format!("href=\"/servers/{}\"", name.replace('/', "~1")));
    assert_in_order(&front, &links.each_ref().map(String::as_str));
    let critical = page.json("/fleet?standing=critical");
    assert_eq!((&critical["matching"], critical["servers"].as_array().unwrap().len()), (&3.into(), 3));
    // Of the one whose key is not here, names and times are known.
    let known = page.json("/servers/vault");
    assert_eq!((&known["backups"], &known["opened"], &known["sealed"]), (&1.into(), &false.into(), &true.into()));
    assert!(known["newest_backup"].is_string() && known["host"].is_null(), "{known}");
    assert_eq!(page.get(&format!("/api/v1/servers/vault/backups/{vault}")).status, 404);
    assert!(page.json("/servers/plain")["reason"].as_str().unwrap().contains("is not sealed"));
    assert!(page.json("/servers/rotten")["reason"].as_str().unwrap().contains(&rotten));

    // All that there is of the one of which all is well.
    let all = read_all(page, "db1", &first);
    for (path, answer) in &all {
        let no_agent = ["/agent", "/upcoming", "/runs", "/running", "/login"].iter().any(|end| path.ends_with(end));
        let missing = no_agent || path.contains("/none") || path.ends_with("/nothing");
        assert_eq!(answer.status, if missing { 404 } else { 200 }, "{path}: {}", answer.body);
        assert!(answer.head.to_lowercase().contains("content-security-policy: default-src 'none'"), "{}", answer.head);
    }
    assert!(all.len() >= 20, "{}", all.len());
    let backup = page.json(&format!("/servers/db1/backups/{first}"));
    let command = backup["restore_command"].as_str().unwrap();
    assert!(command.contains(&bucket.url("eu/db1")) && command.contains(&first), "{command}");
    let tables = page.json(&format!("/servers/db1/backups/{first}/tables")).to_string();
    assert!(tables.contains("item") && tables.contains("note"), "{tables}");
    let drawn = page.get("/servers/db1").body;
    assert!(drawn.contains(&first) && drawn.contains("passed") && drawn.contains("<svg"), "{drawn}");
    for (metric, value) in [
        ("haulout_fleet_servers{standing=\"fine\"}", 1.0),
        ("haulout_fleet_servers{standing=\"unreadable\"}", 1.0),
        ("haulout_fleet_server_fine{server=\"db1\"}", 1.0),
        ("haulout_fleet_server_fine{server=\"vault\"}", 0.0),
        ("haulout_fleet_backups{server=\"prod/db2\"}", 1.0),
    ] {
        assert_eq!(page.metric(metric), Some(value), "{metric}: {}", page.get("/metrics").body);
    }

    // Nothing can be begun or changed here, with the token or without, and nobody is served under a name that is another's.
    let mut answers: Vec<(String, Answer)> = all;
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let json = [("Content-Type", "application/json"), BEARER];
    let login = format!("token={TOKEN}");
    for (method, path, headers, body, status) in [
        ("POST", "/api/v1/runs", &json[..1], "{\"job\": \"backup\"}", 404),
        ("POST", "/api/v1/runs", &json[..], "{\"job\": \"backup\"}", 404),
        ("POST", "/runs", &form[..], "csrf=&job=backup", 401),
        ("POST", "/login", &form[..], &login, 404),
        ("POST", "/logout", &form[..], "csrf=", 401),
        ("POST", "/", &form[..], "", 405),
        ("PUT", "/api/v1/fleet", &json[..], "{}", 405),
        ("DELETE", "/api/v1/servers/db1", &json[..], "", 405),
        ("GET", "/", &[("Host", "evil.example")][..], "", 421),
    ] {
        let answer = page.send(method, path, headers, body).unwrap();
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        assert!(!answer.head.to_lowercase().contains("set-cookie"), "{}", answer.head);
        answers.push((path.to_owned(), answer));
    }

    // What is new comes by itself, and an open page is told.
    let mut events = page.events();
    assert_eq!(events.next().as_deref(), Some("changed"));
    server.sql("DELETE FROM shop.item WHERE id < 100");
    let newest = id(&db2.backup(&server, &["--incremental"]).ok());
    service.wait_for("the new backup to appear", |page| {
        page.json("/servers/prod~1db2")["all_backups"][0]["id"] == newest.as_str()
    });
    assert_eq!(events.next().as_deref(), Some("changed"));
    assert!(page.get("/servers/prod~1db2").body.contains(&newest));
    answers.extend(read_all(page, "prod~1db2", &newest));

    let taken = haulout.run(["--json", "serve", "--listen", &format!("127.0.0.1:{}", page.port())]).exits(1);
    assert_says(&taken, 1, "cannot listen on 127.0.0.1:", "--listen");
    // A page that is open does not hold its end up.
    let run = service.end();
    while events.next().is_some() {}
    let secrets = [STORE_SECRET, PASSPHRASE, TOKEN, &key_text, &other_text];
    let told = answers.iter().map(|(path, answer)| (path.as_str(), format!("{}\n{}", answer.head, answer.body)));
    for (place, text) in told.chain([("standard output", run.stdout.clone()), ("standard error", run.stderr.clone())]) {
        for secret in secrets {
            assert!(!text.contains(secret), "{place} has {secret:?}: {text}");
        }
    }
    assert_eq!(bucket.keys("eu/db1/"), before, "it only reads");
}

/// Two servers in a bucket behind a line, with a backup each.
fn two_behind_a_line(bucket: &Bucket, server: &MariaDb) -> ([Haulout; 2], FaultyPath, Haulout) {
    let two = ["db1", "db2"].map(|name| {
        let haulout = Haulout::in_bucket(bucket, &format!("eu/{name}"));
        haulout.run(["init"]).ok();
        haulout.backup(server, &[]).ok();
        haulout
    });
    let path = FaultyPath::to(LocalStack::shared().address());
    let behind = Haulout::on(bucket.url("eu")).with(environment(&path.endpoint()));
    (two, path, behind)
}

#[test]
fn a_store_that_is_away_is_told_and_when_it_is_back_all_is_current_again() {
    let (bucket, server) = (LocalStack::shared().bucket(), shop());
    let ([db1, _], path, haulout) = two_behind_a_line(&bucket, &server);
    let mut service = Service::start(&haulout, &[]);
    service.wait_for("all to be read", |page| page.get("/readyz").status == 200);
    let page = service.page;
    let before = page.json("/servers/db1");
    let grown = page.get("/servers/db1?tables=show").body;
    let backup = before["all_backups"][0]["id"].as_str().unwrap();
    for told in
        ["class=\"bytable\"", "<th scope=\"row\">shop.", &format!("/servers/db1/backups/{backup}?tables=show#tables")]
    {
        assert!(grown.contains(told), "{told}: {grown}");
    }
    assert!(!grown.contains("not read yet"), "{grown}");
    path.set(Fault::Down);
    let mut late = Service::start(&haulout, &[]);
    let all_stand = |page: Page, standing: &str| {
        let standings = standings(page);
        standings.len() == 2 && standings.iter().all(|(_, found)| found == standing)
    };
    service.wait_for("both to be called unreachable", |page| all_stand(page, "unreachable"));
    // It answers as quickly as ever, with what it knows, and says since when and why it knows no more.
    let asked = Instant::now();
    assert_eq!((page.get("/healthz").status, page.get("/healthz").body.as_str()), (200, "ok\n"));
    let known = page.json("/servers/db1");
    let front = page.get("/").body;
    let drawn = page.get("/servers/db1");
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert_eq!((&known["all_backups"], known["backups"].as_u64()), (&before["all_backups"], Some(1)));
    assert!(known["read_at"].as_str() >= before["read_at"].as_str() && known["read_at"].is_string(), "{known}");
    let says = format!("at {}: ", bucket.url("eu/db1"));
    assert!(
        known["reason"].as_str().unwrap().contains(&says) && known["reason"].as_str().unwrap().contains("attempts"),
        "{known}"
    );
    assert!(front.contains("Unreachable") && front.contains(&says), "{front}");
    let id_known = before["all_backups"][0]["id"].as_str().unwrap();
    assert!(drawn.status == 200 && drawn.body.contains(id_known) && drawn.body.contains("Unreachable"), "{drawn:?}");
    assert_eq!(page.metric("haulout_fleet_servers{standing=\"unreachable\"}"), Some(2.0));
    assert_eq!(page.metric("haulout_fleet_server_fine{server=\"db1\"}"), Some(0.0));
    assert!(page.metric("haulout_fleet_failed_looks_total").is_some_and(|looks| looks >= 2.0));
    // What must be read anew for it says that it cannot be.
    let missing = page.get(&format!("/api/v1/servers/db1/backups/{id_known}"));
    assert!(missing.status == 502 && missing.body.contains(&says), "{missing:?}");
    // One that was started meanwhile knows nothing, and says why.
    late.wait_for("word that the place cannot be listed", |page| page.json("/fleet")["problem"].is_string());
    let place = format!("at {}: ", bucket.url("eu"));
    let (late_front, ready) = (late.page.get("/").body, late.page.get("/readyz"));
    assert!(late_front.contains("The place cannot be listed") && late_front.contains(&place), "{late_front}");
    assert!(ready.status == 503 && ready.body.contains(&place), "{ready:?}");
    assert_eq!(late.page.get("/healthz").status, 200);

    let newest = id(&db1.backup(&server, &[]).ok());
    path.set(Fault::None);
    let back = Instant::now();
    for service in [&mut service, &mut late] {
        service.wait_for("all to be current again", |page| {
            let fleet = page.json("/fleet");
            let newest =
                page.try_json("/servers/db1").is_some_and(|server| server["all_backups"][0]["id"] == newest.as_str());
            newest && all_stand(page, "unproven") && fleet["problem"].is_null() && page.get("/readyz").status == 200
        });
        assert!(!service.page.get("/").body.contains("cannot be listed"));
    }
    println!("current again after {:?}", back.elapsed());
    assert!(page.json("/servers/db1")["read_at"].as_str() > known["read_at"].as_str());
    for service in [service, late] {
        service.end();
    }
}

#[test]
fn a_place_without_a_repository_and_a_bucket_that_is_not_there_are_told_and_what_comes_later_is_seen() {
    let (bucket, server) = (LocalStack::shared().bucket(), shop());
    let mut service = Service::start(&Haulout::in_bucket(&bucket, "nobody"), &[]);
    service.wait_for("the place to be searched", |page| page.json("/fleet")["complete"] == true);
    let page = service.page;
    let fleet = page.json("/fleet");
    assert_eq!((&fleet["found"], &fleet["problem"], page.get("/readyz").status), (&0.into(), &Value::Null, 200));
    let front = page.get("/").body;
    assert!(front.contains("No repository is here") && front.contains("haulout init"), "{front}");
    let late = Haulout::in_bucket(&bucket, "nobody/eu/late");
    late.run(["init"]).ok();
    late.backup(&server, &[]).ok();
    service.wait_for("it to appear", |page| standings(page) == [("eu/late".to_owned(), "unproven".to_owned())]);
    service.end();

    let gone = Haulout::on("s3://haulout-no-such-bucket/eu").with(bucket.environment());
    let mut service = Service::start(&gone, &[]);
    service.wait_for("word of the bucket", |page| page.json("/fleet")["problem"].is_string());
    let (front, ready) = (service.page.get("/").body, service.page.get("/readyz"));
    let says = "there is no bucket for s3://haulout-no-such-bucket/eu";
    assert!(front.contains("The place cannot be listed") && front.contains(says), "{front}");
    assert!(ready.status == 503 && ready.body.contains(says), "{ready:?}");
    assert_eq!(service.page.get("/healthz").status, 200);
    service.end();
}
