//! Statements on Aria tables that do not wait until the backup lets them commit.

use serde_json::Value;

use crate::support::{MariaDb, ServerOptions, Site, Tool, binary::Run, site::assert_says, tool::real};

/// Inserts a row into an Aria table when the tool has blocked commits, in its first runs. The tool stands still meanwhile. The
/// statement gives up after a second; its row stays, and the binlog has it. Where the tool has copied the end of Aria's log by then,
/// the row is not in the backup.
const INSERT: &str = "SET lock_wait_timeout = 1; INSERT INTO shop.note VALUES (1000, 'late')";

/// When the backup gets to read that the tool has blocked commits.
#[derive(Clone, Copy)]
enum Told {
    AtOnce,
    Afterwards,
}

/// Runs `sql` when the tool has blocked commits and stands still, in its first runs.
fn with_sql(site: &Site, runs: usize, told: Told, sql: &str) -> Tool {
    let (before, after) = match told {
        Told::AtOnce => ("printf '%s\\n' \"$line\" >&2; sleep 0.3", ":"),
        Told::Afterwards => (":", "printf '%s\\n' \"$line\" >&2"),
    };
    let flags = site.server.flags().join(" ");
    Tool::new(&format!(
        "echo run >> \"$here/runs\"
         [ \"$(wc -l < \"$here/runs\")\" -le {runs} ] || exec \"$real\" \"$@\"
         rm -f \"$here/said\"; mkfifo \"$here/said\"
         \"$real\" \"$@\" 2> \"$here/said\" & tool=$!
         while IFS= read -r line; do
           case $line in *'Acquired locks for BACKUP STAGE BLOCK_COMMIT'*)
             kill -STOP $tool
             {before}
             {} --no-defaults {flags} --execute=\"{sql}\" \
               2>> \"$here/refused\"
             {after}
             kill -CONT $tool ;;
           *) printf '%s\\n' \"$line\" >&2
           esac
         done < \"$here/said\"
         wait $tool",
        real("mariadb").display()
    ))
}

/// A backup during which the tool stood still in time in each of its first `runs`. On a busy machine the tool may be done before it is
/// stopped, or know the position, which then does not count the row: that is put right, and there is another. Also what was listed
/// before it.
fn backup_with_insert(site: &Site, runs: usize, told: Told) -> (Tool, Run, Vec<Value>) {
    for _ in 0..5 {
        let before = site.listing();
        let tool = with_sql(site, runs, told, INSERT);
        let run = site.backup(&[&tool.flag()]);
        let refused = lines(&tool, "refused").iter().filter(|line| line.contains("ERROR 1205")).count();
        let counted = run.messages.iter().all(|message| {
            let gtid = message["position"]["gtid"].as_str();
            gtid.is_none_or(|gtid| gtid == site.server.sql("SELECT @@gtid_binlog_pos").trim())
        });
        if counted && refused == lines(&tool, "runs").len().min(runs) {
            return (tool, run, before);
        }
        site.server.sql("DELETE FROM shop.note WHERE id = 1000");
    }
    panic!("the tool was stopped too late five times");
}

fn lines(tool: &Tool, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(tool.folder().join(name)).unwrap();
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('-')).map(str::to_owned).collect()
}

#[test]
fn a_backup_whose_position_counts_rows_that_it_may_lack_is_taken_again() {
    check_taken_again(Told::AtOnce, "trying again: the binlog went on from");
}

/// On a busy machine what the tool says is read seconds later.
#[test]
fn it_is_taken_again_when_the_binlog_was_looked_at_too_late_to_tell() {
    check_taken_again(Told::Afterwards, "trying again: the binlog went on from an earlier place to");
}

fn check_taken_again(told: Told, why: &str) {
    let site = Site::with(ServerOptions::new().argument("--log-bin"));
    site.backed_up(&[]);
    let (tool, run, before) = backup_with_insert(&site, 1, told);
    let run = run.ok();
    assert_eq!(site.server.sql("SELECT COUNT(*) FROM shop.note WHERE id = 1000").trim(), "1");
    let summary = run.summary().clone();
    let parent = &before.last().unwrap()["backup_id"];
    assert_eq!((&summary["kind"], &summary["parent"]), (&"incremental".into(), parent));
    let restored = MariaDb::on(&site.restored(&summary), Default::default());
    assert_eq!(lines(&tool, "runs").len(), 2, "{}", run.stdout);
    assert_eq!(restored.checksums(), site.server.checksums());
    let warning = run.message("warning")["message"].as_str().unwrap();
    assert!(warning.contains(why), "{warning}");
}

#[test]
fn a_backup_whose_position_never_stands_still_is_refused() {
    let site = Site::with(ServerOptions::new().argument("--log-bin"));
    let (tool, run, before) = backup_with_insert(&site, 9, Told::AtOnce);
    assert_says(&run, 23, "while commits were blocked", "lock_wait_timeout");
    assert_eq!(site.listing(), before, "something was committed");
    assert_eq!(site.leases_held(), [""; 0]);
    assert_eq!(lines(&tool, "runs").len(), 3);
    site.backed_up(&[]);
}

/// As `mariadb-backup --galera-info` has it, and a cron job may.
#[test]
fn a_binlog_that_goes_on_in_another_file_alone_is_nothing() {
    let site = Site::with(ServerOptions::new().argument("--log-bin"));
    let tool = with_sql(&site, 9, Told::AtOnce, "SET lock_wait_timeout = 1; FLUSH BINARY LOGS");
    let run = site.backup(&[&tool.flag()]).ok();
    assert_eq!(lines(&tool, "refused"), [""; 0]);
    assert!(site.server.sql("SHOW BINARY LOGS").lines().count() > 1, "it does not go on");
    assert_eq!(lines(&tool, "runs").len(), 1, "{}", run.stdout);
}
