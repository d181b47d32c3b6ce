//! Runs a parsed template over a value, in the order and with the messages of Go's `text/template`.

use std::fmt;

use crate::ast::{Branch, Call, Command, Node, Operand, Pipe};
use crate::functions::Mode;
use crate::out::{MAX_BYTES, Out};
use crate::print::{describe, print_value};
use crate::quote::quote;
use crate::value::{Elements, Kind, Value};
use crate::{Template, TemplateError};

/// Steps that one rendering may take: a node walked or a command evaluated is one.
const MAX_STEPS: usize = 1_000_000;

/// Blocks, parentheses and templates inside each other at run time; more would need a larger stack than
/// threads have.
const MAX_DEPTH: usize = 150;

/// What happens when a map has no entry for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MissingKey {
    /// It is no value, which prints as `<no value>`.
    NoValue,
    /// It is an error.
    Error,
}

/// Runs the template. The text comes with an error too: what was written before it.
pub(crate) fn render(
    template: &Template,
    root: &Value<'_>,
    missing_key: MissingKey,
    mode: Mode,
) -> (String, Result<(), TemplateError>) {
    let vars = vec![("$", root.clone())];
    let mut exec = Exec {
        template,
        name: "",
        missing_key,
        mode,
        out: Out::new(MAX_BYTES),
        vars,
        at: At::Nothing,
        depth: 0,
        steps: 0,
    };
    let list = template.trees.get("").map_or(&[][..], Vec::as_slice);
    let result = match exec.walk_list(root, list) {
        Ok(()) | Err(Stop::Break | Stop::Continue) => Ok(()),
        Err(Stop::Error(message)) => Err(TemplateError::Execute(message)),
    };
    (exec.out.take(), result)
}

/// Why walking stopped early.
pub(crate) enum Stop {
    Break,
    Continue,
    Error(String),
}

/// The node at work, for messages.
#[derive(Clone, Copy)]
pub(crate) enum At<'a> {
    Nothing,
    Call(&'a Call),
    Pipe(&'a Pipe),
    Command(&'a Command),
    Operand(&'a Operand),
}

impl At<'_> {
    fn pos(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Call(node) => node.pos,
            Self::Pipe(node) => node.pos,
            Self::Command(node) => node.pos,
            Self::Operand(node) => node.pos,
        }
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => Ok(()),
            Self::Call(node) => node.fmt(f),
            Self::Pipe(node) => node.fmt(f),
            Self::Command(node) => node.fmt(f),
            Self::Operand(node) => node.fmt(f),
        }
    }
}

/// A rendering under way.
pub(crate) struct Exec<'a> {
    template: &'a Template,
    /// Name of the template that runs, for messages.
    name: &'a str,
    pub missing_key: MissingKey,
    pub mode: Mode,
    pub out: Out,
    pub vars: Vec<(&'a str, Value<'a>)>,
    pub at: At<'a>,
    pub depth: usize,
    steps: usize,
}

impl<'a> Exec<'a> {
    /// Go's message: where, in which template, at which node.
    pub fn error(&self, message: impl fmt::Display) -> Stop {
        let before = self.template.text.get(..self.at.pos()).unwrap_or_default();
        let line = 1 + before.matches('\n').count();
        let column = before.rfind('\n').map_or(before.len(), |newline| before.len() - newline - 1);
        let (name, at) = (quote(self.name), self.at);
        Stop::Error(format!("template: :{line}:{column}: executing {name} at <{at}>: {message}"))
    }

    pub fn step(&mut self) -> Result<(), Stop> {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Err(self.error(format_args!("the template takes more than {MAX_STEPS} steps")));
        }
        self.check_size()
    }

    fn check_size(&self) -> Result<(), Stop> {
        if self.out.is_full() {
            return Err(
                self.error(format_args!("the template makes more than {} MiB of text", MAX_BYTES >> 20))
            );
        }
        Ok(())
    }

    pub fn enter(&mut self) -> Result<(), Stop> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            Err(self.error(format_args!("exceeded maximum template depth ({MAX_DEPTH})")))
        } else {
            Ok(())
        }
    }

    // Nodes.

    fn walk_list(&mut self, dot: &Value<'a>, list: &'a [Node]) -> Result<(), Stop> {
        self.enter()?;
        let result = list.iter().try_for_each(|node| self.walk(dot, node));
        self.depth -= 1;
        result
    }

    fn walk(&mut self, dot: &Value<'a>, node: &'a Node) -> Result<(), Stop> {
        self.step()?;
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Action(pipe) => {
                let value = self.pipeline(dot, pipe)?;
                if pipe.decl.is_empty() {
                    self.print(&value);
                }
            }
            Node::If(branch) => return self.walk_if_or_with(dot, branch, false),
            Node::With(branch) => return self.walk_if_or_with(dot, branch, true),
            Node::Range(branch) => return self.walk_range(dot, branch),
            Node::Template(call) => return self.walk_template(dot, call),
            Node::Break => return Err(Stop::Break),
            Node::Continue => return Err(Stop::Continue),
        }
        self.check_size()
    }

    fn print(&mut self, value: &Value<'a>) {
        if value.is_missing() {
            self.out.push_str("<no value>");
        } else {
            print_value(&mut self.out, value);
        }
    }

    fn walk_if_or_with(&mut self, dot: &Value<'a>, branch: &'a Branch, with: bool) -> Result<(), Stop> {
        let mark = self.vars.len();
        let value = self.pipeline(dot, &branch.pipe)?;
        let result = if value.is_true() {
            self.walk_list(if with { &value } else { dot }, &branch.list)
        } else {
            branch.otherwise.as_ref().map_or(Ok(()), |list| self.walk_list(dot, list))
        };
        self.vars.truncate(mark);
        result
    }

    fn walk_range(&mut self, dot: &Value<'a>, branch: &'a Branch) -> Result<(), Stop> {
        let mark = self.vars.len();
        let value = self.pipeline(dot, &branch.pipe)?;
        let ran = match &value.kind {
            Kind::Int(_) if branch.pipe.decl.len() > 1 => {
                return Err(self.error(format_args!(
                    "can't use {} to iterate over more than one variable",
                    describe(&value, 'v')
                )));
            }
            Kind::Int(count) => {
                let elements = (0..*count).map(|i| (Value::missing(), Value::new(Kind::Int(i))));
                self.iterate(branch, elements)?
            }
            Kind::List(list) => {
                let keys = (0..).map(|i| Value::new(Kind::Int(i)));
                self.iterate(branch, keys.zip(list.iter()))?
            }
            Kind::Map(map) if !matches!(map.elements, Elements::Fields(_)) => {
                let entries = map.entries().into_iter().map(|(key, element)| (Value::borrowed(key), element));
                self.iterate(branch, entries)?
            }
            Kind::Missing | Kind::Nil => false,
            _ => return Err(self.error(format_args!("range can't iterate over {}", describe(&value, 'v')))),
        };
        let result = match &branch.otherwise {
            Some(list) if !ran => self.walk_list(dot, list),
            _ => Ok(()),
        };
        self.vars.truncate(mark);
        result
    }

    /// Runs the body for each element; false when there is none.
    fn iterate(
        &mut self,
        branch: &'a Branch,
        elements: impl Iterator<Item = (Value<'a>, Value<'a>)>,
    ) -> Result<bool, Stop> {
        let mark = self.vars.len();
        let mut ran = false;
        for (key, element) in elements {
            ran = true;
            self.step()?;
            self.bind(&branch.pipe, mark, key, &element)?;
            let result = self.walk_list(&element, &branch.list);
            self.vars.truncate(mark);
            match result {
                Err(Stop::Break) => break,
                Ok(()) | Err(Stop::Continue) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(ran)
    }

    /// Gives the loop's variables, of which the pipeline left two, one or none just below `mark`, their
    /// values.
    fn bind(&mut self, pipe: &'a Pipe, mark: usize, key: Value<'a>, element: &Value<'a>) -> Result<(), Stop> {
        let values: Vec<Value<'a>> = match pipe.decl.len() {
            0 => return Ok(()),
            1 => vec![element.clone()],
            _ => vec![key, element.clone()],
        };
        let first = mark.saturating_sub(pipe.decl.len());
        for (i, (name, value)) in pipe.decl.iter().zip(values).enumerate() {
            if pipe.assign {
                self.set_variable(name, value)?;
            } else if let Some(slot) = self.vars.get_mut(first + i) {
                slot.1 = value;
            }
        }
        Ok(())
    }

    fn walk_template(&mut self, dot: &Value<'a>, call: &'a Call) -> Result<(), Stop> {
        self.at = At::Call(call);
        let Some((name, list)) = self.template.trees.get_key_value(&call.name) else {
            return Err(self.error(format_args!("template {} not defined", quote(&call.name))));
        };
        let argument = match &call.pipe {
            Some(pipe) => self.pipeline(dot, pipe)?,
            None => Value::missing(),
        };
        self.at = At::Call(call);
        // The other template sees its argument and none of these variables.
        let vars = std::mem::replace(&mut self.vars, vec![("$", argument.clone())]);
        let (outer_name, outer_at) = (std::mem::replace(&mut self.name, name), self.at);
        self.walk_list(&argument, list)?;
        (self.vars, self.name, self.at) = (vars, outer_name, outer_at);
        Ok(())
    }
}
