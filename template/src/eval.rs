//! The evaluating half of [`Exec`]: pipelines, commands, fields and function calls.

use crate::ast::{Command, Operand, OperandKind, Pipe};
use crate::exec::{At, Exec, MissingKey, Stop};
use crate::functions::{self, Body, Context, Function, Param};
use crate::number::Number;
use crate::print::describe;
use crate::quote::quote;
use crate::value::{Kind, Lookup, Value};

type Evaluated<'a> = Result<Value<'a>, Stop>;

impl<'a> Exec<'a> {
    // Pipelines and commands.

    /// Assigns to the variable of that name that was declared last.
    pub fn set_variable(&mut self, name: &str, value: Value<'a>) -> Result<(), Stop> {
        match self.vars.iter_mut().rev().find(|(other, _)| *other == name) {
            Some(slot) => {
                slot.1 = value;
                Ok(())
            }
            None => Err(self.error(format_args!("undefined variable: {name}"))),
        }
    }

    /// The value of a pipeline. Variables that it declares stay on the stack: whoever opened the block takes
    /// them off.
    pub fn pipeline(&mut self, dot: &Value<'a>, pipe: &'a Pipe) -> Evaluated<'a> {
        self.at = At::Pipe(pipe);
        self.enter()?;
        let mut value: Option<Value<'a>> = None;
        for cmd in &pipe.cmds {
            self.step()?;
            value = Some(self.command(dot, cmd, value)?.unboxed());
        }
        self.depth -= 1;
        let value = value.unwrap_or(Value::missing());
        for name in &pipe.decl {
            if pipe.assign {
                self.set_variable(name, value.clone())?;
            } else {
                self.vars.push((name, value.clone()));
            }
        }
        Ok(value)
    }

    fn command(&mut self, dot: &Value<'a>, cmd: &'a Command, last: Option<Value<'a>>) -> Evaluated<'a> {
        let Some((word, args)) = cmd.args.split_first() else { return Ok(Value::missing()) };
        let has_args = !args.is_empty() || last.is_some();
        match &word.kind {
            OperandKind::Field(_) | OperandKind::Chain(..) => self.operand_fields(dot, word, has_args),
            OperandKind::Variable(_, fields) => {
                if fields.is_empty() && has_args {
                    self.at = At::Operand(word);
                    return Err(self.not_a_function(word));
                }
                self.operand_fields(dot, word, has_args)
            }
            OperandKind::Identifier(name) => {
                self.at = At::Operand(word);
                self.call(dot, name, At::Command(cmd), args, last)
            }
            OperandKind::Pipe(pipe) => {
                if has_args {
                    return Err(self.not_a_function(word));
                }
                self.pipeline(dot, pipe)
            }
            _ => {
                self.at = At::Operand(word);
                if has_args {
                    return Err(self.not_a_function(word));
                }
                self.constant_or_dot(dot, word)
            }
        }
    }

    fn not_a_function(&self, word: &Operand) -> Stop {
        self.error(format_args!("can't give argument to non-function {word}"))
    }

    fn constant_or_dot(&mut self, dot: &Value<'a>, word: &'a Operand) -> Evaluated<'a> {
        match &word.kind {
            OperandKind::Bool(b) => Ok(Value::new(Kind::Bool(*b))),
            OperandKind::Text { text, .. } => Ok(Value::borrowed(text)),
            OperandKind::Number(number) => self.number(number),
            OperandKind::Nil => Err(self.error("nil is not a command")),
            _ => Ok(dot.clone()),
        }
    }

    /// A number where nothing else tells its type.
    fn number(&mut self, number: &Number) -> Evaluated<'a> {
        match (number.float, number.int) {
            (Some(float), _) if number.is_float() => Ok(Value::new(Kind::Float(float))),
            (_, Some(int)) => Ok(Value::new(Kind::Int(int))),
            _ => Err(self.error(format_args!("{} overflows int", number.text))),
        }
    }

    // Fields.

    /// `.a.b`, `$x.a.b` or `(pipeline).a.b`.
    fn operand_fields(&mut self, dot: &Value<'a>, operand: &'a Operand, has_args: bool) -> Evaluated<'a> {
        self.at = At::Operand(operand);
        let (mut value, fields): (Value<'a>, &[String]) = match &operand.kind {
            OperandKind::Field(fields) => (dot.clone(), fields),
            OperandKind::Variable(name, fields) => {
                match self.vars.iter().rev().find(|(other, _)| other == name) {
                    Some((_, value)) => (value.clone(), fields),
                    None => return Err(self.error(format_args!("undefined variable: {name}"))),
                }
            }
            OperandKind::Chain(node, fields) => {
                self.enter()?;
                let value = self.value_operand(dot, node)?.unwrap_or(Value::missing());
                self.depth -= 1;
                (value, fields)
            }
            _ => (dot.clone(), &[]),
        };
        for (i, name) in fields.iter().enumerate() {
            self.step()?;
            value = self.field(&value, name, has_args && i + 1 == fields.len())?;
        }
        Ok(value)
    }

    fn field(&mut self, value: &Value<'a>, name: &str, has_args: bool) -> Evaluated<'a> {
        match &value.kind {
            Kind::Missing if self.missing_key == MissingKey::Error => {
                Err(self.error(format_args!("nil data; no entry for key {}", quote(name))))
            }
            Kind::Missing => Ok(Value::missing()),
            Kind::Nil => Err(self.error(format_args!("nil pointer evaluating interface {{}}.{name}"))),
            Kind::Map(map) => {
                let found = map.lookup(name);
                if has_args && !matches!(found, Lookup::NoField) {
                    return Err(self.error(format_args!("{name} is not a method but has arguments")));
                }
                match found {
                    Lookup::Found(value) => Ok(value),
                    Lookup::NoEntry if self.missing_key == MissingKey::NoValue => Ok(Value::missing()),
                    Lookup::NoEntry => {
                        Err(self.error(format_args!("map has no entry for key {}", quote(name))))
                    }
                    Lookup::NoField => Err(self.no_field(value, name)),
                }
            }
            _ => Err(self.no_field(value, name)),
        }
    }

    fn no_field(&self, value: &Value<'_>, name: &str) -> Stop {
        self.error(format_args!("can't evaluate field {name} in type {}", value.static_type_name()))
    }

    // Functions.

    fn call(
        &mut self,
        dot: &Value<'a>,
        name: &str,
        node: At<'a>,
        args: &'a [Operand],
        last: Option<Value<'a>>,
    ) -> Evaluated<'a> {
        let Some(function) = functions::find(name) else {
            return Err(self.error(format_args!("{} is not a defined function", quote(name))));
        };
        self.check_count(function, args.len(), last.is_some())?;
        if matches!(function.body, Body::And | Body::Or) {
            return self.and_or(dot, matches!(function.body, Body::Or), args, last);
        }
        let mut values = Vec::with_capacity(args.len() + 1);
        for arg in args {
            let param = param(function, values.len());
            values.push(self.argument(dot, arg, param)?);
        }
        let callee = args.first().map(ToString::to_string);
        if let Some(value) = last {
            let param = param(function, values.len());
            values.push(self.check_type(value, param)?);
        }
        let mut made = self.out.scratch();
        let result = match function.body {
            Body::Plain(body) => body(&mut Context { out: &mut made, mode: self.mode }, &values),
            Body::And | Body::Or | Body::CallValue => Err(call_of(callee, &values)),
        };
        self.out.settle(&made);
        result.map_err(|message| {
            self.at = node;
            self.error(format_args!("error calling {name}: {message}"))
        })
    }

    fn check_count(&self, function: &Function, given: usize, piped: bool) -> Result<(), Stop> {
        let (name, want, count) = (function.name, function.params.len(), given + usize::from(piped));
        if function.variadic.is_some() {
            if count < want {
                return Err(self.error(format_args!(
                    "wrong number of args for {name}: want at least {want} got {given}"
                )));
            }
        } else if count != want {
            return Err(self.error(format_args!("wrong number of args for {name}: want {want} got {count}")));
        }
        Ok(())
    }

    fn and_or(
        &mut self,
        dot: &Value<'a>,
        or: bool,
        args: &'a [Operand],
        last: Option<Value<'a>>,
    ) -> Evaluated<'a> {
        let mut value = Value::missing();
        for arg in args {
            value = self.argument(dot, arg, Param::Value)?;
            if value.is_true() == or {
                return Ok(value);
            }
        }
        Ok(last.unwrap_or(value))
    }

    fn argument(&mut self, dot: &Value<'a>, arg: &'a Operand, param: Param) -> Evaluated<'a> {
        self.at = At::Operand(arg);
        self.step()?;
        if let OperandKind::Nil = arg.kind {
            return match param {
                Param::Any => Ok(Value::new(Kind::Nil)),
                Param::Value => Ok(Value::missing()),
                Param::Text => Err(self.error("cannot assign nil to string")),
                Param::Int => Err(self.error("cannot assign nil to int")),
            };
        }
        if let Some(value) = self.value_operand(dot, arg)? {
            return self.check_type(value, param);
        }
        match (param, &arg.kind) {
            (Param::Text, OperandKind::Text { text, .. }) => Ok(Value::borrowed(text)),
            (Param::Text, _) => Err(self.error(format_args!("expected string; found {arg}"))),
            (Param::Int, OperandKind::Number(Number { int: Some(int), .. })) => {
                Ok(Value::new(Kind::Int(*int)))
            }
            (Param::Int, _) => Err(self.error(format_args!("expected integer; found {arg}"))),
            (Param::Any | Param::Value, _) => self.constant_or_dot(dot, arg),
        }
    }

    /// The value of an operand that has one of its own; `None` for constants, whose type the place decides.
    fn value_operand(&mut self, dot: &Value<'a>, operand: &'a Operand) -> Result<Option<Value<'a>>, Stop> {
        self.at = At::Operand(operand);
        match &operand.kind {
            OperandKind::Dot => Ok(Some(dot.clone())),
            OperandKind::Field(_) | OperandKind::Variable(..) | OperandKind::Chain(..) => {
                self.operand_fields(dot, operand, false).map(Some)
            }
            OperandKind::Pipe(pipe) => self.pipeline(dot, pipe).map(Some),
            OperandKind::Identifier(name) => self.call(dot, name, At::Operand(operand), &[], None).map(Some),
            OperandKind::Nil | OperandKind::Bool(_) | OperandKind::Number(_) | OperandKind::Text { .. } => {
                Ok(None)
            }
        }
    }

    fn check_type(&self, value: Value<'a>, param: Param) -> Evaluated<'a> {
        let wanted = match param {
            Param::Value => return Ok(value),
            Param::Any if value.is_missing() => return Ok(Value::new(Kind::Nil)),
            Param::Any => return Ok(Value { boxed: false, ..value }),
            Param::Text => "string",
            Param::Int => "int",
        };
        match (&value.kind, param) {
            (Kind::Missing, _) => Err(self.error(format_args!("invalid value; expected {wanted}"))),
            (Kind::Text(_), Param::Text) | (Kind::Int(_), Param::Int) => Ok(Value { boxed: false, ..value }),
            _ => Err(self
                .error(format_args!("wrong type for value; expected {wanted}; got {}", value.type_name()))),
        }
    }
}

fn param(function: &Function, index: usize) -> Param {
    function.params.get(index).copied().or(function.variadic).unwrap_or(Param::Any)
}

/// JSON holds no functions, so that `call` has nothing to call.
fn call_of(callee: Option<String>, values: &[Value<'_>]) -> String {
    match values.first() {
        Some(value) if !matches!(value.kind, Kind::Missing | Kind::Nil) => {
            let callee = callee.unwrap_or_else(|| describe(value, 'v'));
            format!("non-function {callee} of type {}", value.type_name())
        }
        _ => "call of nil".to_owned(),
    }
}
