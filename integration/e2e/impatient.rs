//! Statements on Aria tables that do not wait until the backup lets them commit.

use crate::support::{MariaDb, ServerOptions, Site, Tool, tool::real};

/// Inserts a row into an Aria table when the tool has blocked commits, in its first runs. The tool stands still meanwhile. The
/// statement gives up after a second; its row stays, and the binlog has it. Where the tool has copied the end of Aria's log by then,
/// the row is not in the backup.
fn with_insert(site: &Site, runs: usize) -> Tool {
    with_sql(site, runs, "SET lock_wait_timeout = 1; INSERT INTO shop.note VALUES (1000, 'late')")
}

/// Runs `sql` when the tool has blocked commits and stands still, in its first runs.
fn with_sql(site: &Site, runs: usize, sql: &str) -> Tool {
    let flags = site.server.flags().join(" ");
    Tool::new(&format!(
        "echo run >> \"$here/runs\"
         [ \"$(wc -l < \"$here/runs\")\" -le {runs} ] || exec \"$real\" \"$@\"
         rm -f \"$here/said\"; mkfifo \"$here/said\"
         \"$real\" \"$@\" 2> \"$here/said\" & tool=$!
         while IFS= read -r line; do
           printf '%s\\n' \"$line\" >&2
           case $line in *'Acquired locks for BACKUP STAGE BLOCK_COMMIT'*)
             kill -STOP $tool
             {} --no-defaults {flags} --execute=\"{sql}\" \
               2>> \"$here/refused\"
             kill -CONT $tool
           esac
         done < \"$here/said\"
         wait $tool",
        real("mariadb").display()
    ))
}

fn lines(tool: &Tool, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(tool.folder().join(name)).unwrap();
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('-')).map(str::to_owned).collect()
}

#[test]
fn a_backup_whose_position_counts_rows_that_it_may_lack_is_taken_again() {
    let site = Site::with(ServerOptions::new().argument("--log-bin"));
    let first = site.backed_up(&[]);
    let tool = with_insert(&site, 1);
    let run = site.backup(&[&tool.flag()]).ok();
    let refused = lines(&tool, "refused");
    assert!(refused.iter().any(|line| line.contains("ERROR 1205")), "{refused:?}");
    assert_eq!(site.server.sql("SELECT COUNT(*) FROM shop.note WHERE id = 1000").trim(), "1");
    let summary = run.summary().clone();
    assert_eq!((&summary["kind"], &summary["parent"]), (&"incremental".into(), &first["backup_id"]));
    let restored = MariaDb::on(&site.restored(&summary), Default::default());
    assert_eq!(restored.checksums(), site.server.checksums());
    assert_eq!(lines(&tool, "runs").len(), 2);
    let warning = run.message("warning")["message"].as_str().unwrap();
    assert!(warning.contains("trying again: the binlog went on from"), "{warning}");
}

#[test]
fn a_backup_whose_position_never_stands_still_is_refused() {
    let site = Site::with(ServerOptions::new().argument("--log-bin"));
    let tool = with_insert(&site, 9);
    site.refuses_backup(23, "while commits were blocked", "lock_wait_timeout", &[&tool.flag()]);
    assert_eq!(lines(&tool, "runs").len(), 3);
    assert_eq!(site.backed_up(&[])["kind"], "full");
}

/// As `mariadb-backup --galera-info` has it, and a cron job may.
#[test]
fn a_binlog_that_goes_on_in_another_file_alone_is_nothing() {
    let site = Site::with(ServerOptions::new().argument("--log-bin"));
    let tool = with_sql(&site, 9, "SET lock_wait_timeout = 1; FLUSH BINARY LOGS");
    let run = site.backup(&[&tool.flag()]).ok();
    assert_eq!(lines(&tool, "refused"), [""; 0]);
    assert!(site.server.sql("SHOW BINARY LOGS").lines().count() > 1, "it does not go on");
    assert_eq!(lines(&tool, "runs").len(), 1, "{}", run.stdout);
}
