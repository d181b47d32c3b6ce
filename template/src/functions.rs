//! The functions that a template may call, Go's and docker's, and the types of their parameters.

use crate::out::Out;
use crate::value::Value;
use crate::{builtins, docker};

/// What a parameter takes. Constants in the template become this type; values must have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Param {
    /// Anything; no value at all is nil.
    Any,
    /// Anything as it is, `reflect.Value` in Go: the function can tell no value from nil.
    Value,
    Text,
    Int,
}

pub(crate) struct Function {
    pub name: &'static str,
    pub params: &'static [Param],
    /// Type of any number of further arguments.
    pub variadic: Option<Param>,
    pub body: Body,
}

pub(crate) type Result<'a> = std::result::Result<Value<'a>, String>;

pub(crate) enum Body {
    /// Evaluates its arguments only until one decides.
    And,
    Or,
    /// Calls a function held in a value, of which JSON has none: always an error.
    CallValue,
    Plain(for<'a> fn(&mut Context<'_>, &[Value<'a>]) -> Result<'a>),
}

/// What functions see of the rendering.
pub(crate) struct Context<'o> {
    /// Takes the text that the function makes, and bounds it.
    pub out: &'o mut Out,
    pub mode: Mode,
}

/// On what a template runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A document.
    Document,
    /// A row of a listing.
    Row,
    /// The names of the columns of a listing, which docker's functions leave as they are.
    Header,
}

const fn function(
    name: &'static str,
    params: &'static [Param],
    variadic: Option<Param>,
    body: Body,
) -> Function {
    Function { name, params, variadic, body }
}

const V: Param = Param::Value;
const ANY: Param = Param::Any;
const TEXT: Param = Param::Text;
const INT: Param = Param::Int;

static FUNCTIONS: &[Function] = &[
    function("and", &[V], Some(V), Body::And),
    function("call", &[V], Some(V), Body::CallValue),
    function("eq", &[V], Some(V), Body::Plain(builtins::eq)),
    function("ge", &[V, V], None, Body::Plain(builtins::ge)),
    function("gt", &[V, V], None, Body::Plain(builtins::gt)),
    function("html", &[], Some(ANY), Body::Plain(builtins::html)),
    function("index", &[V], Some(V), Body::Plain(builtins::index)),
    function("join", &[ANY, TEXT], None, Body::Plain(docker::join)),
    function("js", &[], Some(ANY), Body::Plain(builtins::js)),
    function("json", &[ANY], None, Body::Plain(docker::json)),
    function("le", &[V, V], None, Body::Plain(builtins::le)),
    function("len", &[V], None, Body::Plain(builtins::len)),
    function("lower", &[TEXT], None, Body::Plain(docker::lower)),
    function("lt", &[V, V], None, Body::Plain(builtins::lt)),
    function("ne", &[V, V], None, Body::Plain(builtins::ne)),
    function("not", &[V], None, Body::Plain(builtins::not)),
    function("or", &[V], Some(V), Body::Or),
    function("pad", &[TEXT, INT, INT], None, Body::Plain(docker::pad)),
    function("print", &[], Some(ANY), Body::Plain(builtins::print)),
    function("printf", &[TEXT], Some(ANY), Body::Plain(builtins::printf)),
    function("println", &[], Some(ANY), Body::Plain(builtins::println)),
    function("slice", &[V], Some(V), Body::Plain(builtins::slice)),
    function("split", &[TEXT, TEXT], None, Body::Plain(docker::split)),
    function("title", &[TEXT], None, Body::Plain(docker::title)),
    function("truncate", &[TEXT, INT], None, Body::Plain(docker::truncate)),
    function("upper", &[TEXT], None, Body::Plain(docker::upper)),
    function("urlquery", &[], Some(ANY), Body::Plain(builtins::urlquery)),
];

pub(crate) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name == name)
}

pub(crate) fn is_defined(name: &str) -> bool {
    find(name).is_some()
}

impl Context<'_> {
    /// The text that the function has made, as its value.
    pub fn made<'a>(&mut self) -> Value<'a> {
        Value::text(self.out.take())
    }
}

/// A string argument; the caller has checked its type.
pub(crate) fn text_arg<'v>(args: &'v [Value<'_>], index: usize) -> &'v str {
    match args.get(index).map(|arg| &arg.kind) {
        Some(crate::value::Kind::Text(text)) => text.as_str(),
        _ => "",
    }
}

/// A whole number argument; the caller has checked its type.
pub(crate) fn int_arg(args: &[Value<'_>], index: usize) -> i64 {
    match args.get(index).map(|arg| &arg.kind) {
        Some(crate::value::Kind::Int(n)) => *n,
        _ => 0,
    }
}
