//! Colours, where they help and somebody can see them.

/// Marks words with ANSI colours, or leaves them alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Paint {
    /// True when the words go to a terminal that shows colours.
    pub coloured: bool,
}

impl Paint {
    /// For titles.
    pub fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// For what is there if one looks for it.
    pub fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    /// For errors and damage.
    pub fn red(self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    /// For warnings.
    pub fn yellow(self, text: &str) -> String {
        self.wrap("1;33", text)
    }

    /// For what is as it should be.
    pub fn green(self, text: &str) -> String {
        self.wrap("32", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
