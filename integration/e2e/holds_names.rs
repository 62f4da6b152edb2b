//! What a server can hold: names of every kind, and schemas with nothing in them.

use crate::support::{Lineage, ServerOptions, Site, server::NAMES};

/// Names for schemas, tables, columns and partitions. In files most of their characters are written as `@` and four digits.
fn names() -> Vec<String> {
    let mut names: Vec<_> = [
        "with space",
        "dol$lar",
        "#hash",
        "at@sign",
        "dot.dot",
        "slash/back\\slash",
        "per%cent",
        "quo'te\"s",
        "back`tick",
        "semi;colon",
        "new#P#p0",
        "#sql-old",
        "mysql50",
        "..",
        "-",
        "select",
        "ORDER",
        "table",
        "123456",
        "1e5",
        "Größe",
        "größe2",
        "снимок",
        "備份",
        "バックアップ",
        "العربية",
        "ñandú_È",
        "x.new",
        "y.del",
        "z.ren",
        "w.ibd.delta",
        "CON",
        "lost+found",
    ]
    .map(str::to_owned)
    .to_vec();
    // The longest: 64 characters, which are five bytes each in the file's name.
    names.push("l".repeat(64));
    names.push("ü".repeat(40) + &"x".repeat(24));
    names
}

fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

#[test]
fn schemas_and_tables_with_every_kind_of_name_restore() {
    let options = ServerOptions::new();
    let site = Site::with(options.clone());
    let names = names();
    let mut create = format!("{NAMES} CREATE DATABASE tables_of_all_names; USE tables_of_all_names;");
    let mut tables = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let (schema, table) = (quoted(name), quoted(&names[names.len() - 1 - number]));
        create += &format!(
            "CREATE DATABASE {schema}; CREATE TABLE {schema}.{table} ({table} INT PRIMARY KEY, text TEXT) ENGINE=InnoDB;
             INSERT INTO {schema}.{table} SELECT seq, MD5(seq) FROM seq_1_to_20;"
        );
        create += &format!(
            "CREATE TABLE {schema} (id INT PRIMARY KEY, text TEXT) ENGINE={}; INSERT INTO {schema} SELECT seq, MD5(seq)
             FROM seq_1_to_20;",
            // The stock tool does not double a backtick when it locks a table of another engine, and fails.
            if name.contains('`') { "InnoDB" } else { ["InnoDB", "Aria", "MyISAM"][number % 3] }
        );
        tables.extend([format!("{schema}.{table}"), format!("`tables_of_all_names`.{schema}")]);
    }
    let mut lineage = Lineage::default();
    lineage.step(&site, &create, &[]);
    let mut change = NAMES.to_owned();
    for table in &tables {
        change += &format!("UPDATE {table} SET text = REVERSE(text);");
    }
    // Tables that were made just before the full may have come without their first page, and are no base then.
    lineage.step(&site, &change, &[]);
    // Names change places.
    for pair in names.chunks_exact(2) {
        let (one, other) = (quoted(&pair[0]), quoted(&pair[1]));
        let schema = "`tables_of_all_names`";
        change += &format!(
            "RENAME TABLE {schema}.{one} TO {schema}.swap, {schema}.{other} TO {schema}.{one}, {schema}.swap TO {schema}.{other};"
        );
    }
    lineage.step(&site, &change, &[]);
    let mut change = NAMES.to_owned();
    for name in &names[..6] {
        let schema = quoted(name);
        change += &format!("DROP DATABASE {schema}; CREATE DATABASE {schema} COMMENT 'anew';");
    }
    lineage.step(&site, &change, &[]);
    lineage.all_restore(&site, &options, |_, _| ());
}

#[test]
fn partitions_with_every_kind_of_name_restore() {
    let options = ServerOptions::new();
    let site = Site::with(options.clone());
    let names: Vec<_> = names().into_iter().filter(|name| name.chars().count() < 60).collect();
    let parts: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(number, name)| format!("PARTITION {} VALUES LESS THAN ({})", quoted(name), (number + 1) * 10))
        .collect();
    let table = quoted("table of #P# parts");
    let create = format!(
        "{NAMES} CREATE DATABASE `parts in`; USE `parts in`;
         CREATE TABLE {table} (id INT PRIMARY KEY, text TEXT) ENGINE=InnoDB PARTITION BY RANGE (id) ({});
         INSERT INTO {table} SELECT seq, MD5(seq) FROM seq_1_to_{};
         CREATE TABLE deep (id INT, day DATE, text TEXT) PARTITION BY RANGE (YEAR(day)) SUBPARTITION BY HASH (id)
             (PARTITION `old $` VALUES LESS THAN (2000) (SUBPARTITION `ä 1`, SUBPARTITION `#2`),
              PARTITION `new $` VALUES LESS THAN MAXVALUE (SUBPARTITION s3, SUBPARTITION s4));
         INSERT INTO deep SELECT seq, '1990-01-01' + INTERVAL seq WEEK, MD5(seq) FROM seq_1_to_1500;
         CREATE TABLE single LIKE {table}; ALTER TABLE single REMOVE PARTITIONING;",
        parts.join(", "),
        names.len() * 10 - 1
    );
    let (first, second) = (quoted(&names[0]), quoted(&names[1]));
    let mut lineage = Lineage::default();
    lineage.step(&site, &create, &[]);
    for change in [
        format!("UPDATE {table} SET text = REVERSE(text) WHERE id % 3 = 0; DELETE FROM deep WHERE id % 5 = 0"),
        format!(
            "ALTER TABLE {table} EXCHANGE PARTITION {first} WITH TABLE single; ALTER TABLE deep TRUNCATE PARTITION `old $`"
        ),
        format!(
            "ALTER TABLE {table} DROP PARTITION {second}; ALTER TABLE {table} REORGANIZE PARTITION {first} INTO
                 (PARTITION `a b` VALUES LESS THAN (4), PARTITION {first} VALUES LESS THAN (10));
             ALTER TABLE deep REBUILD PARTITION `new $`"
        ),
        format!(
            "ALTER TABLE {table} ADD PARTITION (PARTITION {second} VALUES LESS THAN MAXVALUE); ALTER TABLE deep REMOVE PARTITIONING"
        ),
    ] {
        lineage.step(&site, &format!("{NAMES} USE `parts in`; {change}"), &[]);
    }
    lineage.all_restore(&site, &options, |_, _| ());
}

#[test]
fn empty_schemas_and_schemas_with_settings_of_their_own_restore() {
    let options = ServerOptions::new();
    let site = Site::with(options.clone());
    let mut lineage = Lineage::default();
    lineage.step(
        &site,
        "CREATE DATABASE nothing; CREATE DATABASE spoken CHARACTER SET utf8mb4 COLLATE utf8mb4_danish_ci COMMENT 'has its own';
         CREATE DATABASE spoken_empty CHARACTER SET ucs2; CREATE DATABASE emptied; CREATE TABLE emptied.t (id INT);",
        &[],
    );
    lineage.step(&site, "DROP TABLE emptied.t; CREATE DATABASE later; ALTER DATABASE nothing CHARACTER SET koi8r", &[]);
    lineage.step(&site, "DROP DATABASE nothing; CREATE TABLE spoken.t (text VARCHAR(10)); DROP DATABASE later", &[]);
    lineage.all_restore(&site, &options, |place, server| {
        let schemas = server.sql("SHOW DATABASES");
        let has = |name| schemas.lines().any(|line| line == name);
        assert_eq!([has("nothing"), has("later"), has("emptied")], [place < 2, place == 1, true], "backup {place}");
        server
            .sql("CREATE TABLE emptied.again (id INT) ENGINE=InnoDB; CREATE TABLE spoken_empty.t (id INT) ENGINE=Aria");
    });
}
