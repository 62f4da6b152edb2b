//! What the program says: data on stdout, everything else on stderr; or JSON lines, all on stdout.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use serde::Serialize;

use super::{failure::Failure, figures::Figures, paint::Paint, screen::Screen};

/// Something that is told as one JSON line.
pub trait Message: Serialize {
    /// Value of `message_type`.
    const TYPE: &'static str;
}

/// How much is said, and in which form.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutputOptions {
    /// JSON lines instead of text.
    pub json: bool,
    /// Only warnings, errors and what was asked for.
    pub quiet: bool,
    /// Colours on stdout.
    pub stdout: Paint,
    /// Colours on stderr.
    pub stderr: Paint,
    /// Width of the terminal on stdout; `None` for a pipe or a file.
    pub columns: Option<usize>,
}

/// Both outputs of the process.
pub struct Output {
    /// How much is said, and in which form.
    pub options: OutputOptions,
    /// stderr.
    pub screen: Arc<Screen>,
    /// What this process has asked of stores and taken of the machine.
    pub figures: Figures,
    stdout: Mutex<Stdout>,
}

struct Stdout {
    writer: Box<dyn Write + Send>,
    state: State,
}

enum State {
    Open,
    /// The reader went away, as `head` does. That ends the output, and nothing else: a backup goes on.
    Closed,
    Failed(io::Error),
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Output {
    /// Outputs to `stdout` and `screen`.
    pub fn new(options: OutputOptions, screen: Arc<Screen>, stdout: Box<dyn Write + Send>) -> Output {
        Output {
            options,
            screen,
            figures: Figures::default(),
            stdout: Mutex::new(Stdout { writer: stdout, state: State::Open }),
        }
    }

    /// True when JSON lines are wanted.
    pub fn is_json(&self) -> bool {
        self.options.json
    }

    /// Prints data as it is.
    pub fn data(&self, bytes: &[u8]) {
        self.write(bytes);
    }

    /// Prints `message` as a JSON line.
    pub fn json<M: Message>(&self, message: &M) {
        self.tagged(M::TYPE, message);
    }

    /// Tells how a command ended: a JSON line, or `text` unless only errors are wanted.
    pub fn summary<M: Message>(&self, message: &M, text: impl FnOnce(&M, Paint) -> String) {
        if self.options.json {
            self.tell_figures();
            self.json(message);
        } else if !self.options.quiet {
            self.write(text(message, self.options.stdout).as_bytes());
        }
    }

    /// Prints the figures as a JSON line, where they are wanted.
    pub fn tell_figures(&self) {
        if self.options.json && self.figures.are_wanted() {
            self.json(&self.figures.line());
        }
    }

    /// Tells the operator `message`: lower case, no full stop.
    pub fn note(&self, message: &str) {
        if self.options.quiet {
            return;
        }
        if self.options.json {
            self.tagged("note", &Sentence { message });
        } else {
            self.screen.write(&format!(
                "haulout: {message}
"
            ));
        }
    }

    /// Tells the operator a `message` that must not be missed.
    pub fn warn(&self, message: &str) {
        if self.options.json {
            self.tagged("warning", &Sentence { message });
        } else {
            self.screen.write(&format!("haulout: {} {message}\n", self.options.stderr.yellow("warning:")));
        }
    }

    /// Tells why the command failed.
    pub fn failure(&self, failure: &Failure) {
        self.screen.clear();
        self.tell_figures();
        let told = self.options.json && self.tagged("error", failure);
        if !told {
            self.screen.write(&failure.text(|word| self.options.stderr.red(word)));
        }
    }

    /// Flushes stdout.
    ///
    /// # Errors
    /// When not all that was printed arrived, as on a full disk; a reader that went away is no error.
    pub fn finish(&self) -> Result<(), Failure> {
        let mut stdout = self.lock();
        if matches!(stdout.state, State::Open) {
            let result = stdout.writer.flush();
            stdout.note(result);
        }
        match &stdout.state {
            State::Failed(error) => Err(Failure::of_io("cannot write to standard output", error)),
            State::Open | State::Closed => Ok(()),
        }
    }

    /// Prints a JSON line; false when nobody will read it.
    fn tagged<B: Serialize + ?Sized>(&self, message_type: &'static str, body: &B) -> bool {
        #[derive(Serialize)]
        struct Tagged<'a, B: ?Sized> {
            message_type: &'static str,
            #[serde(flatten)]
            body: &'a B,
        }
        match serde_json::to_vec(&Tagged { message_type, body }) {
            Ok(mut line) => {
                line.push(b'\n');
                self.write(&line)
            }
            Err(error) => {
                self.lock().note(Err(error.into()));
                false
            }
        }
    }

    fn write(&self, bytes: &[u8]) -> bool {
        let mut stdout = self.lock();
        if matches!(stdout.state, State::Open) {
            // Flushed line by line: whoever reads along waits for it.
            let result = stdout.writer.write_all(bytes).and_then(|()| stdout.writer.flush());
            stdout.note(result);
        }
        matches!(stdout.state, State::Open)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Stdout> {
        self.stdout.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stdout {
    fn note(&mut self, result: io::Result<()>) {
        match result {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.state = State::Closed,
            Err(error) => self.state = State::Failed(error),
        }
    }
}

#[derive(Serialize)]
struct Sentence<'a> {
    message: &'a str,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::error::Kind;

    /// A writer whose contents can be looked at.
    #[derive(Debug, Clone, Default)]
    pub(in crate::cli) struct Sheet(Arc<Mutex<Vec<u8>>>);

    impl Sheet {
        pub(in crate::cli) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Sheet {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Broken(io::ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// An output into two sheets, stdout and stderr.
    pub(in crate::cli) fn sheets(options: OutputOptions) -> (Output, Sheet, Sheet) {
        let (out, err) = (Sheet::default(), Sheet::default());
        let screen = Arc::new(Screen::of_writer(Box::new(err.clone())));
        (Output::new(options, screen, Box::new(out.clone())), out, err)
    }

    fn with_stdout(kind: io::ErrorKind, json: bool) -> (Output, Sheet) {
        let err = Sheet::default();
        let screen = Arc::new(Screen::of_writer(Box::new(err.clone())));
        (Output::new(OutputOptions { json, ..Default::default() }, screen, Box::new(Broken(kind))), err)
    }

    #[test]
    fn text_keeps_stdout_for_data() {
        let (output, out, err) = sheets(OutputOptions::default());
        output.data(b"data\n");
        output.note("noted");
        output.warn("warned");
        output.failure(&Failure::new(Kind::Locked, "locked by db2"));
        assert_eq!(out.text(), "data\n");
        assert_eq!(err.text(), "haulout: noted\nhaulout: warning: warned\nhaulout: error: locked by db2\n");
    }

    #[test]
    fn json_says_everything_on_stdout_one_line_each() {
        let (output, out, err) = sheets(OutputOptions { json: true, ..Default::default() });
        output.note("noted\nin two lines");
        output.failure(&Failure::new(Kind::Locked, "locked by db2").with_hint("wait"));
        let text = out.text();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["message_type"], "note");
        assert_eq!((&lines[1]["message_type"], &lines[1]["code"]), (&"error".into(), &11.into()));
        assert!(text.contains(r#"{"message_type":"error","code":11,"kind":"locked","#), "{text}");
        assert_eq!(err.text(), "");
    }

    #[test]
    fn quiet_leaves_warnings_and_errors() {
        let (output, out, err) = sheets(OutputOptions { quiet: true, ..Default::default() });
        output.note("noted");
        output.warn("warned");
        assert_eq!((out.text().as_str(), err.text().as_str()), ("", "haulout: warning: warned\n"));
    }

    #[test]
    fn a_reader_that_goes_away_ends_the_output_and_nothing_else() {
        let (output, _) = with_stdout(io::ErrorKind::BrokenPipe, false);
        output.data(b"one\n");
        output.data(b"two\n");
        assert_eq!(output.finish(), Ok(()));
    }

    #[test]
    fn a_failure_that_stdout_cannot_take_goes_to_stderr() {
        let (output, err) = with_stdout(io::ErrorKind::BrokenPipe, true);
        output.failure(&Failure::new(Kind::Locked, "locked by db2"));
        assert_eq!(err.text(), "haulout: error: locked by db2\n");
    }

    #[test]
    fn a_full_disk_under_stdout_is_a_failure() {
        let (output, _) = with_stdout(io::ErrorKind::StorageFull, false);
        output.data(b"one\n");
        assert_eq!(output.finish().unwrap_err().message, "cannot write to standard output");
    }
}
