//! What is done to the server while the stream is held, so that it falls into the window for certain.

use std::path::Path;

use crate::support::{MariaDb, random::Random};

/// Tables of each engine that stand ready before a backup begins.
const READY: u64 = 6;

/// Nothing at a gate waits for long: a backup that holds its lock there must go on.
const IMPATIENT: &str = "USE dml; SET lock_wait_timeout = 1; SET innodb_lock_wait_timeout = 1;";

/// Makes tables that are in the stream's way, on disk and closed.
pub fn ready(server: &MariaDb) {
    let mut sql = String::from("USE dml; SET lock_wait_timeout = 30;\n");
    for number in 0..READY {
        for (name, engine) in [("g", "InnoDB"), ("m", "MyISAM"), ("a", "Aria"), ("n", "Aria TRANSACTIONAL=0")] {
            sql += &format!(
                "CREATE TABLE IF NOT EXISTS copied.{name}{number} (id INT AUTO_INCREMENT PRIMARY KEY, text VARCHAR(200)) ENGINE={engine};
                 INSERT INTO copied.{name}{number} (text) SELECT MD5(seq + {number}) FROM seq_1_to_60;\n"
            );
        }
    }
    server.client().sql_anyway(&(sql + "FLUSH TABLES;"));
}

/// Changes tables that are copied already, or are not yet.
///
/// With `plain`, tables of other engines than InnoDB are altered, renamed and dropped too, of which the tool loses track.
pub fn at_gate(server: &MariaDb, random: &mut Random, plain: bool) {
    let mut sql = String::from(IMPATIENT);
    // A backup that holds its lock here would let each statement wait in turn.
    if server.try_sql(&(sql.clone() + "CREATE OR REPLACE TABLE copied.free (id INT) ENGINE=InnoDB")).is_err() {
        return;
    }
    for _ in 0..4 + random.below(8) {
        sql += &statement(random, plain);
        sql.push('\n');
    }
    let n = random.next() % 1000;
    sql += &format!(
        "UPDATE dml.wide SET b = MD5(id + {n}), e = e + 1 WHERE id % 2 = 0;
         INSERT INTO dml.blobs SELECT 1000 + seq, REPEAT(MD5({n}), 1000), 'x' FROM seq_1_to_30 ON DUPLICATE KEY UPDATE t = MD5({n});"
    );
    server.client().sql_anyway(&sql);
}

fn statement(random: &mut Random, plain: bool) -> String {
    let engines = ["g", "g", "g", "m", "a", "n"];
    let name = if plain { engines[random.below(6) as usize] } else { "g" };
    let (one, two, n) = (random.below(READY), random.below(READY), random.next() % 1_000_000);
    let (table, other) = (format!("copied.{name}{one}"), format!("copied.{name}{two}"));
    let engine = match name {
        "g" => "InnoDB",
        "m" => "MyISAM",
        "n" => "Aria TRANSACTIONAL=0",
        _ => "Aria",
    };
    let columns = "(id INT AUTO_INCREMENT PRIMARY KEY, text VARCHAR(200))";
    match random.below(13) {
        0 | 1 => format!("RENAME TABLE {table} TO copied.z{name}{n};"),
        2 => format!("RENAME TABLE {table} TO copied.between, {other} TO {table}, copied.between TO {other};"),
        3 => format!("DROP TABLE {table};"),
        4 => format!("DROP TABLE {table}; RENAME TABLE {other} TO {table};"),
        5 => format!(
            "DROP TABLE IF EXISTS {table}; CREATE TABLE {table} {columns} ENGINE={engine}; INSERT INTO {table} (text) VALUES ('{n}');"
        ),
        6 => format!("TRUNCATE {table}; INSERT INTO {table} (text) VALUES ('{n}');"),
        7 => format!(
            "CREATE TABLE copied.y{name}{n} {columns} ENGINE={engine}; INSERT INTO copied.y{name}{n} (text) SELECT MD5(seq) FROM seq_1_to_90;"
        ),
        8 => {
            format!("CREATE TABLE copied.x{name}{n} LIKE {table}; RENAME TABLE copied.x{name}{n} TO copied.w{name}{n};")
        }
        9 => format!("ALTER TABLE {table} ADD COLUMN c{n} INT DEFAULT {n}, ALGORITHM=COPY;"),
        10 => format!("ALTER TABLE {table} FORCE; OPTIMIZE TABLE {other};"),
        11 => format!("CREATE TABLE copied.v{name}{n} {columns} ENGINE={engine}; DROP TABLE copied.v{name}{n};"),
        _ => format!(
            "INSERT INTO {table} (text) SELECT MD5(seq + {n}) FROM seq_1_to_40; CREATE INDEX k{n} ON {table} (text(9));"
        ),
    }
}

/// Puts the file of a table made for it in the place of `imported.held`'s. When that was not to be, because of a lock say, the table is
/// made anew.
pub fn import(server: &MariaDb, datadir: &Path, generation: u64) -> Result<(), String> {
    let folder = datadir.join("imported").display().to_string();
    let replaced = server.try_sql(&format!(
        "{IMPATIENT} SET sql_log_bin = 0; CREATE OR REPLACE TABLE imported.source LIKE imported.held;
         INSERT INTO imported.source SELECT seq, {generation}, MD5(CONCAT({generation}, '-', seq)) FROM seq_1_to_500;
         ALTER TABLE imported.held DISCARD TABLESPACE;
         FLUSH TABLES imported.source FOR EXPORT;\n\\! cp {folder}/source.ibd {folder}/held.ibd && cp {folder}/source.cfg {folder}/held.cfg\n\
         UNLOCK TABLES; ALTER TABLE imported.held IMPORT TABLESPACE; DROP TABLE imported.source;"
    ));
    let Err(why) = replaced else { return Ok(()) };
    let again = super::changes::setup_imported().split_once("USE imported;").map_or("", |(_, rest)| rest);
    server
        .client()
        .sql_anyway(&format!("SET sql_log_bin = 0; USE imported; DROP TABLE IF EXISTS source, held; {again}"));
    Err(why)
}

/// Fills the log of Aria beyond a file's length, so that the tool goes back to the header of the one that it has copied.
///
/// With `emptied`, its table is emptied before, and a stream in which that happens is refused.
pub fn fill_aria_log(server: &MariaDb, emptied: bool) {
    let truncate = if emptied { "TRUNCATE dml.filler;" } else { "" };
    // Rows put into an empty table are not logged one by one.
    server.client().sql_anyway(&format!(
        "{IMPATIENT} {truncate} INSERT INTO dml.filler VALUES (0, '');
         INSERT INTO dml.filler SELECT seq, REPEAT(MD5(seq), 12) FROM seq_1_to_30000;"
    ));
}

/// Fills an undo tablespace beyond its limit, for the purge to truncate. Nothing remains of it, and no replica hears of it.
pub fn fill_undo(server: &MariaDb) {
    let updates = "UPDATE dml.wide SET a = REVERSE(a), b = REVERSE(b), c = REVERSE(c), d = REVERSE(d), i = REVERSE(i);"
        .repeat(16);
    server.client().sql_anyway(&format!("SET sql_log_bin = 0; BEGIN; {updates} ROLLBACK;"));
}
