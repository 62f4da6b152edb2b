//! Statements that change a server in every way that a backup must bear, made from numbers.

use crate::support::random::Random;

/// Tables that the changes make, alter and drop, by a number.
const TABLES: u64 = 8;

/// What changes are told about the server.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Whether tables can be compressed: not with pages larger than 16 KiB.
    pub compressed: bool,
    /// Whether tables of other engines than InnoDB are altered too, of which the tool loses track.
    pub plain: bool,
}

/// Schemas and tables that the workers of the load write to; the replica gets all but `imported`.
pub fn setup() -> &'static str {
    "CREATE DATABASE dml; CREATE DATABASE ddl; CREATE DATABASE copied; USE dml;
     CREATE TABLE wide (id INT PRIMARY KEY, a VARCHAR(200), b VARCHAR(200), c VARCHAR(200), d VARCHAR(200), e INT, f INT,
         g DATETIME, h DECIMAL(20,4), i CHAR(40), KEY (a(40)), KEY (b(60), c(20)), KEY (d(30)), KEY (e, f), KEY (f, g), KEY (i))
         ENGINE=InnoDB;
     INSERT INTO wide SELECT seq, MD5(seq), MD5(seq+1), REPEAT(MD5(seq+2), 4), MD5(seq+3), seq % 17, seq % 1000,
         '2026-01-01' + INTERVAL seq MINUTE, seq / 7, SHA1(seq) FROM seq_1_to_1500;
     CREATE TABLE blobs (id INT PRIMARY KEY, b LONGBLOB, t MEDIUMTEXT) ENGINE=InnoDB;
     CREATE TABLE docs (id INT AUTO_INCREMENT PRIMARY KEY, body TEXT, FULLTEXT (body)) ENGINE=InnoDB;
     CREATE TABLE parent (id INT PRIMARY KEY, n INT) ENGINE=InnoDB;
     CREATE TABLE child (id INT AUTO_INCREMENT PRIMARY KEY, parent INT, KEY (parent),
         CONSTRAINT kin FOREIGN KEY (parent) REFERENCES parent (id) ON DELETE CASCADE ON UPDATE CASCADE) ENGINE=InnoDB;
     INSERT INTO parent SELECT seq, seq FROM seq_1_to_100;
     CREATE TABLE parts (id INT, day INT, text VARCHAR(100), PRIMARY KEY (id, day)) ENGINE=InnoDB
         PARTITION BY RANGE (day) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN (20),
         PARTITION p2 VALUES LESS THAN (30), PARTITION px VALUES LESS THAN MAXVALUE);
     CREATE TABLE computed (id INT PRIMARY KEY, j JSON, v INT AS (JSON_VALUE(j, '$.n')) VIRTUAL, s INT AS (id * 2) STORED, KEY (v))
         ENGINE=InnoDB;
     CREATE TABLE packed (id INT PRIMARY KEY, text TEXT) ENGINE=InnoDB PAGE_COMPRESSED=1;
     CREATE TABLE places (id INT PRIMARY KEY, g POINT NOT NULL, SPATIAL KEY (g)) ENGINE=InnoDB;
     CREATE TABLE aria (id INT AUTO_INCREMENT PRIMARY KEY, text VARCHAR(300), KEY (text(20))) ENGINE=Aria;
     CREATE TABLE filler (id INT, text VARCHAR(400)) ENGINE=Aria;
     CREATE TABLE aria_plain (id INT, text VARCHAR(300)) ENGINE=Aria TRANSACTIONAL=0;
     CREATE TABLE myisam (id INT AUTO_INCREMENT PRIMARY KEY, text VARCHAR(300), FULLTEXT (text)) ENGINE=MyISAM;
     CREATE TABLE csv (id INT NOT NULL, text VARCHAR(100) NOT NULL) ENGINE=CSV;
     CREATE SEQUENCE number START WITH 10 INCREMENT BY 3 CACHE 5;"
}

/// The schema that no replica has: IMPORT TABLESPACE does not replicate.
pub fn setup_imported() -> &'static str {
    "SET sql_log_bin = 0; CREATE DATABASE imported; USE imported;
     CREATE TABLE held (id INT PRIMARY KEY, generation INT, text VARCHAR(100), KEY (text)) ENGINE=InnoDB;
     INSERT INTO held SELECT seq, 0, MD5(CONCAT(0, '-', seq)) FROM seq_1_to_500;"
}

/// Counts rows of imported tables that are not of their generation; 0 when all is well.
pub const IMPORTED_WRONG: &str =
    "SELECT COUNT(*) + (SELECT COUNT(DISTINCT generation) <> 1 OR COUNT(*) <> 500 FROM imported.held)
    FROM imported.held WHERE BINARY text <> BINARY MD5(CONCAT(generation, '-', id))";

/// Rows of every engine are written, indexes changed, words indexed.
pub fn dml(random: &mut Random) -> String {
    let (id, n) = (1 + random.below(1500), random.next() % 1_000_000);
    let small = 1 + random.below(100);
    match random.below(24) {
        0..=3 => format!(
            "UPDATE dml.wide SET a = MD5({n}), b = MD5({n} + 1), e = {n} % 23 WHERE id BETWEEN {id} AND {id} + 5;"
        ),
        4 | 5 => format!(
            "UPDATE dml.wide SET c = REPEAT(MD5({n}), {}), g = g + INTERVAL 1 DAY WHERE f = {};",
            1 + n % 6,
            n % 1000
        ),
        6 => format!(
            "BEGIN; DELETE FROM dml.wide WHERE id = {id}; INSERT IGNORE INTO dml.wide (id, a, d, i) VALUES
             ({id}, 'again {n}', MD5({n}), SHA1({n})); COMMIT;"
        ),
        7 | 8 => format!(
            "REPLACE INTO dml.blobs VALUES ({}, REPEAT(UNHEX(SHA2({n}, 512)), {}), REPEAT(MD5({n}), {}));",
            id % 40,
            n % 1500,
            n % 200
        ),
        9 => format!("DELETE FROM dml.blobs WHERE id = {};", id % 40),
        10 => format!(
            "INSERT INTO dml.docs (body) VALUES (CONCAT_WS(' ', 'word{}', 'word{}', MD5({n}), 'seal'));",
            n % 50,
            n % 31
        ),
        11 => format!("UPDATE dml.docs SET body = CONCAT('walrus', {n}) WHERE id % 20 = {};", n % 20),
        12 => format!("DELETE FROM dml.docs WHERE id % 37 = {};", n % 37),
        13 => format!("INSERT INTO dml.child (parent) SELECT id FROM dml.parent WHERE id % 9 = {};", n % 9),
        14 => format!(
            "BEGIN; DELETE FROM dml.parent WHERE id = {small}; INSERT INTO dml.parent VALUES ({small}, {n}); COMMIT;"
        ),
        15 => format!("INSERT IGNORE INTO dml.parts VALUES ({n}, {}, MD5({n}));", n % 45),
        16 => format!("UPDATE dml.parts SET day = (day + 11) % 45 WHERE id % 13 = {};", n % 13),
        17 => format!("REPLACE INTO dml.computed (id, j) VALUES ({}, JSON_OBJECT('n', {n}));", id % 300),
        18 => format!("REPLACE INTO dml.packed VALUES ({}, REPEAT(MD5({n}), 60));", id % 200),
        19 => format!("REPLACE INTO dml.places VALUES ({}, POINT({n} % 100, {n} % 77));", id % 200),
        20 => format!(
            "INSERT INTO dml.aria (text) VALUES (REPEAT(MD5({n}), 5)); DELETE FROM dml.aria WHERE id % 50 = {};",
            n % 50
        ),
        21 => format!(
            "INSERT INTO dml.aria_plain VALUES ({n}, MD5({n})); INSERT INTO dml.myisam (text) VALUES (CONCAT('whale ', MD5({n})));"
        ),
        22 => format!(
            "INSERT INTO dml.csv VALUES ({n}, 'x{n}'); UPDATE dml.myisam SET text = 'orca' WHERE id % 30 = {};",
            n % 30
        ),
        _ => "DO NEXTVAL(dml.number);".to_owned(),
    }
}

/// Tables of other engines than InnoDB come, go and change, and keep their names: the tool loses track of those that do not.
fn plain(random: &mut Random) -> String {
    let (table, n, few) = (format!("ddl.p{}", random.below(4)), random.next() % 1_000_000, random.below(3));
    let engine = ["Aria", "MyISAM", "Aria TRANSACTIONAL=0", "CSV", "MyISAM PARTITION BY HASH (id) PARTITIONS 3"];
    match random.below(9) {
        0..=2 => {
            let number = random.below(5) as usize;
            let key = if number == 3 { "id INT NOT NULL" } else { "id INT AUTO_INCREMENT PRIMARY KEY" };
            format!(
                "CREATE TABLE IF NOT EXISTS {table} ({key}, text VARCHAR(200) NOT NULL) ENGINE={};
                 INSERT INTO {table} (text) SELECT MD5(seq + {n}) FROM seq_1_to_100;",
                engine[number]
            )
        }
        3 => format!("DROP TABLE IF EXISTS {table};"),
        4 => format!("ALTER TABLE {table} ADD COLUMN IF NOT EXISTS extra{few} INT NOT NULL DEFAULT {few};"),
        5 => format!("TRUNCATE {table}; INSERT INTO {table} (text) VALUES ('{n}');"),
        6 => format!("OPTIMIZE TABLE {table};"),
        7 => format!("ALTER TABLE {table} ENGINE={};", ["Aria", "MyISAM", "InnoDB"][few as usize]),
        _ => format!("INSERT INTO {table} (text) SELECT CONCAT(MD5(seq), {n}) FROM seq_1_to_50;"),
    }
}

fn create(random: &mut Random, around: &Surroundings, table: &str) -> String {
    let (n, rows) = (random.next() % 1_000_000, 1 + random.below(300));
    let zipped = if around.compressed { "ENGINE=InnoDB ROW_FORMAT=COMPRESSED" } else { "ENGINE=InnoDB" };
    let engine = match random.below(16) {
        0..=4 => "ENGINE=InnoDB",
        5 => "ENGINE=InnoDB ROW_FORMAT=COMPACT",
        6 => "ENGINE=InnoDB ROW_FORMAT=REDUNDANT",
        7 => zipped,
        8 => "ENGINE=InnoDB PAGE_COMPRESSED=1",
        9 => "ENGINE=InnoDB PARTITION BY HASH (id) PARTITIONS 3",
        10 => "ENGINE=InnoDB PARTITION BY KEY (id) PARTITIONS 2",
        _ => "ENGINE=InnoDB ROW_FORMAT=DYNAMIC",
    };
    format!(
        "CREATE TABLE IF NOT EXISTS {table} (id INT AUTO_INCREMENT PRIMARY KEY, text VARCHAR(200)) {engine};
         INSERT INTO {table} (text) SELECT REPEAT(MD5(seq + {n}), 4) FROM seq_1_to_{rows};"
    )
}

/// Tables come, go and change their names, forms and partitions; whole schemas, views, routines and accounts too.
pub fn ddl(random: &mut Random, around: &Surroundings) -> String {
    let (one, two) = (random.below(TABLES), random.below(TABLES));
    let (table, other) = (format!("ddl.d{one}"), format!("ddl.d{two}"));
    let n = random.next() % 1_000_000;
    let few = n % 3;
    match random.below(48) {
        0..=9 => create(random, around, &table),
        10 => format!("DROP TABLE IF EXISTS {table};"),
        11 => format!("TRUNCATE {table};"),
        12 => format!("OPTIMIZE TABLE {table};"),
        13 | 14 => format!("RENAME TABLE {table} TO ddl.between, {other} TO {table}, ddl.between TO {other};"),
        15 => format!("RENAME TABLE {table} TO {other};"),
        16 => format!("ALTER TABLE {table} ADD COLUMN IF NOT EXISTS extra{few} INT DEFAULT {few}, ALGORITHM=INSTANT;"),
        17 => format!("ALTER TABLE {table} DROP COLUMN IF EXISTS extra{few}, ALGORITHM=INSTANT;"),
        18 => format!("ALTER TABLE {table} ADD COLUMN IF NOT EXISTS first{few} CHAR(9) DEFAULT 'x' FIRST, ALGORITHM=COPY;"),
        19 => format!("ALTER TABLE {table} ADD INDEX IF NOT EXISTS more (text(20)), ALGORITHM=INPLACE;"),
        20 => format!("ALTER TABLE {table} DROP INDEX IF EXISTS more, ALGORITHM=INPLACE;"),
        21 => format!("ALTER TABLE {table} FORCE, ALGORITHM=INPLACE;"),
        22 => format!("ALTER TABLE {table} FORCE, ALGORITHM=COPY;"),
        23 if around.compressed => format!("ALTER TABLE {table} ENGINE=InnoDB ROW_FORMAT=COMPRESSED;"),
        23 | 24 if around.plain => plain(random),
        25 => format!("ALTER TABLE {table} ADD FULLTEXT INDEX IF NOT EXISTS words (text);"),
        26 => format!("ALTER TABLE {table} DROP INDEX IF EXISTS words;"),
        27 => format!("INSERT INTO {table} (text) SELECT CONCAT(MD5(seq), {n}) FROM seq_1_to_200;"),
        28 => format!("UPDATE {table} SET text = MD5({n} + id) WHERE id % 3 = {few};"),
        29 => partitions(few, n),
        30 => "ALTER TABLE dml.parts DROP PARTITION IF EXISTS p1;".to_owned(),
        31 => "ALTER TABLE dml.parts REORGANIZE PARTITION p2 INTO
             (PARTITION p1 VALUES LESS THAN (20), PARTITION p2 VALUES LESS THAN (30));"
            .to_owned(),
        32 => format!("ALTER TABLE dml.parts TRUNCATE PARTITION p{few};"),
        33 => format!(
            "CREATE DATABASE IF NOT EXISTS `data base{few}`; CREATE TABLE IF NOT EXISTS `data base{few}`.`t-{few}` (id INT PRIMARY KEY)
             ENGINE=InnoDB SELECT seq id FROM seq_1_to_100; CREATE TABLE IF NOT EXISTS `data base{few}`.m (id INT) ENGINE=MyISAM;"
        ),
        34 => format!("DROP DATABASE IF EXISTS `data base{few}`;"),
        35 => format!("CREATE OR REPLACE VIEW ddl.v{few} AS SELECT id, a, {n} AS n FROM dml.wide WHERE e = {few};"),
        36 => format!(
            "CREATE OR REPLACE TRIGGER dml.t{few} BEFORE UPDATE ON dml.parent FOR EACH ROW SET NEW.n = NEW.n + {few};
             DROP TRIGGER IF EXISTS dml.t{};",
            (few + 1) % 3
        ),
        37 => format!("CREATE OR REPLACE EVENT ddl.e{few} ON SCHEDULE EVERY {n} HOUR COMMENT 'c{n}' DO DELETE FROM dml.docs;"),
        38 => format!("CREATE OR REPLACE PROCEDURE ddl.p{few}() COMMENT 'c{n}' SELECT {n}; DROP VIEW IF EXISTS ddl.v{few};"),
        39 => format!(
            "CREATE USER IF NOT EXISTS u{few}@localhost IDENTIFIED BY 'secret{n}'; GRANT SELECT, INSERT ON dml.* TO u{few}@localhost;
             CREATE ROLE IF NOT EXISTS r{few}; GRANT r{few} TO u{few}@localhost;"
        ),
        40 => format!("DROP USER IF EXISTS u{few}@localhost; DROP EVENT IF EXISTS ddl.e{};", (few + 1) % 3),
        41 => format!("CREATE OR REPLACE SEQUENCE ddl.s{few} START WITH {n}; DO NEXTVAL(ddl.s{few});"),
        42 => format!("DROP SEQUENCE IF EXISTS ddl.s{few}; CREATE OR REPLACE TABLE {table} LIKE dml.wide; DROP TABLE {table};"),
        43..=46 if around.plain => plain(random),
        _ => format!(
            "CREATE OR REPLACE TABLE {table} (id INT AUTO_INCREMENT PRIMARY KEY, text VARCHAR(200)) ENGINE=InnoDB
             SELECT seq id, MD5(seq + {n}) text FROM seq_1_to_300;"
        ),
    }
}

fn partitions(few: u64, n: u64) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS ddl.exchanged (id INT, day INT, text VARCHAR(100), PRIMARY KEY (id, day)) ENGINE=InnoDB;
         INSERT IGNORE INTO ddl.exchanged SELECT seq + {n}, {few}, 'moved' FROM seq_1_to_50;
         ALTER TABLE dml.parts EXCHANGE PARTITION p0 WITH TABLE ddl.exchanged;"
    )
}
