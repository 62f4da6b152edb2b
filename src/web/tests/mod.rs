//! The whole router, over a fleet in memory and an agent that is made up.

mod api;
mod pages;
mod wire;

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use object_store::{ObjectStoreExt, memory::InMemory};
use tokio::sync::watch;
use tower_service::Service as _;

use super::server::Peer;
use super::service::*;
use super::{WebOptions, router};
use crate::fleet::{Fleet, FleetOptions, Thresholds};
use crate::format::{manifest_example, proof_example, proof_passing, segment_example};
use crate::model::{BackupId, Secret, SystemClock, SystemEntropy, Timestamp};
use crate::repository::Repository;
use crate::store::{Store, StoreOptions};

pub(super) const TOKEN: &str = "correct horse battery staple";
pub(super) const BACKUP: &str = "20261122T020000Z-aaaaaa";

/// An agent that begins what it is asked to and tells so.
pub(super) struct MadeUp {
    status: watch::Sender<Arc<AgentStatus>>,
    pub begun: Mutex<Vec<Job>>,
}

fn at(second: u32) -> Timestamp {
    Timestamp::from_seconds(1_795_348_800 + second)
}

impl MadeUp {
    fn new() -> MadeUp {
        let phase = Phase {
            phase: "fetch".to_owned(),
            done: 3 << 30,
            total: Some(4 << 30),
            unit: "bytes".to_owned(),
            seconds: 12.5,
            ended: false,
            rate: Some(1e8),
            seconds_left: Some(10.7),
        };
        let line = LogLine { at: at(5), level: "warning".to_owned(), message: "<b>not bold</b>".to_owned() };
        let running = Running {
            run: 7,
            job: Job::Drill,
            cause: "schedule".to_owned(),
            started: at(0),
            phases: vec![phase],
            log: vec![line],
        };
        let ended = Ended {
            run: 6,
            job: Job::Backup,
            cause: "page".to_owned(),
            started: at(0),
            finished: at(60),
            outcome: Outcome::Failed,
            exit_code: Some(22),
            message: "the store was away".to_owned(),
            hint: Some("try later".to_owned()),
            summary: Some(serde_json::json!({"backup_id": BACKUP})),
        };
        let upcoming = Upcoming {
            at: at(86_400),
            job: Job::Backup,
            schedule: "0 2 * * *".to_owned(),
            zone: "Europe/Berlin".to_owned(),
            detail: "full".to_owned(),
        };
        let archiving = Archiving {
            following: true,
            last_event: Some(at(3)),
            waiting_seconds: 2,
            behind_bytes: Some(9),
            spooled_bytes: 100,
            gaps: 0,
            problem: None,
        };
        let status = AgentStatus {
            server: "db1".to_owned(),
            repository: "s3://bucket/db1".to_owned(),
            version: "0.1.0".to_owned(),
            host: "db1.example.com".to_owned(),
            started: at(0),
            config_file: "/etc/haulout.toml".to_owned(),
            config_loaded: at(0),
            config_problem: None,
            running: vec![running],
            recent: vec![ended],
            archiving: Some(archiving),
            upcoming: vec![upcoming],
        };
        MadeUp { status: watch::channel(Arc::new(status)).0, begun: Mutex::default() }
    }
}

#[async_trait]
impl Service for MadeUp {
    fn status(&self) -> Arc<AgentStatus> {
        self.status.borrow().clone()
    }

    fn changes(&self) -> watch::Receiver<Arc<AgentStatus>> {
        self.status.subscribe()
    }

    async fn start(&self, job: Job) -> Result<u64, Refusal> {
        if job == Job::Drill {
            return Err(Refusal::Busy(job));
        }
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).push(job);
        Ok(8)
    }

    fn metrics(&self) -> String {
        "# TYPE haulout_agent_up gauge\nhaulout_agent_up 1\n# EOF\n".to_owned()
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

/// A service over a fleet of `eu/db1`, of which all is known, and of `broken`, which is no repository any more.
pub(super) struct Served {
    pub router: Router,
    pub agent: Arc<MadeUp>,
}

pub(super) async fn fleet() -> Fleet {
    let objects = Arc::new(InMemory::new());
    let store = Store::over("s3://bucket/fleet", objects.clone(), StoreOptions::default());
    let path = ["eu".to_owned(), "db1".to_owned()];
    let repository = Repository::init(store.below(&path).unwrap(), &SystemClock, &SystemEntropy).await.unwrap();
    let id = repository.config().repository_id;
    let mut manifest = manifest_example();
    manifest.repository_id = id;
    manifest.server.hostname = "<i>db1</i>".to_owned();
    manifest.finished = Timestamp("2026-11-22T02:04:00Z".parse().unwrap());
    manifest.position.file = Some("b.000001".to_owned());
    manifest.position.position = Some(4);
    manifest.position.gtid = Some("0-1-100".to_owned());
    repository.commit(&manifest, None).await.unwrap();
    let mut passing = proof_passing();
    passing.id = "20261122T050000Z-aaaaaa".parse().unwrap();
    for mut proof in [proof_example(), passing] {
        proof.repository_id = id;
        proof.backup = BACKUP.parse::<BackupId>().unwrap();
        repository.put_proof(&proof).await.unwrap();
    }
    let mut segment = segment_example();
    segment.repository_id = id;
    repository.put_segment(&segment).await.unwrap();
    objects.put(&"broken/haulout.json".into(), "rot".into()).await.unwrap();
    let options = FleetOptions { refresh: None, access: None, clock: Arc::new(SystemClock) };
    let fleet = Fleet::new(store, options);
    fleet.look().await;
    fleet
}

pub(super) async fn served(token: Option<&str>) -> Served {
    let agent = Arc::new(MadeUp::new());
    let options = WebOptions {
        hosts: vec!["backup.example".to_owned()],
        token: token.map(|token| Secret::new(token.to_owned())),
        thresholds: Thresholds::default(),
        price: Some(0.023),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
    };
    Served { router: router(fleet().await, Some(agent.clone()), options), agent }
}

/// An answer.
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Served {
    pub async fn ask(&self, request: axum::http::request::Builder, body: &str) -> Answer {
        let mut request = request.body(Body::from(body.to_owned())).unwrap();
        if !request.headers().contains_key("host") {
            request.headers_mut().insert("host", "127.0.0.1:8321".parse().unwrap());
        }
        request.extensions_mut().insert(Peer("192.0.2.7:999".parse().unwrap()));
        let answer = self.router.clone().call(request).await.unwrap();
        let (parts, body) = answer.into_parts();
        let text = String::from_utf8(to_bytes(body, 8 << 20).await.unwrap().to_vec()).unwrap();
        Answer { status: parts.status, headers: parts.headers, text }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask(Request::get(path), "").await
    }

    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let form = Request::post(path).header("content-type", "application/x-www-form-urlencoded");
        let request = headers.iter().fold(form, |request, (name, value)| request.header(*name, *value));
        self.ask(request, body).await
    }
}
