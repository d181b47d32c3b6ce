//! The parsed form of a template. Every node prints as Go prints it, because error messages quote nodes.

use std::fmt;

use crate::number::Number;
use crate::quote::quote;

/// Text and actions in order.
pub(crate) type List = Vec<Node>;

/// One element of a template.
#[derive(Debug)]
pub(crate) enum Node {
    Text(String),
    /// `{{pipeline}}`
    Action(Pipe),
    If(Branch),
    With(Branch),
    Range(Branch),
    Template(Call),
    Break,
    Continue,
}

/// `if`, `with` and `range`: what is evaluated, and the two bodies.
#[derive(Debug)]
pub(crate) struct Branch {
    pub pipe: Pipe,
    pub list: List,
    pub otherwise: Option<List>,
}

/// `{{template "name" pipeline}}`
#[derive(Debug)]
pub(crate) struct Call {
    pub pos: usize,
    pub name: String,
    pub pipe: Option<Pipe>,
}

/// `$x, $y := command | command`
#[derive(Debug)]
pub(crate) struct Pipe {
    pub pos: usize,
    /// Names with their `$`.
    pub decl: Vec<String>,
    /// `=` and not `:=`.
    pub assign: bool,
    pub cmds: Vec<Command>,
}

/// A function, field or value with its arguments.
#[derive(Debug)]
pub(crate) struct Command {
    pub pos: usize,
    /// Never empty: the parser refuses an empty command.
    pub args: Vec<Operand>,
}

/// A part of a command, and the byte of the template that messages name for it.
#[derive(Debug)]
pub(crate) struct Operand {
    pub pos: usize,
    pub kind: OperandKind,
}

#[derive(Debug)]
pub(crate) enum OperandKind {
    Dot,
    Nil,
    Bool(bool),
    Number(Number),
    /// A string as it stands in the template, quotes included, and what it says.
    Text {
        quoted: String,
        text: String,
    },
    Identifier(String),
    /// `.a.b`
    Field(Vec<String>),
    /// `$x.a.b`: the variable, with its `$`, and the fields after it.
    Variable(String, Vec<String>),
    /// `(pipeline).a.b`
    Chain(Box<Operand>, Vec<String>),
    Pipe(Box<Pipe>),
}

/// True when the list holds nothing but blank text: such a template may be defined again.
pub(crate) fn is_blank(list: &List) -> bool {
    list.iter().all(|node| matches!(node, Node::Text(text) if text.chars().all(char::is_whitespace)))
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{{template {}", quote(&self.name))?;
        if let Some(pipe) = &self.pipe {
            write!(f, " {pipe}")?;
        }
        f.write_str("}}")
    }
}

impl fmt::Display for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.decl.is_empty() {
            write!(f, "{} {} ", self.decl.join(", "), if self.assign { "=" } else { ":=" })?;
        }
        for (i, cmd) in self.cmds.iter().enumerate() {
            if i > 0 {
                f.write_str(" | ")?;
            }
            cmd.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, arg) in self.args.iter().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            match &arg.kind {
                OperandKind::Pipe(pipe) => write!(f, "({pipe})")?,
                _ => arg.fmt(f)?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (head, fields): (_, &[String]) = match &self.kind {
            OperandKind::Dot => return f.write_str("."),
            OperandKind::Nil => return f.write_str("nil"),
            OperandKind::Bool(b) => return b.fmt(f),
            OperandKind::Number(number) => return f.write_str(&number.text),
            OperandKind::Text { quoted, .. } => return f.write_str(quoted),
            OperandKind::Identifier(name) => return f.write_str(name),
            OperandKind::Pipe(pipe) => return pipe.fmt(f),
            OperandKind::Field(fields) => (String::new(), fields),
            OperandKind::Variable(name, fields) => (name.clone(), fields),
            OperandKind::Chain(node, fields) => match &node.kind {
                OperandKind::Pipe(pipe) => (format!("({pipe})"), fields),
                _ => (node.to_string(), fields),
            },
        };
        f.write_str(&head)?;
        fields.iter().try_for_each(|field| write!(f, ".{field}"))
    }
}
