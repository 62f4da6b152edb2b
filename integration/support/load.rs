//! Work for a server while it is backed up: a bank whose books must balance at every moment, and DDL beside it.

use std::{
    io::{self, BufRead, BufReader, Lines, PipeReader, Write},
    process::{Child, ChildStdin, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{
    random::Random,
    server::{Client, MariaDb},
    wait,
};

const ACCOUNTS: u64 = 500;
const BALANCE: u64 = 1000;

/// Statements of one load, whatever happens: a forgotten load comes to an end.
const STATEMENTS_MAX: u64 = 500_000;

/// Time for the last statement of a load that is told to end.
const STATEMENT_LIMIT: Duration = Duration::from_secs(60);

/// Time for which a session waits to be allowed more: a forgotten one comes to an end.
const ALLOWANCE_LIMIT: Duration = Duration::from_secs(600);

/// Tables that the DDL makes, changes and drops.
const TABLES: u64 = 8;

/// Kind and seed of a load.
#[derive(Debug, Clone, Copy)]
pub struct LoadOptions {
    pub seed: u64,
    /// CREATE, DROP, RENAME, TRUNCATE, OPTIMIZE and ALTER beside the transfers.
    pub ddl: bool,
}

/// A load at work. Ends when dropped.
#[derive(Debug)]
pub struct Load {
    ended: Arc<AtomicBool>,
    allowed: Arc<AtomicU64>,
    workers: Vec<Worker>,
}

/// Makes a worker's next statements from its numbers.
pub type Statements = Box<dyn FnMut(&mut Random) -> String + Send>;

#[derive(Debug)]
struct Worker {
    done: Arc<AtomicU64>,
    client: Child,
    thread: Option<JoinHandle<()>>,
}

/// What a session is told, and tells.
struct Work {
    ended: Arc<AtomicBool>,
    allowed: Arc<AtomicU64>,
    done: Arc<AtomicU64>,
}

/// What a load did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadReport {
    pub transfers: u64,
    pub ddl: u64,
}

impl Load {
    /// Makes the bank where there is none yet, and begins.
    pub fn start(server: &MariaDb, options: LoadOptions) -> Load {
        println!("load: {options:?}");
        make_bank(server);
        let mut workers: Vec<(u64, Statements)> = vec![(options.seed, Box::new(transfer))];
        if options.ddl {
            workers.push((options.seed ^ 1, Box::new(change)));
        }
        Load::of(&server.client(), STATEMENTS_MAX, workers)
    }

    /// Begins with one session for each seed and kind of statements. Each does `allowed` of them and then waits for
    /// [`Load::allow`].
    pub fn of(client: &Client, allowed: u64, workers: impl IntoIterator<Item = (u64, Statements)>) -> Load {
        let (ended, allowed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(allowed)));
        let worker = |(seed, statements): (u64, Statements)| {
            let (session, child) = Session::open(client);
            let done = Arc::new(AtomicU64::new(0));
            let work = Work { ended: Arc::clone(&ended), allowed: Arc::clone(&allowed), done: Arc::clone(&done) };
            let thread = thread::spawn(move || session.work(Random::new(seed), statements, &work));
            Worker { done, client: child, thread: Some(thread) }
        };
        let workers = workers.into_iter().map(worker).collect();
        Load { ended, allowed, workers }
    }

    /// Lets each session do `more` statements.
    pub fn allow(&self, more: u64) {
        self.allowed.fetch_add(more, Ordering::Relaxed);
    }

    /// Waits until all is done that is allowed; false when that is not so after `limit`.
    pub fn rest(&self, limit: Duration) -> bool {
        let allowed = self.allowed.load(Ordering::Relaxed);
        let idle = || (0..self.workers.len()).all(|number| self.done(number) >= allowed).then_some(());
        wait::try_until(limit, idle).is_some()
    }

    /// What was done so far.
    pub fn report(&self) -> LoadReport {
        LoadReport { transfers: self.done(0), ddl: self.done(1) }
    }

    /// What worker `number` did so far; nothing when there is none.
    pub fn done(&self, number: usize) -> u64 {
        self.workers.get(number).map_or(0, |worker| worker.done.load(Ordering::Relaxed))
    }

    /// Waits until `count` more transfers are done, and as many DDL statements as `ddl` says.
    pub fn wait_for(&self, count: u64, ddl: u64) {
        let start = self.report();
        wait::until("the load's progress", Duration::from_secs(120), || {
            let now = self.report();
            (now.transfers >= start.transfers + count && now.ddl >= start.ddl + ddl).then_some(())
        });
    }

    /// Ends the load after the statements at work.
    pub fn stop(mut self) -> LoadReport {
        self.end();
        self.report()
    }

    fn end(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for worker in &mut self.workers {
            let Some(thread) = worker.thread.take() else { continue };
            // A statement that waits, behind a backup's lock say, ends with its client.
            let _ = wait::try_until(STATEMENT_LIMIT, || thread.is_finished().then_some(()));
            let _ = worker.client.kill();
            let _ = worker.client.wait();
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

/// Makes the bank where there is none yet.
pub fn make_bank(server: &MariaDb) {
    server.sql(&format!(
        "CREATE DATABASE IF NOT EXISTS bank; USE bank;
         CREATE TABLE IF NOT EXISTS account (id INT PRIMARY KEY, balance BIGINT NOT NULL) ENGINE=InnoDB;
         CREATE TABLE IF NOT EXISTS transfer (id BIGINT AUTO_INCREMENT PRIMARY KEY, payer INT, payee INT, amount BIGINT,
             note VARCHAR(400), KEY (payer), KEY (payee)) ENGINE=InnoDB;
         INSERT IGNORE INTO account SELECT seq, {BALANCE} FROM seq_1_to_{ACCOUNTS};"
    ));
}

/// Panics unless the bank's books balance: nothing was lost or made, and each account is what its transfers say.
#[track_caller]
pub fn assert_books_balance(server: &MariaDb) {
    let total = server.sql("SELECT SUM(balance), COUNT(*) FROM bank.account");
    assert_eq!(total.trim(), format!("{}\t{ACCOUNTS}", ACCOUNTS * BALANCE), "the bank's total and accounts");
    let wrong = server.sql(&format!(
        "SELECT COUNT(*) FROM bank.account a
         LEFT JOIN (SELECT payer id, SUM(amount) paid FROM bank.transfer GROUP BY payer) p USING (id)
         LEFT JOIN (SELECT payee id, SUM(amount) got FROM bank.transfer GROUP BY payee) g USING (id)
         WHERE a.balance <> {BALANCE} - COALESCE(paid, 0) + COALESCE(got, 0)"
    ));
    assert_eq!(wrong.trim(), "0", "accounts that are not what their transfers say");
}

/// A stock client that takes statements and gives answers through pipes.
struct Session {
    statements: ChildStdin,
    answers: Lines<BufReader<PipeReader>>,
}

impl Session {
    fn open(client: &Client) -> (Session, Child) {
        // Errors come the same way as answers, in order.
        let (answers, sink) = io::pipe().unwrap();
        let mut command = client.command();
        // A table that is not there is part of the game: the client goes on after an error. Sequences of numbers are tables of whichever schema is in use.
        command.args(["--force", "--skip-reconnect", "--database=mysql"]).stdin(Stdio::piped());
        command.stdout(sink.try_clone().unwrap()).stderr(sink);
        let mut child = command.spawn().expect("the mariadb client can be run");
        let statements = child.stdin.take().unwrap();
        (Session { statements, answers: BufReader::new(answers).lines() }, child)
    }

    /// Sends statements one by one, each after the answer to the last, until the end, or until the server goes away.
    fn work(mut self, mut random: Random, mut statements: Statements, work: &Work) {
        for number in 0..STATEMENTS_MAX {
            if number >= work.allowed.load(Ordering::Relaxed) {
                let go_on = || {
                    (number < work.allowed.load(Ordering::Relaxed) || work.ended.load(Ordering::Relaxed)).then_some(())
                };
                let _ = wait::try_until(ALLOWANCE_LIMIT, go_on);
            }
            if work.ended.load(Ordering::Relaxed) && number > 0 {
                break;
            }
            if !self.execute(&statements(&mut random), number) {
                break;
            }
            work.done.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// False when the server or the client is gone.
    fn execute(&mut self, statement: &str, number: u64) -> bool {
        let mark = format!("mark {number}");
        if writeln!(self.statements, "{statement}\nSELECT '{mark}';").is_err() {
            return false;
        }
        // OPTIMIZE and the like answer with rows of their own, which come before the mark.
        for line in self.answers.by_ref().map_while(Result::ok) {
            let gone = GONE.iter().any(|error| line.starts_with(error));
            if gone || line == mark {
                return !gone;
            }
        }
        false
    }
}

/// How the client says that there is no server any more.
const GONE: [&str; 5] = ["ERROR 2002 ", "ERROR 2006 ", "ERROR 2013 ", "ERROR 1053 ", "ERROR 1927 "];

/// Moves money from one account to another.
pub fn transfer(random: &mut Random) -> String {
    let (payer, payee, amount) = (1 + random.below(ACCOUNTS), 1 + random.below(ACCOUNTS), random.below(50));
    // Locked in one order, two loads at once never wait for each other in a circle.
    let order = if payer < payee { "ASC" } else { "DESC" };
    format!(
        "BEGIN; UPDATE bank.account SET balance = balance + IF(id = {payer}, -{amount}, 0) + IF(id = {payee}, {amount}, 0)
         WHERE id IN ({payer}, {payee}) ORDER BY id {order};
         INSERT INTO bank.transfer (payer, payee, amount, note) VALUES ({payer}, {payee}, {amount}, REPEAT('{:016x}', 20)); COMMIT;",
        random.next()
    )
}

fn change(random: &mut Random) -> String {
    let table = format!("bank.d{}", random.below(TABLES));
    let other = format!("bank.d{}", random.below(TABLES));
    let rows = 1 + random.below(400);
    match random.below(12) {
        0 => format!("DROP TABLE IF EXISTS {table};"),
        1 => format!("TRUNCATE {table};"),
        2 => format!("OPTIMIZE TABLE {table};"),
        3 => format!("RENAME TABLE {table} TO bank.between, {other} TO {table}, bank.between TO {other};"),
        4 => format!("RENAME TABLE {table} TO {other};"),
        5 => format!(
            "ALTER TABLE {table} ADD COLUMN IF NOT EXISTS extra{} INT DEFAULT 7, ALGORITHM=INSTANT;",
            random.below(4)
        ),
        6 => format!("ALTER TABLE {table} ROW_FORMAT=COMPRESSED;"),
        7 => format!("ALTER TABLE {table} ADD INDEX IF NOT EXISTS more (text(20)), ALGORITHM=INPLACE;"),
        _ => format!(
            "CREATE TABLE IF NOT EXISTS {table} (id INT AUTO_INCREMENT PRIMARY KEY, text VARCHAR(200)) ENGINE=InnoDB;
             INSERT INTO {table} (text) SELECT REPEAT(MD5(seq + {}), 4) FROM seq_1_to_{rows};",
            random.next() % 1_000_000
        ),
    }
}
