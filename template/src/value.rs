//! The values that a template works on: JSON seen with Go's eyes.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map as JsonMap, Value as Json};

use crate::shape::{Field, Shape};

static NULL: Json = Json::Null;

/// A value, and whether Go would hold it in an `interface{}`: an element of a list or map of mixed types.
/// Messages tell the two apart, and a nil that came out of an interface is not the same as no value at all.
#[derive(Clone, Debug)]
pub(crate) struct Value<'a> {
    pub kind: Kind<'a>,
    pub boxed: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind<'a> {
    /// No value: a map has no such key. Prints as `<no value>`.
    Missing,
    /// JSON's null. Prints as `<nil>` inside another value.
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Text<'a>),
    List(List<'a>),
    Map(Map<'a>),
}

/// A string of the data or the template, or one that a function made. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) enum Text<'a> {
    Borrowed(&'a str),
    Made(Arc<str>),
}

#[derive(Clone, Debug)]
pub(crate) enum List<'a> {
    /// `None` is Go's nil slice: empty, and `null` in JSON.
    Json(Option<&'a [Json]>, &'static Shape),
    /// Strings that `split` made, and the part of them that `slice` left.
    Texts(Arc<[Arc<str>]>, usize, usize),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Map<'a> {
    /// `None` is Go's nil map.
    entries: Option<&'a JsonMap<String, Json>>,
    pub elements: Elements,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Elements {
    Each(&'static Shape),
    Fields(&'static [Field]),
}

impl<'a> Value<'a> {
    pub fn new(kind: Kind<'a>) -> Self {
        Self { kind, boxed: false }
    }

    pub const fn missing() -> Self {
        Self { kind: Kind::Missing, boxed: false }
    }

    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::new(Kind::Text(Text::Made(text.into())))
    }

    pub fn borrowed(text: &'a str) -> Self {
        Self::new(Kind::Text(Text::Borrowed(text)))
    }

    /// The whole document that a template is run on.
    pub fn root(json: &'a Json, shape: &'static Shape) -> Self {
        Self::from_json(json, shape).unboxed()
    }

    pub fn from_json(json: &'a Json, shape: &'static Shape) -> Self {
        let kind = match (shape, json) {
            (Shape::Bool, Json::Null) => Kind::Bool(false),
            (Shape::Bool, Json::Bool(b)) => Kind::Bool(*b),
            (Shape::Int, Json::Null) => Kind::Int(0),
            (Shape::Text, Json::Null) => Kind::Text(Text::Borrowed("")),
            (Shape::Text, Json::String(text)) => Kind::Text(Text::Borrowed(text)),
            (Shape::List(element), Json::Null) => Kind::List(List::Json(None, element)),
            (Shape::List(element), Json::Array(items)) => Kind::List(List::Json(Some(items), element)),
            (Shape::Map(element), Json::Null) => {
                Kind::Map(Map { entries: None, elements: Elements::Each(element) })
            }
            (Shape::Map(element), Json::Object(entries)) => {
                Kind::Map(Map { entries: Some(entries), elements: Elements::Each(element) })
            }
            (Shape::Struct(fields), Json::Null) => {
                Kind::Map(Map { entries: None, elements: Elements::Fields(fields) })
            }
            (Shape::Struct(fields), Json::Object(entries)) => {
                Kind::Map(Map { entries: Some(entries), elements: Elements::Fields(fields) })
            }
            // Data that does not have its shape is taken as it is.
            _ => return Self { kind: Kind::from_untyped(json), boxed: matches!(shape, Shape::Any) },
        };
        Self::new(kind)
    }

    /// What is inside the interface.
    pub fn unboxed(self) -> Self {
        match self.kind {
            Kind::Nil => Self::missing(),
            kind => Self::new(kind),
        }
    }

    pub fn is_missing(&self) -> bool {
        matches!(self.kind, Kind::Missing)
    }

    /// Go's truth: false, 0, "", nil and what is empty are false, and all else is true.
    pub fn is_true(&self) -> bool {
        match &self.kind {
            Kind::Missing | Kind::Nil => false,
            Kind::Bool(b) => *b,
            Kind::Int(i) => *i != 0,
            Kind::Float(f) => *f != 0.0,
            Kind::Text(text) => !text.as_str().is_empty(),
            Kind::List(list) => list.len() > 0,
            Kind::Map(map) => matches!(map.elements, Elements::Fields(_)) || map.len() > 0,
        }
    }

    /// The type of what is inside.
    pub fn type_name(&self) -> Cow<'static, str> {
        Cow::Borrowed(match &self.kind {
            Kind::Missing => "invalid",
            Kind::Nil => "interface {}",
            Kind::Bool(_) => "bool",
            Kind::Int(_) => "int",
            Kind::Float(_) => "float64",
            Kind::Text(_) => "string",
            Kind::List(List::Texts(..)) => "[]string",
            Kind::List(List::Json(_, element)) => return format!("[]{}", element.type_name()).into(),
            Kind::Map(Map { elements: Elements::Each(element), .. }) => {
                return format!("map[string]{}", element.type_name()).into();
            }
            Kind::Map(Map { elements: Elements::Fields(_), .. }) => "struct",
        })
    }

    /// The type of the place that holds it.
    pub fn static_type_name(&self) -> Cow<'static, str> {
        if self.boxed { Cow::Borrowed("interface {}") } else { self.type_name() }
    }
}

impl<'a> Kind<'a> {
    fn from_untyped(json: &'a Json) -> Self {
        match json {
            Json::Null => Self::Nil,
            Json::Bool(b) => Self::Bool(*b),
            Json::Number(n) => {
                n.as_i64().map_or_else(|| Self::Float(n.as_f64().unwrap_or(f64::NAN)), Self::Int)
            }
            Json::String(text) => Self::Text(Text::Borrowed(text)),
            Json::Array(items) => Self::List(List::Json(Some(items), &Shape::Any)),
            Json::Object(entries) => {
                Self::Map(Map { entries: Some(entries), elements: Elements::Each(&Shape::Any) })
            }
        }
    }
}

impl Text<'_> {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Made(text) => text,
        }
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<'a> List<'a> {
    pub fn len(&self) -> usize {
        match self {
            Self::Json(items, _) => items.map_or(0, <[Json]>::len),
            Self::Texts(_, start, end) => end - start,
        }
    }

    pub fn is_nil(&self) -> bool {
        matches!(self, Self::Json(None, _))
    }

    pub fn get(&self, index: usize) -> Option<Value<'a>> {
        match self {
            Self::Json(items, element) => {
                items.and_then(|items| items.get(index)).map(|json| Value::from_json(json, element))
            }
            Self::Texts(texts, start, end) if index < end - start => {
                texts.get(start + index).map(|text| Value::new(Kind::Text(Text::Made(Arc::clone(text)))))
            }
            Self::Texts(..) => None,
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + '_ {
        (0..self.len()).filter_map(|i| self.get(i))
    }

    /// The elements from `start` up to `end`, which are in range.
    pub fn slice(&self, start: usize, end: usize) -> Self {
        match self {
            Self::Json(items, element) => Self::Json(items.and_then(|items| items.get(start..end)), element),
            Self::Texts(texts, from, _) => Self::Texts(Arc::clone(texts), from + start, from + end),
        }
    }
}

/// What a map answers for a name.
pub(crate) enum Lookup<'a> {
    Found(Value<'a>),
    /// The map may have such a key and does not.
    NoEntry,
    /// A struct has no such field.
    NoField,
}

impl<'a> Map<'a> {
    pub fn len(&self) -> usize {
        self.entries.map_or(0, JsonMap::len)
    }

    pub fn is_nil(&self) -> bool {
        self.entries.is_none()
    }

    pub fn lookup(&self, name: &str) -> Lookup<'a> {
        let entry = |key: &str| self.entries.and_then(|entries| entries.get(key));
        match self.elements {
            Elements::Each(element) => {
                entry(name).map_or(Lookup::NoEntry, |json| Lookup::Found(Value::from_json(json, element)))
            }
            Elements::Fields(fields) => {
                match fields.iter().find(|field| field.key == name || field.alias == name) {
                    Some(field) => {
                        Lookup::Found(Value::from_json(entry(field.key).unwrap_or(&NULL), &field.shape))
                    }
                    None => Lookup::NoField,
                }
            }
        }
    }

    /// What a key that is not there stands for.
    pub fn zero(&self) -> Value<'a> {
        match self.elements {
            Elements::Each(element) => Value::from_json(&NULL, element),
            Elements::Fields(_) => Value::missing(),
        }
    }

    /// Keys and values: a map's sorted, a struct's in its own order, with fields that the data lacks.
    pub fn entries(&self) -> Vec<(&'a str, Value<'a>)> {
        match self.elements {
            Elements::Each(element) => {
                let mut all: Vec<_> = self
                    .entries
                    .into_iter()
                    .flatten()
                    .map(|(k, v)| (k.as_str(), Value::from_json(v, element)))
                    .collect();
                all.sort_by_key(|(key, _)| *key);
                all
            }
            Elements::Fields(fields) => {
                let value =
                    |field: &'static Field| self.entries.and_then(|e| e.get(field.key)).unwrap_or(&NULL);
                fields.iter().map(|field| (field.key, Value::from_json(value(field), &field.shape))).collect()
            }
        }
    }

    /// The same as JSON has them: of a struct, only fields that are in the data, and those that it does not
    /// know after them.
    pub fn json_entries(&self) -> Vec<(&'a str, Value<'a>)> {
        let (Elements::Fields(fields), Some(entries)) = (self.elements, self.entries) else {
            return self.entries();
        };
        let known = fields
            .iter()
            .filter_map(|field| Some((field.key, Value::from_json(entries.get(field.key)?, &field.shape))));
        let mut extra: Vec<_> = entries
            .iter()
            .filter(|(key, _)| fields.iter().all(|field| field.key != key.as_str()))
            .map(|(key, json)| (key.as_str(), Value::from_json(json, &Shape::Any)))
            .collect();
        extra.sort_by_key(|(key, _)| *key);
        known.chain(extra).collect()
    }
}
