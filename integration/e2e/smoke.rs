//! The harness itself: what the other tests take for granted.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use crate::support::{
    Fault, FaultyPath, Haulout, Load, LoadOptions, LocalStack, MariaDb, ServerOptions, load::assert_books_balance,
};

const THREE_TABLES: &str = "CREATE DATABASE shop; USE shop;
    CREATE TABLE a (id INT PRIMARY KEY, text VARCHAR(100)) ENGINE=InnoDB;
    INSERT INTO a SELECT seq, REPEAT(MD5(seq), 3) FROM seq_1_to_5000;
    CREATE TABLE b ENGINE=Aria AS SELECT * FROM a WHERE id < 100;
    CREATE TABLE `c d` ENGINE=MyISAM AS SELECT * FROM a WHERE id < 10;";

#[test]
fn a_server_keeps_every_table_over_a_restart() {
    let mut server = MariaDb::start();
    server.sql(THREE_TABLES);
    let before = server.checksums();
    assert_eq!(before.keys().collect::<Vec<_>>(), ["`shop`.`a`", "`shop`.`b`", "`shop`.`c d`"]);
    server.stop();
    server.restart();
    assert_eq!(server.checksums(), before);
    assert_eq!(server.check_all(), [""; 0]);
    server.sql("UPDATE shop.a SET text = 'x' WHERE id = 1");
    assert_ne!(server.checksums(), before);
}

#[test]
fn a_killed_server_recovers_with_balanced_books() {
    let mut server = MariaDb::start();
    let load = Load::start(&server, LoadOptions { seed: 7, ddl: true });
    load.wait_for(200, 30);
    server.kill9();
    let report = load.stop();
    assert!(report.transfers >= 200 && report.ddl >= 30, "{report:?}");
    server.restart();
    assert_books_balance(&server);
    assert_eq!(server.check_all(), [""; 0]);
    server.sql("UPDATE bank.account SET balance = balance + 1 WHERE id = 1");
    assert!(std::panic::catch_unwind(|| assert_books_balance(&server)).is_err(), "wrong books pass");
}

#[test]
fn a_server_takes_its_options() {
    let options =
        ServerOptions::new().tcp().install_argument("--innodb-page-size=4K").argument("--innodb-log-file-size=8M");
    let server = MariaDb::with(options);
    assert_eq!(
        server.sql("SELECT @@innodb_page_size, @@innodb_log_file_size, @@port").trim(),
        format!("4096\t8388608\t{}", server.port())
    );
    assert!(TcpStream::connect(("127.0.0.1", server.port())).is_ok());
    assert!(server.try_sql("SELECT nothing").unwrap_err().contains("Unknown column"));
}

#[test]
fn a_datadir_can_be_taken_over() {
    let mut first = MariaDb::start();
    first.sql(THREE_TABLES);
    let before = first.checksums();
    first.stop();
    let second = MariaDb::on(first.datadir(), ServerOptions::new());
    assert_eq!(second.checksums(), before);
}

#[test]
fn a_bucket_holds_what_is_put_and_is_no_other_test_s() {
    let (bucket, other) = (LocalStack::shared().bucket(), LocalStack::shared().bucket());
    bucket.put("a/b", b"bytes".to_vec());
    assert_eq!(bucket.keys("a/"), ["a/b"]);
    assert_eq!(bucket.get("a/b"), b"bytes");
    assert_eq!(other.keys(""), [""; 0]);
    bucket.delete("a/b");
    assert_eq!(bucket.keys(""), [""; 0]);
}

/// What an answer begins with, its reason phrase left out; empty when the connection was cut.
fn status(path: &FaultyPath) -> String {
    let address = path.endpoint().replace("http://", "");
    let Ok(mut stream) = TcpStream::connect(&address) else { return String::new() };
    stream.set_read_timeout(Some(std::time::Duration::from_secs(2))).unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let mut answer = Vec::new();
    let _ = stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_end(&mut answer).map(drop));
    String::from_utf8_lossy(&answer).chars().take(12).collect()
}

#[test]
fn a_path_fails_as_it_is_told_and_heals() {
    let path = FaultyPath::to(LocalStack::shared().address());
    assert_eq!(status(&path), "HTTP/1.1 200");
    for fault in [Fault::Down, Fault::CutAfter(10), Fault::Stall] {
        path.set(fault);
        assert_eq!(status(&path), "", "{fault:?}");
    }
    path.set(Fault::CutAnswerAfter(4));
    assert_eq!(status(&path), "HTTP");
    path.set(Fault::DownAfter(20));
    assert_eq!((status(&path), path.fault()), (String::new(), Fault::Down));
    path.set(Fault::None);
    assert_eq!(status(&path), "HTTP/1.1 200");
    assert_eq!(path.connections(), 7);
}

#[test]
fn the_program_runs() {
    Haulout::new().run(["--version"]).ok();
}
