//! The second judge: a replica of the source that stops where a backup was taken.

use std::time::Duration;

use haulout::model::GtidSet;

use crate::support::{MariaDb, ServerOptions, wait};

/// Time for the replica to come from one backup to the next.
const ADVANCE_LIMIT: Duration = Duration::from_secs(240);

/// A replica that goes from backup to backup.
#[derive(Debug)]
pub struct Replica {
    pub server: MariaDb,
}

impl Replica {
    /// Begins as the source began, and has read nothing yet.
    pub fn of(source: &MariaDb, options: ServerOptions) -> Replica {
        let server = MariaDb::with(options.argument("--server-id=2"));
        server.sql(&format!(
            "CHANGE MASTER TO master_host='127.0.0.1', master_port={}, master_user='replica', master_password='replica',
             master_use_gtid=slave_pos, master_connect_retry=1",
            source.port()
        ));
        Replica { server }
    }

    /// Applies all up to `gtid` and nothing beyond it.
    pub fn advance(&self, gtid: &str) -> Result<(), String> {
        // The server tells domains in any order.
        let at = || self.server.sql("SELECT @@gtid_slave_pos").trim().parse::<GtidSet>().unwrap();
        let wanted: GtidSet = gtid.parse().unwrap();
        if at() == wanted {
            return Ok(());
        }
        self.server.sql(&format!("START SLAVE UNTIL master_gtid_pos='{gtid}'"));
        let status = || {
            let mut command = self.server.client().command();
            let output = command.args(["--column-names", "--execute=SHOW SLAVE STATUS\\G"]).output();
            String::from_utf8_lossy(&output.expect("the mariadb client can be run").stdout).into_owned()
        };
        // The thread that reads ends first; only an error of its own keeps the other from getting there.
        let ended = || {
            let status = status();
            let says = |line: &str| status.lines().any(|found| found.trim() == line);
            (says("Slave_SQL_Running: No") || !says("Last_IO_Errno: 0")).then_some(())
        };
        let in_time = wait::try_until(ADVANCE_LIMIT, ended).is_some();
        if in_time && at() == wanted {
            self.server.sql("STOP SLAVE");
            return Ok(());
        }
        let status = status();
        let told = |name: &str| {
            status.lines().map(str::trim).find(|line| line.starts_with(name)).unwrap_or_default().to_owned()
        };
        let told: Vec<_> =
            ["Last_SQL_Error:", "Last_IO_Error:", "Slave_SQL_Running_State:", "Slave_IO_State:"].map(told).into();
        self.server.sql("STOP SLAVE");
        Err(format!("it stands at {}, not {gtid}: {}", at(), told.join(" ")))
    }
}
