//! The operator's terminal: lines on stderr that do not tear the progress bars apart.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use indicatif::{MultiProgress, ProgressDrawTarget};

/// stderr, and the progress bars at its foot.
pub struct Screen {
    bars: Option<MultiProgress>,
    stderr: Mutex<Box<dyn Write + Send>>,
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen").field("bars", &self.bars.is_some()).finish_non_exhaustive()
    }
}

impl Screen {
    /// The process's stderr; `bars` when there is a terminal for them.
    pub fn of_process(bars: bool) -> Screen {
        let bars = bars.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(8)));
        Screen { bars, stderr: Mutex::new(Box::new(io::stderr())) }
    }

    /// A stderr that somebody else looks at, without bars.
    pub fn of_writer(writer: Box<dyn Write + Send>) -> Screen {
        Screen { bars: None, stderr: Mutex::new(writer) }
    }

    /// The bars, where there are any.
    pub fn bars(&self) -> Option<&MultiProgress> {
        self.bars.as_ref()
    }

    /// Writes `text`, which ends with a line break, above the bars.
    pub fn write(&self, text: &str) {
        let write = || {
            let mut stderr = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
            // Nobody is left to tell that stderr is gone.
            let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
        };
        match &self.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }

    /// Takes the bars away, for good.
    pub fn clear(&self) {
        if let Some(bars) = &self.bars {
            let _ = bars.clear();
            bars.set_draw_target(ProgressDrawTarget::hidden());
        }
    }
}

/// Lets the log write through a [`Screen`].
#[derive(Debug, Clone)]
pub struct LogWriter(pub Arc<Screen>);

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
