//! From template text to tokens, with the positions, lines and messages of Go's `text/template/parse`.

use std::borrow::Cow;
use std::fmt;

use crate::quote::{is_printable, quote};

const LEFT: &str = "{{";
const RIGHT: &str = "}}";
const SPACES: [char; 4] = [' ', '\t', '\r', '\n'];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The text is the message.
    Error,
    Bool,
    /// Printable ASCII without a meaning of its own, such as a comma.
    Char,
    CharConstant,
    Assign,
    Declare,
    End,
    Field,
    Identifier,
    LeftDelim,
    LeftParen,
    Number,
    Pipe,
    RawString,
    RightDelim,
    RightParen,
    Space,
    String,
    Text,
    Variable,
    Keyword(Keyword),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keyword {
    Block,
    Break,
    Continue,
    Dot,
    Define,
    Else,
    End,
    If,
    Nil,
    Range,
    Template,
    With,
}

/// A piece of the template.
#[derive(Clone, Debug)]
pub(crate) struct Token<'s> {
    pub kind: Kind,
    /// Byte in the template where it begins.
    pub pos: usize,
    pub text: Cow<'s, str>,
    /// Line where it begins, from 1.
    pub line: usize,
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::End => f.write_str("EOF"),
            Kind::Error => f.write_str(&self.text),
            Kind::Keyword(_) => write!(f, "<{}>", self.text),
            _ if self.text.len() > 10 => {
                write!(f, "{}...", quote(&self.text.chars().take(10).collect::<String>()))
            }
            _ => f.write_str(&quote(&self.text)),
        }
    }
}

pub(crate) struct Lexer<'s> {
    input: &'s str,
    pos: usize,
    start: usize,
    line: usize,
    start_line: usize,
    inside_action: bool,
    paren_depth: usize,
}

impl<'s> Lexer<'s> {
    pub fn new(input: &'s str) -> Self {
        Self { input, pos: 0, start: 0, line: 1, start_line: 1, inside_action: false, paren_depth: 0 }
    }

    pub fn next_token(&mut self) -> Token<'s> {
        if self.inside_action { self.lex_inside_action() } else { self.lex_text() }
    }

    fn rest(&self) -> &'s str {
        self.input.get(self.pos..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.pos += c.len_utf8();
        if c == '\n' {
            self.line += 1;
        }
        Some(c)
    }

    /// Skips text that was not read with `bump`.
    fn skip_to(&mut self, pos: usize) {
        self.pos = pos;
        self.line += newlines(self.input.get(self.start..pos).unwrap_or_default());
        self.start = pos;
        self.start_line = self.line;
    }

    fn emit(&mut self, kind: Kind) -> Token<'s> {
        let text = Cow::Borrowed(self.input.get(self.start..self.pos).unwrap_or_default());
        let token = Token { kind, pos: self.start, text, line: self.start_line };
        self.start = self.pos;
        self.start_line = self.line;
        token
    }

    fn error(&mut self, message: impl Into<Cow<'s, str>>) -> Token<'s> {
        let token = Token { kind: Kind::Error, pos: self.start, text: message.into(), line: self.start_line };
        // Nothing after an error is looked at.
        (self.input, self.pos, self.start) = ("", 0, 0);
        token
    }

    fn lex_text(&mut self) -> Token<'s> {
        loop {
            let Some(length) = self.rest().find(LEFT) else {
                self.line += newlines(self.rest());
                self.pos = self.input.len();
                return if self.pos > self.start { self.emit(Kind::Text) } else { self.emit(Kind::End) };
            };
            if length > 0 {
                let delim = self.pos + length;
                let mut text = self.rest().get(..length).unwrap_or_default();
                if has_left_trim_marker(self.input.get(delim + LEFT.len()..).unwrap_or_default()) {
                    text = text.trim_end_matches(SPACES);
                }
                self.pos += text.len();
                self.line += newlines(text);
                let token = self.emit(Kind::Text);
                self.skip_to(delim);
                if !text.is_empty() {
                    return token;
                }
            }
            if let Some(token) = self.lex_left_delim() {
                return token;
            }
        }
    }

    /// The opening braces, or `None` after a comment, which gives no token.
    fn lex_left_delim(&mut self) -> Option<Token<'s>> {
        self.pos += LEFT.len();
        let marker = if has_left_trim_marker(self.rest()) { 2 } else { 0 };
        if self.input.get(self.pos + marker..).unwrap_or_default().starts_with("/*") {
            self.skip_to(self.pos + marker);
            return self.lex_comment();
        }
        let token = self.emit(Kind::LeftDelim);
        self.inside_action = true;
        self.skip_to(self.pos + marker);
        self.paren_depth = 0;
        Some(token)
    }

    fn lex_comment(&mut self) -> Option<Token<'s>> {
        let Some(length) = self.rest().get(2..).and_then(|body| body.find("*/")) else {
            return Some(self.error("unclosed comment"));
        };
        let end = self.pos + length + 4;
        let Some(trim) = right_delim(self.input.get(end..).unwrap_or_default()) else {
            return Some(self.error("comment ends before closing delimiter"));
        };
        self.skip_right_delim(end, trim);
        None
    }

    fn lex_right_delim(&mut self, trim: bool) -> Token<'s> {
        if trim {
            self.skip_to(self.pos + 2);
        }
        self.pos += RIGHT.len();
        let token = self.emit(Kind::RightDelim);
        self.inside_action = false;
        if trim {
            self.skip_spaces();
        }
        token
    }

    fn skip_right_delim(&mut self, end: usize, trim: bool) {
        self.skip_to(end + if trim { 2 } else { 0 } + RIGHT.len());
        if trim {
            self.skip_spaces();
        }
    }

    fn skip_spaces(&mut self) {
        let rest = self.rest();
        self.skip_to(self.pos + rest.len() - rest.trim_start_matches(SPACES).len());
    }

    fn lex_inside_action(&mut self) -> Token<'s> {
        if let Some(trim) = right_delim(self.rest()) {
            return if self.paren_depth == 0 {
                self.lex_right_delim(trim)
            } else {
                self.error("unclosed left paren")
            };
        }
        let Some(c) = self.peek() else { return self.error("unclosed action") };
        match c {
            c if SPACES.contains(&c) => self.lex_space(),
            '"' => self.lex_quoted('"', Kind::String, "unterminated quoted string"),
            '\'' => self.lex_quoted('\'', Kind::CharConstant, "unterminated character constant"),
            '`' => self.lex_raw_quote(),
            '$' => {
                self.bump();
                self.lex_field_or_variable(Kind::Variable)
            }
            '.' if !self.rest().as_bytes().get(1).is_none_or(u8::is_ascii_digit) => {
                self.bump();
                self.lex_field_or_variable(Kind::Field)
            }
            '.' | '+' | '-' | '0'..='9' => self.lex_number(),
            c if is_alphanumeric(c) => self.lex_identifier(),
            _ => self.lex_mark(c),
        }
    }

    fn lex_mark(&mut self, c: char) -> Token<'s> {
        self.bump();
        match c {
            '=' => self.emit(Kind::Assign),
            '|' => self.emit(Kind::Pipe),
            ':' if self.bump() == Some('=') => self.emit(Kind::Declare),
            ':' => self.error("expected :="),
            '(' => {
                self.paren_depth += 1;
                self.emit(Kind::LeftParen)
            }
            ')' => match self.paren_depth.checked_sub(1) {
                Some(depth) => {
                    self.paren_depth = depth;
                    self.emit(Kind::RightParen)
                }
                None => self.error("unexpected right paren"),
            },
            c if c.is_ascii_graphic() => self.emit(Kind::Char),
            c => self.error(format!("unrecognized character in action: {}", code_point(c))),
        }
    }

    /// A run of spaces, without the one that belongs to a trimming ` -}}`.
    fn lex_space(&mut self) -> Token<'s> {
        let rest = self.rest();
        let run = rest.len() - rest.trim_start_matches(SPACES).len();
        let trims = rest.get(run - 1..).and_then(right_delim) == Some(true);
        for _ in 0..run - usize::from(trims) {
            self.bump();
        }
        if trims && run == 1 { self.lex_right_delim(true) } else { self.emit(Kind::Space) }
    }

    fn lex_identifier(&mut self) -> Token<'s> {
        while self.peek().is_some_and(is_alphanumeric) {
            self.bump();
        }
        if !self.at_terminator() {
            return self.bad_character();
        }
        let kind = match self.input.get(self.start..self.pos).unwrap_or_default() {
            "true" | "false" => Kind::Bool,
            "block" => Kind::Keyword(Keyword::Block),
            "break" => Kind::Keyword(Keyword::Break),
            "continue" => Kind::Keyword(Keyword::Continue),
            "define" => Kind::Keyword(Keyword::Define),
            "else" => Kind::Keyword(Keyword::Else),
            "end" => Kind::Keyword(Keyword::End),
            "if" => Kind::Keyword(Keyword::If),
            "nil" => Kind::Keyword(Keyword::Nil),
            "range" => Kind::Keyword(Keyword::Range),
            "template" => Kind::Keyword(Keyword::Template),
            "with" => Kind::Keyword(Keyword::With),
            _ => Kind::Identifier,
        };
        self.emit(kind)
    }

    /// The dot or dollar sign has been read.
    fn lex_field_or_variable(&mut self, kind: Kind) -> Token<'s> {
        if self.at_terminator() {
            let alone = if kind == Kind::Variable { kind } else { Kind::Keyword(Keyword::Dot) };
            return self.emit(alone);
        }
        while self.peek().is_some_and(is_alphanumeric) {
            self.bump();
        }
        if self.at_terminator() { self.emit(kind) } else { self.bad_character() }
    }

    fn bad_character(&mut self) -> Token<'s> {
        let found = self.peek().map_or_else(|| "end of text".to_owned(), code_point);
        self.error(format!("bad character {found}"))
    }

    /// True where a name may end.
    fn at_terminator(&self) -> bool {
        self.peek().is_none_or(|c| SPACES.contains(&c) || matches!(c, '.' | ',' | '|' | ':' | ')' | '('))
            || self.rest().starts_with(RIGHT)
    }

    fn lex_quoted(&mut self, mark: char, kind: Kind, unterminated: &'static str) -> Token<'s> {
        self.bump();
        loop {
            let c = match self.bump() {
                Some('\\') => self.bump().filter(|c| *c != '\n').map(|_| ' '),
                other => other,
            };
            match c {
                None | Some('\n') => return self.error(unterminated),
                Some(c) if c == mark => return self.emit(kind),
                Some(_) => {}
            }
        }
    }

    fn lex_raw_quote(&mut self) -> Token<'s> {
        self.bump();
        loop {
            match self.bump() {
                None => return self.error("unterminated raw quoted string"),
                Some('`') => return self.emit(Kind::RawString),
                Some(_) => {}
            }
        }
    }

    fn lex_number(&mut self) -> Token<'s> {
        // A second sign would begin the imaginary part of a complex number: read on, so that the message
        // shows all of it.
        let mut ok = self.scan_number();
        if ok && matches!(self.peek(), Some('+' | '-')) {
            self.scan_number();
            ok = false;
        }
        if ok {
            return self.emit(Kind::Number);
        }
        let text = self.input.get(self.start..self.pos).unwrap_or_default();
        self.error(format!("bad number syntax: {}", quote(text)))
    }

    fn scan_number(&mut self) -> bool {
        self.accept(&|c| matches!(c, '+' | '-'));
        let mut radix = 10;
        if self.accept(&|c| c == '0') {
            for (letter, base) in [('x', 16), ('o', 8), ('b', 2)] {
                if radix == 10 && self.accept(&|c| c.eq_ignore_ascii_case(&letter)) {
                    radix = base;
                }
            }
        }
        let digit = |c: char| c == '_' || c.is_digit(radix);
        while self.accept(&digit) {}
        if self.accept(&|c| c == '.') {
            while self.accept(&digit) {}
        }
        let exponent = match radix {
            10 => self.accept(&|c| c.eq_ignore_ascii_case(&'e')),
            16 => self.accept(&|c| c.eq_ignore_ascii_case(&'p')),
            _ => false,
        };
        if exponent {
            self.accept(&|c| matches!(c, '+' | '-'));
            while self.accept(&|c| c == '_' || c.is_ascii_digit()) {}
        }
        self.accept(&|c| c == 'i');
        if self.peek().is_some_and(is_alphanumeric) {
            self.bump();
            return false;
        }
        true
    }

    fn accept(&mut self, valid: &dyn Fn(char) -> bool) -> bool {
        let found = self.peek().is_some_and(valid);
        if found {
            self.bump();
        }
        found
    }
}

fn newlines(text: &str) -> usize {
    text.bytes().filter(|b| *b == b'\n').count()
}

fn is_alphanumeric(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn has_left_trim_marker(text: &str) -> bool {
    text.strip_prefix('-').is_some_and(|rest| rest.starts_with(SPACES))
}

/// Whether the text begins with the closing braces, and if so, whether they trim what follows.
fn right_delim(text: &str) -> Option<bool> {
    if text.starts_with(RIGHT) {
        return Some(false);
    }
    let trims = text
        .strip_prefix(SPACES)
        .and_then(|rest| rest.strip_prefix('-'))
        .is_some_and(|rest| rest.starts_with(RIGHT));
    trims.then_some(true)
}

/// `U+007D '}'`
pub(crate) fn code_point(c: char) -> String {
    let number = format!("U+{:04X}", u32::from(c));
    if is_printable(c) { format!("{number} '{c}'") } else { number }
}
