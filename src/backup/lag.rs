//! Watches how far a server writes its redo log while it is captured.
//!
//! What the capture has got of it is known from the stream, into which the tool writes 10 MiB at a time.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::mariadb::connection::Connection;
use crate::mariadb::sql::Session;
use crate::mariadb::tool::Tools;
use crate::model::{Level, Progress};

/// Time from the start of a capture to the first question: short captures are over by then.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Time between questions, each of which is a run of the client of some 20 ms.
const PAUSE: Duration = Duration::from_secs(10);

/// Asks the server now and then and tells [`Level::RedoWritten`]; ends when it is dropped.
pub(super) struct LagWatch {
    progress: Arc<dyn Progress>,
    /// True when nothing is told any more.
    over: Arc<Mutex<bool>>,
    _ends_with_it: Sender<()>,
}

impl LagWatch {
    /// Begins; `kept` is the length of the server's redo log in bytes.
    pub fn begin(tools: Tools, connection: Connection, kept: u64, progress: Arc<dyn Progress>) -> LagWatch {
        progress.level(Level::RedoKept, kept);
        let (sender, ended) = mpsc::channel();
        let over = Arc::new(Mutex::new(false));
        let (told, is_over) = (progress.clone(), over.clone());
        // It is not waited for: a server that does not answer holds nobody up.
        thread::spawn(move || {
            let mut pause = FIRST_PAUSE;
            while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                pause = PAUSE;
                // A server that does not answer is the tool's to tell.
                let Some(written) = lsn_of(&tools, &connection) else { continue };
                let over = is_over.lock().unwrap_or_else(PoisonError::into_inner);
                if !*over {
                    told.level(Level::RedoWritten, written);
                }
            }
        });
        LagWatch { progress, over, _ends_with_it: sender }
    }
}

impl Drop for LagWatch {
    fn drop(&mut self) {
        let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        *over = true;
        self.progress.level(Level::RedoWritten, 0);
    }
}

/// The last LSN that the server has written.
fn lsn_of(tools: &Tools, connection: &Connection) -> Option<u64> {
    let rows = Session::new(tools, connection).query("SHOW GLOBAL STATUS LIKE 'Innodb_lsn_current'").ok()?;
    rows.first()?.get(1)?.as_deref()?.parse().ok()
}
