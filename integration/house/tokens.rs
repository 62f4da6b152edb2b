//! Rust's text as words, marks and literals: enough to find paths and attributes, comments and strings left out.
//!
//! Not a parser, on purpose: it sees the bodies of macros too, which a syntax tree leaves as they are.

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Identifier, keyword, number or lifetime.
    Word,
    /// One punctuation character, or `::`.
    Mark,
    /// String literal; its text is what stands between the quotes.
    Text,
}

/// A token and where it stands.
#[derive(Debug, Clone)]
pub struct Token {
    pub kind: Kind,
    pub text: String,
    pub line: usize,
    /// Belongs to an item that is compiled for tests only.
    pub test: bool,
}

impl Token {
    pub fn is_word(&self) -> bool {
        self.kind == Kind::Word
    }

    pub fn is(&self, text: &str) -> bool {
        self.kind != Kind::Text && self.text == text
    }
}

/// Tokens of `source`, with those of test items marked.
pub fn tokens(source: &str) -> Vec<Token> {
    let mut tokens = Scanner { chars: source.chars().collect(), at: 0, line: 1, tokens: Vec::new() }.scan();
    mark_tests(&mut tokens);
    tokens
}

/// True when the tokens from `at` read `words`.
pub fn reads(tokens: &[Token], at: usize, words: &[&str]) -> bool {
    tokens.len() >= at + words.len() && words.iter().zip(&tokens[at..]).all(|(word, token)| token.is(word))
}

struct Scanner {
    chars: Vec<char>,
    at: usize,
    line: usize,
    tokens: Vec<Token>,
}

impl Scanner {
    fn scan(mut self) -> Vec<Token> {
        while let Some(char) = self.peek(0) {
            match char {
                '/' if self.peek(1) == Some('/') => self.skip_line(),
                '/' if self.peek(1) == Some('*') => self.skip_block(),
                '"' => self.plain_text(),
                '\'' => self.quote(),
                _ if self.text_prefix().is_some() => {
                    let (letters, hashes) = self.text_prefix().expect("just seen");
                    self.advance(letters);
                    if letters == 1 && hashes == 0 && char != 'r' { self.plain_text() } else { self.raw_text(hashes) }
                }
                _ if char.is_alphanumeric() || char == '_' => self.word(),
                ':' if self.peek(1) == Some(':') => {
                    self.push(Kind::Mark, "::".to_owned(), self.line);
                    self.advance(2);
                }
                _ if char.is_whitespace() => self.advance(1),
                _ => {
                    self.push(Kind::Mark, char.to_string(), self.line);
                    self.advance(1);
                }
            }
        }
        self.tokens
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn advance(&mut self, count: usize) {
        for _ in 0..count {
            if self.peek(0) == Some('\n') {
                self.line += 1;
            }
            self.at += 1;
        }
    }

    fn push(&mut self, kind: Kind, text: String, line: usize) {
        self.tokens.push(Token { kind, text, line, test: false });
    }

    fn skip_line(&mut self) {
        while self.peek(0).is_some_and(|char| char != '\n') {
            self.advance(1);
        }
    }

    fn skip_block(&mut self) {
        let mut depth = 0;
        while let Some(char) = self.peek(0) {
            match (char, self.peek(1)) {
                ('/', Some('*')) => {
                    depth += 1;
                    self.advance(2);
                }
                ('*', Some('/')) => {
                    depth -= 1;
                    self.advance(2);
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.advance(1),
            }
        }
    }

    /// Letters before a string's quote and the hashes between: `b"`, `c"`, `r#"`, `br##"`.
    fn text_prefix(&self) -> Option<(usize, usize)> {
        let letters = match (self.peek(0)?, self.peek(1)?) {
            ('b' | 'c', 'r') => 2,
            ('b' | 'c' | 'r', _) => 1,
            _ => return None,
        };
        let raw = self.peek(letters - 1) == Some('r');
        let hashes = (0..).take_while(|ahead| raw && self.peek(letters + ahead) == Some('#')).count();
        (self.peek(letters + hashes) == Some('"')).then_some((letters, hashes))
    }

    fn plain_text(&mut self) {
        let (line, start) = (self.line, self.at + 1);
        self.advance(1);
        while let Some(char) = self.peek(0) {
            match char {
                '\\' => self.advance(2),
                '"' => break,
                _ => self.advance(1),
            }
        }
        let text = self.chars[start..self.at.min(self.chars.len())].iter().collect();
        self.advance(1);
        self.push(Kind::Text, text, line);
    }

    fn raw_text(&mut self, hashes: usize) {
        self.advance(hashes + 1);
        let (line, start) = (self.line, self.at);
        while self.peek(0).is_some() {
            if self.peek(0) == Some('"') && (1..=hashes).all(|ahead| self.peek(ahead) == Some('#')) {
                break;
            }
            self.advance(1);
        }
        let text = self.chars[start..self.at].iter().collect();
        self.advance(hashes + 1);
        self.push(Kind::Text, text, line);
    }

    /// A character literal, which is dropped, or a lifetime, which is a word.
    fn quote(&mut self) {
        let literal = self.peek(1) == Some('\\') || self.peek(2) == Some('\'');
        self.advance(1);
        if !literal {
            return self.word();
        }
        if self.peek(0) == Some('\\') {
            self.advance(2);
        }
        while self.peek(0).is_some_and(|char| char != '\'') {
            self.advance(1);
        }
        self.advance(1);
    }

    fn word(&mut self) {
        let start = self.at;
        while self.peek(0).is_some_and(|char| char.is_alphanumeric() || char == '_') {
            self.advance(1);
        }
        let text = self.chars[start..self.at].iter().collect();
        self.push(Kind::Word, text, self.line);
    }
}

fn mark_tests(tokens: &mut [Token]) {
    let mut at = 0;
    while at < tokens.len() {
        if reads(tokens, at, &["#", "!", "[", "cfg", "(", "test", ")", "]"]) {
            tokens.iter_mut().for_each(|token| token.test = true);
            return;
        }
        let test = [&["#", "[", "cfg", "(", "test", ")"][..], &["#", "[", "cfg", "(", "all", "(", "test"]]
            .iter()
            .chain(&[&["#", "[", "test", "]"][..], &["#", "[", "tokio", "::", "test"]])
            .any(|words| reads(tokens, at, words));
        if test {
            let end = end_of_item(tokens, at);
            tokens[at..end].iter_mut().for_each(|token| token.test = true);
            at = end;
        } else {
            at += 1;
        }
    }
}

/// Where the item that begins at `at`, attributes first, ends: after its `;` or its body's `}`.
fn end_of_item(tokens: &[Token], at: usize) -> usize {
    let mut item = at;
    while reads(tokens, item, &["#", "["]) {
        item = after_brackets(tokens, item + 1);
    }
    // A `use` has braces that are not its end.
    let mut ends_with_brace = true;
    while item < tokens.len() {
        match tokens[item].text.as_str() {
            _ if tokens[item].kind == Kind::Text => item += 1,
            "use" => {
                ends_with_brace = false;
                item += 1;
            }
            ";" => return item + 1,
            "{" if ends_with_brace => return after_brackets(tokens, item),
            "{" | "(" | "[" => item = after_brackets(tokens, item),
            // The item was the last thing in a body: a field, a variant or an expression.
            "}" => return item,
            _ => item += 1,
        }
    }
    item
}

/// The place after the bracket that closes the one at `at`.
fn after_brackets(tokens: &[Token], at: usize) -> usize {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate().skip(at) {
        match token.text.as_str() {
            _ if token.kind == Kind::Text => {}
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return index + 1;
                }
            }
            _ => {}
        }
    }
    tokens.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<String> {
        tokens(source).into_iter().filter(Token::is_word).map(|token| token.text).collect()
    }

    #[test]
    fn comments_and_literals_hide_what_is_in_them() {
        let source = r####"a /* b /* c */ d */ e // f
            "g \" h" 'i' '\'' '"' b"j" r"k\" r#"l " m"# br##"n"# o"## 'life p b'q' c"s" '\u{1F600}' r"####;
        assert_eq!(words(source), ["a", "e", "life", "p", "b", "r"]);
    }

    #[test]
    fn lines_are_counted_through_comments_and_strings() {
        let found = tokens("/* \n */ \"\n\" r#\"\n\"# last");
        assert_eq!((found.last().unwrap().text.as_str(), found.last().unwrap().line), ("last", 4));
    }

    #[test]
    fn test_items_are_marked_to_their_end_and_no_further() {
        let source = "a; #[cfg(test)] use x::{y, z}; b; #[cfg(test)] #[allow(c)] mod t { fn u() { v } } w;
            #[test] fn n() -> [u8; 3] { m } k; #[cfg(test)] mod q; s; #[cfg(not(test))] fn o() {}";
        let (tests, code): (Vec<_>, Vec<_>) = tokens(source).into_iter().partition(|token| token.test);
        let text = |tokens: Vec<Token>| {
            tokens.iter().filter(|t| t.text.len() == 1 && t.is_word()).map(|t| t.text.clone()).collect::<String>()
        };
        assert_eq!(text(tests), "xyzctuvn3mq");
        assert_eq!(text(code), "abwkso");
    }
}
