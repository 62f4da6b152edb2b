//! The agent at work: one task that begins runs, listens to them, and shows what it knows.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::Router;
use tokio::{
    net::TcpListener,
    signal::unix::Signal,
    sync::{mpsc, watch},
    time::{Instant, timeout},
};

use super::{
    AgentError,
    archiver::Archiver,
    child::{End, Event, LINES_MAX, Launcher},
    config::{AgentConfig, Task, exclude},
    hooks,
    lock::StateLock,
    mail::Mail,
    memory::{Last, Memory, MemoryFile},
    metrics::Sample,
    orders,
    progress::Said,
    reload::{InForce, Loaded, Source, Stamp},
    schedule::{self, Cause, Scheduler},
    service::{Handle, WISHES_MAX, Wish},
    story::{Happening, RunStory, Story},
};
use crate::{
    model::{Clock, Progress, Timestamp},
    web::{
        self,
        service::{AgentStatus, Ended, Job, Outcome, Refusal, Running, Service, Upcoming},
    },
};

/// Longest pause between two looks at the clock, the settings file and what is due.
const TICK: Duration = Duration::from_secs(5);
/// Shortest such pause: what is due and may not begin yet begins when something ends.
const TICK_MIN: Duration = Duration::from_millis(200);
/// Time that runs have to end once the agent was told to. Each is killed before.
const STOP_TIME: Duration = Duration::from_secs(26);
/// Seconds for which what the schedule will do is not computed anew.
const UPCOMING_SECONDS: i64 = 60;

/// Whoever started the agent and watches over it, such as systemd.
pub trait Supervisor: Send + Sync {
    /// It works.
    fn ready(&self);
    /// It reads its settings anew.
    fn reloading(&self);
    /// It is ending.
    fn stopping(&self);
    /// It lives.
    fn alive(&self);
    /// What it does just now.
    fn tell(&self, status: &str);
    /// How often a sign of life is expected.
    fn patience(&self) -> Option<Duration>;
}

/// Makes what is answered over HTTP of an agent.
pub type Page = Box<dyn Fn(Arc<dyn Service>) -> Router + Send + Sync>;

/// What an agent works with.
pub struct Context {
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
    /// Where settings come from.
    pub source: Arc<dyn Source>,
    /// Whoever watches over it.
    pub supervisor: Arc<dyn Supervisor>,
    /// Where it tells.
    pub progress: Arc<dyn Progress>,
    /// How runs are started.
    pub launcher: Launcher,
    /// Name of the machine.
    pub host: String,
    /// Seconds before the first repetition of a run that failed.
    pub retry_seconds: u32,
    /// What is answered over HTTP, where it listens.
    pub page: Option<Page>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("launcher", &self.launcher).finish_non_exhaustive()
    }
}

/// Works with the settings `first` until `stop` turns true; `hangup` has the settings read anew.
///
/// # Errors
/// When it cannot begin: another agent is at work, the state directory cannot be used, nothing can listen at the address.
pub async fn run(
    context: &Context,
    first: Loaded,
    mut stop: watch::Receiver<bool>,
    mut hangup: Signal,
) -> Result<(), AgentError> {
    let now = context.clock.now();
    let holder = format!("process {} on {}, since {now}", std::process::id(), context.host);
    let _lock = StateLock::take(&first.config.state_dir, &holder)?;
    let listener = match first.config.listen {
        None => None,
        Some(address) => {
            let failed = |source| AgentError::Listen { address: address.to_string(), source };
            Some(TcpListener::bind(address).await.map_err(failed)?)
        }
    };
    let (wishes, mut wished) = mpsc::channel(WISHES_MAX);
    let mut agent = Agent::begin(context, first, wishes, now)?;
    let server = listener.zip(context.page.as_ref()).map(|(listener, page)| {
        let handle: Arc<dyn Service> = agent.handle.clone();
        tokio::spawn(web::serve(listener, page(handle), stop.clone()))
    });
    agent.handle.obstruct(None);
    context.supervisor.ready();
    loop {
        agent.step().await;
        let pause = agent.pause();
        tokio::select! {
            event = agent.events.1.recv() => if let Some((run, event)) = event { agent.hear(run, event) },
            wish = wished.recv() => if let Some(wish) = wish { agent.wish(wish) },
            _ = hangup.recv() => agent.reload(true),
            _ = stop.wait_for(|stop| *stop) => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
    context.supervisor.stopping();
    agent.handle.obstruct(Some("it is stopping".to_owned()));
    drop(wished);
    agent.finish().await;
    if let Some(server) = server {
        server.abort();
    }
    Ok(())
}

/// What a run told, by its number.
type Told = (u64, Event);

struct Run {
    task: Task,
    cause: Cause,
    started: Timestamp,
    full: bool,
    said: Said,
    stop: watch::Sender<bool>,
}

/// What runs tell, by their numbers.
type Events = (mpsc::Sender<Told>, mpsc::Receiver<Told>);

struct Agent<'a> {
    context: &'a Context,
    config: AgentConfig,
    text: Vec<u8>,
    in_force: InForce,
    stamp: Option<Stamp>,
    loaded: Timestamp,
    config_problem: Option<String>,
    memory: Memory,
    file: MemoryFile,
    memory_problem: bool,
    scheduler: Scheduler,
    running: BTreeMap<u64, Run>,
    archiver: Archiver,
    events: Events,
    handle: Arc<Handle>,
    mail: Mail,
    sample: Sample,
    started: Timestamp,
    upcoming: (Option<Timestamp>, Vec<Upcoming>),
    last_alive: Option<Instant>,
    changed: bool,
}

impl<'a> Agent<'a> {
    fn begin(
        context: &'a Context,
        first: Loaded,
        wishes: mpsc::Sender<Wish>,
        now: Timestamp,
    ) -> Result<Agent<'a>, AgentError> {
        let file = MemoryFile::within(&first.config.state_dir);
        let (mut memory, problem) = file.read(now);
        if let Some(problem) = problem {
            context.progress.warn(&problem);
        }
        schedule::recover(&mut memory, now);
        for warning in &first.warnings {
            context.progress.warn(warning);
        }
        let in_force = InForce::keep(&first.text).map_err(AgentError::Settings)?;
        let stamp = Stamp::of(&first.config.file);
        let status = AgentStatus {
            server: first.config.name.clone(),
            repository: first.config.repository.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: context.host.clone(),
            started: now,
            config_file: first.config.file.display().to_string(),
            config_loaded: now,
            config_problem: None,
            running: Vec::new(),
            recent: Vec::new(),
            archiving: None,
            upcoming: Vec::new(),
        };
        let handle = Handle::new(status, Sample::default(), wishes, Arc::clone(&context.clock));
        let mail = Mail::of(&first.config);
        let mut agent = Agent {
            context,
            config: first.config,
            text: first.text,
            in_force,
            stamp,
            loaded: now,
            config_problem: None,
            memory,
            file,
            memory_problem: false,
            scheduler: Scheduler::default(),
            running: BTreeMap::new(),
            archiver: Archiver::new(now),
            events: mpsc::channel(LINES_MAX),
            handle: Arc::new(handle),
            mail,
            sample: Sample::default(),
            started: now,
            upcoming: (None, Vec::new()),
            last_alive: None,
            changed: true,
        };
        agent.scheduler.settle(&agent.config, &mut agent.memory, now);
        agent.remember();
        let jobs: Vec<String> = agent
            .config
            .planned
            .iter()
            .map(|planned| format!("{:?} at \"{}\" {}", planned.task, planned.cron.fields(), planned.cron.zone_name()))
            .collect();
        let archive = if agent.config.archive { ", and the binary log archived" } else { "" };
        context.progress.note(&format!("agent of {}: {}{archive}", agent.config.name, jobs.join(", ")));
        Ok(agent)
    }

    fn now(&self) -> Timestamp {
        self.context.clock.now()
    }

    /// One look at everything.
    async fn step(&mut self) {
        let now = self.now();
        self.handle.live(now);
        self.give_sign_of_life();
        self.reload(false);
        self.scheduler.look(&self.config, &mut self.memory, now);
        loop {
            let running: Vec<Job> = self.running.values().map(|run| run.task.job()).collect();
            let Some((task, cause)) = self.scheduler.next(&running) else { break };
            self.begin_run(task, cause);
        }
        if self.config.archive && self.archiver.is_due() {
            self.begin_archiver();
        }
        let stale = self.upcoming.0.is_none_or(|at| !(0..UPCOMING_SECONDS).contains(&now.seconds_since(at)));
        if stale {
            self.upcoming = (Some(now), schedule::upcoming(&self.config, &self.memory, now));
            self.changed = true;
        }
        if self.changed {
            self.show();
        }
    }

    /// How long nothing is to be done unless something happens.
    fn pause(&self) -> Duration {
        let now = self.now();
        let mut pause = TICK;
        for planned in &self.config.planned {
            if !self.scheduler.is_waiting(planned.task)
                && let Some(due) = schedule::next_due(&self.config, &self.memory, planned)
            {
                let milliseconds = due.0.as_millisecond().saturating_sub(now.0.as_millisecond());
                pause = pause.min(Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0)));
            }
        }
        if let Some(due) = self.archiver.due().filter(|_| self.config.archive) {
            pause = pause.min(due.saturating_duration_since(Instant::now()));
        }
        if let Some(patience) = self.context.supervisor.patience() {
            pause = pause.min(patience / 3);
        }
        pause.max(TICK_MIN)
    }

    fn give_sign_of_life(&mut self) {
        let Some(patience) = self.context.supervisor.patience() else { return };
        if self.last_alive.is_none_or(|last| last.elapsed() >= patience / 4) {
            self.context.supervisor.alive();
            self.last_alive = Some(Instant::now());
        }
    }

    fn begin_run(&mut self, task: Task, cause: Cause) -> u64 {
        let now = self.now();
        let full = schedule::is_full(&self.config, &self.memory, task, now);
        let part = schedule::part(&self.config, &self.memory);
        let run = self.scheduler.begin(&self.config, &mut self.memory, task, cause, now);
        // Before it begins: a run that nobody remembers would not be begun again.
        self.remember();
        let order = orders::order(&self.config, &self.in_force.path(), task, full, part);
        let (stop, stopped) = watch::channel(false);
        let (launcher, events) = (self.context.launcher.clone(), self.events.0.clone());
        let kind = if full { ", full" } else { "" };
        let told = format!("run {run} begins: {:?} ({}{kind})", task.job(), cause.name());
        self.context.progress.note(&told);
        let run_story = RunStory {
            run,
            job: task.job(),
            cause: cause.name().to_owned(),
            full,
            started: now,
            finished: None,
            outcome: None,
            exit_code: None,
            hint: None,
            summary: None,
        };
        let body = self.tell(Happening::RunBegins, told, Some(run_story));
        let hooks = self.config.hooks.clone();
        tokio::spawn(async move {
            let mut stop = stopped.clone();
            let stopping = async {
                let _ = stop.wait_for(|stop| *stop).await;
            };
            let before = hooks::before(&hooks, &body);
            let refused = tokio::select! {
                refused = before => refused,
                () = stopping => {
                    let end = End { exit_code: Some(130), ..End::default() };
                    let _ = events.send((run, Event::Ended(end))).await;
                    return;
                }
            };
            if let Err(problem) = refused {
                if hooks.required {
                    let end = End { problem: Some(problem), skipped: true, ..End::default() };
                    let _ = events.send((run, Event::Ended(end))).await;
                    return;
                }
                let line = serde_json::json!({"message_type": "warning", "message": problem, "hook": true});
                let _ = events.send((run, Event::Line(line))).await;
            }
            launcher.run(run, &order, events, stopped).await;
        });
        self.running.insert(run, Run { task, cause, started: now, full, said: Said::default(), stop });
        self.upcoming.0 = None;
        self.changed = true;
        run
    }

    fn begin_archiver(&mut self) {
        let now = self.now();
        self.memory.last_run += 1;
        let run = self.memory.last_run;
        let stopped = self.archiver.begin(run, now);
        let order = orders::archive(&self.config, &self.in_force.path());
        let (launcher, events) = (self.context.launcher.clone(), self.events.0.clone());
        tokio::spawn(async move { launcher.run(run, &order, events, stopped).await });
        self.changed = true;
    }

    fn hear(&mut self, run: u64, event: Event) {
        let now = self.now();
        self.changed = true;
        match event {
            Event::Line(line) if run == self.archiver.run => {
                if line["message_type"] == "warning" {
                    let message = line["message"].as_str().unwrap_or_default();
                    self.context.progress.warn(&format!("archive: {message}"));
                }
                if line["message_type"] == "figures" {
                    self.sample.tally.add(Job::Archive, self.archiver.said.figures.as_ref(), &line);
                }
                if self.archiver.hear(line, now) {
                    self.memory.gaps += 1;
                    self.answer_gap(now);
                }
            }
            Event::Line(line) => {
                let Some(run) = self.running.get_mut(&run) else { return };
                if line["hook"] == true {
                    self.sample.hook_failures += 1;
                    self.context.progress.warn(line["message"].as_str().unwrap_or_default());
                }
                if line["message_type"] == "figures" {
                    self.sample.tally.add(run.task.job(), run.said.figures.as_ref(), &line);
                }
                run.said.hear(line, now);
            }
            Event::Ended(end) if run == self.archiver.run => self.end_archiver(&end, now),
            Event::Ended(end) => self.end_run(run, &end, now),
        }
    }

    /// From a gap on nothing can be restored until there is a backup behind it.
    fn answer_gap(&mut self, now: Timestamp) {
        self.memory.gap_since = Some(now);
        let answer = if self.config.has(Job::Backup) {
            "a backup is taken now"
        } else {
            "take a backup: this agent has no schedule for any"
        };
        let told = format!("the archive has a gap, which no restore leads across: {answer}");
        self.context.progress.warn(&told);
        self.tell(Happening::ArchiveGap, told, None);
        self.remember();
    }

    fn end_archiver(&mut self, end: &End, now: Timestamp) {
        let asked = self.archiver.stop.as_ref().is_none_or(|stop| *stop.borrow());
        // It ends with 3 when it has met a gap; its last line may not have come.
        if end.exit_code == Some(3) && self.memory.gap_since.is_none() && !asked {
            self.memory.gaps += 1;
            self.answer_gap(now);
        }
        let Some(ended) = self.archiver.end(end, asked, now) else { return };
        let told = format!("the archiver ended: {}", ended.message);
        self.context.progress.warn(&told);
        self.tell(Happening::ArchiverEnded, told, None);
        let last = Last {
            outcome: ended.outcome,
            finished: now,
            seconds: now.seconds_since(ended.started).max(0),
            succeeded: None,
        };
        self.memory.last.insert(Job::Archive, last);
        self.count(&ended);
        self.memory.keep(ended);
        self.remember();
    }

    fn end_run(&mut self, number: u64, end: &End, now: Timestamp) {
        let Some(run) = self.running.remove(&number) else { return };
        let job = run.task.job();
        let (outcome, message, hint) = orders::verdict(job, &run.said, end);
        let told = format!("run {number} ended: {job:?} {}: {message}", outcome.name());
        match outcome {
            Outcome::Succeeded => self.context.progress.note(&told),
            _ => self.context.progress.warn(&told),
        }
        let ended = Ended {
            run: number,
            job,
            cause: run.cause.name().to_owned(),
            started: run.started,
            finished: now.max(run.started),
            outcome,
            exit_code: end.exit_code,
            message,
            hint,
            summary: run.said.summary,
        };
        self.count(&ended);
        self.sample.tally.end(job);
        if end.skipped {
            self.sample.hook_failures += 1;
        }
        let run_story = RunStory {
            run: number,
            job,
            cause: ended.cause.clone(),
            full: run.full,
            started: ended.started,
            finished: Some(ended.finished),
            outcome: Some(outcome),
            exit_code: ended.exit_code,
            hint: ended.hint.clone(),
            summary: ended.summary.clone().map(super::memory::shortened),
        };
        let body = self.tell(Happening::RunEnded, ended.message.clone(), Some(run_story));
        self.hook_after(number, body);
        self.scheduler.end(&self.config, &mut self.memory, ended, self.context.retry_seconds);
        self.remember();
        self.upcoming.0 = None;
        if self.is_well() {
            self.mail.beat();
        }
    }

    /// Whether all that was due has succeeded, the last run of each job and the archive.
    fn is_well(&self) -> bool {
        let failed = |job: &Job, last: &Last| self.config.has(*job) && last.outcome != Outcome::Succeeded;
        let archive_well = !self.config.archive || self.archiver.state(0).problem.is_none();
        archive_well
            && self.memory.gap_since.is_none()
            && self.memory.retries.is_empty()
            && !self.memory.last.iter().any(|(job, last)| *job != Job::Archive && failed(job, last))
    }

    fn hook_after(&self, run: u64, body: Arc<Vec<u8>>) {
        let Some(command) = self.config.hooks.after.clone() else { return };
        let (seconds, progress) = (self.config.hooks.seconds, Arc::clone(&self.context.progress));
        tokio::spawn(async move {
            if let Err(problem) = hooks::carry_out(&command, &body, seconds).await {
                progress.warn(&format!("the hook after run {run} failed: {problem}"));
            }
        });
    }

    /// Tells others what happened; gives what they were told.
    fn tell(&self, event: Happening, message: String, run: Option<RunStory>) -> Arc<Vec<u8>> {
        let story = Story {
            event,
            at: self.now(),
            server: self.config.name.clone(),
            host: self.context.host.clone(),
            repository: self.config.repository.clone(),
            version: env!("CARGO_PKG_VERSION"),
            message,
            run,
        };
        // Of texts and numbers: this does not fail.
        let body = Arc::new(serde_json::to_vec(&story).unwrap_or_default());
        self.mail.send(&body);
        body
    }

    fn count(&mut self, ended: &Ended) {
        *self.sample.ended.entry((ended.job, ended.outcome.name())).or_default() += 1;
    }

    fn wish(&mut self, (job, answer): Wish) {
        let _ = answer.send(self.grant(job));
    }

    fn grant(&mut self, job: Job) -> Result<u64, Refusal> {
        let task = match Task::of(job) {
            Some(Task::Backup) => Some(schedule::backup_task(&self.config)),
            task => task,
        };
        let task = task.filter(|_| self.config.has(job)).ok_or(Refusal::NotSetUp(job))?;
        let busy = self.running.values().map(|run| run.task.job()).find(|other| exclude(job, *other));
        match busy {
            Some(other) => Err(Refusal::Busy(other)),
            None => Ok(self.begin_run(task, Cause::Page)),
        }
    }

    /// Reads the settings anew where the file has changed, or where somebody asked for it.
    fn reload(&mut self, asked: bool) {
        let stamp = Stamp::of(&self.config.file);
        if !asked && stamp == self.stamp {
            return;
        }
        self.stamp = stamp;
        self.context.supervisor.reloading();
        self.sample.reloads += 1;
        self.changed = true;
        match self.context.source.load() {
            Err(problem) => self.refuse(problem),
            Ok(loaded) => self.take_over(loaded),
        }
        self.context.supervisor.ready();
    }

    fn refuse(&mut self, problem: String) {
        self.context
            .progress
            .warn(&format!("the settings are not taken over, and those before stay in force: {problem}"));
        if self.config_problem.as_ref() != Some(&problem) {
            self.tell(Happening::SettingsRefused, problem.clone(), None);
        }
        self.config_problem = Some(problem);
    }

    fn take_over(&mut self, loaded: Loaded) {
        let fixed = [
            ("state_dir", loaded.config.state_dir != self.config.state_dir),
            ("listen", loaded.config.listen != self.config.listen),
        ];
        if let Some((name, _)) = fixed.iter().find(|(_, changed)| *changed) {
            return self.refuse(format!("[agent] {name} is another one: it changes when the agent is started anew"));
        }
        let same = loaded.text == self.text;
        if !same {
            match InForce::keep(&loaded.text) {
                Ok(in_force) => self.in_force = in_force,
                Err(error) => return self.refuse(AgentError::Settings(error).to_string()),
            }
        }
        let now = self.now();
        (self.config_problem, self.loaded, self.config, self.text) = (None, now, loaded.config, loaded.text);
        for warning in &loaded.warnings {
            self.context.progress.warn(warning);
        }
        self.scheduler.settle(&self.config, &mut self.memory, now);
        self.upcoming.0 = None;
        if !same {
            self.mail.readdress(&self.config);
            self.tell(Happening::SettingsTakenOver, "the settings have changed and are in force".to_owned(), None);
            self.context.progress.note("the settings have changed and are in force");
            // It begins again with the new ones.
            if let Some(stop) = &self.archiver.stop {
                stop.send_replace(true);
            }
        }
    }

    /// Writes down what is remembered; where that fails it goes on, since backups matter more.
    fn remember(&mut self) {
        match self.file.write(&self.memory) {
            Ok(()) => self.memory_problem = false,
            Err(error) => {
                self.sample.memory_failures += 1;
                if !std::mem::replace(&mut self.memory_problem, true) {
                    let (told, place) = ("a restart would repeat or miss some", &self.config.state_dir);
                    let told = format!("cannot write what is to be remembered of runs into {place:?}; {told}: {error}");
                    self.context.progress.warn(&told);
                }
            }
        }
    }

    fn show(&mut self) {
        self.changed = false;
        let running = self.running.iter().map(|(number, run)| Running {
            run: *number,
            job: run.task.job(),
            cause: run.cause.name().to_owned(),
            started: run.started,
            phases: run.said.phases(),
            log: run.said.log.iter().cloned().collect(),
        });
        let status = AgentStatus {
            server: self.config.name.clone(),
            repository: self.config.repository.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: self.context.host.clone(),
            started: self.started,
            config_file: self.config.file.display().to_string(),
            config_loaded: self.loaded,
            config_problem: self.config_problem.clone(),
            running: running.collect(),
            recent: self.memory.recent.iter().map(|kept| kept.0.clone()).collect(),
            archiving: self.config.archive.then(|| self.archiver.state(self.memory.gaps)),
            upcoming: self.upcoming.1.clone(),
        };
        self.sample.last = self.memory.last.clone();
        self.sample.proven = self.memory.proven;
        self.sample.sizes = self.memory.sizes;
        self.sample.sent = self.mail.sent();
        let told = match (status.running.first(), status.upcoming.first()) {
            (Some(run), _) => format!("{:?} runs since {}", run.job, run.started),
            (None, Some(next)) => format!("{:?} next, at {}", next.job, next.at),
            (None, None) => "nothing is planned".to_owned(),
        };
        self.context.supervisor.tell(&told);
        self.handle.show(status, self.sample.clone());
    }

    /// Ends all runs in good order.
    async fn finish(&mut self) {
        for run in self.running.values() {
            run.stop.send_replace(true);
        }
        if let Some(stop) = &self.archiver.stop {
            stop.send_replace(true);
        }
        let ended = async {
            while !self.running.is_empty() || self.archiver.stop.is_some() {
                self.give_sign_of_life();
                let Some((run, event)) = self.events.1.recv().await else { return };
                self.hear(run, event);
            }
        };
        if timeout(STOP_TIME, ended).await.is_err() {
            self.context.progress.warn("some runs do not end, and are left alone");
        }
        self.remember();
        self.show();
        self.mail.finish().await;
    }
}
