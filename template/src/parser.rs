//! From tokens to the tree, with the grammar and the messages of Go's `text/template/parse`.

use std::collections::BTreeMap;
use std::mem;

use crate::ast::{self, Branch, Call, List, Node};
use crate::lexer::{Keyword, Kind, Lexer, Token};
use crate::quote::{quote, unquote};

/// Blocks and parentheses inside each other. Go allows 10,000 and has a growing stack; nobody writes fifty.
const MAX_DEPTH: usize = 50;

/// The templates that a text defines. Its own has the empty name.
pub(crate) type Trees = BTreeMap<String, List>;

/// Parses a template; an error is Go's message.
pub(crate) fn parse(text: &str) -> Result<Trees, String> {
    let mut parser =
        Parser { lexer: Lexer::new(text), trees: Trees::new(), scope: Scope::default(), depth: 0 };
    let list = parser.top_level()?;
    parser.add(String::new(), list)?;
    Ok(parser.trees)
}

pub(crate) struct Parser<'s> {
    lexer: Lexer<'s>,
    trees: Trees,
    pub scope: Scope<'s>,
    pub depth: usize,
}

/// What belongs to one definition. A `{{define}}` inside begins with a fresh one.
pub(crate) struct Scope<'s> {
    /// Tokens read ahead, the next one last.
    pending: Vec<Token<'s>>,
    /// The line that messages name.
    line: usize,
    pub vars: Vec<String>,
    range_depth: usize,
    /// Line of the `{{` of the action at hand, 0 outside actions.
    action_line: usize,
}

impl Default for Scope<'_> {
    fn default() -> Self {
        Self { pending: Vec::new(), line: 1, vars: vec!["$".to_owned()], range_depth: 0, action_line: 0 }
    }
}

/// What ended a list.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    End,
    Else,
}

impl Stop {
    fn text(self) -> &'static str {
        match self {
            Self::End => "{{end}}",
            Self::Else => "{{else}}",
        }
    }
}

enum Item {
    Node(Node),
    Stop(Stop),
}

impl<'s> Parser<'s> {
    // Tokens.

    pub fn next(&mut self) -> Token<'s> {
        self.scope.pending.pop().unwrap_or_else(|| {
            let token = self.lexer.next_token();
            self.scope.line = token.line;
            token
        })
    }

    pub fn backup(&mut self, token: Token<'s>) {
        self.scope.pending.push(token);
    }

    pub fn peek(&mut self) -> Kind {
        let token = self.next();
        let kind = token.kind;
        self.backup(token);
        kind
    }

    pub fn next_non_space(&mut self) -> Token<'s> {
        loop {
            let token = self.next();
            if token.kind != Kind::Space {
                return token;
            }
        }
    }

    /// Kind and position of the next token that is no space.
    pub fn peek_non_space(&mut self) -> (Kind, usize) {
        let token = self.next_non_space();
        let found = (token.kind, token.pos);
        self.backup(token);
        found
    }

    fn expect(&mut self, kind: Kind, context: &str) -> Result<Token<'s>, String> {
        let token = self.next_non_space();
        if token.kind == kind { Ok(token) } else { Err(self.unexpected(&token, context)) }
    }

    // Messages.

    pub fn error(&self, message: &str) -> String {
        format!("template: :{}: {message}", self.scope.line)
    }

    pub fn unexpected(&self, token: &Token<'_>, context: &str) -> String {
        if token.kind != Kind::Error {
            return self.error(&format!("unexpected {token} in {context}"));
        }
        let started = self.scope.action_line;
        if started == 0 || started == token.line {
            return self.error(&token.text);
        }
        // "unclosed action started at", not "unclosed action in action started at".
        let joint = if token.text.ends_with(" action") { "" } else { " in action" };
        self.error(&format!("{}{joint} started at :{started}", token.text))
    }

    pub fn enter(&mut self) -> Result<(), String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(self.error("max expression depth exceeded")) } else { Ok(()) }
    }

    // Lists.

    fn top_level(&mut self) -> Result<List, String> {
        let mut list = List::new();
        loop {
            match self.peek() {
                Kind::End => return Ok(list),
                Kind::LeftDelim => {
                    let delim = self.next();
                    let word = self.next_non_space();
                    if word.kind == Kind::Keyword(Keyword::Define) {
                        self.definition()?;
                        continue;
                    }
                    self.backup(word);
                    self.backup(delim);
                }
                _ => {}
            }
            match self.text_or_action()? {
                Item::Node(node) => list.push(node),
                Item::Stop(stop) => return Err(self.error(&format!("unexpected {}", stop.text()))),
            }
        }
    }

    fn definition(&mut self) -> Result<(), String> {
        const CONTEXT: &str = "define clause";
        let outer = mem::take(&mut self.scope);
        let token = self.next_non_space();
        if !matches!(token.kind, Kind::String | Kind::RawString) {
            return Err(self.unexpected(&token, CONTEXT));
        }
        let name = unquote(&token.text).map_err(|e| self.error(e))?;
        self.expect(Kind::RightDelim, CONTEXT)?;
        self.finish_definition(name, CONTEXT)?;
        self.scope = outer;
        Ok(())
    }

    fn finish_definition(&mut self, name: String, context: &str) -> Result<(), String> {
        let (list, stop) = self.list()?;
        if stop != Stop::End {
            return Err(self.error(&format!("unexpected {} in {context}", stop.text())));
        }
        self.add(name, list)
    }

    fn add(&mut self, name: String, list: List) -> Result<(), String> {
        match self.trees.get(&name) {
            Some(old) if !ast::is_blank(old) => {
                if ast::is_blank(&list) {
                    return Ok(());
                }
                Err(self.error(&format!("template: multiple definition of template {}", quote(&name))))
            }
            _ => {
                self.trees.insert(name, list);
                Ok(())
            }
        }
    }

    /// Everything up to the `{{end}}` or `{{else}}` that closes the list.
    fn list(&mut self) -> Result<(List, Stop), String> {
        self.enter()?;
        let mut list = List::new();
        while self.peek_non_space().0 != Kind::End {
            match self.text_or_action()? {
                Item::Node(node) => list.push(node),
                Item::Stop(stop) => {
                    self.depth -= 1;
                    return Ok((list, stop));
                }
            }
        }
        Err(self.error("unexpected EOF"))
    }

    fn text_or_action(&mut self) -> Result<Item, String> {
        let token = self.next_non_space();
        match token.kind {
            Kind::Text => Ok(Item::Node(Node::Text(token.text.into_owned()))),
            Kind::LeftDelim => {
                self.scope.action_line = token.line;
                let item = self.action()?;
                self.scope.action_line = 0;
                Ok(item)
            }
            _ => Err(self.unexpected(&token, "input")),
        }
    }

    // Actions.

    fn action(&mut self) -> Result<Item, String> {
        let token = self.next_non_space();
        let Kind::Keyword(keyword) = token.kind else {
            self.backup(token);
            return Ok(Item::Node(Node::Action(self.pipeline("command", Kind::RightDelim)?)));
        };
        let node = match keyword {
            Keyword::Block => self.block()?,
            Keyword::Break => self.loop_control("{{break}}", Node::Break)?,
            Keyword::Continue => self.loop_control("{{continue}}", Node::Continue)?,
            Keyword::Else => return self.else_clause(),
            Keyword::End => {
                self.expect(Kind::RightDelim, "end")?;
                return Ok(Item::Stop(Stop::End));
            }
            Keyword::If => Node::If(self.control("if")?),
            Keyword::Range => Node::Range(self.control("range")?),
            Keyword::With => Node::With(self.control("with")?),
            Keyword::Template => self.template()?,
            Keyword::Dot | Keyword::Nil | Keyword::Define => {
                self.backup(token);
                Node::Action(self.pipeline("command", Kind::RightDelim)?)
            }
        };
        Ok(Item::Node(node))
    }

    fn loop_control(&mut self, word: &str, node: Node) -> Result<Node, String> {
        self.expect(Kind::RightDelim, word)?;
        if self.scope.range_depth == 0 {
            return Err(self.error(&format!("{word} outside {{{{range}}}}")));
        }
        Ok(node)
    }

    fn else_clause(&mut self) -> Result<Item, String> {
        // `{{else if` and `{{else with` leave the word for the block that is open.
        if !matches!(self.peek_non_space().0, Kind::Keyword(Keyword::If | Keyword::With)) {
            self.expect(Kind::RightDelim, "else")?;
        }
        Ok(Item::Stop(Stop::Else))
    }

    fn control(&mut self, context: &'static str) -> Result<Branch, String> {
        let vars = self.scope.vars.len();
        let pipe = self.pipeline(context, Kind::RightDelim)?;
        let ranges = usize::from(context == "range");
        self.scope.range_depth += ranges;
        let (list, stop) = self.list()?;
        self.scope.range_depth -= ranges;
        let otherwise = match stop {
            Stop::End => None,
            Stop::Else => Some(self.otherwise(context)?),
        };
        self.scope.vars.truncate(vars);
        Ok(Branch { pipe, list, otherwise })
    }

    fn otherwise(&mut self, context: &'static str) -> Result<List, String> {
        let chained: Option<fn(Branch) -> Node> = match (context, self.peek()) {
            ("if", Kind::Keyword(Keyword::If)) => Some(Node::If),
            ("with", Kind::Keyword(Keyword::With)) => Some(Node::With),
            _ => None,
        };
        if let Some(node) = chained {
            self.next();
            self.enter()?;
            let branch = self.control(context)?;
            self.depth -= 1;
            return Ok(vec![node(branch)]);
        }
        match self.list()? {
            (list, Stop::End) => Ok(list),
            (_, stop) => Err(self.error(&format!("expected end; found {}", stop.text()))),
        }
    }

    fn block(&mut self) -> Result<Node, String> {
        const CONTEXT: &str = "block clause";
        let (pos, name) = self.template_name(CONTEXT)?;
        let pipe = self.pipeline(CONTEXT, Kind::RightDelim)?;
        let outer = mem::take(&mut self.scope);
        self.finish_definition(name.clone(), CONTEXT)?;
        self.scope = outer;
        Ok(Node::Template(Call { pos, name, pipe: Some(pipe) }))
    }

    fn template(&mut self) -> Result<Node, String> {
        const CONTEXT: &str = "template clause";
        let (pos, name) = self.template_name(CONTEXT)?;
        let token = self.next_non_space();
        if token.kind == Kind::RightDelim {
            return Ok(Node::Template(Call { pos, name, pipe: None }));
        }
        self.backup(token);
        Ok(Node::Template(Call { pos, name, pipe: Some(self.pipeline(CONTEXT, Kind::RightDelim)?) }))
    }

    fn template_name(&mut self, context: &str) -> Result<(usize, String), String> {
        let token = self.next_non_space();
        match token.kind {
            Kind::String | Kind::RawString => {
                Ok((token.pos, unquote(&token.text).map_err(|e| self.error(e))?))
            }
            _ => Err(self.unexpected(&token, context)),
        }
    }
}
