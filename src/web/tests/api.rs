use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::api::document;
use super::*;

fn addresses() -> BTreeSet<String> {
    document().paths.paths.keys().cloned().collect()
}

#[test]
fn the_document_has_every_route_and_no_other() {
    let source = include_str!("../api.rs");
    let routes = source.split(".route(\"").skip(1).map(|rest| rest.split('"').next().unwrap());
    let routes: BTreeSet<String> = routes.map(|route| format!("/api/v1{route}")).collect();
    assert!(routes.len() >= 10);
    assert_eq!(routes, addresses());
}

/// The schema that the document has for an answer.
fn schema(document: &Value, path: &str, method: &str, status: u16) -> Value {
    let answer = &document["paths"][path][method]["responses"][status.to_string()];
    let mut schema = answer["content"]["application/json"]["schema"].clone();
    assert!(!schema.is_null(), "{method} {path} may not answer with {status}");
    schema["components"] = document["components"].clone();
    schema
}

fn hold(document: &Value, path: &str, method: &str, answer: &Answer) {
    let schema = schema(document, path, method, answer.status.as_u16());
    let value: Value = serde_json::from_str(&answer.text).unwrap_or_else(|_| panic!("{path}: {}", answer.text));
    let checker = jsonschema::draft202012::new(&schema).unwrap();
    let faults: Vec<String> =
        checker.iter_errors(&value).map(|fault| format!("{} at {}", fault, fault.instance_path())).collect();
    assert!(faults.is_empty(), "{method} {path}: {faults:?}\n{value:#}");
}

#[tokio::test]
async fn every_answer_fits_the_schema_of_the_document() {
    let served = served(Some(TOKEN)).await;
    let document: Value = serde_json::from_str(&served.get("/api/v1/openapi.json").await.text).unwrap();
    let values: BTreeMap<&str, &str> = [("{server}", "eu~1db1"), ("{backup}", BACKUP)].into();
    let mut seen = 0;
    for path in addresses() {
        let filled = values.iter().fold(path.clone(), |path, (name, value)| path.replace(name, value));
        let answer = served.get(&filled).await;
        // The map of the made-up backup is not there.
        let expected = if path.ends_with("/tables") { 502 } else { 200 };
        assert_eq!(answer.status.as_u16(), expected, "{filled}: {}", answer.text);
        hold(&document, &path, "get", &answer);
        seen += 1;
        if path.contains("{server}") {
            let missing = served.get(&path.replace("{server}", "nobody").replace("{backup}", BACKUP)).await;
            assert_eq!(missing.status.as_u16(), 404, "{path}");
            hold(&document, &path, "get", &missing);
        }
    }
    assert_eq!(seen, addresses().len());
    let bearer = format!("Bearer {TOKEN}");
    let json = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let post = |headers: Vec<(&'static str, String)>, body: &'static str| {
        let request = Request::post("/api/v1/runs");
        let request = headers.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        served.ask(request, body)
    };
    let owned = || json.iter().map(|(name, value)| (*name, (*value).to_owned())).collect::<Vec<_>>();
    for (headers, body, status) in [
        (owned(), r#"{"job":"backup"}"#, 202),
        (owned(), r#"{"job":"drill"}"#, 409),
        (owned(), r#"{"job":"nonsense"}"#, 422),
        (owned(), "{", 400),
        (vec![owned().remove(0)], r#"{"job":"backup"}"#, 415),
        (vec![owned().remove(1)], r#"{"job":"backup"}"#, 401),
    ] {
        let answer = post(headers, body).await;
        assert_eq!(answer.status.as_u16(), status, "{body}: {}", answer.text);
        hold(&document, "/api/v1/runs", "post", &answer);
    }
    assert_eq!(*served.agent.begun.lock().unwrap(), [Job::Backup]);
}

#[tokio::test]
async fn a_fleet_is_searched_filtered_and_sorted_by_its_address() {
    let served = served(None).await;
    let names = |text: &str| {
        let view: Value = serde_json::from_str(text).unwrap();
        let servers = view["servers"].as_array().unwrap().iter();
        servers.map(|server| server["server"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for (query, expected) in [
        ("", vec!["broken", "eu/db1"]),
        ("?sort=-worst", vec!["eu/db1", "broken"]),
        ("?sort=-name", vec!["eu/db1", "broken"]),
        ("?q=DB1", vec!["eu/db1"]),
        ("?standing=unreadable", vec!["broken"]),
        ("?standing=fine", vec![]),
        ("?q=%00%ff&page=99999999999999999999&sort=nonsense", vec![]),
    ] {
        let answer = served.get(&format!("/api/v1/fleet{query}")).await;
        assert_eq!(
            (answer.status, names(&answer.text)),
            (StatusCode::OK, expected.iter().map(|name| (*name).to_owned()).collect()),
            "{query}"
        );
    }
}

#[tokio::test]
async fn metrics_tell_of_servers_and_of_the_agent_and_end_once() {
    let served = served(None).await;
    let text = served.get("/metrics").await.text;
    for line in [
        "haulout_fleet_servers{standing=\"unreadable\"} 1",
        "haulout_fleet_backups{server=\"eu/db1\"} 1.0",
        "haulout_fleet_failed_looks_total 1",
        "haulout_agent_up 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(text.contains("haulout_fleet_last_backup_age_seconds{server=\"eu/db1\"} "));
    assert_eq!(text.matches("# EOF").count(), 1);
    assert!(text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn health_is_told_and_readiness_when_all_was_read() {
    let served = served(None).await;
    assert_eq!(served.get("/healthz").await.text, "ok\n");
    assert_eq!(served.get("/readyz").await.status, StatusCode::OK);
    let store = Store::over("s3://bucket/fleet", Arc::new(InMemory::new()), StoreOptions::default());
    let options = FleetOptions { refresh: None, access: None, clock: Arc::new(SystemClock) };
    let web = WebOptions {
        hosts: Vec::new(),
        token: None,
        thresholds: Thresholds::default(),
        price: None,
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
    };
    let early = Served { router: router(Fleet::new(store, options), None, web), agent: served.agent.clone() };
    assert_eq!(early.get("/readyz").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(early.get("/healthz").await.status, StatusCode::OK);
    assert!(early.get("/").await.text.contains("looking for repositories"));
    assert_eq!(early.get("/running").await.status, StatusCode::NOT_FOUND);
}
