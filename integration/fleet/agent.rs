//! A page with a made-up agent behind it, whose drills take some seconds: what a browser is pointed at.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use haulout::fleet::{Fleet, FleetOptions, Thresholds};
use haulout::model::{Clock, Secret, SystemClock, SystemEntropy, Timestamp};
use haulout::store::{self, StoreOptions};
use haulout::web::service::{
    AgentStatus, Archiving, Ended, Job, LogLine, Outcome, Phase, Refusal, Running, Service, Upcoming,
};
use haulout::web::{WebOptions, router, serve};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Steps of a drill, and the time of each.
const STEPS: u64 = 12;
const STEP: Duration = Duration::from_millis(400);

struct MadeUp {
    status: Arc<watch::Sender<Arc<AgentStatus>>>,
    runs: AtomicU64,
}

fn now() -> Timestamp {
    SystemClock.now().whole_seconds()
}

fn upcoming() -> Vec<Upcoming> {
    let turn = |hours: i64, job, schedule: &str, detail: &str| Upcoming {
        at: now().after(hours * 3600),
        job,
        schedule: schedule.to_owned(),
        zone: "Europe/Berlin".to_owned(),
        detail: detail.to_owned(),
    };
    let mut all = Vec::new();
    for day in 0..5 {
        all.push(turn(day * 24 + 2, Job::Backup, "0 2 * * *", if day == 3 { "full" } else { "incremental" }));
        all.push(turn(day * 24 + 4, Job::Prune, "0 4 * * *", ""));
        all.push(turn(day * 24 + 6, Job::Check, "0 6 * * *", "1/14 of the packs"));
    }
    all.push(turn(77, Job::Drill, "30 5 * * SUN", "all tables"));
    all.sort_by_key(|turn| turn.at);
    all
}

fn ended(run: u64, job: Job, hours: i64, outcome: Outcome, message: &str) -> Ended {
    Ended {
        run,
        job,
        cause: "schedule".to_owned(),
        started: now().after(-hours * 3600 - 400),
        finished: now().after(-hours * 3600),
        outcome,
        exit_code: Some(if outcome == Outcome::Failed { 22 } else { 0 }),
        message: message.to_owned(),
        hint: (outcome == Outcome::Failed).then(|| "is the endpoint right? Run `haulout doctor`".to_owned()),
        summary: None,
    }
}

impl MadeUp {
    fn new() -> MadeUp {
        let status = AgentStatus {
            server: "shop-db001".to_owned(),
            repository: "s3://backups/shop-db001".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: "shop-db001.example.com".to_owned(),
            started: now().after(-9 * 86_400),
            config_file: "/etc/haulout/agent.toml".to_owned(),
            config_loaded: now().after(-2 * 86_400),
            config_problem: None,
            running: Vec::new(),
            recent: vec![
                ended(41, Job::Check, 2, Outcome::Succeeded, "1,204 packs of 16,800 were read, and all are right"),
                ended(40, Job::Prune, 4, Outcome::Succeeded, "one backup goes after its grace period"),
                ended(39, Job::Backup, 6, Outcome::Succeeded, "incremental, 1.20 GiB added in 3m12s"),
                ended(38, Job::Backup, 30, Outcome::Failed, "cannot reach s3://backups/shop-db001: connection refused"),
            ],
            archiving: Some(Archiving {
                following: true,
                last_event: Some(now().after(-2)),
                waiting_seconds: 2,
                behind_bytes: Some(0),
                spooled_bytes: 48 << 10,
                gaps: 0,
                problem: None,
            }),
            upcoming: upcoming(),
        };
        MadeUp { status: Arc::new(watch::channel(Arc::new(status)).0), runs: AtomicU64::new(42) }
    }

    fn running(run: u64, job: Job, step: u64, started: Timestamp) -> Running {
        let share = step as f64 / STEPS as f64;
        let total: u64 = 34 << 30;
        let phase = Phase {
            phase: "fetch".to_owned(),
            done: (total as f64 * share) as u64,
            total: Some(total),
            unit: "bytes".to_owned(),
            seconds: step as f64 * STEP.as_secs_f64(),
            ended: step == STEPS,
            rate: Some(1.4e9),
            seconds_left: Some((STEPS - step) as f64 * STEP.as_secs_f64()),
        };
        let line = |level: &str, message: String| LogLine { at: now(), level: level.to_owned(), message };
        let mut log = vec![line("note", "the newest backup is restored in /var/lib/haulout/drill".to_owned())];
        log.extend((0..step).map(|step| line("note", format!("{} files of 412 are there", step * 34))));
        Running { run, job, cause: "page".to_owned(), started, phases: vec![phase], log }
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
        if self.status().running.iter().any(|running| running.job == job) {
            return Err(Refusal::Busy(job));
        }
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let (status, started) = (self.status.clone(), now());
        tokio::spawn(async move {
            for step in 0..=STEPS {
                let running = MadeUp::running(run, job, step, started);
                status.send_modify(|status| {
                    let mut next = AgentStatus::clone(status);
                    next.running.retain(|other| other.run != run);
                    next.running.push(running);
                    *status = Arc::new(next);
                });
                tokio::time::sleep(STEP).await;
            }
            status.send_modify(|status| {
                let mut next = AgentStatus::clone(status);
                next.running.retain(|other| other.run != run);
                let mut done = ended(
                    run,
                    job,
                    0,
                    Outcome::Succeeded,
                    "the restored server answered after 4m41s; 400 tables are right",
                );
                done.cause = "page".to_owned();
                next.recent.insert(0, done);
                *status = Arc::new(next);
            });
        });
        Ok(run)
    }

    fn metrics(&self) -> String {
        "# TYPE haulout_agent_up gauge\nhaulout_agent_up 1\n# EOF\n".to_owned()
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Serves the fleet under `directory`, with the agent where a token is given, until the process is ended; prints the address first.
pub async fn run(directory: &str, token: Option<String>) {
    let url = format!("file://{directory}").parse().expect("a directory");
    let store = store::open(&url, &StoreOptions::default()).await.expect("a store");
    let options = FleetOptions { refresh: None, access: None, clock: Arc::new(SystemClock) };
    let fleet = Fleet::new(store, options);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
    let address = listener.local_addr().expect("an address");
    let service = token.is_some().then(|| Arc::new(MadeUp::new()) as Arc<dyn Service>);
    let web = WebOptions {
        hosts: Vec::new(),
        token: token.map(Secret::new),
        thresholds: Thresholds::default(),
        price: Some(0.023),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
    };
    let (_stop, stopped) = watch::channel(false);
    println!("http://{address}");
    let reading = tokio::spawn({
        let (fleet, stopped) = (fleet.clone(), stopped.clone());
        async move { fleet.run(stopped).await }
    });
    serve(listener, router(fleet, service, web), stopped).await;
    reading.abort();
}
