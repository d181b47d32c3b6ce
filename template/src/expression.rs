//! The half of the [`Parser`] that reads what stands inside the braces: pipelines, commands and operands.

use crate::ast::{Command, Operand, OperandKind, Pipe};
use crate::functions;
use crate::lexer::{Keyword, Kind, Token};
use crate::number::Number;
use crate::parser::Parser;
use crate::quote::{quote, unquote};

impl Parser<'_> {
    /// Everything up to and with the token that ends it.
    pub fn pipeline(&mut self, context: &str, end: Kind) -> Result<Pipe, String> {
        let (_, pos) = self.peek_non_space();
        let mut pipe = Pipe { pos, decl: Vec::new(), assign: false, cmds: Vec::new() };
        while self.declaration(&mut pipe, context)? {}
        loop {
            let token = self.next_non_space();
            match token.kind {
                kind if kind == end => break,
                Kind::Bool
                | Kind::CharConstant
                | Kind::Field
                | Kind::Identifier
                | Kind::Number
                | Kind::RawString
                | Kind::String
                | Kind::Variable
                | Kind::LeftParen
                | Kind::Keyword(Keyword::Dot | Keyword::Nil) => {
                    self.backup(token);
                    pipe.cmds.push(self.command()?);
                }
                _ => return Err(self.unexpected(&token, context)),
            }
        }
        self.check_pipeline(&pipe, context)?;
        Ok(pipe)
    }

    /// Reads `$x :=`, `$x =` or `$x,` where there is one; true when another may follow.
    fn declaration(&mut self, pipe: &mut Pipe, context: &str) -> Result<bool, String> {
        if self.peek_non_space().0 != Kind::Variable {
            return Ok(false);
        }
        let variable = self.next();
        let after = self.next();
        // The space tells `$x -1` from `$x-1`, so that it has to come back with the variable.
        let (space, mark) =
            if after.kind == Kind::Space { (Some(after), self.next_non_space()) } else { (None, after) };
        match mark.kind {
            Kind::Assign | Kind::Declare => {
                pipe.assign = mark.kind == Kind::Assign;
                self.declare(pipe, &variable);
                Ok(false)
            }
            Kind::Char if mark.text == "," => {
                self.declare(pipe, &variable);
                if context != "range" || pipe.decl.len() >= 2 {
                    return Err(self.error(&format!("too many declarations in {context}")));
                }
                match self.peek_non_space().0 {
                    Kind::Variable | Kind::RightDelim | Kind::RightParen => Ok(true),
                    _ => Err(self.error("range can only initialize variables")),
                }
            }
            _ => {
                self.backup(mark);
                if let Some(space) = space {
                    self.backup(space);
                }
                self.backup(variable);
                Ok(false)
            }
        }
    }

    fn declare(&mut self, pipe: &mut Pipe, variable: &Token<'_>) {
        let name = variable.text.to_string();
        self.scope.vars.push(name.clone());
        pipe.decl.push(name);
    }

    fn check_pipeline(&self, pipe: &Pipe, context: &str) -> Result<(), String> {
        if pipe.cmds.is_empty() {
            return Err(self.error(&format!("missing value for {context}")));
        }
        for (i, cmd) in pipe.cmds.iter().enumerate().skip(1) {
            let constant = matches!(
                cmd.args.first().map(|arg| &arg.kind),
                Some(
                    OperandKind::Bool(_)
                        | OperandKind::Dot
                        | OperandKind::Nil
                        | OperandKind::Number(_)
                        | OperandKind::Text { .. }
                )
            );
            if constant {
                return Err(self.error(&format!("non executable command in pipeline stage {}", i + 1)));
            }
        }
        Ok(())
    }

    fn command(&mut self) -> Result<Command, String> {
        let mut cmd = Command { pos: self.peek_non_space().1, args: Vec::new() };
        loop {
            self.peek_non_space();
            if let Some(operand) = self.operand()? {
                cmd.args.push(operand);
            }
            let token = self.next();
            match token.kind {
                Kind::Space => {}
                Kind::RightDelim | Kind::RightParen => {
                    self.backup(token);
                    break;
                }
                Kind::Pipe => break,
                _ => return Err(self.unexpected(&token, "operand")),
            }
        }
        if cmd.args.is_empty() { Err(self.error("empty command")) } else { Ok(cmd) }
    }

    /// A term and the fields after it, or `None` where no term begins.
    fn operand(&mut self) -> Result<Option<Operand>, String> {
        let Some(mut node) = self.term()? else { return Ok(None) };
        if self.peek() != Kind::Field {
            return Ok(Some(node));
        }
        let (_, pos) = self.peek_non_space();
        let mut fields = Vec::new();
        while self.peek() == Kind::Field {
            fields.push(field_name(&self.next()));
        }
        node = match node.kind {
            OperandKind::Field(mut first) => {
                first.append(&mut fields);
                Operand { pos, kind: OperandKind::Field(first) }
            }
            OperandKind::Variable(name, mut first) => {
                first.append(&mut fields);
                Operand { pos, kind: OperandKind::Variable(name, first) }
            }
            OperandKind::Identifier(_) | OperandKind::Pipe(_) | OperandKind::Chain(..) => {
                Operand { pos, kind: OperandKind::Chain(Box::new(node), fields) }
            }
            _ => return Err(self.error(&format!("unexpected . after term {}", quote(&node.to_string())))),
        };
        Ok(Some(node))
    }

    fn term(&mut self) -> Result<Option<Operand>, String> {
        let token = self.next_non_space();
        let kind = match token.kind {
            Kind::Identifier => {
                if !functions::is_defined(&token.text) {
                    return Err(self.error(&format!("function {} not defined", quote(&token.text))));
                }
                OperandKind::Identifier(token.text.into_owned())
            }
            Kind::Keyword(Keyword::Dot) => OperandKind::Dot,
            Kind::Keyword(Keyword::Nil) => OperandKind::Nil,
            Kind::Variable => {
                if !self.scope.vars.iter().any(|name| *name == token.text) {
                    return Err(self.error(&format!("undefined variable {}", quote(&token.text))));
                }
                OperandKind::Variable(token.text.into_owned(), Vec::new())
            }
            Kind::Field => OperandKind::Field(vec![field_name(&token)]),
            Kind::Bool => OperandKind::Bool(token.text == "true"),
            Kind::CharConstant => {
                OperandKind::Number(Number::from_char(&token.text).map_err(|e| self.error(&e))?)
            }
            Kind::Number => OperandKind::Number(Number::parse(&token.text).map_err(|e| self.error(&e))?),
            Kind::LeftParen => {
                self.enter()?;
                let pipe = self.pipeline("parenthesized pipeline", Kind::RightParen)?;
                self.depth -= 1;
                return Ok(Some(Operand { pos: pipe.pos, kind: OperandKind::Pipe(Box::new(pipe)) }));
            }
            Kind::String | Kind::RawString => {
                let text = unquote(&token.text).map_err(|e| self.error(e))?;
                OperandKind::Text { quoted: token.text.into_owned(), text }
            }
            _ => {
                self.backup(token);
                return Ok(None);
            }
        };
        Ok(Some(Operand { pos: token.pos, kind }))
    }
}

fn field_name(token: &Token<'_>) -> String {
    token.text.trim_start_matches('.').to_owned()
}
