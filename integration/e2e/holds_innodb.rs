//! What a server can hold: what InnoDB tables and the server's own tables can be.

use std::fs;

use crate::support::{Lineage, ServerOptions, Site};

/// A table's name, how it is made, and how it is changed, twice.
type Table = (&'static str, &'static str, [&'static str; 2]);

const TABLES: [Table; 11] = [
    (
        "instant",
        "CREATE TABLE instant (id INT PRIMARY KEY, a INT, b VARCHAR(50), c INT DEFAULT 3);
         INSERT INTO instant (id, a, b) SELECT seq, seq, MD5(seq) FROM seq_1_to_2000;
         ALTER TABLE instant ADD COLUMN d VARCHAR(20) DEFAULT 'dee', ALGORITHM=INSTANT;",
        [
            "ALTER TABLE instant DROP COLUMN c, ALGORITHM=INSTANT; ALTER TABLE instant MODIFY COLUMN b VARCHAR(50) FIRST, ALGORITHM=INSTANT;
             UPDATE instant SET d = 'changed' WHERE id % 3 = 0;",
            "ALTER TABLE instant ADD COLUMN e INT DEFAULT 7 AFTER id, MODIFY COLUMN d VARCHAR(20) FIRST, ALGORITHM=INSTANT;
             INSERT INTO instant (id, a, e) SELECT seq + 5000, seq, seq FROM seq_1_to_300; DELETE FROM instant WHERE id % 5 = 0;",
        ],
    ),
    (
        "computed",
        "CREATE TABLE computed (id INT PRIMARY KEY, a INT, v INT AS (a * 2) VIRTUAL, s VARCHAR(60) AS (CONCAT('s', a)) STORED,
             KEY (v), KEY (s)); INSERT INTO computed (id, a) SELECT seq, seq % 97 FROM seq_1_to_2000;",
        [
            "UPDATE computed SET a = a + 1 WHERE id % 3 = 0; ALTER TABLE computed ADD COLUMN w INT AS (a + v) VIRTUAL;",
            "ALTER TABLE computed ADD KEY (w); DELETE FROM computed WHERE v % 5 = 0; UPDATE computed SET a = 5 WHERE id % 9 = 0;",
        ],
    ),
    (
        "documents",
        "CREATE TABLE documents (id INT PRIMARY KEY AUTO_INCREMENT, j JSON, name VARCHAR(40) AS (JSON_VALUE(j, '$.name')), KEY (name));
         INSERT INTO documents (j) SELECT JSON_OBJECT('name', MD5(seq), 'list', JSON_ARRAY(seq, seq + 1)) FROM seq_1_to_1000;",
        [
            "UPDATE documents SET j = JSON_SET(j, '$.name', 'new') WHERE id % 4 = 0;",
            "UPDATE documents SET j = JSON_ARRAY_APPEND(j, '$.list', 5); DELETE FROM documents WHERE id % 3 = 0;",
        ],
    ),
    (
        "places",
        "CREATE TABLE places (id INT PRIMARY KEY AUTO_INCREMENT, p POINT NOT NULL, g GEOMETRY NOT NULL, SPATIAL KEY (p), SPATIAL KEY (g));
         INSERT INTO places (p, g) SELECT POINT(seq, seq % 50), ST_BUFFER(POINT(seq, seq), 2) FROM seq_1_to_2000;",
        [
            "UPDATE places SET p = POINT(id % 90, id) WHERE id % 3 = 0; INSERT INTO places (p, g) SELECT p, g FROM places WHERE id < 300;",
            "DELETE FROM places WHERE id % 4 = 0; UPDATE places SET g = POINT(1, id) WHERE id % 7 = 0;",
        ],
    ),
    (
        "words",
        "CREATE TABLE words (id INT PRIMARY KEY AUTO_INCREMENT, title VARCHAR(100), body TEXT, FULLTEXT (title), FULLTEXT (title, body));
         INSERT INTO words (title, body) SELECT CONCAT('seal ', seq), CONCAT('walrus ', MD5(seq), ' whale') FROM seq_1_to_800;",
        [
            "UPDATE words SET body = CONCAT('otter ', id) WHERE id % 4 = 0; DELETE FROM words WHERE id % 10 = 0;",
            "ALTER TABLE words ADD FULLTEXT (body); INSERT INTO words (title, body) VALUES ('seal again', 'orca'), ('x', 'orca');
             SET GLOBAL innodb_optimize_fulltext_only = ON; OPTIMIZE TABLE words; SET GLOBAL innodb_optimize_fulltext_only = OFF;",
        ],
    ),
    (
        "versions",
        "CREATE TABLE versions (id INT PRIMARY KEY, a INT) WITH SYSTEM VERSIONING; INSERT INTO versions SELECT seq, seq FROM seq_1_to_500;
         UPDATE versions SET a = a + 1; CREATE TABLE versions_parted (id INT PRIMARY KEY, a INT) WITH SYSTEM VERSIONING
             PARTITION BY SYSTEM_TIME (PARTITION history HISTORY, PARTITION now CURRENT);
         INSERT INTO versions_parted SELECT seq, seq FROM seq_1_to_500;
         CREATE TABLE periods (id INT, a DATE, b DATE, PERIOD FOR app (a, b), UNIQUE (id, app WITHOUT OVERLAPS));
         INSERT INTO periods SELECT seq, '2020-01-01', '2021-01-01' FROM seq_1_to_200;",
        [
            "UPDATE versions SET a = a + 1 WHERE id % 3 = 0; DELETE FROM versions WHERE id % 5 = 0; UPDATE versions_parted SET a = a * 2;",
            "UPDATE versions SET a = 0; DELETE HISTORY FROM versions_parted; UPDATE versions_parted SET a = 1 WHERE id < 50;
             DELETE FROM periods FOR PORTION OF app FROM '2020-03-01' TO '2020-04-01' WHERE id % 2 = 0;",
        ],
    ),
    (
        "off_page",
        "CREATE TABLE off_page (id INT PRIMARY KEY AUTO_INCREMENT, a LONGTEXT, b LONGBLOB, c MEDIUMTEXT);
         INSERT INTO off_page (a, b, c) SELECT REPEAT(MD5(seq), 3000), RANDOM_BYTES(1000), REPEAT('c', 20000) FROM seq_1_to_30;
         INSERT INTO off_page (b) SELECT REPEAT(RANDOM_BYTES(1000), 3000);",
        [
            "UPDATE off_page SET a = CONCAT(a, 'more') WHERE id % 3 = 0; UPDATE off_page SET b = NULL WHERE id % 7 = 0;",
            "DELETE FROM off_page WHERE id % 4 = 0; INSERT INTO off_page (c) SELECT REPEAT(MD5(seq), 9000) FROM seq_1_to_10;",
        ],
    ),
    (
        "wide",
        "CREATE TABLE wide (id INT PRIMARY KEY, a VARCHAR(700), b VARCHAR(700), c VARCHAR(700), d VARCHAR(700), KEY (a, b, c),
             KEY (d, c, b), UNIQUE (b, id), KEY (a(100), b(100), c(100), d(100))) CHARACTER SET latin1;
         INSERT INTO wide SELECT seq, REPEAT(seq, 100), REPEAT('b', 600), REPEAT(seq % 7, 500), seq FROM seq_1_to_600;",
        [
            "UPDATE wide SET a = CONCAT('a', a), d = REPEAT('d', 600) WHERE id % 3 = 0; ALTER TABLE wide ADD KEY (c, d, a);",
            "DELETE FROM wide WHERE id % 4 = 0; ALTER TABLE wide DROP KEY a; UPDATE wide SET b = id;",
        ],
    ),
    (
        "keyless",
        "CREATE TABLE keyless (a INT, b VARCHAR(100)); INSERT INTO keyless SELECT seq % 10, MD5(seq % 100) FROM seq_1_to_3000;",
        [
            "DELETE FROM keyless WHERE a = 3 LIMIT 100; UPDATE keyless SET b = 'same' WHERE a = 5;",
            "INSERT INTO keyless SELECT * FROM keyless WHERE a = 7; DELETE FROM keyless WHERE a = 1;",
        ],
    ),
    (
        "child",
        "CREATE TABLE parent (id INT PRIMARY KEY); INSERT INTO parent SELECT seq FROM seq_1_to_100;
         CREATE TABLE child (id INT PRIMARY KEY, parent INT, CHECK (id > 0), FOREIGN KEY (parent) REFERENCES parent (id) ON DELETE CASCADE);
         INSERT INTO child SELECT seq, seq % 100 + 1 FROM seq_1_to_1000;
         CREATE VIEW seen AS SELECT parent, COUNT(*) FROM child GROUP BY parent;
         CREATE TRIGGER counts AFTER DELETE ON parent FOR EACH ROW INSERT INTO keyless VALUES (OLD.id, 'gone');
         CREATE PROCEDURE done() SELECT 1; CREATE FUNCTION twice(a INT) RETURNS INT DETERMINISTIC RETURN 2 * a;
         CREATE EVENT often ON SCHEDULE EVERY 1 DAY DO DELETE FROM keyless WHERE a = -1;",
        [
            "DELETE FROM parent WHERE id % 5 = 0; DROP TRIGGER counts;
             CREATE TRIGGER counts BEFORE UPDATE ON child FOR EACH ROW SET NEW.parent = OLD.parent;",
            "DELETE FROM parent WHERE id % 7 = 0; CREATE OR REPLACE VIEW seen AS SELECT 1; DROP PROCEDURE done;",
        ],
    ),
    (
        "squeezed",
        "CREATE TABLE squeezed (id INT PRIMARY KEY AUTO_INCREMENT, c TEXT COMPRESSED, u UUID DEFAULT UUID(), i INET6, d DECIMAL(30, 9), t TIMESTAMP(6),
             e ENUM('a', 'b'), s SET('x', 'y'), b BIT(13)) ROW_FORMAT=DYNAMIC;
         INSERT INTO squeezed (c, i, d, t, e, s, b) SELECT REPEAT(MD5(seq), 40), '::1', seq / 7, NOW(6), seq % 2 + 1, 'x,y', seq FROM seq_1_to_500;",
        ["UPDATE squeezed SET c = REVERSE(c), u = UUID() WHERE id % 3 = 0;", "DELETE FROM squeezed WHERE id % 4 = 0;"],
    ),
];

#[test]
fn whatever_innodb_tables_can_be_restores_over_changes_of_rows_and_definitions() {
    let options = ServerOptions::new().argument("--innodb-ft-min-token-size=2");
    let site = Site::with(options.clone());
    let all =
        |sql: &dyn Fn(&Table) -> String| TABLES.iter().fold("USE sea;".to_owned(), |all, table| all + &sql(table));
    let mut lineage = Lineage::default();
    let looks = [
        "SELECT SUM(id) FROM sea.words WHERE MATCH (title) AGAINST ('seal') OR MATCH (title, body) AGAINST ('otter')",
        "SELECT COUNT(*), SUM(a), MIN(ROW_START), MAX(ROW_END) FROM sea.versions FOR SYSTEM_TIME ALL",
        "SELECT COUNT(*), SUM(a), MAX(ROW_START) FROM sea.versions_parted FOR SYSTEM_TIME ALL",
        "SELECT SUM(id) FROM sea.places WHERE MBRWithin(p, ST_GeomFromText('POLYGON((0 0, 0 60, 60 60, 60 0, 0 0))'))",
        "SELECT SUM(id), SUM(v) FROM sea.computed FORCE INDEX (v) WHERE v > 20",
        "SELECT SUM(CRC32(CONCAT_WS(',', id, a, v, s))) FROM sea.computed FORCE INDEX (PRIMARY)",
        "SELECT SUM(id) FROM sea.documents WHERE name = 'new'",
        "SELECT * FROM sea.seen",
    ];
    let look = |server: &crate::support::MariaDb| looks.map(|sql| server.sql(sql));
    let mut seen = Vec::new();
    site.server.sql("CREATE DATABASE sea CHARACTER SET utf8mb4");
    lineage.step(&site, &all(&|(_, create, _)| (*create).to_owned()), &[]);
    seen.push(look(&site.server));
    for turn in 0..2 {
        lineage.step(&site, &all(&|(_, _, changes)| changes[turn].to_owned()), &[]);
        seen.push(look(&site.server));
    }
    for (name, _, _) in TABLES {
        lineage.assert_changed(&format!("`sea`.`{name}`"));
    }
    assert!(
        seen.windows(2).all(|pair| pair[0].iter().zip(&pair[1]).take(7).all(|(one, other)| one != other)),
        "{seen:?}"
    );
    // CHECKSUM TABLE gives a table with virtual columns another sum after a restart of the very same server.
    lineage.forget("`sea`.`computed`");
    lineage.all_restore(&site, &options, |place, server| assert_eq!(look(server), seen[place], "backup {place}"));
}

/// The rows of temporary tables end with their session; a restored server has none, and no file of them.
#[test]
fn temporary_tables_are_in_no_backup() {
    let options = ServerOptions::new();
    let site = Site::with(options.clone());
    let client = site.server.client();
    let mut command = client.command();
    let mut session = command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut input = session.stdin.take().unwrap();
    let sql = "USE shop; CREATE TEMPORARY TABLE fleeting (id INT PRIMARY KEY, secret TEXT) ENGINE=InnoDB;
        INSERT INTO fleeting SELECT seq, 'walrus in the bath' FROM seq_1_to_20000;
        CREATE TEMPORARY TABLE fleeting_aria (secret TEXT) ENGINE=Aria; INSERT INTO fleeting_aria SELECT secret FROM fleeting;
        CREATE TABLE shop.ready (id INT) ENGINE=InnoDB; SELECT 'ready';\n";
    std::io::Write::write_all(&mut input, sql.as_bytes()).unwrap();
    let mut answer = String::new();
    let mut answers = std::io::BufReader::new(session.stdout.take().unwrap());
    while answer.trim() != "ready" {
        answer.clear();
        assert!(std::io::BufRead::read_line(&mut answers, &mut answer).unwrap() > 0, "the session ended");
    }
    let mut lineage = Lineage::default();
    lineage.step(&site, "SELECT 1", &[]);
    lineage.step(&site, "UPDATE shop.item SET text = 'x' WHERE id < 9", &[]);
    for place in 0..2 {
        let datadir = lineage.datadir(&site, place);
        for directory in ["", "shop"] {
            for entry in fs::read_dir(datadir.join(directory)).unwrap().flatten() {
                let (name, path) = (entry.file_name().into_string().unwrap(), entry.path());
                assert!(!name.starts_with("ibtmp") && !name.starts_with("#sql"), "{name}");
                let bytes =
                    if path.is_file() && !name.starts_with("ib_logfile") { fs::read(&path).unwrap() } else { vec![] };
                assert!(!bytes.windows(18).any(|window| window == b"walrus in the bath"), "{name}");
            }
        }
        drop(lineage.started(place, &datadir, &options));
    }
    drop(input);
    session.wait().unwrap();
}

#[test]
fn accounts_roles_and_what_they_may_do_restore() {
    let options = ServerOptions::new();
    let site = Site::with(options.clone());
    let mut lineage = Lineage::default();
    lineage.step(
        &site,
        "CREATE ROLE looks_on; GRANT SELECT ON shop.* TO looks_on; CREATE ROLE types_in; GRANT looks_on TO types_in; GRANT INSERT (text) ON shop.item TO types_in;
         CREATE USER 'ann'@'localhost' IDENTIFIED BY 'her secret'; GRANT types_in TO 'ann'@'localhost'; SET DEFAULT ROLE types_in FOR 'ann'@'localhost';
         CREATE USER 'o''brien'@'%' IDENTIFIED VIA mysql_native_password USING PASSWORD('x') REQUIRE SSL WITH MAX_USER_CONNECTIONS 3 ACCOUNT LOCK;
         CREATE PROCEDURE shop.count_them() SQL SECURITY DEFINER SELECT COUNT(*) FROM shop.item; GRANT EXECUTE ON PROCEDURE shop.count_them TO looks_on;",
        &[],
    );
    lineage.step(
        &site,
        "DROP USER 'o''brien'@'%'; ALTER USER 'ann'@'localhost' IDENTIFIED BY 'another'; CREATE ROLE late WITH ADMIN looks_on;
         REVOKE INSERT (text) ON shop.item FROM types_in; SET PASSWORD FOR root@localhost = PASSWORD('');",
        &["--incremental"],
    );
    lineage.all_restore(&site, &options, |place, server| {
        let password = ["her secret", "another"][place];
        let mut command = std::process::Command::new("mariadb");
        command.args(["--no-defaults", "--user=ann", "--batch", "--skip-column-names"]);
        command.arg(format!("--socket={}", server.socket().display())).env("MYSQL_PWD", password);
        let output = command.args(["--execute", "SELECT CURRENT_ROLE(); CALL shop.count_them()"]).output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "types_in\n4000\n",
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    });
}
